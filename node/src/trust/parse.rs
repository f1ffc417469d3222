//! From the text of a policy file to a [`Policy`], refusing every word that would mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::str::FromStr as _;
use std::sync::Arc;

use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{Arch, Severity};
use rialto_web::api::VerdictKind;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::policy::{MAX_POLICY_BYTES, Match, OnRevoke, Policy, PolicyError, Requirement, Role, Rule, Signer, Update};
use super::words::{self, Age, Glob, Size, SizeRange, Words, is_plain, nearest, shown};

/// What explanations and logs call the decisions that no rule of the file made; no rule may take such a name.
pub(super) const DEFAULT_RULE: &str = "default";
/// See [`DEFAULT_RULE`]: nothing could decide.
pub(super) const NO_RULE: &str = "none";
/// See [`DEFAULT_RULE`]: a revocation that counts.
pub(super) const REVOCATION_RULE: &str = "revocation";

/// A rule's name is for people to read, in one line.
const MAX_RULE_NAME_CHARS: usize = 100;
/// As long as a predicate in an endorsement can be.
const MAX_PREDICATE_BYTES: usize = 512;

type Value<'t> = Spanned<DeValue<'t>>;

pub(super) fn policy(text: &str) -> Result<Policy, PolicyError> {
    let reader = Reader { text };
    if text.len() > MAX_POLICY_BYTES {
        let message = format!("the file has {} bytes, and at most {MAX_POLICY_BYTES} are read", text.len());
        return Err(reader.refuse(&(0..0), message));
    }
    let document = DeTable::parse(text).map_err(|error| {
        reader.refuse(&error.span().unwrap_or(0..0), format!("this is not TOML: {}", error.message()))
    })?;
    let tables = reader.fields_of(document.get_ref(), document.span(), &words::TABLES)?;

    let (signers, petnames) = match tables.get("signers") {
        Some(value) => reader.signers(value)?,
        None => Default::default(),
    };
    let roles = match tables.get("roles") {
        Some(value) => reader.roles(value, &signers)?,
        None => BTreeMap::new(),
    };
    let mut names = Names { signers, roles };
    let rules = match tables.get("rule") {
        Some(value) => reader.rules(value, &names)?,
        None => Vec::new(),
    };
    let default = match tables.get("default") {
        Some(value) => reader.default(value)?,
        None => VerdictKind::Hold,
    };
    let mut role_keys: BTreeSet<PublicKey> = roles_keys(names.roles.values()).copied().collect();
    let mut requirements = rules.iter().flat_map(|rule| &rule.require);
    if requirements.any(|requirement| matches!(requirement, Requirement::RebuiltBy { role: None, .. })) {
        role_keys.extend(petnames.keys());
    }
    Ok(Policy {
        text: text.into(),
        hash: blake3::hash(text.as_bytes()).to_hex().to_string(),
        signers: std::mem::take(&mut names.signers),
        petnames,
        roles: names.roles,
        rules,
        default: Rule {
            name: DEFAULT_RULE.to_owned(),
            matches: Match::default(),
            require: Vec::new(),
            then: default,
            otherwise: VerdictKind::Hold,
            on_revoke: OnRevoke::default(),
            update: Update::default(),
        },
        role_keys: role_keys.into_iter().collect(),
        statements: Arc::default(),
    })
}

fn roles_keys<'a>(roles: impl Iterator<Item = &'a Arc<Role>>) -> impl Iterator<Item = &'a PublicKey> {
    roles.flat_map(|role| &role.signers).flat_map(|signer| &signer.keys)
}

/// What rules may refer to.
struct Names {
    signers: BTreeMap<Name, Arc<Signer>>,
    roles: BTreeMap<Name, Arc<Role>>,
}

/// A table whose keys are all known.
struct Fields<'a, 't> {
    table: &'a DeTable<'t>,
    span: Range<usize>,
}

impl<'a, 't> Fields<'a, 't> {
    fn get(&self, key: &str) -> Option<&'a Value<'t>> {
        self.table.get(key)
    }
}

