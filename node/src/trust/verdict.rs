//! [`evaluate`]: (policy, release, facts from the catalog, now) → [`Verdict`]. Pure; deployment takes what it returns.

use std::collections::BTreeSet;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::channel::{ChannelName, Floor, Published, Unpublished, is_delegation, published};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{DelegatedRole, Record, Release, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::{Explanation, RequirementOutcome, VerdictKind};

use super::accepted::Accepted;
use super::clock::Doubt;
use super::inside::Inside;
use super::parse::{NO_RULE, REVOCATION_RULE};
use super::policy::{OnRevoke, Policy, Requirement, Rule, Update};
use super::requirement::{self, Checked};
use super::statements::is_statement;
use super::withdrawn::{Withdrawn, reason_of};

/// What the catalog knows that bears on one release. Records that do not bear on it are passed over, so handing in too
/// many does no harm; handing in too few does.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// Endorsements of the release.
    pub endorsements: Vec<&'a Verified<Record>>,
    /// Revocations of every subject in [`revocation_subjects`].
    pub revocations: Vec<&'a Verified<Record>>,
    /// The channels of the release's appliance.
    pub channels: Vec<ChannelFacts<'a>>,
    /// The delegations of its publisher that bear on the appliance, and those that lent its releases to a key that signed this
    /// one, whatever came after them.
    pub delegations: Vec<&'a Verified<Record>>,
    /// The highest sequence of a delegation of its publisher's releases that this site has seen; 0 for none.
    pub seen_delegation: u64,
    /// The bill of materials that it names, where it names one and policy asks for it.
    pub inside: Option<Inside>,
    /// Advisories on packages that are inside.
    pub advisories: Vec<&'a Verified<Record>>,
    /// How many more revocations and advisories there are, which the catalog holds and cannot read.
    pub unreadable: usize,
    /// The federation of the node that judges.
    pub federation: Option<Name>,
}

/// What is known of one channel.
#[derive(Debug, Clone)]
pub struct ChannelFacts<'a> {
    /// Which.
    pub channel: ChannelName,
    /// Its heads.
    pub heads: Vec<&'a Verified<Record>>,
    /// What this site has seen of it before.
    pub floor: Floor,
}

impl<'a> Facts<'a> {
    /// The records by which channels are judged.
    fn channel_records(&self) -> impl Iterator<Item = &'a Verified<Record>> {
        let heads = self.channels.iter().flat_map(|facts| facts.heads.iter().copied());
        heads.chain(self.delegations.iter().copied())
    }
}

/// What the catalog is to be asked for revocations of, before `release` is judged: the release itself, its
/// endorsements, the advisories on what is inside, and every key that signed any of them, or a record by which its channels are judged. Who has signed a
/// statement shows only when it is looked at, so where there are any, it is the key of every role.
pub fn revocation_subjects(
    policy: Option<&Policy>,
    release: &Verified<Record>,
    facts: &Facts<'_>,
) -> BTreeSet<RevocationSubject> {
    let endorsements = &facts.endorsements;
    let of_roles = policy.filter(|_| endorsements.iter().any(|record| is_statement(record)));
    let of_roles = of_roles.into_iter().flat_map(|policy| policy.keys_of_roles());
    let of_release = release.signers().chain(release.body.release().map(|release| &release.publisher));
    let keys = of_release.chain(endorsements.iter().flat_map(|record| record.signers()));
    let keys = keys.chain(facts.advisories.iter().flat_map(|record| record.signers()));
    let keys = keys.chain(facts.channel_records().flat_map(|record| record.signers())).chain(of_roles);
    keys.map(|key| RevocationSubject::Key(*key))
        .chain([RevocationSubject::Release(release.id)])
        .chain(endorsements.iter().map(|record| RevocationSubject::Endorsement(record.id)))
        .chain(facts.advisories.iter().map(|record| RevocationSubject::Advisory(record.id)))
        .collect()
}

/// What policy says of one release, and why.
#[derive(Debug, Clone)]
pub struct Verdict {
    release: RecordId,
    /// What may be deployed. That it is here *is* the acceptance: there is no other.
    outcome: Outcome,
    rule: String,
    because: String,
    requirements: Vec<RequirementOutcome>,
    policy: Option<String>,
    on_revoke: OnRevoke,
    update: Update,
    used: Vec<RecordId>,
    considered: Vec<RecordId>,
    speakers: Vec<PublicKey>,
    revoked: Option<String>,
    is_decided: bool,
}

