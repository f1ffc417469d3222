//! What a revocation means for instances that already run: a warning beside each of them, and where policy says so their
//! end, or that they stand still for as long as it counts.
//!
//! `on-revoke = "warn"` and `"block-new"` both leave guests running; new deployments are refused by the verdict itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rialto_protocol::ids::RecordId;
use rialto_web::api::{ApiError, Instance};
use tokio::time::timeout;

use super::Node;
use crate::deploy::{Remark, State};
use crate::trust::OnRevoke;

/// When what could not be done is tried again: well within the minute in which a revocation is to reach what runs.
const AGAIN_AFTER: Duration = Duration::from_secs(15);
/// How often it is looked, at least.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);
/// An instance whose memory is being saved or loaded hears nothing for minutes, and the others do not wait for it.
const REMARK_WITHIN: Duration = Duration::from_secs(2);

/// What was done about revocations, so that it is done once.
#[derive(Debug, Default)]
pub(super) struct Acted {
    /// The warnings that instances were given last.
    warned: BTreeMap<String, Option<String>>,
    /// Instances that are being stopped or suspended.
    under_way: Arc<Mutex<BTreeSet<String>>>,
}

/// What a revocation means for the instances of a release; the default where it is not revoked.
#[derive(Debug, Clone, Default)]
struct Consequence {
    warning: Option<String>,
    measure: Option<Measure>,
}

/// What is done to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Suspend,
    Stop,
}

impl Node {
    /// Marks running instances whose release has been revoked, and unmarks those whose revocation does not count any more;
    /// begins to suspend or stop those that policy says shall not go on.
    pub(super) async fn act_on_revocations(self: &Arc<Self>, acted: &mut Acted) {
        let node = Arc::clone(self);
        // Only fails where it panicked, which the log says.
        let Ok(consequences) = tokio::task::spawn_blocking(move || node.consequences()).await else { return };
        for (instance, consequence) in &consequences {
            if let Some(measure) = consequence.measure {
                self.act_in_background(instance.clone(), measure, &acted.under_way);
            }
        }
        acted.warned.retain(|instance, _| consequences.contains_key(instance));
        let warnings = consequences.into_iter().map(|(instance, consequence)| (instance, consequence.warning));
        let new = warnings.filter(|(instance, warning)| acted.warned.get(instance) != Some(warning));
        let noted = futures::future::join_all(new.map(|(instance, warning)| async move {
            let remark = self.deployer.remark(&instance, Remark::Warning(warning.clone()));
            match timeout(REMARK_WITHIN, remark).await {
                Ok(Ok(())) => return Some((instance, warning)),
                // One that is being made, saved or loaded, or goes, changes once more soon, and is looked at again then.
                Ok(Err(error)) => tracing::debug!(instance, %error, "a warning cannot be noted yet"),
                Err(_) => tracing::debug!(instance, "a warning cannot be noted yet: it is busy"),
            }
            None
        }));
        acted.warned.extend(noted.await.into_iter().flatten());
    }

    /// Stops or suspends an instance, unless that is under way.
    fn act_in_background(
        self: &Arc<Self>,
        instance: String,
        measure: Measure,
        under_way: &Arc<Mutex<BTreeSet<String>>>,
    ) {
        fn lock(under_way: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
            under_way.lock().unwrap_or_else(PoisonError::into_inner)
        }
        if !lock(under_way).insert(instance.clone()) {
            return;
        }
        let (node, under_way) = (Arc::clone(self), Arc::clone(under_way));
        let shall = match measure {
            Measure::Suspend => "suspended",
            Measure::Stop => "stopped",
        };
        tracing::warn!(instance, "its release has been revoked, and policy says that it is {shall}");
        tokio::spawn(async move {
            // One that is being made can neither be stopped nor suspended yet; a full disk may have room later.
            let failed = match measure {
                Measure::Suspend => node.deployer.suspend(&instance).await.err(),
                Measure::Stop => node.deployer.stop(&instance, false).await.err(),
            };
            if let Some(error) = failed {
                tracing::error!(instance, %error, "it cannot be {shall}, though its release has been revoked; tried again soon");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            lock(&under_way).remove(&instance);
            node.look_at_revocations.notify_one();
        });
    }

    /// Lets a suspended instance go on, unless its release is revoked and policy says that such ones do not.
    ///
    /// # Errors
    /// `refused`, also where nobody can tell; and those of [`Deployer::resume`](crate::deploy::Deployer::resume).
    pub(crate) async fn resume_instance(self: &Arc<Self>, instance: &str) -> Result<Instance, ApiError> {
        let found = self.deployer.find(instance)?;
        let (node, release) = (Arc::clone(self), found.release);
        let Some(consequence) = super::work::blocking(move || node.consequence(&release)).await? else {
            return Err(ApiError::refused(format!(
                "instance {} is not resumed: whether its release has been revoked cannot be told now",
                found.instance
            ))
            .with_hint("rialto doctor says what is wrong with the policy, the clock or the catalog"));
        };
        if let (Some(warning), Some(_)) = (&consequence.warning, consequence.measure) {
            return Err(ApiError::refused(format!("instance {} is not resumed: {warning}", found.instance)).with_hint(
                "it stays as it is while the revocation counts by this site's policy; deploy a release that is not revoked",
            ));
        }
        Ok(self.deployer.resume(&found.instance).await?)
    }

    /// What each instance that is not over has to expect. One of which nobody can tell keeps what it has.
    fn consequences(&self) -> BTreeMap<String, Consequence> {
        // Many instances are of few releases.
        let mut of_release: BTreeMap<RecordId, Option<Consequence>> = BTreeMap::new();
        let live = self.deployer.releases().into_iter().filter(|(_, _, state)| !state.is_over());
        let judged = live.filter_map(|(instance, release, state)| {
            let mut consequence = of_release.entry(release).or_insert_with(|| self.consequence(&release)).clone()?;
            // What stands still already, or soon will, is not made to.
            if consequence.measure == Some(Measure::Suspend) && !can_be_suspended(state) {
                consequence.measure = None;
            }
            Some((instance, consequence))
        });
        judged.collect()
    }

    /// `None` while nobody can say: the policy cannot be read, the clock is in doubt, or the release is not at hand.
    fn consequence(&self, release: &RecordId) -> Option<Consequence> {
        let verdict = self.judge(self.record_at_hand(release)?).verdict;
        if !verdict.is_decided() {
            return None;
        }
        let Some(warning) = verdict.revoked() else { return Some(Consequence::default()) };
        let measure = match verdict.on_revoke() {
            OnRevoke::Suspend => Some(Measure::Suspend),
            OnRevoke::Stop => Some(Measure::Stop),
            OnRevoke::Warn | OnRevoke::BlockNew => None,
        };
        Some(Consequence { warning: Some(warning.to_owned()), measure })
    }
}

/// Whether suspending is worth trying now; an instance that is on its way to running is looked at again when it does.
fn can_be_suspended(state: State) -> bool {
    state == State::Running
}