/// A text of the file and its place.
type Word<'a> = (&'a str, Range<usize>);

/// The signers by name, and the name that each of their keys goes by.
type Named = (BTreeMap<Name, Arc<Signer>>, BTreeMap<PublicKey, Name>);

struct Reader<'t> {
    text: &'t str,
}

/// The tables of the file.
impl Reader<'_> {
    fn signers(&self, value: &Value<'_>) -> Result<Named, PolicyError> {
        let mut signers = BTreeMap::new();
        let mut petnames: BTreeMap<PublicKey, Name> = BTreeMap::new();
        for (key, value) in self.entries(value, "in [signers]")? {
            let name = self.name(&key)?;
            let mut keys = Vec::new();
            for (text, span) in self.strings(value, "as the key of a signer")? {
                let key = public_key(text).map_err(|problem| self.refuse(&span, problem))?;
                if let Some(other) = petnames.insert(key, name.clone()) {
                    let message = if other == name {
                        format!("this key stands under `{name}` twice")
                    } else {
                        format!("this key is also `{other}`: one key has one name, or it would count twice")
                    };
                    return Err(self.refuse(&span, message));
                }
                keys.push(key);
            }
            signers.insert(name.clone(), Arc::new(Signer { name, keys }));
        }
        Ok((signers, petnames))
    }

    fn roles(
        &self,
        value: &Value<'_>,
        signers: &BTreeMap<Name, Arc<Signer>>,
    ) -> Result<BTreeMap<Name, Arc<Role>>, PolicyError> {
        let mut roles = BTreeMap::new();
        for (key, value) in self.entries(value, "in [roles]")? {
            let name = self.name(&key)?;
            let fields = self.fields(value, &words::ROLE)?;
            let Some(listed) = fields.get("signers") else {
                return Err(self.refuse(&key.1, format!("role `{name}` has no `signers`")));
            };
            let mut members: Vec<Arc<Signer>> = Vec::new();
            for word in self.strings(listed, "as `signers` of a role")? {
                let signer = self.signer(&word, signers)?;
                if members.contains(&signer) {
                    let message = format!("`{}` is listed twice, and still counts once", signer.name);
                    return Err(self.refuse(&word.1, message));
                }
                members.push(signer);
            }
            let threshold = match fields.get("threshold") {
                Some(value) => self.threshold(value, members.len())?,
                None => 1,
            };
            let max_age = fields.get("max-age").map(|value| self.age(value)).transpose()?;
            roles.insert(name.clone(), Arc::new(Role { name, signers: members, threshold, max_age }));
        }
        Ok(roles)
    }

    fn rules(&self, value: &Value<'_>, names: &Names) -> Result<Vec<Rule>, PolicyError> {
        let DeValue::Array(listed) = value.get_ref() else {
            return Err(self.refuse(&value.span(), "a rule is written [[rule]], with two brackets on either side"));
        };
        let mut rules: Vec<Rule> = Vec::new();
        for value in listed.iter() {
            let fields = self.fields(value, &words::RULE)?;
            let rule = self.rule(&fields, rules.len() + 1, names)?;
            if rules.iter().any(|other| other.name == rule.name) {
                let span = fields.get("name").map_or(fields.span, Spanned::span);
                return Err(self.refuse(&span, format!("two rules are called '{}'", rule.name)));
            }
            rules.push(rule);
        }
        Ok(rules)
    }

    fn default(&self, value: &Value<'_>) -> Result<VerdictKind, PolicyError> {
        let fields = self.fields(value, &words::DEFAULT)?;
        fields.get("then").map_or(Ok(VerdictKind::Hold), |then| self.verdict(then, &words::THEN))
    }
}