#[derive(Debug, Clone)]
enum Outcome {
    Accept(Box<Accepted>),
    Hold,
    Reject,
}

impl Verdict {
    /// The release.
    pub fn release(&self) -> RecordId {
        self.release
    }

    /// Accept, hold or reject.
    pub fn kind(&self) -> VerdictKind {
        match self.outcome {
            Outcome::Accept(_) => VerdictKind::Accept,
            Outcome::Hold => VerdictKind::Hold,
            Outcome::Reject => VerdictKind::Reject,
        }
    }

    /// What may be deployed, where the verdict is accept.
    pub fn accepted(&self) -> Option<&Accepted> {
        match &self.outcome {
            Outcome::Accept(accepted) => Some(accepted),
            Outcome::Hold | Outcome::Reject => None,
        }
    }

    /// What may be deployed, where the verdict is accept; nothing else of the verdict is kept.
    pub fn into_accepted(self) -> Option<Accepted> {
        match self.outcome {
            Outcome::Accept(accepted) => Some(*accepted),
            Outcome::Hold | Outcome::Reject => None,
        }
    }

    /// The rule that decided: its name, `default` where none fits, `revocation`, or `none` where nothing could decide.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// In one sentence, why.
    pub fn because(&self) -> &str {
        &self.because
    }

    /// Each requirement of the rule, in the order of the file.
    pub fn requirements(&self) -> &[RequirementOutcome] {
        &self.requirements
    }

    /// BLAKE3 of the policy that decided, in hex; `None` where there was none.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Whether it can be told whether the release was revoked: not while the policy, or what is said of the release, cannot be
    /// read, or the clock is in doubt.
    pub fn is_decided(&self) -> bool {
        self.is_decided
    }

    /// That the release was revoked, and why, where a revocation counts: its publisher's, or that of enough signers
    /// whom the rule listens to (`not-revoked-by`).
    pub fn revoked(&self) -> Option<&str> {
        self.revoked.as_deref()
    }

    /// What the rule that let the release in says of running instances once it is revoked.
    pub fn on_revoke(&self) -> OnRevoke {
        self.on_revoke
    }

    /// What the rule that fits the release says of newer releases.
    pub fn update(&self) -> Update {
        self.update
    }

    /// The records that the verdict rests on: those that met its requirements, or the revocation that rejects it.
    pub fn used(&self) -> &[RecordId] {
        &self.used
    }

    /// Every record that could have made a difference: the release, and statements of signers that the policy names.
    pub fn considered(&self) -> &[RecordId] {
        &self.considered
    }

    /// The keys whose revocation of the release is a fact: its publisher's, and those that this lent its releases to, be it
    /// once, and that signed it.
    pub fn speakers(&self) -> &[PublicKey] {
        &self.speakers
    }

    /// The verdict as the API shows it.
    pub fn explanation(&self) -> Explanation {
        Explanation {
            release: self.release,
            verdict: self.kind(),
            rule: self.rule.clone(),
            because: self.because.clone(),
            requirements: self.requirements.clone(),
            images: self.accepted().map(|accepted| accepted.images().to_vec()).unwrap_or_default(),
            policy: self.policy.clone(),
        }
    }

    /// The verdict while the node's own clock is in doubt: hold.
    pub fn in_doubt(release: RecordId, doubt: &Doubt) -> Self {
        Self::undecided(release, None, doubt.to_string())
    }

    /// The verdict where there is nothing to decide by: hold.
    pub(super) fn undecided(release: RecordId, policy: Option<String>, because: String) -> Self {
        Self {
            release,
            outcome: Outcome::Hold,
            rule: NO_RULE.to_owned(),
            because,
            requirements: Vec::new(),
            policy,
            on_revoke: OnRevoke::default(),
            update: Update::Never,
            used: Vec::new(),
            considered: vec![release],
            speakers: Vec::new(),
            revoked: None,
            is_decided: false,
        }
    }
}

