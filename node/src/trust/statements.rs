//! What endorsements in the form of in-toto statements say, and which keys have signed them.
//!
//! A DSSE signature does not say whose it is, so each key that could count is tried. That is remembered with the policy, since
//! it is always the same; and of what strangers have brought, only so much is looked at.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rialto_protocol::attestation::{Attestation, Predicate};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Endorsement, EndorsementBody, Record, Release};
use rialto_protocol::signed::Verified;

use super::policy::Policy;
use super::words::shown;

/// Statements of one release that are looked at beside those that a signer of the policy brought. Each can cost a verification
/// for every key of every role; whoever is needed among more of them can be brought again, by a signer of the policy.
const MAX_OF_STRANGERS: usize = 64;
/// Statements that are remembered, at most 46 KiB each.
const MAX_REMEMBERED: usize = 1_024;
/// Verifications to find out who signed one statement, where no role is asked about.
const MAX_TRIES: usize = 2_048;

/// The statement in an endorsement, and who has signed it.
pub struct Statement {
    read: Result<Attestation, String>,
    /// Which keys were tried, and whether they have signed it.
    tried: Mutex<BTreeMap<PublicKey, bool>>,
}

impl Statement {
    /// Reads the statement of an endorsement that carries one.
    pub fn of(record: &Verified<Record>) -> Option<Self> {
        let EndorsementBody::Dsse { envelope } = &record.body.endorsement()?.body else { return None };
        let read = Attestation::parse(envelope).map_err(|error| error.to_string());
        Some(Self { read, tried: Mutex::default() })
    }

    /// What it says, or why it cannot be read.
    pub fn attestation(&self) -> Result<&Attestation, &str> {
        self.read.as_ref().map_err(String::as_str)
    }

    /// Whether this key has signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let Ok(attestation) = &self.read else { return false };
        if let Some(known) = locked(&self.tried).get(key) {
            return *known;
        }
        let is_signed = attestation.is_signed_by(key);
        locked(&self.tried).insert(*key, is_signed);
        is_signed
    }

    /// Why it says nothing for this release, whoever has signed it.
    pub fn flaw(&self, endorsement: &Endorsement, release: &Release) -> Option<String> {
        let attestation = match &self.read {
            Ok(attestation) => attestation,
            Err(error) => return Some(format!("it carries no statement that can be read: {error}")),
        };
        if attestation.predicate_type() != &*endorsement.predicate {
            return Some(format!(
                "it is filed as {}, and its statement says {}",
                shown(&endorsement.predicate),
                shown(attestation.predicate_type())
            ));
        }
        if !attestation.is_about_a_disk_of(release) {
            return Some("its statement is about none of the release's disks".to_owned());
        }
        match attestation.predicate() {
            Predicate::Verification(said) if !said.has_passed => {
                Some(format!("it says that the verification by {} FAILED", shown(&said.verifier)))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("read", &self.read).finish_non_exhaustive()
    }
}

/// Statements that were read under one policy.
#[derive(Debug, Default)]
pub(super) struct Statements(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    by_id: BTreeMap<RecordId, Arc<Statement>>,
    /// In the order in which they came.
    order: VecDeque<RecordId>,
}

impl Statements {
    fn of(&self, record: &Verified<Record>) -> Option<Arc<Statement>> {
        if let Some(known) = locked(&self.0).by_id.get(&record.id) {
            return Some(Arc::clone(known));
        }
        let read = Arc::new(Statement::of(record)?);
        let mut remembered = locked(&self.0);
        if remembered.by_id.insert(record.id, Arc::clone(&read)).is_none() {
            remembered.order.push_back(record.id);
        }
        while remembered.order.len() > MAX_REMEMBERED
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.by_id.remove(&oldest);
        }
        Some(read)
    }
}

impl Policy {
    /// The statement of an endorsement that carries one.
    pub fn statement(&self, record: &Verified<Record>) -> Option<Arc<Statement>> {
        self.statements.of(record)
    }

    /// Every key of a role, ascending.
    pub(super) fn keys_of_roles(&self) -> impl Iterator<Item = &PublicKey> {
        self.role_keys.iter()
    }

    /// The keys that this policy names and that have signed a statement, ascending; those of roles are tried first.
    pub fn signers_of(&self, statement: &Statement) -> Vec<PublicKey> {
        let count = statement.attestation().map_or(0, |attestation| attestation.signature_count());
        let tries = MAX_TRIES / count.max(1);
        let others = self.named_keys().filter(|key| self.role_keys.binary_search(key).is_err());
        let mut signers: Vec<PublicKey> =
            self.keys_of_roles().chain(others).take(tries).filter(|key| statement.is_signed_by(key)).copied().collect();
        signers.sort();
        signers
    }

    /// The endorsements that are looked at: all that are said in the record itself, the statements that a signer of the policy
    /// brought, and so many of those that strangers did, in the order of their ids.
    pub fn looked_at<'a>(
        &self,
        endorsements: impl IntoIterator<Item = &'a Verified<Record>>,
    ) -> Vec<&'a Verified<Record>> {
        let mut endorsements: Vec<_> = endorsements.into_iter().collect();
        endorsements.sort_by_key(|record| record.id);
        let mut of_strangers = 0;
        endorsements.retain(|record| {
            if !is_statement(record) || record.signers().any(|key| self.names(key)) {
                return true;
            }
            of_strangers += 1;
            of_strangers <= MAX_OF_STRANGERS
        });
        endorsements
    }
}

/// Whether an endorsement carries a statement of others' form.
pub(super) fn is_statement(record: &Verified<Record>) -> bool {
    matches!(record.body.endorsement(), Some(Endorsement { body: EndorsementBody::Dsse { .. }, .. }))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is remembered is right whoever panicked meanwhile.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
