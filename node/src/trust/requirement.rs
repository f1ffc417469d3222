//! Whether a release meets one requirement of a rule, by which records, or what is missing.

use std::fmt::Display;
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::{self, Authority, ChannelName, Flaw, Floor, Known, Published};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{DelegatedRole, Endorsement, MAX_AHEAD_SECONDS, Record, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::RequirementOutcome;

use super::policy::{Requirement, Role, Signer};
use super::verdict::{Case, ChannelFacts, time_shown};
use super::withdrawn::reason_of;
use super::words::{Age, shown};
use crate::units::ByteSize;

/// How one requirement came out.
pub(super) struct Checked {
    pub(super) shown: RequirementOutcome,
    /// The records that met it.
    pub(super) used: Vec<RecordId>,
}

pub(super) fn check(case: &Case<'_>, requirement: &Requirement) -> Checked {
    let (met, because, used) = match requirement {
        Requirement::SignedBy(role) => count(role, "signed", |signer| case.signature_of(signer, role)),
        Requirement::EndorsedBy { role, predicate } => {
            count(role, "endorsed", |signer| case.endorsement_by(signer, role, predicate.as_deref()))
        }
        Requirement::NotRevokedBy(role) => case.not_revoked_by(role),
        Requirement::MaxAge(age) => case.age_within(age),
        Requirement::MaxSize(max) => {
            let bytes = case.disk_bytes();
            case.within("its disks have", ByteSize(bytes), bytes <= max.bytes, max)
        }
        Requirement::MaxMemory(max) => {
            let bytes = case.release.requirements.memory_bytes;
            case.within("it asks for memory of", ByteSize(bytes), bytes <= max.bytes, max)
        }
        Requirement::MaxVcpus(max) => {
            let count = case.release.requirements.vcpus;
            case.within("the processors that it asks for are", count, count <= *max, max)
        }
        Requirement::Sbom => match case.release.sbom {
            Some(sbom) => (true, format!("its SBOM is image {sbom}"), vec![case.record.id]),
            None => (false, "its publisher names no SBOM with it".to_owned(), Vec::new()),
        },
        Requirement::ChannelFresh(age) => case.channel_fresh(age.as_ref()),
        Requirement::Provenance { role, builder } => case.provenance(role.as_deref(), builder.as_deref()),
        Requirement::RebuiltBy { count, role } => case.rebuilt_by(*count, role.as_deref()),
        Requirement::NoAdvisory { severity, role } => case.no_advisory(*severity, role.as_deref()),
        Requirement::Licence(allowed) => case.licence(allowed),
    };
    Checked { shown: RequirementOutcome { name: requirement.to_string(), met, because }, used }
}

/// Asks every signer of a role, and counts signers: a signer with two keys, or two endorsements, counts once.
fn count(role: &Role, done: &str, ask: impl Fn(&Signer) -> Result<RecordId, String>) -> (bool, String, Vec<RecordId>) {
    count_of(&role.signers, role.threshold, done, ask)
}

/// As [`count`], of any signers.
pub(super) fn count_of(
    signers: &[Arc<Signer>],
    needed: usize,
    done: &str,
    ask: impl Fn(&Signer) -> Result<RecordId, String>,
) -> (bool, String, Vec<RecordId>) {
    let mut used = Vec::new();
    let mut for_it = Vec::new();
    let mut missing = Vec::new();
    for signer in signers {
        match ask(signer) {
            Ok(record) => {
                used.push(record);
                for_it.push(format!("{} (record {record})", signer.name));
            }
            Err(reason) => missing.push(reason),
        }
    }
    let count = for_it.len();
    let by = format!("{done} by {}", listed(for_it, " and "));
    match (count >= needed, count) {
        (true, _) => (true, by, used),
        (false, 0) => (false, format!("0 of {needed} needed: {}", listed(missing, ", ")), used),
        (false, _) => (false, format!("{count} of {needed} needed: {by}; {}", listed(missing, ", ")), used),
    }
}

/// Joins the first few of a list, and counts the rest.
pub(super) fn listed(mut items: Vec<String>, with: &str) -> String {
    /// A role may have hundreds of signers, and a sentence may not.
    const SHOWN: usize = 8;
    let others = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    let items = items.join(with);
    if others == 0 { items } else { format!("{items} and {others} more") }
}

impl<'a> Case<'a> {
    /// The release as the record that carries this signer's signature, or why the signer does not count.
    fn signature_of(&self, signer: &Signer, role: &Role) -> Result<RecordId, String> {
        let name = &signer.name;
        let mut reason = format!("{name} has not signed it");
        // Keys that the publisher lent its releases to stand for it, where the role says that they may.
        match &self.published {
            Ok(Published::ByDelegates { keys, threshold, .. }) if signer.keys.contains(&self.release.publisher) => {
                // A key speaks for one signer of a role: those of the others speak for these.
                let is_others = |key: &PublicKey| {
                    role.signers.iter().any(|other| other.name != signer.name && other.keys.contains(key))
                };
                let own = keys.iter().filter(|key| !is_others(key)).count();
                let age = self.age_of(self.record);
                match &role.max_age {
                    _ if !role.is_delegated => {
                        reason = format!(
                            "{name} has not signed it, but keys that it lent its releases to (they count in a role with `delegated = true`)"
                        );
                    }
                    _ if own < *threshold => {
                        reason = format!(
                            "{name} has not signed it, and keys that it lent its releases to speak for other signers of role '{}'",
                            role.name
                        );
                    }
                    Some(max) if age > max.seconds => {
                        reason = format!("{name}'s keys signed it {} ago, which counts for {max}", age_shown(age));
                    }
                    _ => return Ok(self.record.id),
                }
            }
            _ => {}
        }
        for key in signer.keys.iter().filter(|key| self.record.is_signed_by(key)) {
            let withdrawn = self
                .withdrawn
                .by_own_signer(RevocationSubject::Release(self.record.id), [key])
                .or_else(|| self.withdrawn.key(key));
            reason = match (withdrawn, &role.max_age) {
                (Some(revocation), _) => {
                    format!("{name} signed it, and revoked that since (record {})", revocation.id)
                }
                (None, Some(age)) if self.age_of(self.record) > age.seconds => {
                    format!("{name} signed it {} ago, which counts for {age}", age_shown(self.age_of(self.record)))
                }
                (None, _) => return Ok(self.record.id),
            };
        }
        Err(reason)
    }

    /// An endorsement by this signer that counts, or why there is none.
    fn endorsement_by(&self, signer: &Signer, role: &Role, predicate: Option<&str>) -> Result<RecordId, String> {
        let name = &signer.name;
        let mut reason = match predicate {
            Some(predicate) => format!("{name} has not endorsed it as {predicate}"),
            None => format!("{name} has not endorsed it"),
        };
        for record in &self.endorsements {
            let Some(endorsement) = record.body.endorsement() else { continue };
            let statement = self.policy.statement(record);
            let is_signed_by = |key: &&PublicKey| match &statement {
                Some(statement) => statement.is_signed_by(key),
                None => record.is_signed_by(key),
            };
            for key in signer.keys.iter().filter(is_signed_by) {
                match self.flaw_of(record, endorsement, key, Some(role), predicate) {
                    None => return Ok(record.id),
                    Some(flaw) => reason = format!("{name}'s endorsement {} does not count: {flaw}", record.id),
                }
            }
        }
        Err(reason)
    }

    /// Why an endorsement signed with `key` does not count, for `role` where that is given.
    pub(super) fn flaw_of(
        &self,
        record: &Verified<Record>,
        endorsement: &Endorsement,
        key: &PublicKey,
        role: Option<&Role>,
        predicate: Option<&str>,
    ) -> Option<String> {
        if let Some(wanted) = predicate.filter(|wanted| **wanted != *endorsement.predicate) {
            return Some(format!("it says {}, and {wanted} is required", shown(&endorsement.predicate)));
        }
        let statement = self.policy.statement(record);
        if let Some(flaw) = statement.as_ref().and_then(|statement| statement.flaw(endorsement, self.release)) {
            return Some(flaw);
        }
        // Whoever signed the statement can take it back whole; a revoked key takes back its own signature only.
        if let Some(revocation) = self.revocation_of_endorsement(record) {
            return Some(format!("it was revoked (record {})", revocation.id));
        }
        if let Some(revocation) = self.withdrawn.key(key) {
            return Some(format!("the key that signed it was revoked (record {})", revocation.id));
        }
        if let Some(expired) = endorsement.expires.filter(|expires| *expires <= self.now) {
            return Some(format!("it expired on {}", time_shown(expired)));
        }
        let role = role?;
        let max_age = role.max_age.as_ref()?;
        // When it was brought here is not its signer's word.
        let made = match &statement {
            Some(statement) => statement.attestation().ok().and_then(|attestation| attestation.predicate().time()),
            None => Some(record.header.issued),
        };
        let Some(made) = made else {
            return Some(format!("it does not say when it was made, and what {} say counts for {max_age}", role.name));
        };
        // A statement that would be made tomorrow would count for ever.
        if statement.is_some() && made > self.now.saturating_add(MAX_AHEAD_SECONDS) {
            return Some(format!("it says that it was made on {}, which is still to come", time_shown(made)));
        }
        let age = self.now.saturating_sub(made);
        if age <= max_age.seconds {
            return None;
        }
        Some(format!("it was made {} ago, and counts for {max_age}", age_shown(age)))
    }

    /// The revocation of an endorsement by who made it. A statement can have been brought here more than once, and whoever
    /// takes one of its records back takes all of them back.
    fn revocation_of_endorsement(&self, record: &Verified<Record>) -> Option<&Verified<Record>> {
        let Some(statement) = self.policy.statement(record) else {
            return self.withdrawn.by_own_signer(RevocationSubject::Endorsement(record.id), record.signers());
        };
        let said = statement.attestation().ok()?.payload();
        let signers = self.statement_signers(record);
        let is_copy = |other: &&&Verified<Record>| {
            let other = self.policy.statement(other);
            other.is_some_and(|other| other.attestation().is_ok_and(|other| other.payload() == said))
        };
        let copies = self.endorsements.iter().filter(is_copy).map(|copy| RevocationSubject::Endorsement(copy.id));
        copies.into_iter().find_map(|copy| self.withdrawn.by_own_signer(copy, &signers))
    }

    /// The keys of roles and of the publisher that have signed the statement of an endorsement; none where it carries none.
    pub(super) fn statement_signers(&self, record: &Verified<Record>) -> Vec<PublicKey> {
        let Some(statement) = self.policy.statement(record) else { return Vec::new() };
        let keys = self.policy.keys_of_roles().chain([&self.release.publisher]);
        keys.filter(|key| statement.is_signed_by(key)).copied().collect()
    }

    /// The signers of a role who have revoked the release, its publisher's key, or one that signed it in its publisher's stead,
    /// each with what they said.
    pub(super) fn revoked_by<'r>(&self, role: &'r Role) -> Vec<(&'r Signer, &'a Verified<Record>)> {
        let keys = self.speakers.iter().map(|key| RevocationSubject::Key(*key));
        let subjects: Vec<_> = [RevocationSubject::Release(self.record.id)].into_iter().chain(keys).collect();
        let said_by = |signer: &'r Arc<Signer>| {
            let mut said = subjects.iter().flat_map(|subject| self.withdrawn.of(*subject));
            let revocation = said.find(|said| signer.keys.iter().any(|key| said.is_signed_by(key)))?;
            Some((&**signer, *revocation))
        };
        role.signers.iter().filter_map(said_by).collect()
    }

    /// Whether fewer signers of a role than its threshold have revoked the release, or a key that it is published with. What its
    /// publisher says of it itself comes before any rule.
    fn not_revoked_by(&self, role: &Role) -> (bool, String, Vec<RecordId>) {
        let by = self.revoked_by(role);
        let by = by
            .into_iter()
            .map(|(signer, said)| format!("{} (record {}, \"{}\")", signer.name, said.id, reason_of(said)));
        let by: Vec<String> = by.collect();
        let (count, needed, name) = (by.len(), role.threshold, &role.name);
        match count {
            0 => (true, format!("nobody of {name} has revoked it"), Vec::new()),
            _ if count < needed => (
                true,
                format!("{count} of the {needed} of {name} that count have revoked it: {}", listed(by, ", ")),
                Vec::new(),
            ),
            _ => (false, format!("it was revoked by {}", listed(by, " and ")), Vec::new()),
        }
    }

    fn within(
        &self,
        what: &str,
        found: impl Display,
        is_within: bool,
        max: impl Display,
    ) -> (bool, String, Vec<RecordId>) {
        match is_within {
            true => (true, format!("{what} {found}"), vec![self.record.id]),
            false => (false, format!("{what} {found}, and at most {max} is allowed"), Vec::new()),
        }
    }

    fn age_within(&self, max: &Age) -> (bool, String, Vec<RecordId>) {
        let age = self.age_of(self.record);
        let shown = age_shown(age);
        match age <= max.seconds {
            true => (true, format!("it was issued {shown} ago"), vec![self.record.id]),
            false => (false, format!("it was issued {shown} ago, and may be at most {max} old"), Vec::new()),
        }
    }

    /// Whether a channel points at the release now: by a head that its publisher stands behind, that has not expired, and
    /// that nothing contradicts.
    fn channel_fresh(&self, max: Option<&Age>) -> (bool, String, Vec<RecordId>) {
        let mut reasons = Vec::new();
        for facts in &self.channels {
            match self.points_here(facts, max) {
                Ok((because, used)) => return (true, because, used),
                Err(reason) => reasons.push(reason),
            }
        }
        let because = match reasons.is_empty() {
            true => "no channel of its publisher's points at it".to_owned(),
            false => listed(reasons, "; "),
        };
        (false, because, Vec::new())
    }

    fn points_here(&self, facts: &ChannelFacts<'_>, max: Option<&Age>) -> Result<(String, Vec<RecordId>), String> {
        let name = &facts.channel.channel;
        let known =
            Known { channel: &facts.channel, heads: &facts.heads, delegations: &self.delegations, floor: facts.floor };
        let state = channel::state(&known, |key| self.is_revoked_for(key, &facts.channel), self.now);
        let Some(((head, _), expires)) = state.head.zip(state.expires) else {
            return Err(format!("channel {name}: {}", self.flaws(&state.flaws)));
        };
        let contradicts = state.flaws.iter().any(|flaw| matches!(flaw, Flaw::Contradicted { .. }));
        match state.release {
            Some(release) if release == self.record.id || contradicts => {}
            Some(other) => return Err(format!("channel {name} points at release {other} (record {head})")),
            None => return Err(format!("channel {name} points nowhere (record {head})")),
        }
        if contradicts {
            return Err(format!("channel {name}: {}", self.flaws(&state.flaws)));
        }
        if !state.flaws.is_empty() {
            return Err(format!("channel {name} points at it, but {} (record {head})", self.flaws(&state.flaws)));
        }
        let issued = facts.heads.iter().find(|record| record.id == head).map(|record| self.age_of(record));
        if let Some((age, max)) = issued.zip(max).filter(|(age, max)| *age > max.seconds) {
            let age = age_shown(age);
            return Err(format!(
                "channel {name} was said to point at it {age} ago, which counts for {max} (record {head})"
            ));
        }
        let under = self.delegations.iter().filter(|record| self.is_in_force(record, &facts.channel, facts.floor));
        let used = under.map(|record| record.id).chain([head]).collect();
        Ok((format!("channel {name} points at it until {} (record {head})", time_shown(expires)), used))
    }

    /// Whether a key moves this channel no more: by its own word, or by that of the publisher, who lent it the channel.
    fn is_revoked_for(&self, key: &PublicKey, channel: &ChannelName) -> bool {
        self.withdrawn.by_own_signer(RevocationSubject::Key(*key), [key, &channel.publisher]).is_some()
    }

    fn flaws(&self, flaws: &[Flaw]) -> String {
        let shown = |flaw: &Flaw| match flaw {
            Flaw::Frozen { since } | Flaw::DelegationExpired { since, .. } => {
                let ago = age_shown(self.now.saturating_sub(*since));
                format!("{flaw}, since {} ({ago} ago)", time_shown(*since))
            }
            flaw => flaw.to_string(),
        };
        flaws.iter().map(shown).collect::<Vec<_>>().join(", and ")
    }

    fn is_in_force(&self, record: &Verified<Record>, channel: &ChannelName, floor: Floor) -> bool {
        let ChannelName { publisher, name, .. } = channel;
        let role = DelegatedRole::Channel;
        let in_force = channel::authority(publisher, role, name, &self.delegations, floor.delegation);
        matches!(in_force, Authority::Delegated { record: in_force, .. } if in_force == record.id)
    }

    /// Seconds since a record was issued; 0 for one from the future, whose clock is not ours.
    fn age_of(&self, record: &Record) -> UnixSeconds {
        self.now.saturating_sub(record.header.issued)
    }
}

/// A length of time as people say it, in its largest whole unit.
pub(crate) fn age_shown(seconds: UnixSeconds) -> String {
    const DAY: UnixSeconds = 24 * 60 * 60;
    match seconds {
        DAY.. => format!("{} d", seconds / DAY),
        3600.. => format!("{} h", seconds / 3600),
        60.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}