/// Judges a release. `now` is the node's own clock: a record's times are claims, and one issued in the future counts as
/// issued now.
///
/// A revocation that counts rejects before any rule. Then the first rule that fits decides; but whatever it says, a
/// release that has expired, or that neither its publisher's own key nor keys that this lent its releases to have signed, is not
/// accepted.
pub fn evaluate(policy: &Policy, record: &Verified<Record>, facts: &Facts<'_>, now: UnixSeconds) -> Verdict {
    let Some(release) = record.body.release() else {
        let because = "this record is not a release that this version of the program can read".to_owned();
        return Verdict::undecided(record.id, Some(policy.hash().to_owned()), because);
    };
    let case = Case::new(policy, record, release, facts, now);
    let that_fits = |is_its| policy.rules.iter().find(|rule| case.fits(rule, is_its)).unwrap_or(&policy.default);
    let rule = that_fits(case.published.is_ok());
    // What runs was its publisher's when it was deployed, whatever keys have been replaced or revoked since.
    let let_in_by = that_fits(true);
    let revocation = case.revocation();
    let revoked = case.reasons(revocation.as_ref().map(|(revocation, _)| *revocation), let_in_by);
    let judged = match revocation {
        Some((revocation, because)) => {
            let used = vec![revocation.id];
            Judged { kind: VerdictKind::Reject, rule: REVOCATION_RULE, because, requirements: Vec::new(), used }
        }
        None => case.judge(rule),
    };
    let outcome = match judged.kind {
        VerdictKind::Reject => Outcome::Reject,
        VerdictKind::Hold => Outcome::Hold,
        VerdictKind::Accept => match Accepted::new(record) {
            Some(accepted) => Outcome::Accept(Box::new(accepted)),
            None => Outcome::Hold, // Not a release, which was ruled out above.
        },
    };
    Verdict {
        release: record.id,
        outcome,
        rule: judged.rule.to_owned(),
        because: judged.because + &case.opinions(rule),
        requirements: judged.requirements,
        policy: Some(policy.hash().to_owned()),
        on_revoke: let_in_by.on_revoke,
        update: rule.update,
        used: judged.used,
        considered: case.considered(),
        is_decided: revoked.is_some() || facts.unreadable == 0,
        revoked,
        speakers: case.speakers,
    }
}

/// One release before the judge, with all that bears on it.
pub(super) struct Case<'a> {
    pub(super) policy: &'a Policy,
    pub(super) record: &'a Verified<Record>,
    pub(super) release: &'a Release,
    /// Endorsements of this release that are looked at, by id.
    pub(super) endorsements: Vec<&'a Verified<Record>>,
    pub(super) withdrawn: Withdrawn<'a>,
    /// The channels of its appliance, of its publisher only.
    pub(super) channels: Vec<ChannelFacts<'a>>,
    pub(super) delegations: Vec<&'a Verified<Record>>,
    pub(super) inside: Option<Inside>,
    pub(super) advisories: Vec<&'a Verified<Record>>,
    unreadable: usize,
    federation: Option<Name>,
    /// In whose word it is published.
    pub(super) published: Result<Published, Unpublished>,
    /// The keys whose word about the release is its publisher's.
    pub(super) speakers: Vec<PublicKey>,
    pub(super) now: UnixSeconds,
}

struct Judged<'r> {
    kind: VerdictKind,
    rule: &'r str,
    because: String,
    requirements: Vec<RequirementOutcome>,
    used: Vec<RecordId>,
}

