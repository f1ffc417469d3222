//! The records of a simulation: who can sign what, and what was truly signed.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{BoundError, Text};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, Endorsement, EndorsementBody};
use rialto_protocol::signed::{Draft, Envelope, EnvelopeError};

use super::SimError;

/// A signer of the simulation.
#[derive(Debug)]
pub(super) struct Signer {
    key: SigningKey,
    pub(super) public: PublicKey,
}

impl Signer {
    pub(super) fn new(random: &mut fastrand::Rng) -> Self {
        let mut seed = [0; 32];
        random.fill(&mut seed);
        let key = SigningKey::from_bytes(&seed);
        let public = PublicKey(key.verifying_key().to_bytes());
        Self { key, public }
    }
}

/// What was truly signed: the reference that sites are compared with.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    signers: BTreeMap<RecordId, BTreeSet<PublicKey>>,
}

impl Ledger {
    /// Makes the record with this number, which all of `issuers` may sign and `signer` does.
    pub(super) fn sign(
        &mut self,
        number: usize,
        issuers: &[&Signer],
        signer: &Signer,
        issued: UnixSeconds,
    ) -> Result<Envelope, SimError> {
        let body = body(number).map_err(|error| SimError::Broken(error.to_string()))?;
        let broken = |error: EnvelopeError| SimError::Broken(error.to_string());
        let draft = Draft::new(issuers.iter().map(|issuer| issuer.public), None, issued, &body).map_err(broken)?;
        let envelope = draft.sign(&signer.key).map_err(broken)?.seal();
        self.signers.entry(envelope.id()).or_default().insert(signer.public);
        Ok(envelope)
    }

    pub(super) fn len(&self) -> usize {
        self.signers.len()
    }

    /// Whether all of these signed this.
    pub(super) fn has<'a>(&self, id: &RecordId, mut signers: impl Iterator<Item = &'a PublicKey>) -> bool {
        self.signers.get(id).is_some_and(|signed| signers.all(|key| signed.contains(key)))
    }

    /// The records that this key signed, with everyone else who did.
    pub(super) fn of<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> impl Iterator<Item = (&'a RecordId, &'a BTreeSet<PublicKey>)> {
        self.signers.iter().filter(|(_, signers)| signers.contains(key))
    }
}

fn body(number: usize) -> Result<Body, BoundError> {
    Ok(Body::Endorsement(Endorsement {
        subject: RecordId::of(&number.to_be_bytes()),
        predicate: Text::try_from("https://rialto.example/predicate/simulated/v1")?,
        body: EndorsementBody::Native { note: Some(Text::try_from(format!("record {number}"))?) },
        expires: None,
    }))
}
