//! What a revocation means for instances that already run: a warning beside each of them.
//!
//! `on-revoke = "warn"` and `"block-new"` both leave guests running; new deployments are refused by the verdict itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use rialto_web::api::VerdictKind;

use super::Node;
use crate::trust::revocation_counts;

impl Node {
    /// Marks running instances whose release has been revoked, and unmarks those whose revocation does not count any more.
    pub(super) async fn warn_of_revocations(self: &Arc<Self>) {
        for (instance, release, state) in self.deployer.releases() {
            if state.is_over() {
                continue;
            }
            let Some(record) = self.catalog.get(&release) else { continue };
            let judged = self.judge(record);
            let policy = self.policy.borrow().policy.clone();
            let endorsements: Vec<_> = judged.endorsements.iter().map(AsRef::as_ref).collect();
            let reasons: BTreeSet<String> = judged
                .revocations
                .iter()
                .filter(|revocation| revocation_counts(policy.as_deref(), revocation, &judged.record, &endorsements))
                .filter_map(|revocation| revocation.body.revocation().map(|said| said.reason.to_string()))
                .collect();
            let is_revoked = judged.verdict.kind() == VerdictKind::Reject && !reasons.is_empty();
            let warning = is_revoked.then(|| {
                let reasons: Vec<String> = reasons.into_iter().collect();
                format!("its release has been revoked: {}", reasons.join("; "))
            });
            if let Err(error) = self.deployer.warn(&instance, warning).await {
                tracing::warn!(instance, %error, "a warning cannot be noted");
            }
        }
    }
}
