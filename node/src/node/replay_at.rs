//! Verdicts as they would have been given at another time: by the policy of then, on what had reached this site by then.
//!
//! The catalog says when each record came. What has left it since is known only where a decision of then was made by it: heads
//! of channels that newer ones replaced, and what the budget had no room for. Where more may be missing, that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::channel::{ChannelName, Floor};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, Record, Release};
use rialto_protocol::signed::Verified;
use rialto_web::api::{ApiError, ReleaseAt, ReplayAt, ReplayAtRequest};

use super::Node;
use super::judge::Gathered;
use super::work::absolute;
use crate::catalog::SharedRecord;
use crate::trust::{
    Decision, DecisionError, DecisionLog, Policy, evaluate, read_policy, revocation_subjects, time_shown,
};

/// Releases that are listed; more are only counted.
const MAX_LISTED: usize = 1_000;
/// Releases that can be asked about by name.
const MAX_NAMED: usize = 100;

/// A policy, and how it is known that it was in force.
struct OfThen {
    policy: Arc<Policy>,
    because: String,
    is_certain: bool,
}

/// What the decision log tells of a time.
#[derive(Default)]
struct Logged {
    /// The last decision up to then, and the first after it: number, time, policy.
    before: Option<(usize, String, Option<String>)>,
    after: Option<(usize, String, Option<String>)>,
    /// What decisions on each release were made by, up to then.
    inputs: BTreeMap<RecordId, BTreeSet<RecordId>>,
}

impl Node {
    /// What policy would have said of releases at another time. Blocks on the disk, and on as many verdicts.
    ///
    /// # Errors
    /// The time is still to come; a release is unknown, or was then; no policy of then can be read.
    pub(crate) fn replay_at(&self, request: &ReplayAtRequest) -> Result<ReplayAt, ApiError> {
        let at = seconds_of(&request.at)?;
        if at > self.now() {
            return Err(ApiError::usage(format!(
                "{} is still to come: what will be known then is not known",
                request.at
            )));
        }
        if request.releases.len() > MAX_NAMED {
            return Err(ApiError::usage(format!("at most {MAX_NAMED} releases are asked about by name"))
                .with_hint("without names, all are judged that were known then"));
        }
        let mut named = Vec::new();
        for reference in &request.releases {
            let record = self.find_release(reference)?;
            named.push(self.known_then(&record.id, at).ok_or_else(|| self.not_known_then(&record, at))?.id);
        }
        let is_asked_by_name = !named.is_empty();
        let asked: BTreeSet<RecordId> = named.iter().copied().collect();
        let logged = self.logged(at, |release| !is_asked_by_name || asked.contains(release))?;
        let OfThen { policy, because, is_certain } = self.policy_of(at, request.policy.as_deref(), &logged)?;
        let mut answer = ReplayAt {
            at: time_shown(at),
            policy: policy.hash().to_owned(),
            policy_because: because,
            is_policy_certain: is_certain,
            notes: notes(&policy, is_asked_by_name),
            releases: 0,
            changed: 0,
            verdicts: Vec::new(),
        };
        let of_all = || self.catalog.release_ids();
        for id in if is_asked_by_name { named } else { of_all() } {
            let Some(record) = self.known_then(&id, at) else { continue };
            let then = self.release_at(record, &policy, at, logged.inputs.get(&id));
            answer.releases += 1;
            answer.changed += usize::from(!then.is_same);
            if answer.verdicts.len() < MAX_LISTED {
                answer.verdicts.push(then);
            }
        }
        Ok(answer)
    }

    fn release_at(
        &self,
        record: SharedRecord,
        policy: &Arc<Policy>,
        at: UnixSeconds,
        inputs: Option<&BTreeSet<RecordId>>,
    ) -> ReleaseAt {
        let title = self.title(&record);
        let gone = inputs.into_iter().flatten().filter(|id| self.catalog.get(id).is_none());
        let gone: Vec<SharedRecord> = gone.filter_map(|id| self.evidence.record(id)).map(Arc::new).collect();
        let mut doubts = Vec::new();
        let gathered = self.gather_at(Arc::clone(&record), policy, at, &gone, &mut doubts);
        let then = evaluate(policy, &record, &gathered.facts(), at).explanation();
        let current = self.catalog.get(&record.id).unwrap_or_else(|| Arc::clone(&record));
        let now = self.judge(current).verdict;
        ReleaseAt {
            release: record.id,
            title,
            is_same: then.verdict == now.kind(),
            then,
            now: now.kind(),
            now_because: now.because().to_owned(),
            doubts,
        }
    }

