//! Decisions made again, and decisions that another policy would make.

use std::collections::BTreeMap;
use std::sync::Arc;

use rialto_protocol::channel::{ChannelName, Floor};
use rialto_protocol::ids::RecordId;
use rialto_protocol::record::Body;
use rialto_web::api::{ApiError, Explanation, PolicyChange, PolicyDiff, PolicyDiffRequest, Replay};

use super::Node;
use super::work::absolute;
use crate::catalog::SharedRecord;
use crate::trust::{
    ChannelFacts, Decision, DecisionError, DecisionLog, Facts, OnRevoke, Verdict, evaluate, read_policy,
};

/// Changes that a comparison lists; more are only counted.
const MAX_CHANGES: usize = 1_000;

impl Node {
    /// Makes a decision of the log again: its policy, its records, its clock. Blocks on the disk.
    ///
    /// A channel's floor is not among these: heads of that time are judged as if nothing higher had been seen.
    ///
    /// # Errors
    /// There is no such decision, or its policy or release are not at hand.
    pub(crate) fn replay(&self, number: u64) -> Result<Replay, ApiError> {
        let decision = DecisionLog::find(self.decisions.path(), usize::try_from(number).unwrap_or(usize::MAX));
        let decision = decision.map_err(|error| match error {
            DecisionError::NotFound { .. } => {
                ApiError::not_found(error.to_string()).with_hint("list them with: rialto decisions")
            }
            error => ApiError::failed(error.to_string()),
        })?;
        let Some(hash) = &decision.policy else {
            return Err(ApiError::failed(format!(
                "decision {number} was made by no policy, so there is nothing to make again: {}",
                decision.because
            )));
        };
        let policy = self.evidence.policy(hash).map_err(|error| ApiError::failed(error.to_string()))?;
        let (mut held, mut missing): (Vec<SharedRecord>, Vec<RecordId>) = Default::default();
        for id in &decision.inputs {
            // With the signatures of then: one that came later may have made all the difference since.
            match self.catalog.known_at(id, decision.at).or_else(|| self.record_at_hand(id)) {
                Some(record) => held.push(record),
                None => missing.push(*id),
            }
        }
        let release = held.iter().find(|record| record.id == decision.release).ok_or_else(|| {
            let release = decision.release;
            ApiError::not_found(format!("the release of decision {number}, {release}, is not at hand any more"))
        })?;
        let mut facts = facts_among(&held);
        facts.federation = Some(self.config.federation.clone());
        facts.inside = release.body.release().and_then(|release| release.sbom).map(|image| self.inside(&image));
        let replayed = evaluate(&policy, release, &facts, decision.at).explanation();
        let is_same = is_same(&decision, &replayed);
        Ok(Replay {
            decision: number,
            time: decision.time,
            action: decision.action.as_str().to_owned(),
            title: self.title(release),
            verdict: decision.verdict,
            rule: decision.rule,
            replayed,
            is_same,
            missing,
        })
    }

    /// What another policy would say differently, of every release that is known. Blocks: each of these is judged twice.
    ///
    /// # Errors
    /// A file is missing or no policy; no policy is in force to compare with.
    pub(crate) fn policy_diff(&self, request: &PolicyDiffRequest) -> Result<PolicyDiff, ApiError> {
        let new = Arc::new(read_policy(&absolute(&request.new)?)?);
        let old = match &request.old {
            Some(path) => Arc::new(read_policy(&absolute(path)?)?),
            None => self.policy.borrow().policy.clone().ok_or_else(|| {
                ApiError::failed("no policy is in force to compare with: its file cannot be read")
                    .with_hint("rialto policy check says why; or name both files: rialto policy diff OLD NEW")
            })?,
        };
        let policies = [old, new];
        let [old, new] = &policies;
        let now = self.now();
        let releases = self.catalog.release_ids();
        let mut diff = PolicyDiff {
            old: old.hash().to_owned(),
            new: new.hash().to_owned(),
            releases: releases.len(),
            changed: 0,
            changes: Vec::new(),
        };
        let instances = self.deployer.releases();
        for id in releases {
            let Some(record) = self.catalog.get(&id) else { continue };
            let gathered = self.gather(Arc::clone(&record), &policies);
            let facts = gathered.facts();
            let before = evaluate(old, &record, &facts, now);
            let after = evaluate(new, &record, &facts, now);
            let of_it = instances.iter().filter(|(_, release, state)| *release == record.id && !state.is_over());
            // What runs of a revoked release can be told to end by a word that changes no verdict.
            let for_what_runs = of_it.clone().next().and_then(|_| change_for_what_runs(&before, &after));
            if before.kind() == after.kind() && for_what_runs.is_none() {
                continue;
            }
            diff.changed += 1;
            if diff.changes.len() < MAX_CHANGES {
                diff.changes.push(PolicyChange {
                    release: record.id,
                    title: self.title(&record),
                    old: before.kind(),
                    new: after.kind(),
                    because: after.because().to_owned() + &for_what_runs.unwrap_or_default(),
                    instances: of_it.map(|(instance, ..)| instance.clone()).collect(),
                });
            }
        }
        Ok(diff)
    }

    /// A record that the catalog holds, or that was kept because something was decided by it.
    pub(super) fn record_at_hand(&self, id: &RecordId) -> Option<SharedRecord> {
        self.catalog.get(id).or_else(|| self.evidence.record(id).map(Arc::new))
    }
}

/// Records as policy takes them, whatever they are.
fn facts_among(records: &[SharedRecord]) -> Facts<'_> {
    let mut facts = Facts::default();
    let mut heads: BTreeMap<ChannelName, Vec<_>> = BTreeMap::new();
    for record in records {
        match &record.body {
            Body::Endorsement(_) => facts.endorsements.push(record.as_ref()),
            Body::Revocation(_) => facts.revocations.push(record.as_ref()),
            Body::Advisory(_) => facts.advisories.push(record.as_ref()),
            Body::Delegation(_) => facts.delegations.push(record.as_ref()),
            Body::Channel(head) => heads.entry(head.into()).or_default().push(record.as_ref()),
            _ => {}
        }
    }
    let of_channel = |(channel, heads)| ChannelFacts { channel, heads, floor: Floor::default() };
    facts.channels = heads.into_iter().map(of_channel).collect();
    facts
}

/// What another policy would do to instances of a release that it takes for revoked, where that is another thing.
fn change_for_what_runs(before: &Verdict, after: &Verdict) -> Option<String> {
    let word = |verdict: &Verdict| verdict.revoked().map(|_| verdict.on_revoke());
    let (before, after) = (word(before), word(after)?);
    let stays = |on_revoke| matches!(on_revoke, OnRevoke::Warn | OnRevoke::BlockNew);
    let is_other = before != Some(after) && !(stays(after) && before.is_none_or(stays));
    is_other.then(|| match after {
        OnRevoke::Stop => "; what runs of it would be stopped".to_owned(),
        OnRevoke::Suspend => "; what runs of it would be suspended".to_owned(),
        OnRevoke::Warn | OnRevoke::BlockNew => "; what was suspended of it could be resumed".to_owned(),
    })
}

fn is_same(decision: &Decision, replayed: &Explanation) -> bool {
    decision.verdict == replayed.verdict && decision.rule == replayed.rule && decision.images == replayed.images
}
