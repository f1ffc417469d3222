//! Which advisories a site listens to, and what of a release they bear on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::package::{Bearing, Bom, Package};
use rialto_protocol::record::{Advisory, Record, RevocationSubject, Severity};
use rialto_protocol::signed::Verified;

use super::policy::{Policy, Role};
use super::verdict::{Case, Facts};
use super::withdrawn::Withdrawn;
use super::words::shown;

/// An advisory that bears on something that is inside of a release.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Its record.
    pub record: RecordId,
    /// What it says.
    pub advisory: Advisory,
    /// The package, with its version where that is known, as the bill of materials has it.
    pub package: String,
    /// Why it is not sure that it does.
    pub doubt: Option<&'static str>,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, advisory, package, doubt } = self;
        write!(f, "{} ({}, ", shown(&advisory.id), advisory.severity.as_str())?;
        match &advisory.fixed {
            Some(fixed) => write!(f, "fixed in {})", shown(fixed))?,
            None => f.write_str("not fixed yet)")?,
        }
        match doubt {
            None => write!(f, " bears on {package} (record {record})"),
            Some(why) => write!(f, " may bear on {package}: {why} (record {record})"),
        }
    }
}

/// The advisories of signers of the policy that bear on what is inside of a release, whatever its rules require, as far as
/// that is known. For showing; judging is [`evaluate`](super::evaluate)'s business.
pub fn bearing_on(policy: &Policy, record: &Verified<Record>, facts: &Facts<'_>, now: UnixSeconds) -> Vec<Hit> {
    let Some(case) = Case::of(policy, record, facts, now) else { return Vec::new() };
    let Ok((boms, ..)) = case.boms() else { return Vec::new() };
    case.hits(&boms, Severity::Low, None)
}

/// What an advisory is worth to a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Counts,
    /// Nobody whom the policy names has signed it.
    Unheard,
    /// Its signer took it back with this record.
    Revoked(RecordId),
    /// The key that signed it was revoked with this record.
    KeyRevoked(RecordId),
    /// A later one of its signer, with its name and on its package, is in its place.
    Corrected(RecordId),
}

/// What `record` is worth among `others`, which are on the same package: as [`evaluate`](super::evaluate) hears it, where no
/// role is asked for.
pub fn standing(
    policy: &Policy,
    record: &Verified<Record>,
    others: &[&Verified<Record>],
    revocations: &[&Verified<Record>],
) -> Standing {
    let withdrawn = Withdrawn::new(Some(policy), revocations);
    let heard = latest(policy, &withdrawn, others, None);
    if heard.iter().any(|(of, _)| of.id == record.id) {
        return Standing::Counts;
    }
    let mut found = Standing::Unheard;
    for key in record.signers().filter(|key| policy.names(key)) {
        let taken_back = withdrawn.by_own_signer(RevocationSubject::Advisory(record.id), [key]);
        if let Some(revocation) = taken_back {
            found = Standing::Revoked(revocation.id);
        } else if let Some(revocation) = withdrawn.key(key) {
            found = Standing::KeyRevoked(revocation.id);
        } else {
            let is_instead = |(of, said): &&Advised<'_>| {
                let ours = record.body.advisory();
                let is_same = ours.is_some_and(|ours| ours.id == said.id && ours.ecosystem == said.ecosystem);
                is_same && of.signers().any(|by| policy.is_one_signer(by, key))
            };
            if let Some((later, _)) = heard.iter().find(is_instead) {
                return Standing::Corrected(later.id);
            }
        }
    }
    found
}

/// An advisory, and the record that it is.
type Advised<'c> = (&'c Verified<Record>, &'c Advisory);

/// The advisories of signers of the policy, or of a role, that were not revoked, nor the keys that signed them; of several with
/// one name by one signer on one package, the latest, so that they can be corrected.
fn latest<'c>(
    policy: &Policy,
    withdrawn: &Withdrawn<'_>,
    advisories: &[&'c Verified<Record>],
    role: Option<&Role>,
) -> Vec<Advised<'c>> {
    let mut latest: BTreeMap<(String, [&str; 3]), Advised<'_>> = BTreeMap::new();
    for &record in advisories {
        let Some(advisory) = record.body.advisory() else { continue };
        let is_heard = |key: &&PublicKey| {
            let is_of_role = |role: &Role| role.signers.iter().any(|signer| signer.keys.contains(key));
            // Who signed it with others takes back its own word only.
            let taken_back = withdrawn.by_own_signer(RevocationSubject::Advisory(record.id), [*key]);
            role.is_none_or(is_of_role) && withdrawn.key(key).is_none() && taken_back.is_none()
        };
        for name in record.signers().filter(is_heard).filter_map(|key| policy.petname(key)) {
            let of = (name.to_string(), [&*advisory.id, &*advisory.ecosystem, &*advisory.package]);
            let is_later =
                |(other, _): &Advised<'_>| (record.header.issued, record.id) > (other.header.issued, other.id);
            if latest.get(&of).is_none_or(is_later) {
                latest.insert(of, (record, advisory));
            }
        }
    }
    latest.into_values().collect()
}

impl Case<'_> {
    /// What advisories of this severity or worse bear, or may bear, on what is inside.
    pub(super) fn hits(&self, boms: &[Arc<Bom>], least: Severity, role: Option<&Role>) -> Vec<Hit> {
        let mut packages: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
        for package in boms.iter().flat_map(|bom| bom.packages()) {
            package.names().for_each(|name| packages.entry(name).or_default().push(package));
        }
        let mut hits = Vec::new();
        for (record, advisory) in latest(self.policy, &self.withdrawn, &self.advisories, role)
            .into_iter()
            .filter(|(_, said)| said.severity >= least)
        {
            for package in packages.get(&*advisory.package).into_iter().flatten() {
                let doubt = match package.is_hit_by(advisory) {
                    Bearing::Yes => None,
                    Bearing::Unknown(why) => Some(why),
                    Bearing::No => continue,
                };
                let package = match &package.version {
                    Some(version) => format!("{} {}", shown(&package.name), shown(version)),
                    None => shown(&package.name),
                };
                hits.push(Hit { record: record.id, advisory: advisory.clone(), package, doubt });
            }
        }
        hits
    }
}