    /// As [`Node::gather`], of what had reached this site at a time. `gone` are records that were known then and have left the
    /// catalog.
    fn gather_at(
        &self,
        record: SharedRecord,
        policy: &Arc<Policy>,
        at: UnixSeconds,
        gone: &[SharedRecord],
        doubts: &mut Vec<String>,
    ) -> Gathered {
        let then = |records: Vec<SharedRecord>, is_of: &dyn Fn(&Record) -> bool| {
            let gone = gone.iter().filter(|record| is_of(record)).cloned();
            records.iter().filter_map(|record| self.known_then(&record.id, at)).chain(gone).collect::<Vec<_>>()
        };
        let is_about = |known: &Record| known.body.endorsement().is_some_and(|said| said.subject == record.id);
        let endorsements = then(self.catalog.endorsements_of(&record.id), &is_about);
        let (mut channels, mut delegations) = (Vec::new(), Vec::new());
        if let Some(release) = record.body.release()
            && (policy.asks_for_channels() || !record.is_signed_by(&release.publisher))
        {
            let by = |known: &Record| known.body.delegation().is_some_and(|of| *of.publisher() == release.publisher);
            delegations = then(self.catalog.delegations_by(&release.publisher), &by);
        }
        if let Some(release) = record.body.release().filter(|_| policy.asks_for_channels()) {
            for channel in self.channels_of(release, gone) {
                let current = self.catalog.heads(&channel);
                let is_replaced = current.iter().all(|head| self.known_then(&head.id, at).is_none());
                let of_it =
                    |known: &Record| known.body.channel().is_some_and(|head| ChannelName::from(head) == channel);
                let heads = then(current, &of_it);
                if let Some(doubt) = doubt_of(&channel.channel, is_replaced, &heads) {
                    doubts.push(doubt);
                }
                channels.push((channel, Floor::default(), heads));
            }
        }
        let (inside, advisories) = self.inside_of(&record, &endorsements, std::slice::from_ref(policy));
        let mut unreadable = advisories.unreadable;
        let advisories = then(advisories.records, &|known| known.body.advisory().is_some());
        let federation = self.config.federation.clone();
        let mut gathered = Gathered {
            record,
            endorsements,
            revocations: Vec::new(),
            channels,
            delegations,
            seen_delegation: 0,
            inside,
            advisories,
            unreadable: 0,
            federation,
        };
        let subjects = revocation_subjects(Some(policy), &gathered.record, &gathered.facts());
        let is_of_these = |known: &Record| known.body.revocation().is_some_and(|said| subjects.contains(&said.subject));
        let mut revocations = Vec::new();
        for subject in &subjects {
            let said = self.catalog.revocations_of(subject);
            unreadable += said.unreadable;
            revocations.extend(said);
        }
        gathered.unreadable = unreadable;
        gathered.revocations = then(revocations, &is_of_these);
        gathered
    }

    /// The channels of a release's appliance: those that are known, and those of heads that are gone.
    fn channels_of(&self, release: &Release, gone: &[SharedRecord]) -> BTreeSet<ChannelName> {
        let (publisher, name): (&PublicKey, &Name) = (&release.publisher, &release.name);
        let of_gone = gone.iter().filter_map(|record| record.body.channel()).map(ChannelName::from);
        let of_gone = of_gone.filter(|channel| channel.publisher == *publisher && channel.name == *name);
        self.catalog.channels_of(publisher, name).into_iter().chain(of_gone).collect()
    }

    fn known_then(&self, id: &RecordId, at: UnixSeconds) -> Option<SharedRecord> {
        self.catalog.known_at(id, at)
    }

    fn not_known_then(&self, record: &Verified<Record>, at: UnixSeconds) -> ApiError {
        let arrivals = self.catalog.arrivals(&record.id);
        let first = arrivals.iter().flat_map(|arrivals| arrivals.iter()).filter_map(|arrival| arrival.at).min();
        let since = first.map(|first| format!(": it came at {}", time_shown(first))).unwrap_or_default();
        ApiError::not_found(format!("{} had not reached this site at {}{since}", self.title(record), time_shown(at)))
    }

