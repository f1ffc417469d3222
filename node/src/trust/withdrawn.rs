//! Which revocations count. By the subject's own signer a revocation is a fact; by anybody else it is an opinion.
//!
//! A signer is who this site's policy says it is: after a rotation, the new key of a signer speaks for what its old key
//! said, because the old one may be gone. A revocation cannot be taken back, and does not age.

use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{Record, Revocation, RevocationSubject};
use rialto_protocol::signed::Verified;

use super::policy::Policy;
use super::statements::is_statement;
use super::words::shown;

/// Whether a revocation is a fact about `release`, one of its `endorsements` or a key. `speakers` are the keys whose word about
/// the release is its publisher's. For showing; judging is [`evaluate`](super::evaluate)'s business.
pub fn revocation_counts(
    policy: Option<&Policy>,
    revocation: &Verified<Record>,
    release: &Verified<Record>,
    endorsements: &[&Verified<Record>],
    speakers: &[PublicKey],
) -> bool {
    let withdrawn = Withdrawn::new(policy, &[revocation]);
    let Some(subject) = revocation.body.revocation().map(|said| said.subject) else { return false };
    let is_own = |own: &[&PublicKey]| withdrawn.by_own_signer(subject, own.iter().copied()).is_some();
    match subject {
        RevocationSubject::Release(id) => {
            let publisher = release.body.release().filter(|_| release.id == id).map(|release| &release.publisher);
            publisher.is_some_and(|publisher| is_own(&speakers.iter().chain([publisher]).collect::<Vec<_>>()))
        }
        RevocationSubject::Endorsement(id) => {
            let mut of_it = endorsements.iter().filter(|endorsement| endorsement.id == id);
            of_it.any(|endorsement| is_own(&makers_of(policy, endorsement).iter().collect::<Vec<_>>()))
        }
        // What is said of a package is not said of a release.
        RevocationSubject::Advisory(_) => false,
        RevocationSubject::Key(key) => {
            // Who lent its releases to a key can end that.
            let lender = release.body.release().filter(|_| release.is_signed_by(&key)).map(|release| release.publisher);
            is_own(&[&key]) || lender.is_some_and(|lender| is_own(&[&lender]))
        }
    }
}

/// Whether a revocation is by the holder of this key: this key itself, or another one of the same signer of the policy.
pub fn revocation_is_by(policy: Option<&Policy>, revocation: &Verified<Record>, key: &PublicKey) -> bool {
    revocation.signers().any(|signer| is_one_signer(policy, signer, key))
}

/// Whether an endorsement counts for nothing any more: expired, or revoked, or every key that made it
/// is. For showing.
pub fn endorsement_is_void(
    policy: Option<&Policy>,
    endorsement: &Verified<Record>,
    revocations: &[&Verified<Record>],
    now: UnixSeconds,
) -> bool {
    let Some(said) = endorsement.body.endorsement() else { return true };
    let withdrawn = Withdrawn::new(policy, revocations);
    let signers = &makers_of(policy, endorsement);
    let subject = RevocationSubject::Endorsement(endorsement.id);
    said.expires.is_some_and(|expires| expires <= now)
        || withdrawn.by_own_signer(subject, signers).is_some()
        || (!signers.is_empty() && signers.iter().all(|key| withdrawn.key(key).is_some()))
}

/// Whose word an endorsement is: that of the record's signers, or of those keys of the policy that have signed the statement
/// in it. Who brought a statement here has no say in it.
pub fn makers_of(policy: Option<&Policy>, endorsement: &Verified<Record>) -> Vec<PublicKey> {
    if !is_statement(endorsement) {
        return endorsement.signers().copied().collect();
    }
    let statement = policy.and_then(|policy| Some((policy, policy.statement(endorsement)?)));
    statement.map(|(policy, statement)| policy.signers_of(&statement)).unwrap_or_default()
}

/// What a revocation says, fit for showing.
pub(super) fn reason_of(revocation: &Verified<Record>) -> String {
    revocation.body.revocation().map(|said| shown(&said.reason)).unwrap_or_default()
}

/// The revocations that the catalog knows, as this policy sees them.
pub(super) struct Withdrawn<'a> {
    policy: Option<&'a Policy>,
    revocations: Vec<(&'a Verified<Record>, &'a Revocation)>,
}

impl<'a> Withdrawn<'a> {
    /// Takes the revocations among `records`, in the order of their ids.
    pub(super) fn new(policy: Option<&'a Policy>, records: &[&'a Verified<Record>]) -> Self {
        let mut revocations: Vec<_> =
            records.iter().filter_map(|record| Some((*record, record.body.revocation()?))).collect();
        revocations.sort_by_key(|(record, _)| record.id);
        Self { policy, revocations }
    }

    /// The revocation of `subject` by one of its own signers.
    pub(super) fn by_own_signer<'k>(
        &self,
        subject: RevocationSubject,
        own: impl IntoIterator<Item = &'k PublicKey> + Clone,
    ) -> Option<&'a Verified<Record>> {
        self.of(subject).find(|record| self.is_by(record, own.clone())).copied()
    }

    /// The revocation of a key by its own signer.
    pub(super) fn key(&self, key: &PublicKey) -> Option<&'a Verified<Record>> {
        self.by_own_signer(RevocationSubject::Key(*key), [key])
    }

    /// Revocations of `subject` by others than its own signers.
    pub(super) fn opinions<'k>(
        &self,
        subject: RevocationSubject,
        own: impl IntoIterator<Item = &'k PublicKey> + Clone,
    ) -> impl Iterator<Item = &'a Verified<Record>> {
        self.of(subject).filter(move |record| !self.is_by(record, own.clone())).copied()
    }

    /// All that is said of `subject`.
    pub(super) fn of(&self, subject: RevocationSubject) -> impl Iterator<Item = &&'a Verified<Record>> {
        self.revocations.iter().filter(move |(_, said)| said.subject == subject).map(|(record, _)| record)
    }

    fn is_by<'k>(&self, record: &Verified<Record>, own: impl IntoIterator<Item = &'k PublicKey>) -> bool {
        own.into_iter().any(|own| record.signers().any(|signer| is_one_signer(self.policy, signer, own)))
    }
}

fn is_one_signer(policy: Option<&Policy>, a: &PublicKey, b: &PublicKey) -> bool {
    policy.map_or(a == b, |policy| policy.is_one_signer(a, b))
}
