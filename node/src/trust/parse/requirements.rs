//! The words of `require`, each with what stands after its colons.

use std::ops::Range;
use std::sync::Arc;

use rialto_protocol::record::Severity;
use toml::de::DeValue;

use super::Names;
use crate::trust::policy::{PolicyError, Requirement, Role};
use crate::trust::reader::{Reader, Value, Word};
use crate::trust::words::{self, Age, Size, shown};

/// As long as a predicate in an endorsement can be.
const MAX_PREDICATE_BYTES: usize = 512;

impl Reader<'_> {
    pub(super) fn requirements(&self, value: &Value<'_>, names: &Names) -> Result<Vec<Requirement>, PolicyError> {
        // An empty list says that nothing is required, which is what it looks like.
        if matches!(value.get_ref(), DeValue::Array(listed) if listed.is_empty()) {
            return Ok(Vec::new());
        }
        let mut require: Vec<Requirement> = Vec::new();
        for word in self.strings(value, words::REQUIREMENT.place)? {
            let requirement = self.requirement(&word, names)?;
            if require.contains(&requirement) {
                return Err(self.refuse(&word.1, format!("`{requirement}` is required twice")));
            }
            if let Some(role) = requirement.role().filter(|role| role.is_delegated)
                && !matches!(requirement, Requirement::SignedBy(_))
            {
                return Err(self.refuse(
                    &word.1,
                    format!("role `{}` is `delegated`, which is for `signed-by` only: keys are lent for releases, and say nothing else", role.name),
                ));
            }
            require.push(requirement);
        }
        Ok(require)
    }

    fn requirement(&self, (text, span): &Word<'_>, names: &Names) -> Result<Requirement, PolicyError> {
        let (head, rest) = match text.split_once(':') {
            Some((head, rest)) => (head, Some(rest)),
            None => (*text, None),
        };
        let refused = |message: String| Err(self.refuse(span, message));
        let word = self.word((head, span.clone()), &words::REQUIREMENT)?;
        match (word, rest.filter(|rest| !rest.is_empty())) {
            ("sbom", _) if rest.is_some() => refused("`sbom` stands alone, without a colon".into()),
            ("sbom", _) => Ok(Requirement::Sbom),
            ("channel-fresh", None) if rest.is_some() => refused("after the colon stands a length of time".into()),
            ("channel-fresh", age) => {
                let age = age.map(Age::parse).transpose().map_err(|problem| self.refuse(span, problem))?;
                Ok(Requirement::ChannelFresh(age))
            }
            ("max-age", Some(age)) => {
                Age::parse(age).map(Requirement::MaxAge).map_err(|problem| self.refuse(span, problem))
            }
            ("max-size", Some(size)) => {
                Size::parse(size).map(Requirement::MaxSize).map_err(|problem| self.refuse(span, problem))
            }
            ("max-memory", Some(size)) => {
                Size::parse(size).map(Requirement::MaxMemory).map_err(|problem| self.refuse(span, problem))
            }
            ("max-vcpus", Some(count)) => match count.parse() {
                Ok(count) if count > 0 => Ok(Requirement::MaxVcpus(count)),
                _ => refused(format!("'{}' is not a number of processors, from 1", shown(count))),
            },
            ("provenance", None) if rest.is_some() => {
                refused("after the colon stands a role, or the URI of a builder".into())
            }
            ("provenance", rest) => self.provenance(rest.unwrap_or_default(), span, names),
            ("rebuilt-by", Some(rest)) => self.rebuilt_by(rest, span, names),
            ("no-advisory", Some(rest)) => {
                let (severity, role) = rest.split_once(':').map_or((rest, None), |(word, role)| (word, Some(role)));
                let severity = match self.word((severity, span.clone()), &words::SEVERITY)? {
                    "low" => Severity::Low,
                    "medium" => Severity::Medium,
                    "high" => Severity::High,
                    _ => Severity::Critical,
                };
                let role = role.map(|role| self.role(role, span, names)).transpose()?;
                Ok(Requirement::NoAdvisory { severity, role })
            }
            ("licence", Some(listed)) => self.licence(listed, span),
            ("rebuilt-by", None) => refused("`rebuilt-by` needs a number of signers: \"rebuilt-by:2\"".into()),
            ("no-advisory", None) => refused("`no-advisory` needs a severity: \"no-advisory:high\"".into()),
            ("licence", None) => refused("`licence` needs SPDX licences: \"licence:MIT|Apache-2.0\"".into()),
            ("not-revoked-by", Some(role)) => Ok(Requirement::NotRevokedBy(self.role(role, span, names)?)),
            ("signed-by", Some(role)) => Ok(Requirement::SignedBy(self.role(role, span, names)?)),
            ("endorsed-by", Some(rest)) => {
                let (role, predicate) = match rest.split_once(':') {
                    Some((role, predicate)) => (role, Some(predicate)),
                    None => (rest, None),
                };
                if predicate.is_some_and(|uri| !is_predicate(uri)) {
                    return refused(format!(
                        "after the role stands the URI of a predicate: 1 to {MAX_PREDICATE_BYTES} bytes without spaces"
                    ));
                }
                let role = self.role(role, span, names)?;
                Ok(Requirement::EndorsedBy { role, predicate: predicate.map(str::to_owned) })
            }
            ("max-size" | "max-memory", None) => refused(format!("`{word}` needs a size: \"{word}:20 GiB\"")),
            ("max-vcpus", None) => refused("`max-vcpus` needs a number: \"max-vcpus:4\"".into()),
            ("max-age", None) => refused("`max-age` needs a length of time: \"max-age:90d\"".into()),
            (word, _) => refused(format!("`{word}` needs a role: \"{word}:ROLE\"")),
        }
    }

    /// `provenance[:ROLE][:BUILDER]`, where the builder is a URI.
    fn provenance(&self, rest: &str, span: &Range<usize>, names: &Names) -> Result<Requirement, PolicyError> {
        if rest.is_empty() {
            return Ok(Requirement::Provenance { role: None, builder: None });
        }
        let (first, after) = rest.split_once(':').map_or((rest, None), |(first, after)| (first, Some(after)));
        let is_uri = after.is_some_and(|after| after.starts_with("//"));
        let is_role = names.roles.keys().any(|role| **role == *first) && !is_uri;
        let (role, builder) = match (is_role, after) {
            (true, after) => (Some(self.role(first, span, names)?), after),
            (false, Some(_)) => (None, Some(rest)),
            (false, None) => (Some(self.role(first, span, names)?), None),
        };
        if builder.is_some_and(|uri| !is_predicate(uri) || !uri.contains(':')) {
            let message = format!("a builder is named by a URI of at most {MAX_PREDICATE_BYTES} bytes without spaces");
            return Err(self.refuse(span, message));
        }
        Ok(Requirement::Provenance { role, builder: builder.map(str::to_owned) })
    }

    /// `rebuilt-by:N[:ROLE]`
    fn rebuilt_by(&self, rest: &str, span: &Range<usize>, names: &Names) -> Result<Requirement, PolicyError> {
        let (count, role) = rest.split_once(':').map_or((rest, None), |(count, role)| (count, Some(role)));
        let role = role.map(|role| self.role(role, span, names)).transpose()?;
        let (there, what) = match &role {
            Some(role) => (role.signers.len(), "in the role"),
            None => (names.signers.len(), "in [signers]"),
        };
        match count.parse::<usize>() {
            Ok(count) if (1..=there).contains(&count) => Ok(Requirement::RebuiltBy { count, role }),
            _ => {
                let message = format!("'{}' is not from 1 to {there}, the number of signers {what}", shown(count));
                Err(self.refuse(span, message))
            }
        }
    }

    /// `licence:A|B|C`
    fn licence(&self, listed: &str, span: &Range<usize>) -> Result<Requirement, PolicyError> {
        let allowed: Vec<String> = listed.split('|').map(|name| name.trim().to_owned()).collect();
        for name in &allowed {
            if let Err(error) = spdx::Licensee::parse(name) {
                let message = format!(
                    "'{}' is no licence of SPDX, such as MIT, GPL-2.0-only or \"Apache-2.0 WITH LLVM-exception\": {}",
                    shown(name),
                    error.reason
                );
                return Err(self.refuse(span, message));
            }
        }
        Ok(Requirement::Licence(allowed))
    }

    fn role(&self, text: &str, span: &Range<usize>, names: &Names) -> Result<Arc<Role>, PolicyError> {
        if let Some(role) = names.roles.values().find(|role| *role.name == *text) {
            return Ok(Arc::clone(role));
        }
        if names.signers.keys().any(|signer| **signer == *text) {
            let message =
                format!("`{text}` is a signer, not a role: add {text} = {{ signers = [\"{text}\"] }} to [roles]");
            return Err(self.refuse(span, message));
        }
        Err(self.unknown((text, span.clone()), "role", "in [roles]", names.roles.keys().map(|name| &**name)))
    }
}

fn is_predicate(uri: &str) -> bool {
    (1..=MAX_PREDICATE_BYTES).contains(&uri.len()) && !uri.chars().any(|c| c.is_whitespace() || c.is_control())
}