    /// Reads the decision log once, for what it tells of a time.
    fn logged(&self, at: UnixSeconds, is_asked: impl Fn(&RecordId) -> bool) -> Result<Logged, ApiError> {
        let mut logged = Logged::default();
        for line in DecisionLog::read(self.decisions.path()).map_err(|error| ApiError::failed(error.to_string()))? {
            let line = match line {
                Ok(line) => line,
                // It says nothing, and another one may.
                Err(DecisionError::Damaged { .. }) => continue,
                Err(error) => return Err(ApiError::failed(error.to_string())),
            };
            let Decision { at: decided, time, release, policy, inputs, .. } = line.decision;
            if decided > at {
                logged.after.get_or_insert((line.number, time, policy));
                continue;
            }
            logged.before = Some((line.number, time, policy));
            if is_asked(&release) {
                logged.inputs.entry(release).or_default().extend(inputs);
            }
        }
        Ok(logged)
    }

    /// The policy that was in force at a time, or the one that is to be taken for it.
    fn policy_of(&self, at: UnixSeconds, file: Option<&str>, logged: &Logged) -> Result<OfThen, ApiError> {
        if let Some(file) = file {
            let policy = Arc::new(read_policy(&absolute(file)?)?);
            return Ok(OfThen { policy, because: format!("{file}, as was asked for"), is_certain: true });
        }
        let kept = |hash: &str| {
            let policy = self.evidence.policy(hash).map(Arc::new);
            policy.map_err(|error| {
                ApiError::failed(error.to_string()).with_hint("name a policy to take for it: --policy FILE")
            })
        };
        let noted = self.policies.at(at).map_err(|error| ApiError::failed(error.to_string()))?;
        if let Some(noted) = noted {
            let Some(hash) = noted.hash else {
                return Err(ApiError::failed(format!(
                    "at {} no policy could be read (since {}), so nothing was accepted",
                    time_shown(at),
                    noted.time
                ))
                .with_hint("name a policy to take for it: --policy FILE"));
            };
            let because = format!("in force since {}", noted.time);
            return Ok(OfThen { policy: kept(&hash)?, because, is_certain: true });
        }
        // Of the time before changes of policy were noted, only decisions tell.
        if let Some((number, time, Some(hash))) = &logged.before {
            let because = match &logged.after {
                Some((after, _, Some(same))) if same == hash => {
                    format!("decisions {number} and {after}, before and after that time, were made by it")
                }
                _ => format!("decision {number} of {time} was made by it; it may have been changed until then"),
            };
            let is_certain = logged.after.as_ref().is_some_and(|(_, _, after)| after.as_ref() == Some(hash));
            return Ok(OfThen { policy: kept(hash)?, because, is_certain });
        }
        let policy = self.policy.borrow().policy.clone().ok_or_else(|| {
            ApiError::failed("which policy was in force then is not known, and the one of now cannot be read")
                .with_hint("name a policy to take for it: --policy FILE")
        })?;
        let because = "NOT the policy of then, which is not known: this is the one of now".to_owned();
        Ok(OfThen { policy, because, is_certain: false })
    }
}

/// What cannot be known of any time but now, where the policy asks for it.
fn notes(policy: &Policy, is_asked_by_name: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !is_asked_by_name {
        notes.push("releases that were known then, and have left the catalog since, are not among these");
    }
    if policy.asks_for_channels() {
        notes.push("channels are judged as if no later head had been seen than those that are known of that time");
    }
    if policy.asks_what_is_inside() {
        notes.push("a bill of materials that is in the store now is taken to have been there then");
    }
    notes.into_iter().map(str::to_owned).collect()
}

/// What may be missing of a channel.
fn doubt_of(channel: &Name, is_replaced: bool, heads: &[SharedRecord]) -> Option<String> {
    let last =
        heads.iter().filter(|record| matches!(record.body, Body::Channel(_))).map(|record| record.id).next_back();
    match (is_replaced, last) {
        (false, _) => None,
        (true, Some(head)) => Some(format!(
            "the heads of channel {channel} that are known here came later; {head} is the last by which a decision of then was made"
        )),
        (true, None) => {
            Some(format!("what channel {channel} said then is not known: the heads that are known of it came later"))
        }
    }
}

fn seconds_of(time: &str) -> Result<UnixSeconds, ApiError> {
    let parsed: Option<jiff::Timestamp> = time.parse().ok();
    let seconds = parsed.and_then(|time| UnixSeconds::try_from(time.as_second()).ok());
    seconds.ok_or_else(|| {
        let shown: String = time.chars().take(80).collect();
        ApiError::usage(format!("'{shown}' is no time since 1970 as RFC 3339 writes it: 2026-03-01T12:00:00Z"))
    })
}
