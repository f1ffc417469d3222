//! Advisories: published, listed, and as they bear on a release.

use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{Name, Text};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::package::{ECOSYSTEMS, Useless, is_of_use};
use rialto_protocol::record::{Advisory, Body, Record, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::*;

use super::usage;
use super::view::{signers, time};
use crate::catalog::{MIN_PREFIX_CHARS, SharedRecord};
use crate::node::Node;
use crate::node::work::blocking;
use crate::strict_toml::nearest;
use crate::trust::{Hit, Policy, Standing, standing};

/// Advisories in one answer.
const MAX_ADVISORIES: usize = 1_000;

impl Node {
    /// Signs and announces an advisory for each package, once all of them can be.
    ///
    /// # Errors
    /// `usage` where one could be of no use to anybody, or was said already; those of signing. What was announced before one
    /// of these stays.
    pub(super) async fn publish_advisory(
        self: &Arc<Self>,
        request: PublishAdvisoryRequest,
    ) -> Result<AdvisoriesPublished> {
        let key = self.signer(&request.key).await?;
        let advisories = drafted(&request)?;
        let (node, by) = (Arc::clone(self), key.public());
        let dated = blocking(move || {
            let dated = |advisory: Advisory| Ok((node.time_of_saying(&by, &advisory)?, advisory));
            advisories.into_iter().map(dated).collect::<Result<Vec<_>>>()
        })
        .await??;
        let mut records = Vec::new();
        for (issued, advisory) in dated {
            let body = Body::Advisory(Box::new(advisory));
            records.push(self.sign_and_announce(&key, None, issued, &body).await?.record);
        }
        Ok(AdvisoriesPublished { records })
    }

    /// When this key says so: now, and after what it said of the same before, which it corrects. What it says already need not
    /// be said again, unless it took that back.
    fn time_of_saying(&self, by: &PublicKey, advisory: &Advisory) -> Result<UnixSeconds> {
        let known = self.catalog.advisories_on(&advisory.package);
        let theirs = known.iter().filter(|record| record.is_signed_by(by));
        let of_name = theirs.filter(|record| {
            record.body.advisory().is_some_and(|said| said.id == advisory.id && said.ecosystem == advisory.ecosystem)
        });
        let Some(latest) = of_name.max_by_key(|record| (record.header.issued, record.id)) else {
            return Ok(self.now());
        };
        let withdrawals = self.catalog.revocations_of(&RevocationSubject::Advisory(latest.id));
        let is_withdrawn = withdrawals.iter().any(|revocation| revocation.is_signed_by(by));
        if is_withdrawn || latest.body.advisory() != Some(advisory) {
            return Ok(self.now().max(latest.header.issued.saturating_add(1)));
        }
        Err(ApiError::usage(format!(
            "this key says exactly that of {} of {} already (record {})",
            advisory.package, advisory.ecosystem, latest.id
        ))
        .with_hint("a later one with the same name corrects it; rialto revoke takes it back"))
    }

    /// Advisories as this site hears them. Blocks: each is read, and verified where it was not lately.
    ///
    /// # Errors
    /// `not-found` where one is asked for and none is known.
    pub(super) fn advisories(&self, query: &AdvisoryQuery) -> Result<Vec<AdvisoryShown>> {
        let policy = self.policy.borrow().policy.clone();
        let named = self.named_keys();
        let is_wanted = |key: &PublicKey| query.of_strangers || named.contains(key);
        let Some(about) = &query.about else {
            let known = self.catalog.advisories_by(is_wanted, MAX_ADVISORIES);
            return Ok(known.iter().filter_map(|record| self.advisory_shown(policy.as_deref(), record)).collect());
        };
        let mut found: Vec<SharedRecord> = self.advisory_called(about).into_iter().collect();
        if found.is_empty() {
            let on_package = Text::try_from(about.as_str()).ok().map(|package| self.catalog.advisories_on(&package));
            found.extend(on_package.into_iter().flatten().filter(|record| record.signers().any(is_wanted)));
            let by_name = self.catalog.advisories_by(is_wanted, usize::MAX).into_iter();
            found.extend(by_name.filter(|record| record.body.advisory().is_some_and(|said| *said.id == **about)));
            found.sort_by_key(|record| (std::cmp::Reverse(record.header.issued), record.id));
            found.dedup_by_key(|record| record.id);
            found.truncate(MAX_ADVISORIES);
        }
        if found.is_empty() {
            let shown: String = about.chars().take(80).collect();
            return Err(ApiError::not_found(format!(
                "no advisory '{shown}', and none on such a package, is known here"
            ))
            .with_hint("list what there is with: rialto advisory ls; --strangers lists everybody's"));
        }
        Ok(found.iter().filter_map(|record| self.advisory_shown(policy.as_deref(), record)).collect())
    }

    /// The advisory whose record this is, or begins with.
    fn advisory_called(&self, id: &str) -> Option<SharedRecord> {
        let record = match id.parse::<RecordId>() {
            Ok(id) => self.catalog.get(&id),
            Err(_) if id.chars().count() < MIN_PREFIX_CHARS => None,
            Err(_) => self.catalog.find(id).ok(),
        };
        record.filter(|record| record.body.advisory().is_some())
    }

    fn advisory_shown(&self, policy: Option<&Policy>, record: &Verified<Record>) -> Option<AdvisoryShown> {
        let said = record.body.advisory()?;
        let others = self.catalog.advisories_on(&said.package);
        let others: Vec<&Verified<Record>> = others.iter().map(AsRef::as_ref).collect();
        let keys = record.signers().map(|key| RevocationSubject::Key(*key));
        let subjects = others.iter().map(|other| RevocationSubject::Advisory(other.id));
        let revocations: Vec<SharedRecord> =
            keys.chain(subjects).flat_map(|subject| self.catalog.revocations_of(&subject)).collect();
        let revocations: Vec<&Verified<Record>> = revocations.iter().map(AsRef::as_ref).collect();
        let standing = policy.map_or(Standing::Unheard, |policy| standing(policy, record, &others, &revocations));
        let because = match standing {
            Standing::Counts => None,
            Standing::Unheard => Some("nobody whom this site's policy names has signed it".to_owned()),
            Standing::Revoked(by) => Some(format!("it was revoked (record {by})")),
            Standing::KeyRevoked(by) => Some(format!("the key that signed it was revoked (record {by})")),
            Standing::Corrected(by) => Some(format!("a later one of the same signer is in its place (record {by})")),
        };
        Some(AdvisoryShown {
            record: record.id,
            id: said.id.to_string(),
            ecosystem: said.ecosystem.to_string(),
            package: said.package.to_string(),
            fixed: said.fixed.as_ref().map(ToString::to_string),
            severity: said.severity,
            summary: said.summary.as_ref().map(ToString::to_string),
            issued: time(record.header.issued),
            signed_by: signers(self, record),
            counts: because.is_none(),
            because,
        })
    }

    /// What bears on a release, the worst first.
    pub(super) fn advisories_bearing_on(
        &self,
        release: &Verified<Record>,
        endorsements: &[SharedRecord],
    ) -> Vec<BearingShown> {
        let Some(policy) = self.policy.borrow().policy.clone() else { return Vec::new() };
        let mut hits = self.bearing_on(release, endorsements, &policy);
        hits.sort_by(|a, b| b.advisory.severity.cmp(&a.advisory.severity).then_with(|| a.package.cmp(&b.package)));
        hits.truncate(MAX_ADVISORIES);
        let shown = |hit: Hit| {
            let advisory = self.advisory_shown(Some(&policy), self.catalog.get(&hit.record)?.as_ref())?;
            Some(BearingShown { advisory, package: hit.package, doubt: hit.doubt.map(str::to_owned) })
        };
        hits.into_iter().filter_map(shown).collect()
    }
}

/// The advisories that a request asks for.
fn drafted(request: &PublishAdvisoryRequest) -> Result<Vec<Advisory>> {
    if request.packages.is_empty() || request.packages.len() > MAX_ADVISED_PACKAGES {
        return Err(ApiError::usage(format!(
            "an advisory is about 1 to {MAX_ADVISED_PACKAGES} packages, and this one about {}",
            request.packages.len()
        )));
    }
    let mut advisories: Vec<Advisory> = Vec::new();
    for package in &request.packages {
        let advisory = advisory(request, package)?;
        let is_same = |other: &Advisory| other.ecosystem == advisory.ecosystem && other.package == advisory.package;
        if advisories.iter().any(is_same) {
            return Err(ApiError::usage(format!(
                "{} of {} is there twice; the last one would be the only one that counts",
                advisory.package, advisory.ecosystem
            )));
        }
        advisories.push(advisory);
    }
    Ok(advisories)
}

fn advisory(request: &PublishAdvisoryRequest, package: &AdvisedPackage) -> Result<Advisory> {
    for (what, text) in [("the id", &request.id), ("the package", &package.name)] {
        if text.trim().is_empty() || text.trim() != text || text.contains(['\n', '\t']) {
            return Err(ApiError::usage(format!("{what} is one line that neither begins nor ends with a space")));
        }
    }
    is_of_use(&package.ecosystem, package.fixed.as_deref()).map_err(|error| {
        let known = ECOSYSTEMS.into_iter().chain(["debian-12", "ubuntu-22.04"]);
        let meant = match &error {
            Useless::Ecosystem(given) => nearest(given, known.chain(["crates.io", "golang", "gem"])),
            _ => None,
        };
        let meant = match meant {
            Some("crates.io") => Some("cargo"),
            Some("golang") => Some("go"),
            Some("gem") => Some("rubygems"),
            meant => meant,
        };
        let hint = match (&error, meant) {
            (_, Some(word)) => format!("did you mean {word}?"),
            (Useless::Version { .. }, None) => {
                "give the first version without the flaw, or leave it out while there is none".into()
            }
            _ => "packages are known by the package URLs of bills of materials".into(),
        };
        ApiError::usage(error.to_string()).with_hint(hint)
    })?;
    let fixed = package.fixed.as_deref().map(Text::try_from).transpose();
    let summary = request.summary.as_deref().map(Text::try_from).transpose();
    Ok(Advisory {
        id: request.id.as_str().try_into().map_err(|error| usage("the id", error))?,
        ecosystem: Name::try_from(package.ecosystem.as_str()).map_err(|error| usage("the ecosystem", error))?,
        package: package.name.as_str().try_into().map_err(|error| usage("the package", error))?,
        fixed: fixed.map_err(|error| usage("the fixed version", error))?,
        severity: request.severity,
        summary: summary.map_err(|error| usage("the summary", error))?,
    })
}

#[cfg(test)]
mod tests {
    use rialto_protocol::record::Severity;

    use super::*;

    fn request(packages: &[(&str, &str, Option<&str>)]) -> PublishAdvisoryRequest {
        let package = |(ecosystem, name, fixed): &(&str, &str, Option<&str>)| AdvisedPackage {
            ecosystem: (*ecosystem).into(),
            name: (*name).into(),
            fixed: fixed.map(str::to_owned),
        };
        PublishAdvisoryRequest {
            key: "k".into(),
            id: "DSA-1".into(),
            severity: Severity::High,
            summary: None,
            packages: packages.iter().map(package).collect(),
        }
    }

    #[test]
    fn what_nobody_could_use_is_refused_with_what_to_do() {
        let good = drafted(&request(&[("debian-12", "openssl", Some("3.0.2-1")), ("debian-11", "openssl", None)]));
        assert_eq!(good.unwrap().len(), 2);
        for (packages, says, hint) in [
            (vec![], "1 to 64 packages", None),
            (vec![("crates.io", "serde", None)], "no package is of an ecosystem", Some("cargo")),
            (vec![("golang", "x", None)], "no package is of an ecosystem", Some("did you mean go?")),
            (vec![("debain-12", "openssl", None)], "no package is of an ecosystem", Some("debian-12")),
            (vec![("debian", "openssl", None)], "write it as debian-12", Some("package URLs")),
            (vec![("debian-12", "openssl", Some("next"))], "'next' is no version", Some("leave it out")),
            (vec![("debian-12", " openssl", None)], "one line", None),
            (vec![("debian-12", "", None)], "one line", None),
            (vec![("npm", "a", None), ("npm", "a", Some("1.0.0"))], "twice", None),
        ] {
            let error = drafted(&request(&packages)).unwrap_err();
            assert!(error.message.contains(says), "{packages:?}: {}", error.message);
            assert!(hint.is_none_or(|hint| error.hint.as_ref().is_some_and(|said| said.contains(hint))), "{error:?}");
        }
        let long = "x".repeat(300);
        assert!(drafted(&request(&[("npm", &long, None)])).unwrap_err().message.contains("the package"));
        assert!(drafted(&request(&vec![("npm", "a", None); 65])).is_err());
    }
}
