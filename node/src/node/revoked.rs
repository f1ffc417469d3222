//! What a revocation means for instances that already run: a warning beside each of them.
//!
//! `on-revoke = "warn"` and `"block-new"` both leave guests running; new deployments are refused by the verdict itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::ids::RecordId;
use rialto_web::api::VerdictKind;

use super::Node;
use crate::trust::revocation_counts;

/// The warnings that instances were given last, so that only what changes is written down.
pub(super) type Warned = BTreeMap<String, Option<String>>;

impl Node {
    /// Marks running instances whose release has been revoked, and unmarks those whose revocation does not count any more.
    pub(super) async fn warn_of_revocations(self: &Arc<Self>, warned: &mut Warned) {
        let node = Arc::clone(self);
        // Only fails where it panicked, which the log says.
        let Ok(warnings) = tokio::task::spawn_blocking(move || node.warnings()).await else { return };
        warned.retain(|instance, _| warnings.contains_key(instance));
        for (instance, warning) in warnings {
            if warned.get(&instance) == Some(&warning) {
                continue;
            }
            match self.deployer.warn(&instance, warning.clone()).await {
                Ok(()) => drop(warned.insert(instance, warning)),
                // One that is being made, or goes, changes once more soon, and is looked at again then.
                Err(error) => tracing::debug!(instance, %error, "a warning cannot be noted yet"),
            }
        }
    }

    /// The warning, or none, that each instance which is not over should have. One whose release is not known here keeps
    /// what it has.
    fn warnings(&self) -> Warned {
        // Many instances are of few releases.
        let mut of_release: BTreeMap<RecordId, Option<Option<String>>> = BTreeMap::new();
        let live = self.deployer.releases().into_iter().filter(|(_, _, state)| !state.is_over());
        let judged = live.filter_map(|(instance, release, _)| {
            let warning = of_release.entry(release).or_insert_with(|| self.warning(&release)).clone()?;
            Some((instance, warning))
        });
        judged.collect()
    }

    fn warning(&self, release: &RecordId) -> Option<Option<String>> {
        let judged = self.judge(self.catalog.get(release)?);
        let policy = self.policy.borrow().policy.clone();
        let endorsements: Vec<_> = judged.endorsements.iter().map(AsRef::as_ref).collect();
        let reasons: BTreeSet<String> = judged
            .revocations
            .iter()
            .filter(|revocation| revocation_counts(policy.as_deref(), revocation, &judged.record, &endorsements))
            .filter_map(|revocation| revocation.body.revocation().map(|said| said.reason.to_string()))
            .collect();
        let is_revoked = judged.verdict.kind() == VerdictKind::Reject && !reasons.is_empty();
        Some(is_revoked.then(|| {
            let reasons: Vec<String> = reasons.into_iter().collect();
            format!("its release has been revoked: {}", reasons.join("; "))
        }))
    }
}
