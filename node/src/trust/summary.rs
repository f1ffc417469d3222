//! The policy read aloud: what `policy check` answers.

use rialto_web::api::VerdictKind;

use super::policy::{Match, OnRevoke, Policy, Requirement, Role, Rule};

/// Plain sentences: signers, roles, rules in their order, what becomes of the rest, then warnings.
pub(super) fn of(policy: &Policy) -> String {
    let mut lines = Vec::new();
    match policy.signers.len() {
        0 => lines.push("It names no signers.".to_owned()),
        _ => {
            let signers = policy.signers.values().map(|signer| match signer.keys.len() {
                1 => signer.name.to_string(),
                keys => format!("{} ({keys} keys)", signer.name),
            });
            lines.push(format!("Signers: {}.", signers.collect::<Vec<_>>().join(", ")));
        }
    }
    lines.extend(policy.roles.values().map(|role| sentence_of_role(role)));
    let numbered = policy.rules.iter().enumerate();
    lines.extend(numbered.map(|(index, rule)| format!("{}. {}: {}", index + 1, rule.name, sentence_of_rule(rule))));
    let rest = if policy.rules.is_empty() { "Everything" } else { "Everything else" };
    lines.push(format!("{rest} is {}.", participle(policy.default.then)));
    lines.extend(warnings(policy).into_iter().map(|warning| format!("Warning: {warning}")));
    lines.join("\n")
}

fn sentence_of_role(role: &Role) -> String {
    let names: Vec<&str> = role.signers.iter().map(|signer| &*signer.name).collect();
    let who = match (role.threshold, names.len()) {
        (1, 1) => names.join(""),
        (threshold, all) if threshold == all => format!("all of {}", names.join(", ")),
        (threshold, _) => format!("{threshold} of {}", names.join(", ")),
    };
    let lent = if role.is_delegated { ", or keys that they lent their releases to" } else { "" };
    match &role.max_age {
        Some(age) => format!("Role {}: {who}{lent}; what they say counts for {age}.", role.name),
        None => format!("Role {}: {who}{lent}.", role.name),
    }
}

fn sentence_of_rule(rule: &Rule) -> String {
    let subject = subject(&rule.matches);
    let verdict = participle(rule.then);
    let condition = match rule.require.as_slice() {
        [] => String::new(),
        require => {
            let require: Vec<String> = require.iter().map(condition).collect();
            format!(" if {}; otherwise {}", require.join(", and "), participle(rule.otherwise))
        }
    };
    let mut sentence = format!("{subject} are {verdict}{condition}.");
    if rule.then == VerdictKind::Accept {
        sentence.push_str(&format!(
            " On revocation: {}. Updates: {}.",
            match rule.on_revoke {
                OnRevoke::Warn => "warn of running instances",
                OnRevoke::BlockNew => "start nothing new",
                OnRevoke::Suspend => "suspend running instances",
                OnRevoke::Stop => "stop running instances",
            },
            match rule.update.as_str() {
                "propose" => "proposed",
                "auto" => "instances that follow a channel are replaced",
                _ => "never",
            }
        ));
    }
    sentence
}

fn subject(matches: &Match) -> String {
    fn alternatives<T: ToString>(items: &[T]) -> String {
        items.iter().map(T::to_string).collect::<Vec<_>>().join(" or ")
    }
    let mut subject = "releases".to_owned();
    match &matches.publishers {
        Some(publishers) => {
            let names: Vec<_> = publishers.iter().map(|signer| &signer.name).collect();
            subject.push_str(&format!(" by {}", alternatives(&names)));
        }
        None => subject.push_str(" by anybody"),
    }
    if let Some(names) = &matches.names {
        subject.push_str(&format!(", named {}", alternatives(names)));
    }
    if let Some(arch) = &matches.arch {
        let arch: Vec<_> = arch.iter().map(|arch| arch.as_str()).collect();
        subject.push_str(&format!(", for {}", alternatives(&arch)));
    }
    if let Some(tags) = &matches.tags {
        subject.push_str(&format!(", tagged {}", alternatives(tags)));
    }
    if let Some(sizes) = &matches.sizes {
        subject.push_str(&format!(", with disks of {}", alternatives(sizes)));
    }
    if let Some(federations) = &matches.federations {
        subject.push_str(&format!(", in the federation {}", alternatives(federations)));
    }
    subject
}