/// A rule, field by field.
impl Reader<'_> {
    fn rule(&self, fields: &Fields<'_, '_>, position: usize, names: &Names) -> Result<Rule, PolicyError> {
        let name = match fields.get("name") {
            Some(value) => self.rule_name(value)?,
            None => format!("rule {position}"),
        };
        let Some(then) = fields.get("then") else {
            let message = format!("'{name}' has no `then`: write then = \"accept\", \"hold\" or \"reject\"");
            return Err(self.refuse(&fields.span, message));
        };
        let then = self.verdict(then, &words::THEN)?;
        for word in ["require", "otherwise"] {
            if let (Some(value), false) = (fields.get(word), then == VerdictKind::Accept) {
                let message = format!("`{word}` goes with then = \"accept\" only, and '{name}' says {}", then.as_str());
                return Err(self.refuse(&value.span(), message));
            }
        }
        let matches = match fields.get("match") {
            Some(value) => self.matches(value, names)?,
            None => Match::default(),
        };
        let require = match fields.get("require") {
            Some(value) => self.requirements(value, names)?,
            None => Vec::new(),
        };
        let otherwise = match fields.get("otherwise") {
            Some(value) => self.verdict(value, &words::OTHERWISE)?,
            None => VerdictKind::Hold,
        };
        let on_revoke = match fields.get("on-revoke") {
            Some(value) => match self.word(self.string(value, words::ON_REVOKE.place)?, &words::ON_REVOKE)? {
                "warn" => OnRevoke::Warn,
                "suspend" => OnRevoke::Suspend,
                "stop" => OnRevoke::Stop,
                _ => OnRevoke::BlockNew,
            },
            None => OnRevoke::default(),
        };
        let update = match fields.get("update") {
            Some(value) => match self.word(self.string(value, words::UPDATE.place)?, &words::UPDATE)? {
                "never" => Update::Never,
                "auto" => Update::Auto,
                _ => Update::Propose,
            },
            None => Update::default(),
        };
        Ok(Rule { name, matches, require, then, otherwise, on_revoke, update })
    }

    fn rule_name(&self, value: &Value<'_>) -> Result<String, PolicyError> {
        let (name, span) = self.string(value, "as `name` of a rule")?;
        let refused = |message: String| Err(self.refuse(&span, message));
        if [DEFAULT_RULE, NO_RULE, REVOCATION_RULE].contains(&name) {
            return refused(format!("'{name}' is what explanations call a decision that no rule made: choose another"));
        }
        if name.trim().is_empty() || name.chars().count() > MAX_RULE_NAME_CHARS || !name.chars().all(is_plain) {
            return refused(format!("a rule's name is one line of 1 to {MAX_RULE_NAME_CHARS} printable characters"));
        }
        Ok(name.to_owned())
    }

    fn matches(&self, value: &Value<'_>, names: &Names) -> Result<Match, PolicyError> {
        let fields = self.fields(value, &words::MATCH)?;
        let each =
            |key: &'static str| fields.get(key).map(|value| self.strings(value, &format!("as `{key}`"))).transpose();
        let publishers = each("publisher")?
            .map(|words| words.iter().map(|word| self.publisher(word, names)).collect::<Result<_, _>>())
            .transpose()?;
        let patterns = each("name")?
            .map(|words| {
                words
                    .iter()
                    .map(|(text, span)| Glob::parse(text).map_err(|problem| self.refuse(span, problem)))
                    .collect()
            })
            .transpose()?;
        let arch = each("arch")?
            .map(|words| words.into_iter().map(|word| self.arch(word)).collect::<Result<_, _>>())
            .transpose()?;
        let tags = each("tags")?
            .map(|words| words.iter().map(|word| self.name(word)).collect::<Result<_, _>>())
            .transpose()?;
        let sizes = each("size")?
            .map(|words| {
                words
                    .iter()
                    .map(|(text, span)| SizeRange::parse(text).map_err(|problem| self.refuse(span, problem)))
                    .collect()
            })
            .transpose()?;
        let federations = each("federation")?
            .map(|words| words.iter().map(|word| self.name(word)).collect::<Result<_, _>>())
            .transpose()?;
        Ok(Match { publishers, names: patterns, arch, tags, sizes, federations })
    }

    fn publisher(&self, word: &Word<'_>, names: &Names) -> Result<Arc<Signer>, PolicyError> {
        if names.roles.keys().any(|role| **role == *word.0) && !names.signers.keys().any(|name| **name == *word.0) {
            let message = format!("`{}` is a role, and `publisher` takes signers: list them", shown(word.0));
            return Err(self.refuse(&word.1, message));
        }
        self.signer(word, &names.signers)
    }

    fn arch(&self, word: Word<'_>) -> Result<Arch, PolicyError> {
        Ok(match self.word(word, &words::ARCH)? {
            "aarch64" => Arch::Aarch64,
            _ => Arch::X86_64,
        })
    }

    fn requirements(&self, value: &Value<'_>, names: &Names) -> Result<Vec<Requirement>, PolicyError> {
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

/// Values of the forms that the file has.
impl<'t> Reader<'t> {
    fn fields<'a>(&self, value: &'a Value<'t>, words: &Words) -> Result<Fields<'a, 't>, PolicyError> {
        match value.get_ref() {
            DeValue::Table(table) => self.fields_of(table, value.span(), words),
            other => Err(self.wrong_form(value, words.place, "a table", other)),
        }
    }

    fn fields_of<'a>(
        &self,
        table: &'a DeTable<'t>,
        span: Range<usize>,
        words: &Words,
    ) -> Result<Fields<'a, 't>, PolicyError> {
        let mut keys: Vec<_> = table.iter().map(|(key, _)| (&**key.get_ref(), key.span())).collect();
        // In the order of the file, so that the first mistake is the one reported.
        keys.sort_by_key(|(_, span)| span.start);
        for key in keys {
            self.word(key, words)?;
        }
        Ok(Fields { table, span })
    }

    fn entries<'a>(&self, value: &'a Value<'t>, place: &str) -> Result<Vec<(Word<'a>, &'a Value<'t>)>, PolicyError> {
        match value.get_ref() {
            DeValue::Table(table) => {
                let mut entries: Vec<_> =
                    table.iter().map(|(key, value)| ((&**key.get_ref(), key.span()), value)).collect();
                entries.sort_by_key(|((_, span), _)| span.start);
                Ok(entries)
            }
            other => Err(self.wrong_form(value, place, "a table", other)),
        }
    }

    fn string<'a>(&self, value: &'a Value<'t>, place: &str) -> Result<Word<'a>, PolicyError> {
        match value.get_ref() {
            DeValue::String(text) => Ok((text, value.span())),
            other => Err(self.wrong_form(value, place, "a text in quotes", other)),
        }
    }

    /// A list of texts, or one text where a list of one would do. Never empty.
    fn strings<'a>(&self, value: &'a Value<'t>, place: &str) -> Result<Vec<Word<'a>>, PolicyError> {
        match value.get_ref() {
            DeValue::String(_) => Ok(vec![self.string(value, place)?]),
            DeValue::Array(listed) if listed.is_empty() => {
                Err(self.refuse(&value.span(), format!("the list {place} is empty, and would fit nothing")))
            }
            DeValue::Array(listed) => listed.iter().map(|value| self.string(value, place)).collect(),
            other => Err(self.wrong_form(value, place, "a text in quotes, or a list of them", other)),
        }
    }

    fn verdict(&self, value: &Value<'t>, words: &Words) -> Result<VerdictKind, PolicyError> {
        Ok(match self.word(self.string(value, words.place)?, words)? {
            "accept" => VerdictKind::Accept,
            "reject" => VerdictKind::Reject,
            _ => VerdictKind::Hold,
        })
    }

    fn age(&self, value: &Value<'t>) -> Result<Age, PolicyError> {
        let (text, span) = self.string(value, "as `max-age`")?;
        Age::parse(text).map_err(|problem| self.refuse(&span, problem))
    }

    fn threshold(&self, value: &Value<'t>, members: usize) -> Result<usize, PolicyError> {
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.wrong_form(value, "as `threshold`", "a whole number", value.get_ref()));
        };
        match usize::from_str_radix(number.as_str(), number.radix()) {
            Ok(threshold) if (1..=members).contains(&threshold) => Ok(threshold),
            _ => {
                let message = format!("the threshold must be from 1 to {members}, the number of signers in the role");
                Err(self.refuse(&value.span(), message))
            }
        }
    }

    fn name(&self, (text, span): &Word<'_>) -> Result<Name, PolicyError> {
        Name::from_str(text).map_err(|problem| self.refuse(span, problem.to_string()))
    }

    fn signer(&self, word: &Word<'_>, signers: &BTreeMap<Name, Arc<Signer>>) -> Result<Arc<Signer>, PolicyError> {
        match signers.values().find(|signer| *signer.name == *word.0) {
            Some(signer) => Ok(Arc::clone(signer)),
            None => Err(self.unknown(word.clone(), "signer", "in [signers]", signers.keys().map(|name| &**name))),
        }
    }
}

