//! What policy says of a release, with everything that the catalog knows of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::channel::{ChannelName, Floor, published};
use rialto_protocol::ids::{ImageId, PublicKey};
use rialto_protocol::record::{Record, Release, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::{ApiError, VerdictKind};

use super::Node;
use crate::catalog::{Hearing, Said, SharedRecord};
use crate::trust::{
    Accepted, Action, ChannelFacts, Decision, Facts, Inside, Policy, PolicyState, Reading, Verdict, judge,
    revocation_subjects,
};

/// Endorsements of one release that are read of signers to whom policy does not listen: those that came first. Most do no more
/// than show; a statement among them can be of somebody else, and then counts.
const MAX_OF_STRANGERS: usize = 256;
/// What such signers say against one thing.
const MAX_OPINIONS: usize = 64;

/// A release, what bears on it, and the verdict.
pub(crate) struct Judged {
    pub(crate) record: SharedRecord,
    pub(crate) endorsements: Vec<SharedRecord>,
    pub(crate) revocations: Vec<SharedRecord>,
    pub(crate) verdict: Verdict,
}

/// A release, and every record that bears on it.
pub(super) struct Gathered {
    pub(super) record: SharedRecord,
    pub(super) endorsements: Vec<SharedRecord>,
    pub(super) revocations: Vec<SharedRecord>,
    /// The channels of its appliance, where policy asks for them, with what was seen of each before.
    pub(super) channels: Vec<(ChannelName, Floor, Vec<SharedRecord>)>,
    /// The delegations of its publisher that bear on these, or that it is published under.
    pub(super) delegations: Vec<SharedRecord>,
    /// The highest of those of releases that was seen before.
    pub(super) seen_delegation: u64,
    /// The bill of materials that it names, where policy asks what is inside.
    pub(super) inside: Option<Inside>,
    /// Advisories of signers of policy on what is inside.
    pub(super) advisories: Vec<SharedRecord>,
    /// Revocations and advisories that the catalog holds and cannot read.
    pub(super) unreadable: usize,
    pub(super) federation: Name,
}

impl Gathered {
    /// The same as policy takes it.
    pub(super) fn facts(&self) -> Facts<'_> {
        fn of(records: &[SharedRecord]) -> Vec<&Verified<Record>> {
            records.iter().map(AsRef::as_ref).collect()
        }
        let channels = self.channels.iter().map(|(channel, floor, heads)| ChannelFacts {
            channel: channel.clone(),
            heads: of(heads),
            floor: *floor,
        });
        Facts {
            endorsements: of(&self.endorsements),
            revocations: of(&self.revocations),
            channels: channels.collect(),
            delegations: of(&self.delegations),
            seen_delegation: self.seen_delegation,
            inside: self.inside.clone(),
            advisories: of(&self.advisories),
            unreadable: self.unreadable,
            federation: Some(self.federation.clone()),
        }
    }

    /// The release, and all that bears on it.
    fn records(&self) -> impl Iterator<Item = &SharedRecord> {
        let heads = self.channels.iter().flat_map(|(_, _, heads)| heads);
        let about_it = self.endorsements.iter().chain(&self.revocations).chain(&self.advisories);
        [&self.record].into_iter().chain(about_it).chain(heads).chain(&self.delegations)
    }
}

/// A release that was judged, with all that it was judged by.
struct Tried {
    gathered: Gathered,
    state: Arc<PolicyState>,
    now: UnixSeconds,
    verdict: Verdict,
}

impl Node {
    /// Judges a release by the policy in force. Quick: catalog look-ups and a pure function.
    pub(crate) fn judge(&self, record: SharedRecord) -> Judged {
        let Tried { gathered, verdict, .. } = self.try_release(record);
        let Gathered { record, endorsements, revocations, .. } = gathered;
        Judged { record, endorsements, revocations, verdict }
    }

    /// Judges a release by the policy in force, and gives what it was judged by.
    fn try_release(&self, record: SharedRecord) -> Tried {
        let state = self.policy.borrow().clone();
        let gathered = self.gather(record, state.policy.as_slice());
        let Reading { now, doubt } = self.clock();
        let verdict = match doubt {
            Some(doubt) => Verdict::in_doubt(gathered.record.id, &doubt),
            None => judge(&state, &gathered.record, &gathered.facts(), now),
        };
        Tried { gathered, state, now, verdict }
    }

