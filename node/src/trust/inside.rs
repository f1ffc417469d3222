//! Requirements about how a release was built and what is inside of it: `provenance`, `rebuilt-by`, `no-advisory`, `licence`.

use std::sync::Arc;

use rialto_protocol::attestation::{Attestation, Predicate};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::package::Bom;
use rialto_protocol::record::{EndorsementBody, PREDICATE_REBUILT, Severity};

use super::advisories::Hit;
use super::policy::{Role, Signer};
use super::requirement::{count_of, listed};
use super::verdict::Case;
use super::words::shown;

/// What is known of the bill of materials that a release names.
#[derive(Debug, Clone)]
pub enum Inside {
    /// What it says.
    Known(Arc<Bom>),
    /// It is not at hand, or cannot be read: why.
    Unknown(String),
}

type Outcome = (bool, String, Vec<RecordId>);

/// Bills of materials, where each stands, and the records that those in statements came in.
pub(super) type Bills = (Vec<Arc<Bom>>, Vec<String>, Vec<RecordId>);

impl Case<'_> {
    /// Whether it is known how the release was built: by the provenance that it names where nothing more is asked, else by a
    /// statement of SLSA provenance, by its publisher or, where a role is named, by enough of that.
    pub(super) fn provenance(&self, role: Option<&Role>, builder: Option<&str>) -> Outcome {
        if let Some(role) = role {
            let by = |signer: &Signer| self.built(&signer.name, &signer.keys, Some(role), builder);
            return count_of(&role.signers, role.threshold, "its provenance is vouched for", by);
        }
        if let (None, Some(image)) = (builder, self.release.provenance) {
            return (true, format!("its provenance is image {image}"), vec![self.record.id]);
        }
        let publisher = self.policy.shown(&self.release.publisher);
        match self.built(&publisher, &self.publisher_keys(), None, builder) {
            Ok(record) => {
                (true, format!("its provenance is vouched for by {publisher} (record {record})"), vec![record])
            }
            Err(reason) if self.release.provenance.is_none() => {
                (false, format!("its publisher names no provenance with it, and {reason}"), Vec::new())
            }
            Err(reason) => (
                false,
                format!("{reason}; the provenance that it names is an image, and says nothing that is signed"),
                Vec::new(),
            ),
        }
    }

    /// A statement by one of `keys` that says how the release was built.
    fn built(
        &self,
        name: &str,
        keys: &[PublicKey],
        role: Option<&Role>,
        builder: Option<&str>,
    ) -> Result<RecordId, String> {
        let mut reason = format!("{name} has made no statement of SLSA provenance");
        for record in &self.endorsements {
            let (Some(statement), Some(endorsement)) = (self.policy.statement(record), record.body.endorsement())
            else {
                continue;
            };
            let Ok(Predicate::Provenance(said)) = statement.attestation().map(Attestation::predicate) else { continue };
            for key in keys.iter().filter(|key| statement.is_signed_by(key)) {
                if let Some(flaw) = self.flaw_of(record, endorsement, key, role, None) {
                    reason = format!("{name}'s provenance {} does not count: {flaw}", record.id);
                } else if let Some(wanted) = builder.filter(|wanted| *wanted != said.builder) {
                    reason = format!(
                        "{name} says that it was built by {}, and {wanted} is required (record {})",
                        shown(&said.builder),
                        record.id
                    );
                } else {
                    return Ok(record.id);
                }
            }
        }
        Err(reason)
    }

    /// Whether others than its publisher have built it again and come to the same images. An endorsement in Rialto's own form names
    /// the release, and so its images; a statement of provenance must name every disk.
    pub(super) fn rebuilt_by(&self, needed: usize, role: Option<&Role>) -> Outcome {
        let all = self.policy.signers.values().cloned().collect();
        let signers: &Vec<Arc<Signer>> = role.map_or(&all, |role| &role.signers);
        let publisher = self.publisher_keys();
        let others: Vec<Arc<Signer>> =
            signers.iter().filter(|signer| !signer.keys.iter().any(|key| publisher.contains(key))).cloned().collect();
        let by = |signer: &Signer| self.rebuilt(signer, role);
        count_of(&others, needed, "rebuilt to the same images", by)
    }

    fn rebuilt(&self, signer: &Signer, role: Option<&Role>) -> Result<RecordId, String> {
        let name = &signer.name;
        let mut reason = format!("{name} has not rebuilt it");
        for record in &self.endorsements {
            let Some(endorsement) = record.body.endorsement() else { continue };
            let statement = self.policy.statement(record);
            let says_so = match (&endorsement.body, &statement) {
                (EndorsementBody::Native { .. }, _) => *endorsement.predicate == *PREDICATE_REBUILT,
                (_, Some(statement)) => {
                    matches!(statement.attestation().map(Attestation::predicate), Ok(Predicate::Provenance(_)))
                }
                _ => false,
            };
            if !says_so {
                continue;
            }
            let is_signed_by = |key: &&PublicKey| match &statement {
                Some(statement) => statement.is_signed_by(key),
                None => record.is_signed_by(key),
            };
            for key in signer.keys.iter().filter(is_signed_by) {
                let is_of_all = statement.as_ref().is_none_or(|statement| {
                    statement.attestation().is_ok_and(|attestation| attestation.is_about_all_of(self.release))
                });
                match self.flaw_of(record, endorsement, key, role, None) {
                    Some(flaw) => reason = format!("{name}'s rebuild {} does not count: {flaw}", record.id),
                    None if !is_of_all => {
                        reason = format!(
                            "{name}'s rebuild {} does not count: its statement does not name all that boots, each disk by its sha256",
                            record.id
                        );
                    }
                    None => return Ok(record.id),
                }
            }
        }
        Err(reason)
    }

    /// Whether what is inside is known, and no advisory of this severity or worse bears on it.
    pub(super) fn no_advisory(&self, least: Severity, role: Option<&Role>) -> Outcome {
        let (boms, sources, mut used) = match self.boms() {
            Ok(found) => found,
            Err(reason) => return (false, reason, Vec::new()),
        };
        let mut hits: Vec<String> = self.hits(&boms, least, role).iter().map(Hit::to_string).collect();
        hits.dedup();
        if !hits.is_empty() {
            return (false, listed(hits, "; "), Vec::new());
        }
        let count: usize = boms.iter().map(|bom| bom.packages().len()).sum();
        let whose = role.map_or("of a signer of the policy".to_owned(), |role| format!("of {}", role.name));
        used.push(self.record.id);
        let because = format!(
            "no advisory {whose} of severity {} or worse bears on its {count} packages ({})",
            least.as_str(),
            sources.join(", ")
        );
        (true, because, used)
    }

    /// Every list of what is inside: the one that the release names, and those in statements of its publisher and of signers with
    /// a role. One that cannot be read leaves nothing known.
    pub(super) fn boms(&self) -> Result<Bills, String> {
        let (mut boms, mut sources, mut used) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(image) = self.release.sbom {
            match &self.inside {
                Some(Inside::Known(bom)) => boms.push(Arc::clone(bom)),
                Some(Inside::Unknown(reason)) => {
                    return Err(format!("its SBOM, image {image}, is not known: {reason}"));
                }
                None => return Err(format!("its SBOM, image {image}, was not looked into")),
            }
            sources.push(format!("SBOM image {image}"));
        }
        let publisher = self.publisher_keys();
        for record in &self.endorsements {
            let (Some(statement), Some(endorsement)) = (self.policy.statement(record), record.body.endorsement())
            else {
                continue;
            };
            let Some(read) = statement.attestation().ok().and_then(Bom::of_statement) else { continue };
            let mut keys =
                publisher.iter().chain(self.policy.keys_of_roles()).filter(|key| statement.is_signed_by(key));
            if !keys.any(|key| self.flaw_of(record, endorsement, key, None, None).is_none()) {
                continue;
            }
            match read {
                Ok(bom) => boms.push(Arc::new(bom)),
                Err(error) => return Err(format!("the SBOM in statement {} is not known: {error}", record.id)),
            }
            sources.push(format!("SBOM in record {}", record.id));
            used.push(record.id);
        }
        match boms.is_empty() {
            true => Err("what is inside of it is not known: its publisher names no SBOM with it, and nobody with a role has brought one".into()),
            false => Ok((boms, sources, used)),
        }
    }

    /// Whether everything in the licence expression of the release can be met with licences of a list.
    pub(super) fn licence(&self, allowed: &[String]) -> Outcome {
        let Some(licence) = &self.release.licence else {
            return (false, "its publisher names no licence with it".to_owned(), Vec::new());
        };
        let expression = match spdx::Expression::parse(licence) {
            Ok(expression) => expression,
            Err(error) => {
                let reason = shown(&error.reason.to_string());
                return (
                    false,
                    format!("its licence, '{}', is no SPDX expression: {reason}", shown(licence)),
                    Vec::new(),
                );
            }
        };
        let allowed: Vec<spdx::Licensee> = allowed.iter().filter_map(|name| spdx::Licensee::parse(name).ok()).collect();
        match expression.evaluate(|wanted| allowed.iter().any(|licence| licence.satisfies(wanted))) {
            true => (true, format!("its licence is {}", shown(licence)), vec![self.record.id]),
            false => (false, format!("its licence, {}, asks for others than these", shown(licence)), Vec::new()),
        }
    }

    /// Every key of its publisher's, by this site's policy.
    fn publisher_keys(&self) -> Vec<PublicKey> {
        let publisher = self.release.publisher;
        let of_policy = self.policy.petname(&publisher).and_then(|name| self.policy.keys(name));
        of_policy.map_or_else(|| vec![publisher], <[PublicKey]>::to_vec)
    }
}