/// Words, and what to say of those that are none.
impl Reader<'_> {
    fn word(&self, (found, span): Word<'_>, words: &Words) -> Result<&'static str, PolicyError> {
        if let Some(word) = words.known.iter().find(|word| **word == found) {
            return Ok(word);
        }
        if words.planned.contains(&found) {
            let message =
                format!("`{found}` is not supported yet {}; for now there is {}", words.place, listed(words.known));
            return Err(self.refuse(&span, message));
        }
        Err(self.unknown((found, span), "word", words.place, words.known.iter().copied()))
    }

    fn unknown<'a>(
        &self,
        (found, span): Word<'_>,
        what: &str,
        place: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> PolicyError {
        /// More than these are not listed in a message.
        const SHOWN: usize = 12;
        let suggestion = nearest(found, known.clone()).map(str::to_owned);
        let there: Vec<&str> = known.take(SHOWN + 1).collect();
        let there = match (&suggestion, there.len()) {
            (Some(_), _) => String::new(),
            (None, 0) => ", and there is none".to_owned(),
            (None, 1..=SHOWN) => format!(": there is {}", listed(&there)),
            (None, _) => String::new(),
        };
        let message = format!("there is no {what} `{}` {place}{there}", shown(found));
        PolicyError { suggestion, ..self.refuse(&span, message) }
    }

    fn wrong_form(&self, value: &Value<'_>, place: &str, expected: &str, found: &DeValue<'_>) -> PolicyError {
        let found = match found {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(&value.span(), format!("expected {expected} {place}, and found {found}"))
    }

    fn refuse(&self, span: &Range<usize>, message: impl Into<String>) -> PolicyError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        PolicyError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
            suggestion: None,
        }
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn is_predicate(uri: &str) -> bool {
    (1..=MAX_PREDICATE_BYTES).contains(&uri.len()) && !uri.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Reads one key as `authorized_keys` has it: `ssh-ed25519 AAAA… comment`. `Err` says what is wrong, without repeating
/// the text: it may be a private key by mistake.
fn public_key(text: &str) -> Result<PublicKey, String> {
    const EXPECTED: &str = "expected the one line of a .pub file: \"ssh-ed25519 AAAA… comment\"";
    if text.contains("PRIVATE KEY") {
        return Err(format!("this is a private key, which belongs in no policy; {EXPECTED}"));
    }
    if text.chars().any(char::is_control) {
        return Err("a key is one line; several keys of one signer are a list: [\"ssh-ed25519 …\", …]".into());
    }
    let key =
        ssh_key::PublicKey::from_openssh(text.trim()).map_err(|_| format!("this is not an OpenSSH key; {EXPECTED}"))?;
    let ssh_key::public::KeyData::Ed25519(bytes) = key.key_data() else {
        return Err(format!("this is a key of the kind {}, and signers have ssh-ed25519 keys", key.algorithm()));
    };
    match ed25519_dalek::VerifyingKey::from_bytes(&bytes.0) {
        Ok(point) if !point.is_weak() => Ok(PublicKey(bytes.0)),
        _ => Err("this is no ed25519 key that could sign anything: it was damaged on its way here".into()),
    }
}