    /// Everything that the catalog knows of a release and that could bear on what one of `policies` says of it.
    pub(super) fn gather(&self, record: SharedRecord, policies: &[Arc<Policy>]) -> Gathered {
        let asks_for_channels = policies.iter().any(|policy| policy.asks_for_channels());
        let mut heard: BTreeSet<PublicKey> = record.signers().copied().collect();
        heard.extend(record.body.release().map(|release| release.publisher));
        let is_named = |key: &PublicKey| policies.iter().any(|policy| policy.names(key));
        let is_heard = |key: &PublicKey| is_named(key) || heard.contains(key);
        let hearing = Hearing { is_heard: &is_heard, others: MAX_OF_STRANGERS };
        let endorsements = self.catalog.endorsements_heard(&record.id, hearing);
        let (mut channels, mut delegations) = (Vec::new(), Vec::new());
        let mut seen_delegation = 0;
        if let Some(release) = record.body.release()
            && (asks_for_channels || !record.is_signed_by(&release.publisher))
        {
            delegations = self.catalog.delegations(&release.publisher, &release.name);
            delegations.extend(self.lent_once(&record, release));
            delegations.sort_by_key(|record| record.id);
            delegations.dedup_by_key(|record| record.id);
            seen_delegation = self.floors.release_delegation(&release.publisher, &release.name);
        }
        if let Some(release) = record.body.release().filter(|_| asks_for_channels) {
            for channel in self.catalog.channels_of(&release.publisher, &release.name) {
                let (floor, heads) = (self.floors.floor(&channel), self.catalog.heads(&channel));
                channels.push((channel, floor, heads));
            }
        }
        let (inside, Said { records: advisories, unreadable }) = self.inside_of(&record, &endorsements, policies);
        let mut gathered = Gathered {
            record,
            endorsements,
            revocations: Vec::new(),
            channels,
            delegations,
            seen_delegation,
            inside,
            advisories,
            unreadable,
            federation: self.config.federation.clone(),
        };
        let facts = gathered.facts();
        let mut subjects = revocation_subjects(None, &gathered.record, &facts);
        for policy in policies {
            subjects.extend(revocation_subjects(Some(policy), &gathered.record, &facts));
        }
        drop(facts);
        // Who is spoken of can take its own word back.
        heard.extend(subjects.iter().filter_map(|subject| match subject {
            RevocationSubject::Key(key) => Some(*key),
            _ => None,
        }));
        let is_heard = |key: &PublicKey| is_named(key) || heard.contains(key);
        let hearing = Hearing { is_heard: &is_heard, others: MAX_OPINIONS };
        for subject in &subjects {
            let Said { records, unreadable } = self.catalog.revocations_heard(subject, hearing);
            gathered.revocations.extend(records);
            gathered.unreadable += unreadable;
        }
        gathered
    }

    /// The delegations, be they replaced since, that lent a release to a key which has signed it. Where its publisher has signed it
    /// too, nobody else speaks for it.
    fn lent_once(&self, record: &Verified<Record>, release: &Release) -> Vec<SharedRecord> {
        if record.is_signed_by(&release.publisher) {
            return Vec::new();
        }
        let signers: Vec<PublicKey> = record.signers().copied().collect();
        self.catalog.lent_once(&release.publisher, &release.name, &signers)
    }

    /// Judges, writes the decision down, and gives what may be used; refuses otherwise.
    ///
    /// # Errors
    /// Policy does not accept it (with the reason), or the decision cannot be written down.
    pub(crate) fn decide(&self, record: SharedRecord, action: Action) -> Result<Accepted, ApiError> {
        let title = self.title(&record);
        let id = record.id;
        // What is acted on is not gone below any more, whatever is lost after it.
        let raised = record.body.release().map(|release| self.raise_floors([release.publisher]));
        let noted = raised.unwrap_or(Ok(())).and_then(|()| self.floors.note_time(self.clock().now, false));
        noted.map_err(|error| ApiError::failed(format!("{title}: {error}")))?;
        let Tried { gathered, state, now, verdict } = self.try_release(record);
        let considered: BTreeSet<_> = verdict.considered().iter().collect();
        let considered = gathered.records().filter(|record| considered.contains(&record.id));
        let kept = self.evidence.keep(state.policy.as_deref(), considered.map(AsRef::as_ref));
        kept.map_err(|error| ApiError::failed(format!("{title}: what it is decided by cannot be kept: {error}")))?;
        self.decisions
            .append(&Decision::new(&verdict, action, now))
            .map_err(|error| ApiError::failed(format!("{title}: the decision cannot be logged: {error}")))?;
        let kind = verdict.kind();
        let because = verdict.because().to_owned();
        verdict.into_accepted().ok_or_else(|| {
            let held = match kind {
                VerdictKind::Reject => "is rejected",
                VerdictKind::Accept | VerdictKind::Hold => "is held",
            };
            ApiError::refused(format!("{title} {held} by this site's policy: {because}"))
                .with_hint(format!("see why with: rialto policy explain {id}"))
        })
    }

    /// Whether a release is its publisher's now: by its own key, or by keys that it lent its releases to.
    pub(crate) fn is_published(&self, record: &Verified<Record>) -> bool {
        let Some(release) = record.body.release() else { return false };
        if record.is_signed_by(&release.publisher) {
            return true;
        }
        let delegations = self.catalog.delegations(&release.publisher, &release.name);
        let seen = self.floors.release_delegation(&release.publisher, &release.name);
        let is_revoked = |key: &PublicKey| self.is_revoked_for(key, &release.publisher);
        published(record, &delegations, seen, is_revoked, self.now()).is_ok()
    }

    /// `publisher/name@version` as this site knows it.
    pub(crate) fn title(&self, record: &Verified<Record>) -> String {
        match record.body.release() {
            Some(release) => format!("{}/{}@{}", self.shown(&release.publisher), release.name, release.version),
            None => record.id.to_string(),
        }
    }

    /// A key's petname, or its fingerprint.
    pub(crate) fn shown(&self, key: &PublicKey) -> String {
        let state = self.policy.borrow();
        state.policy.as_ref().map_or_else(|| key.fingerprint(), |policy| policy.shown(key))
    }

    /// A key's petname, where the policy gives one.
    pub(crate) fn petname(&self, key: &PublicKey) -> Option<String> {
        self.policy.borrow().policy.as_ref()?.petname(key).map(ToString::to_string)
    }

    /// Releases of the catalog that name the image, as titles.
    pub(crate) fn used_by(&self, image: &ImageId) -> Vec<String> {
        self.catalog.releases_of(image).iter().map(|record| self.title(record)).collect()
    }
}