impl<'a> Case<'a> {
    fn new(
        policy: &'a Policy,
        record: &'a Verified<Record>,
        release: &'a Release,
        facts: &Facts<'a>,
        now: UnixSeconds,
    ) -> Self {
        let is_of_this =
            |endorsement: &&Verified<Record>| endorsement.body.endorsement().is_some_and(|e| e.subject == record.id);
        let endorsements = policy.looked_at(facts.endorsements.iter().copied().filter(is_of_this));
        let is_its_own = |facts: &&ChannelFacts<'_>| {
            facts.channel.publisher == release.publisher && facts.channel.name == release.name
        };
        let withdrawn = Withdrawn::new(Some(policy), &facts.revocations);
        // A key that was lent goes by its own word, or by that of who lent it.
        let is_revoked = |key: &PublicKey| {
            withdrawn.by_own_signer(RevocationSubject::Key(*key), [key, &release.publisher]).is_some()
        };
        let published = published(record, &facts.delegations, facts.seen_delegation, is_revoked, now);
        Self {
            published,
            speakers: speakers(record, release, &facts.delegations),
            policy,
            record,
            release,
            endorsements,
            withdrawn,
            channels: facts.channels.iter().filter(is_its_own).cloned().collect(),
            delegations: facts.delegations.clone(),
            inside: facts.inside.clone(),
            advisories: facts.advisories.clone(),
            unreadable: facts.unreadable,
            federation: facts.federation.clone(),
            now,
        }
    }

    /// A record before the judge, where it is a release.
    pub(super) fn of(
        policy: &'a Policy,
        record: &'a Verified<Record>,
        facts: &Facts<'a>,
        now: UnixSeconds,
    ) -> Option<Self> {
        Some(Self::new(policy, record, record.body.release()?, facts, now))
    }

    /// Whether every part of a rule's `match` fits. A key that the release merely names proves nothing: `is_its` says whether
    /// its publisher has signed it, or keys that this lent its releases to.
    fn fits(&self, rule: &Rule, is_its: bool) -> bool {
        let (matches, release) = (&rule.matches, self.release);
        let is_by = |keys: &[_]| keys.contains(&release.publisher) && is_its;
        matches.publishers.as_ref().is_none_or(|signers| signers.iter().any(|signer| is_by(&signer.keys)))
            && matches.names.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.fits(&release.name)))
            && matches.arch.as_ref().is_none_or(|arch| arch.contains(&release.arch))
            && matches.sizes.as_ref().is_none_or(|sizes| sizes.iter().any(|size| size.holds(self.disk_bytes())))
            && matches
                .federations
                .as_ref()
                .is_none_or(|names| self.federation.as_ref().is_some_and(|ours| names.contains(ours)))
            && matches.tags.as_ref().is_none_or(|tags| tags.iter().any(|tag| release.tags.contains(tag)))
    }

    /// Of all disks together, in bytes.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.release.disks.iter().fold(0u64, |sum, disk| sum.saturating_add(disk.bytes))
    }

    /// The delegation that it is published under, where it is under one.
    pub(super) fn delegation(&self) -> Option<RecordId> {
        match &self.published {
            Ok(Published::ByDelegates { record, .. }) => Some(*record),
            _ => None,
        }
    }

    /// The revocation, of the release or of its publisher's key, that rejects it before any rule.
    fn revocation(&self) -> Option<(&'a Verified<Record>, String)> {
        let publisher = &self.release.publisher;
        let subject = RevocationSubject::Release(self.record.id);
        let (revocation, what) = match self.withdrawn.by_own_signer(subject, &self.speakers) {
            Some(revocation) => (revocation, "the release"),
            None => match self.withdrawn.key(publisher) {
                Some(revocation) => (revocation, "the key that it is published with"),
                None => (self.revoked_delegate()?, "a key that signed it for its publisher"),
            },
        };
        let reason = reason_of(revocation);
        let who = revocation.signers().next().map_or_else(String::new, |key| self.policy.shown(key));
        Some((revocation, format!("{what} was revoked by {who}: \"{reason}\" (record {})", revocation.id)))
    }

    /// Why the release was revoked: by `fact`, and by whom the rule that let it in listens to.
    fn reasons(&self, fact: Option<&Verified<Record>>, let_in_by: &Rule) -> Option<String> {
        let roles = let_in_by.require.iter().filter_map(Requirement::hears_revocations_of);
        let honoured = roles.map(|role| (self.revoked_by(role), role.threshold));
        let honoured = honoured.filter(|(said, needed)| said.len() >= *needed).flat_map(|(said, _)| said);
        let reasons: BTreeSet<String> =
            fact.into_iter().chain(honoured.map(|(_, revocation)| revocation)).map(reason_of).collect();
        let all = reasons.into_iter().reduce(|all, reason| format!("{all}; {reason}"));
        all.map(|reasons| format!("its release has been revoked: {reasons}"))
    }

    fn judge<'r>(&self, rule: &'r Rule) -> Judged<'r> {
        let checked: Vec<Checked> =
            rule.require.iter().map(|requirement| requirement::check(self, requirement)).collect();
        let unmet: Vec<&str> = checked.iter().filter(|c| !c.shown.met).map(|c| c.shown.because.as_str()).collect();
        let decided = match rule.then {
            VerdictKind::Accept if unmet.is_empty() => VerdictKind::Accept,
            VerdictKind::Accept => rule.otherwise,
            then => then,
        };
        let obstacles = self.obstacles();
        let kind = match decided {
            VerdictKind::Accept if !obstacles.is_empty() => VerdictKind::Hold,
            decided => decided,
        };
        let mut because = self.sentence(rule, decided);
        let reasons: Vec<&str> = obstacles.iter().map(String::as_str).chain(unmet).collect();
        if !reasons.is_empty() && kind != VerdictKind::Accept {
            because = format!("{because}: {}", reasons.join("; "));
        }
        if let (Some(delegation), VerdictKind::Accept) = (self.delegation(), kind) {
            let publisher = self.policy.shown(&self.release.publisher);
            because = format!(
                "{because}; it is signed with a key that {publisher} lent its releases to (record {delegation})"
            );
        }
        let mut used: Vec<RecordId> = checked.iter().filter(|c| c.shown.met).flat_map(|c| c.used.clone()).collect();
        used.extend(self.delegation());
        used.sort();
        used.dedup();
        let requirements = checked.into_iter().map(|c| c.shown).collect();
        Judged { kind, rule: &rule.name, because, requirements, used }
    }

    /// The revocation of a key that signed it in its publisher's stead, where too few are left for it to be published: by the
    /// key's own word, or by that of the publisher. It counts whatever was lent to whom since: who takes a stolen key's place
    /// first and revokes it then must not leave running what it signed.
    fn revoked_delegate(&self) -> Option<&'a Verified<Record>> {
        let mut signers = self.record.signers().filter(|_| self.published.is_err());
        let publisher = &self.release.publisher;
        signers.find_map(|key| self.withdrawn.by_own_signer(RevocationSubject::Key(*key), [key, publisher]))
    }

    /// What keeps a release from being accepted whatever the rules say.
    fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if let Err(lacks) = &self.published {
            let publisher = self.policy.shown(&self.release.publisher);
            obstacles.push(format!("it names {publisher} as its publisher, but {lacks}"));
        }
        if self.unreadable > 0 {
            obstacles.push(format!(
                "this site's disk does not give back {} of the revocations and advisories that may bear on it: start the \
                 node again, which leaves out what is damaged and fetches it from peers",
                self.unreadable
            ));
        }
        if let Some(expires) = self.release.expires.filter(|expires| *expires <= self.now) {
            obstacles.push(format!("it expired on {}: look for a newer release", time_shown(expires)));
        }
        obstacles
    }

    fn sentence(&self, rule: &Rule, decided: VerdictKind) -> String {
        if rule.name == self.policy.default.name {
            let publisher = &self.release.publisher;
            let stranger = match self.policy.names(publisher) {
                true => String::new(),
                false => format!(" (the policy has no name for its publisher, {})", publisher.fingerprint()),
            };
            return format!("no rule fits it{stranger}, and the default is {}", decided.as_str());
        }
        match (rule.then, decided) {
            (VerdictKind::Accept, VerdictKind::Accept) if rule.require.is_empty() => {
                format!("rule '{}' accepts it and asks for nothing more", rule.name)
            }
            (VerdictKind::Accept, VerdictKind::Accept) => {
                format!("rule '{}' accepts it, and all that it requires is met", rule.name)
            }
            (VerdictKind::Accept, otherwise) => {
                let meanwhile = if otherwise == VerdictKind::Reject { "rejects" } else { "holds" };
                format!(
                    "rule '{}' accepts it once all that it requires is met, and {meanwhile} it until then",
                    rule.name
                )
            }
            (then, _) => format!("rule '{}' says {}", rule.name, then.as_str()),
        }
    }

    /// What others than its own signer say against the release: shown, and not counted. What the rule counts is told as
    /// what became of its requirement.
    fn opinions(&self, rule: &Rule) -> String {
        /// More voices than these are only counted.
        const SHOWN: usize = 3;
        let publisher = &self.release.publisher;
        let subjects = [RevocationSubject::Release(self.record.id), RevocationSubject::Key(*publisher)];
        let is_counted = |record: &&Verified<Record>| {
            let roles = rule.require.iter().filter_map(Requirement::hears_revocations_of);
            let mut keys = roles.flat_map(|role| &role.signers).flat_map(|signer| &signer.keys);
            keys.any(|key| record.is_signed_by(key))
        };
        let opinions = subjects.into_iter().flat_map(|subject| self.withdrawn.opinions(subject, &self.speakers));
        let opinions: Vec<_> = opinions.filter(|record| !is_counted(record)).collect();
        let (named, strangers): (Vec<_>, Vec<_>) =
            opinions.into_iter().partition(|record| record.signers().any(|key| self.policy.names(key)));
        let mut voices: Vec<String> = named
            .iter()
            .take(SHOWN)
            .map(|record| {
                let who = record.signers().find_map(|key| self.policy.petname(key));
                let reason = reason_of(record);
                format!("{} (record {}, \"{reason}\")", who.map(|name| &**name).unwrap_or_default(), record.id)
            })
            .collect();
        match strangers.len() + named.len().saturating_sub(SHOWN) {
            0 => {}
            1 => voices.push("1 other".to_owned()),
            others => voices.push(format!("{others} others")),
        }
        match voices.is_empty() {
            true => String::new(),
            false => format!(". Revoked by others than its publisher, which is not counted: {}", voices.join(", ")),
        }
    }

    fn considered(&self) -> Vec<RecordId> {
        let of_statements: BTreeSet<_> =
            self.endorsements.iter().flat_map(|record| self.statement_signers(record)).collect();
        let keys = self.endorsements.iter().copied().chain([self.record]).flat_map(|record| record.signers());
        let of_advisories = self.advisories.iter().flat_map(|record| record.signers());
        let heads = self.channels.iter().flat_map(|facts| &facts.heads);
        let of_channels = heads.clone().chain(&self.delegations).flat_map(|record| record.signers());
        let keys = keys.chain([&self.release.publisher]).chain(&of_statements).chain(of_advisories).chain(of_channels);
        let keys = keys.map(|key| RevocationSubject::Key(*key));
        let records = self.endorsements.iter().map(|record| RevocationSubject::Endorsement(record.id));
        let records = records.chain(self.advisories.iter().map(|record| RevocationSubject::Advisory(record.id)));
        let subjects: BTreeSet<_> = keys.chain(records).chain([RevocationSubject::Release(self.record.id)]).collect();
        let revocations = subjects.into_iter().flat_map(|subject| self.withdrawn.of(subject)).copied();
        // Keys that revoked themselves say so with a signature that no policy need name.
        let signs_channels: BTreeSet<&PublicKey> =
            heads.clone().chain(&self.delegations).flat_map(|record| record.signers()).collect();
        let is_named = |record: &&Verified<Record>| {
            let is_of_release = |key: &PublicKey| {
                *key == self.release.publisher || self.record.is_signed_by(key) || signs_channels.contains(key)
            };
            record.signers().any(|key| self.policy.names(key) || is_of_release(key))
                || !self.statement_signers(record).is_empty()
        };
        let channels = heads.chain(&self.delegations).copied();
        let mut ids: Vec<RecordId> = (self.endorsements.iter().chain(&self.advisories).copied().chain(revocations))
            .filter(is_named)
            .chain(channels)
            .map(|record| record.id)
            .chain([self.record.id])
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }
}

/// The publisher, and which keys that signed the release it lent its releases to, now or once: whoever could publish it can take it
/// back, and what they took back stays so when they are replaced.
fn speakers(record: &Verified<Record>, release: &Release, delegations: &[&Verified<Record>]) -> Vec<PublicKey> {
    let lent = delegations.iter().filter_map(|record| is_delegation(record)).filter(|of| {
        *of.publisher() == release.publisher && of.role() == DelegatedRole::Release && of.covers(&release.name)
    });
    let lent: BTreeSet<&PublicKey> = lent.flat_map(|of| of.keys()).collect();
    [&release.publisher].into_iter().chain(record.signers().filter(|key| lent.contains(key))).copied().collect()
}

/// A time as people read it: RFC 3339, or the bare number where no calendar goes that far.
pub(crate) fn time_shown(seconds: UnixSeconds) -> String {
    match i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
        Some(time) => time.to_string(),
        None => format!("second {seconds} after 1970"),
    }
}
