//! Which revocations count. By the subject's own signer a revocation is a fact; by anybody else it is an opinion.
//!
//! A signer is who this site's policy says it is: after a rotation, the new key of a signer speaks for what its old key
//! said, because the old one may be gone. A revocation cannot be taken back, and does not age.

use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{Record, Revocation, RevocationSubject};
use rialto_protocol::signed::Verified;

use super::policy::Policy;

/// The revocations that the catalog knows, as this policy sees them.
pub(super) struct Withdrawn<'a> {
    policy: &'a Policy,
    revocations: Vec<(&'a Verified<Record>, &'a Revocation)>,
}

impl<'a> Withdrawn<'a> {
    /// Takes the revocations among `records`, in the order of their ids.
    pub(super) fn new(policy: &'a Policy, records: &[&'a Verified<Record>]) -> Self {
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
        own.into_iter().any(|own| record.signers().any(|signer| self.policy.is_one_signer(signer, own)))
    }
}
