//! Endorsements as the API shows them, and in-toto statements on their way in and out.

use std::collections::BTreeSet;
use std::sync::Arc;

use rialto_protocol::attestation::{Attestation, MAX_DSSE_BYTES};
use rialto_protocol::ids::RecordId;
use rialto_protocol::record::{Endorsement, EndorsementBody, Record, Release};
use rialto_protocol::signed::Verified;
use rialto_web::api::*;

use super::view::{signer, signers, time};
use crate::node::Node;
use crate::trust::{Policy, Statement, endorsement_is_void, makers_of};

/// The endorsements of a release. Of what strangers have brought, only as much is looked into as policy looks into.
pub(super) fn endorsements(
    node: &Node,
    release: &Release,
    endorsements: &[&Verified<Record>],
    revocations: &[&Verified<Record>],
) -> Vec<EndorsementShown> {
    let policy = node.policy.borrow().policy.clone();
    let policy = policy.as_deref();
    let looked_at: BTreeSet<RecordId> = match policy {
        Some(policy) => policy.looked_at(endorsements.iter().copied()).into_iter().map(|record| record.id).collect(),
        None => BTreeSet::new(),
    };
    let shown = |record: &&Verified<Record>| {
        let said = record.body.endorsement()?;
        let (note, statement, signed_by, is_void) = match &said.body {
            EndorsementBody::Native { note } => {
                let is_void = endorsement_is_void(policy, record, revocations, node.now());
                (note.as_ref().map(ToString::to_string), None, signers(node, record), is_void)
            }
            EndorsementBody::Dsse { .. } if !looked_at.contains(&record.id) => {
                let problem = match policy {
                    Some(_) => {
                        "strangers have brought more statements of this release than are looked into; a signer of the \
                                policy who brings this one again has it looked into"
                    }
                    None => "there is no policy that says whose statements are looked into",
                };
                (None, Some(unread(node, record, problem)), Vec::new(), true)
            }
            EndorsementBody::Dsse { .. } => {
                let is_void = endorsement_is_void(policy, record, revocations, node.now());
                let makers = makers_of(policy, record).iter().map(|key| signer(node, key)).collect();
                (None, policy.and_then(|policy| statement(node, policy, record, said, release)), makers, is_void)
            }
        };
        let (predicate, issued) = (said.predicate.to_string(), time(record.header.issued));
        Some(EndorsementShown { record: record.id, signed_by, predicate, note, issued, is_void, statement })
    };
    endorsements.iter().filter_map(shown).collect()
}

fn statement(
    node: &Node,
    policy: &Policy,
    record: &Verified<Record>,
    said: &Endorsement,
    release: &Release,
) -> Option<StatementShown> {
    let statement: Arc<Statement> = policy.statement(record)?;
    let problem = statement.flaw(said, release);
    let Ok(attestation) = statement.attestation() else {
        return Some(unread(node, record, &problem.unwrap_or_default()));
    };
    let predicate = attestation.predicate();
    let field = |(name, value): (&str, String)| FieldShown { name: name.to_owned(), value };
    Some(StatementShown {
        title: predicate.title().map(str::to_owned),
        fields: predicate.fields().into_iter().map(field).collect(),
        time: predicate.time().map(time),
        signatures: attestation.signature_count(),
        brought_by: signers(node, record),
        problem,
    })
}

fn unread(node: &Node, record: &Verified<Record>, problem: &str) -> StatementShown {
    StatementShown {
        title: None,
        fields: Vec::new(),
        time: None,
        signatures: 0,
        brought_by: signers(node, record),
        problem: Some(problem.to_owned()),
    }
}

/// What an endorsement with this envelope says of a release.
///
/// # Errors
/// It is no envelope, or says nothing of this release, or something else than was asked for.
pub(super) fn brought(
    record: &Verified<Record>,
    title: &str,
    envelope: String,
    wanted: &str,
) -> Result<(String, EndorsementBody)> {
    let envelope = envelope.into_bytes();
    let attestation = Attestation::parse(&envelope).map_err(|error| {
        ApiError::usage(format!("this cannot be brought here: {error}")).with_hint(format!(
            "an in-toto statement comes in a DSSE envelope of JSON, {{\"payload\": …, \"payloadType\": …, \"signatures\": […]}}, of at \
             most {MAX_DSSE_BYTES} bytes"
        ))
    })?;
    let predicate = attestation.predicate_type();
    if !wanted.is_empty() && wanted != predicate {
        return Err(ApiError::usage(format!("the statement says {predicate}, and {wanted} was asked for"))
            .with_hint("leave out --type: it is taken from the statement"));
    }
    let release = record.body.release().ok_or_else(|| ApiError::not_found(format!("{title} is not a release")))?;
    if !attestation.is_about_a_disk_of(release) {
        let disks: Vec<String> = release.disks.iter().map(|disk| disk.sha256.to_string()).collect();
        return Err(ApiError::usage(format!("the statement is about none of the disks of {title}")).with_hint(
            format!("one of its subjects must have the sha256 of the flat content of a disk: {}", disks.join(", ")),
        ));
    }
    Ok((predicate.to_owned(), EndorsementBody::Dsse { envelope }))
}

impl Node {
    /// The statement that an endorsement carries, byte for byte.
    ///
    /// # Errors
    /// There is no such record, or it carries none.
    pub(super) fn statement_export(&self, endorsement: &str) -> Result<StatementExport> {
        let record = match endorsement.parse::<RecordId>() {
            Ok(id) => {
                self.catalog.get(&id).ok_or_else(|| ApiError::not_found(format!("no record {id} is known here")))?
            }
            Err(_) => self.catalog.find(endorsement).map_err(|error| ApiError::not_found(error.to_string()))?,
        };
        let no_statement = |what: &str| {
            ApiError::usage(format!("{} {what}", record.id)).with_hint(
                "rialto show RELEASE --json lists the endorsements of a release, and which carry a statement",
            )
        };
        let Some(said) = record.body.endorsement() else {
            return Err(no_statement(&format!(
                "is a record of kind '{}', and only endorsements carry statements",
                record.header.kind
            )));
        };
        let EndorsementBody::Dsse { envelope } = &said.body else {
            return Err(no_statement("was said in the record itself: it carries no statement of another form"));
        };
        let dsse = String::from_utf8(envelope.clone()).map_err(|_| no_statement("carries what is not even text"))?;
        Ok(StatementExport { record: record.id, release: said.subject, predicate: said.predicate.to_string(), dsse })
    }
}
