//! What a revocation means for instances that already run: a warning beside each of them, and their end where policy says
//! so.
//!
//! `on-revoke = "warn"` and `"block-new"` both leave guests running; new deployments are refused by the verdict itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rialto_protocol::ids::RecordId;
use rialto_web::api::VerdictKind;

use super::Node;
use crate::trust::{OnRevoke, revocation_counts};

/// What was done about revocations, so that it is done once.
#[derive(Debug, Default)]
pub(super) struct Acted {
    /// The warnings that instances were given last.
    warned: BTreeMap<String, Option<String>>,
    /// Instances that are being stopped.
    stopping: Arc<Mutex<BTreeSet<String>>>,
}

/// What a revocation means for the instances of a release; the default where it is not revoked.
#[derive(Debug, Clone, Default)]
struct Consequence {
    warning: Option<String>,
    is_end: bool,
}

impl Node {
    /// Marks running instances whose release has been revoked, and unmarks those whose revocation does not count any more;
    /// begins to stop those that policy says shall not go on.
    pub(super) async fn act_on_revocations(self: &Arc<Self>, acted: &mut Acted) {
        let node = Arc::clone(self);
        // Only fails where it panicked, which the log says.
        let Ok(consequences) = tokio::task::spawn_blocking(move || node.consequences()).await else { return };
        acted.warned.retain(|instance, _| consequences.contains_key(instance));
        for (instance, Consequence { warning, is_end }) in consequences {
            if acted.warned.get(&instance) != Some(&warning) {
                match self.deployer.warn(&instance, warning.clone()).await {
                    Ok(()) => drop(acted.warned.insert(instance.clone(), warning)),
                    // One that is being made, or goes, changes once more soon, and is looked at again then.
                    Err(error) => tracing::debug!(instance, %error, "a warning cannot be noted yet"),
                }
            }
            if is_end {
                self.stop_in_background(instance, &acted.stopping);
            }
        }
    }

    /// Stops an instance, unless that is under way.
    fn stop_in_background(self: &Arc<Self>, instance: String, stopping: &Arc<Mutex<BTreeSet<String>>>) {
        fn under_way(stopping: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
            stopping.lock().unwrap_or_else(PoisonError::into_inner)
        }
        if !under_way(stopping).insert(instance.clone()) {
            return;
        }
        let (node, stopping) = (Arc::clone(self), Arc::clone(stopping));
        tracing::warn!(instance, "its release has been revoked, and policy says that it is stopped");
        tokio::spawn(async move {
            // Where it fails, the next change of anything has it tried again.
            if let Err(error) = node.deployer.stop(&instance, false).await {
                tracing::error!(instance, %error, "it cannot be stopped, though its release has been revoked");
            }
            under_way(&stopping).remove(&instance);
        });
    }

    /// What each instance that is not over has to expect. One whose release is not known here keeps what it has.
    fn consequences(&self) -> BTreeMap<String, Consequence> {
        // Many instances are of few releases.
        let mut of_release: BTreeMap<RecordId, Option<Consequence>> = BTreeMap::new();
        let live = self.deployer.releases().into_iter().filter(|(_, _, state)| !state.is_over());
        let judged = live.filter_map(|(instance, release, _)| {
            let consequence = of_release.entry(release).or_insert_with(|| self.consequence(&release)).clone()?;
            Some((instance, consequence))
        });
        judged.collect()
    }

    fn consequence(&self, release: &RecordId) -> Option<Consequence> {
        let judged = self.judge(self.catalog.get(release)?);
        let policy = self.policy.borrow().policy.clone();
        let endorsements: Vec<_> = judged.endorsements.iter().map(AsRef::as_ref).collect();
        let reasons: BTreeSet<String> = judged
            .revocations
            .iter()
            .filter(|revocation| revocation_counts(policy.as_deref(), revocation, &judged.record, &endorsements))
            .filter_map(|revocation| revocation.body.revocation().map(|said| said.reason.to_string()))
            .collect();
        if judged.verdict.kind() != VerdictKind::Reject || reasons.is_empty() {
            return Some(Consequence::default());
        }
        let reasons: Vec<String> = reasons.into_iter().collect();
        Some(Consequence {
            warning: Some(format!("its release has been revoked: {}", reasons.join("; "))),
            is_end: judged.verdict.on_revoke() == OnRevoke::Stop,
        })
    }
}