fn condition(requirement: &Requirement) -> String {
    match requirement {
        Requirement::SignedBy(role) => format!("they are signed by {}", role.name),
        Requirement::EndorsedBy { role, predicate: None } => format!("they are endorsed by {}", role.name),
        Requirement::EndorsedBy { role, predicate: Some(predicate) } => {
            format!("they are endorsed by {} as {predicate}", role.name)
        }
        Requirement::NotRevokedBy(role) if role.threshold == 1 => format!("nobody of {} has revoked them", role.name),
        Requirement::NotRevokedBy(role) => {
            format!("fewer than {} of {} have revoked them", role.threshold, role.name)
        }
        Requirement::MaxSize(size) => format!("their disks are at most {size} long"),
        Requirement::MaxMemory(size) => format!("they ask for at most {size} of memory"),
        Requirement::MaxVcpus(count) => format!("they ask for at most {count} processors"),
        Requirement::MaxAge(age) => format!("they are at most {age} old"),
        Requirement::Sbom => "they name an SBOM".to_owned(),
        Requirement::Provenance { role, builder } => {
            let by = builder.as_ref().map(|builder| format!(" by {builder}")).unwrap_or_default();
            match role {
                Some(role) => format!("{} vouch for how they were built{by}", role.name),
                None if builder.is_some() => format!("their publisher vouches that they were built{by}"),
                None => "it is said how they were built".to_owned(),
            }
        }
        Requirement::RebuiltBy { count, role } => {
            let of = role.as_ref().map(|role| format!(" of {}", role.name)).unwrap_or_default();
            format!("{count} others{of} have rebuilt them")
        }
        Requirement::NoAdvisory { severity, role } => {
            let of = role.as_ref().map(|role| format!(" of {}", role.name)).unwrap_or_default();
            format!("no advisory{of} of severity {} or worse bears on what is inside of them", severity.as_str())
        }
        Requirement::Licence(allowed) => format!("their licence can be met with {}", allowed.join(" or ")),
        Requirement::ChannelFresh(None) => "a channel of their publisher's points at them now".to_owned(),
        Requirement::ChannelFresh(Some(age)) => {
            format!("a channel of their publisher's points at them now, as said at most {age} ago")
        }
    }
}

fn participle(verdict: VerdictKind) -> &'static str {
    match verdict {
        VerdictKind::Accept => "accepted",
        VerdictKind::Hold => "held",
        VerdictKind::Reject => "rejected",
    }
}

/// What is allowed, but may not be what was meant.
fn warnings(policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_vouched_for = |rule: &Rule| {
        rule.matches.publishers.is_some()
            || rule.require.iter().any(|r| matches!(r, Requirement::SignedBy(_) | Requirement::EndorsedBy { .. }))
    };
    for rule in policy.rules.iter().filter(|rule| rule.then == VerdictKind::Accept && !is_vouched_for(rule)) {
        warnings.push(format!(
            "'{}' accepts releases of anybody at all: it asks neither for a publisher, nor for a signature or an endorsement.",
            rule.name
        ));
    }
    if policy.default.then == VerdictKind::Accept {
        warnings.push("[default] accepts whatever no rule speaks of, by anybody at all.".to_owned());
    }
    let catches_all = policy.rules.iter().position(|rule| rule.matches.is_everything());
    if let Some(rules_after) = catches_all.map(|at| &policy.rules[at..]).filter(|rules| rules.len() > 1) {
        warnings.push(format!(
            "'{}' fits every release, so the {} after it never decide.",
            rules_after[0].name,
            if rules_after.len() == 2 { "rule".to_owned() } else { format!("{} rules", rules_after.len() - 1) }
        ));
    }
    warnings
}
