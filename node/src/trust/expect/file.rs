//! From the text of a file of expectations to its cases, refusing every word that would mean nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{List, Name, Text, Version};
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{Arch, PREDICATE_REBUILT, Severity};
use rialto_web::api::VerdictKind;
use toml::de::DeValue;

use super::{stand_in, words};
use crate::trust::parse::{DEFAULT_RULE, REVOCATION_RULE, public_key};
use crate::trust::policy::{Policy, PolicyError, Requirement};
use crate::trust::reader::{Fields, Reader, Value, Word};
use crate::trust::words::{ARCH, Age, SEVERITY, Size, Words, is_plain, shown};

/// A file of expectations is at most this long: some thousand cases.
pub const MAX_EXPECTATIONS_BYTES: usize = 256 * 1024;
/// Each case is judged by records that are signed for it.
const MAX_CASES: usize = 1_000;
/// Statements in one list of a case. A record has at most 16 signers, its publisher among them.
const MAX_LISTED: usize = 15;
/// A case's title is for people to read, in one line.
const MAX_TITLE_CHARS: usize = 100;
/// As long as a predicate in an endorsement can be.
const MAX_URI_BYTES: usize = 512;
/// What an endorsement says of which the file does not say what it says: nothing that a policy would ask for by name.
const UNSAID: &str = "about:unsaid";

/// One release as it is imagined, and what is expected of it.
pub(super) struct Case {
    pub(super) title: String,
    /// Where it stands in the file, from 1.
    pub(super) line: usize,
    pub(super) stated: Stated,
    pub(super) expect: VerdictKind,
    pub(super) rule: Option<String>,
    /// The requirements that are expected not to be met.
    pub(super) missing: Option<BTreeSet<String>>,
}

/// What a case says of its release.
pub(super) struct Stated {
    pub(super) publisher: Who,
    pub(super) name: Name,
    pub(super) version: Version,
    pub(super) arch: Arch,
    pub(super) tags: List<Name, 16>,
    /// Of its disks together, in bytes.
    pub(super) size: u64,
    /// In bytes.
    pub(super) memory: u64,
    pub(super) vcpus: u32,
    pub(super) licence: Option<Text<200>>,
    pub(super) federation: Option<Name>,
    /// In seconds before the moment of judging, as all times here.
    pub(super) age: UnixSeconds,
    pub(super) expired: Option<UnixSeconds>,
    pub(super) signed_by: Vec<Who>,
    pub(super) endorsed_by: Vec<Said>,
    pub(super) rebuilt_by: Vec<Said>,
    pub(super) names_provenance: bool,
    /// Statements of provenance.
    pub(super) provenance: Vec<Said>,
    pub(super) sbom: Option<Sbom>,
    pub(super) advisories: Vec<(Who, Severity)>,
    pub(super) channel: Option<(State, UnixSeconds)>,
    pub(super) revoked_by: Vec<(Who, Subject)>,
}

/// Somebody, as often as the file speaks of them.
pub(super) type Who = Arc<Person>;

/// Somebody, and how the file calls them.
pub(super) struct Person {
    pub(super) key: SigningKey,
    pub(super) called: String,
}

/// One endorsement or statement.
pub(super) struct Said {
    pub(super) by: Who,
    /// Its predicate; of provenance, the builder.
    pub(super) what: String,
    pub(super) age: UnixSeconds,
    pub(super) expired: Option<UnixSeconds>,
    pub(super) is_revoked: bool,
}

/// What is known of the bill of materials that the release names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sbom {
    /// Nothing: it is not in the store.
    Named,
    /// What is inside.
    Known,
}

/// What a revocation withdraws.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Release,
    /// Its publisher's key.
    Key,
}

/// Where a channel of the appliance stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It points at the release.
    Fresh,
    /// It does, by a head that has expired.
    Frozen,
    /// It points at another release.
    Elsewhere,
    /// It points at the release by an older head than one that was seen before.
    RolledBack,
    /// It points at two releases at once.
    Contradicted,
}

/// Reads the cases of a file, for this policy.
pub(super) fn cases(text: &str, policy: &Policy) -> Result<Vec<Case>, PolicyError> {
    let file = File { reader: Reader { text }, policy, people: RefCell::default() };
    let document = file.reader.document(MAX_EXPECTATIONS_BYTES)?;
    let tables = file.reader.fields_of(document.get_ref(), document.span(), &words::TABLES)?;
    let given = tables.get("given").map(|value| file.reader.fields(value, &words::FACTS)).transpose()?;
    if let Some(given) = &given {
        // So that a mistake in it is found whatever the cases say instead.
        file.stated(&Facts { case: given, given: None })?;
    }
    let listed = match tables.get("case").map(|value| (value.get_ref(), value.span())) {
        Some((DeValue::Array(listed), _)) if !listed.is_empty() => listed,
        Some((DeValue::Array(_), span)) => return Err(file.reader.refuse(&span, "a file without cases tries nothing")),
        Some((_, span)) => {
            return Err(file.reader.refuse(&span, "a case is written [[case]], with two brackets on either side"));
        }
        None => return Err(file.reader.refuse(&(0..0), "there is no [[case]], so nothing would be tried")),
    };
    if let Some(one_more) = listed.get(MAX_CASES) {
        return Err(file.reader.refuse(&one_more.span(), format!("at most {MAX_CASES} cases are read from one file")));
    }
    let mut cases: Vec<Case> = Vec::new();
    for value in listed.iter() {
        let fields = file.reader.fields(value, &words::CASE)?;
        let case = file.case(&fields, given.as_ref(), cases.len() + 1)?;
        if cases.iter().any(|other| other.title == case.title) {
            let span = fields.get("title").map_or(fields.span.clone(), |title| title.span());
            return Err(file.reader.refuse(&span, format!("two cases are called '{}'", case.title)));
        }
        cases.push(case);
    }
    Ok(cases)
}

/// A file of expectations of one policy.
struct File<'t, 'p> {
    reader: Reader<'t>,
    /// As the site has it, with its own keys.
    policy: &'p Policy,
    /// Those that it has spoken of, by what it says. What is given is said in every case.
    people: RefCell<BTreeMap<String, Who>>,
}

/// What a case says, and what is given where it says nothing.
struct Facts<'a, 't> {
    case: &'a Fields<'a, 't>,
    given: Option<&'a Fields<'a, 't>>,
}

impl<'a, 't> Facts<'a, 't> {
    /// `false` takes back what is given.
    fn get(&self, word: &str) -> Option<&'a Value<'t>> {
        let said = self.case.get(word).or_else(|| self.given?.get(word));
        said.filter(|value| !matches!(value.get_ref(), DeValue::Boolean(false)))
    }
}

/// A case, word by word.
impl<'t> File<'t, '_> {
    fn case<'a>(
        &self,
        fields: &'a Fields<'a, 't>,
        given: Option<&'a Fields<'a, 't>>,
        position: usize,
    ) -> Result<Case, PolicyError> {
        let title = match fields.get("title") {
            Some(value) => self.title(value)?,
            None => format!("case {position}"),
        };
        let Some(expect) = fields.get("expect") else {
            let message = format!("'{title}' has no `expect`: write expect = \"accept\", \"hold\" or \"reject\"");
            return Err(self.reader.refuse(&fields.span, message));
        };
        let facts = Facts { case: fields, given };
        self.says_enough(&facts, &title)?;
        Ok(Case {
            line: self.reader.line(&fields.span),
            stated: self.stated(&facts)?,
            expect: match self.word(expect, &words::EXPECT)? {
                "accept" => VerdictKind::Accept,
                "reject" => VerdictKind::Reject,
                _ => VerdictKind::Hold,
            },
            rule: fields.get("rule").map(|value| self.rule(value)).transpose()?,
            missing: fields.get("missing").map(|value| self.missing(value)).transpose()?,
            title,
        })
    }

    /// Whether everything is said that every release has and that the policy asks for: a size that nobody thought of would
    /// be within every bound.
    fn says_enough(&self, facts: &Facts<'_, 't>, title: &str) -> Result<(), PolicyError> {
        for rule in &self.policy.rules {
            let asks = |is: fn(&Requirement) -> bool| rule.require.iter().any(is);
            let looks_at = [
                ("name", rule.matches.names.is_some()),
                ("arch", rule.matches.arch.is_some()),
                ("size", rule.matches.sizes.is_some() || asks(|r| matches!(r, Requirement::MaxSize(_)))),
                ("memory", asks(|r| matches!(r, Requirement::MaxMemory(_)))),
                ("vcpus", asks(|r| matches!(r, Requirement::MaxVcpus(_)))),
            ];
            let mut unsaid = looks_at.into_iter().filter(|(word, is_asked)| *is_asked && facts.get(word).is_none());
            if let Some((word, _)) = unsaid.next() {
                let message = format!(
                    "'{title}' does not say `{word}`, which every release has and the rule '{}' looks at: say it here or in [given]",
                    shown(&rule.name)
                );
                return Err(self.reader.refuse(&facts.case.span, message));
            }
        }
        Ok(())
    }

    fn stated(&self, facts: &Facts<'_, 't>) -> Result<Stated, PolicyError> {
        let publisher = match facts.get("publisher") {
            Some(value) => self.who(value)?,
            None => self.stranger("somebody"),
        };
        let signed_by = match facts.get("signed-by") {
            Some(value) => self.each(value, "as `signed-by`", |value| self.who(value))?,
            None => vec![publisher.clone()],
        };
        if let (Some(value), true) = (facts.get("signed-by"), signed_by.is_empty()) {
            return Err(self.reader.refuse(&value.span(), "what nobody has signed is no record, and is never judged"));
        }
        let provenance = facts.get("provenance").filter(|value| !matches!(value.get_ref(), DeValue::Boolean(true)));
        let says = |word| facts.get(word);
        Ok(Stated {
            publisher,
            signed_by,
            name: self.bounded_or(says("name"), "as `name`", "appliance")?,
            version: self.bounded_or(says("version"), "as `version`", "1")?,
            arch: match says("arch").map(|value| self.word(value, &ARCH)).transpose()? {
                Some("aarch64") => Arch::Aarch64,
                _ => Arch::X86_64,
            },
            tags: match says("tags") {
                Some(value) => {
                    let tags = self.each(value, "as `tags`", |value| self.name(value, "as `tags`"))?;
                    List::try_from(tags)
                        .map_err(|_| self.reader.refuse(&value.span(), "a release has at most 16 tags"))?
                }
                None => List::default(),
            },
            size: says("size").map_or(Ok(1), |value| self.size(value, "as `size`"))?,
            memory: says("memory").map_or(Ok(1), |value| self.size(value, "as `memory`"))?,
            vcpus: says("vcpus").map_or(Ok(1), |value| self.processors(value))?,
            licence: says("licence").map(|value| self.bounded(value, "as `licence`")).transpose()?,
            federation: says("federation").map(|value| self.name(value, "as `federation`")).transpose()?,
            age: says("age").map_or(Ok(0), |value| self.age(value, "as `age`"))?,
            expired: says("expired").map(|value| self.age(value, "as `expired`")).transpose()?,
            endorsed_by: self.said(says("endorsed-by"), &words::ENDORSED, UNSAID)?,
            rebuilt_by: self.said(says("rebuilt-by"), &words::REBUILT, PREDICATE_REBUILT)?,
            names_provenance: says("provenance").is_some() && provenance.is_none(),
            provenance: self.said(provenance, &words::PROVENANCE, UNSAID)?,
            sbom: match says("sbom").map(|value| self.word(value, &words::SBOM)).transpose()? {
                Some("known") => Some(Sbom::Known),
                Some(_) => Some(Sbom::Named),
                None => None,
            },
            advisories: match says("advisories") {
                Some(value) => self.each(value, words::ADVISORIES.place, |value| self.advisory(value))?,
                None => Vec::new(),
            },
            channel: says("channel").map(|value| self.channel(value)).transpose()?,
            revoked_by: match says("revoked-by") {
                Some(value) => self.each(value, words::REVOKED.place, |value| self.revocation(value))?,
                None => Vec::new(),
            },
        })
    }

    /// Endorsements or statements: each somebody, or a table that says more.
    fn said(&self, value: Option<&Value<'t>>, words: &'static Words, unsaid: &str) -> Result<Vec<Said>, PolicyError> {
        let Some(value) = value else { return Ok(Vec::new()) };
        self.each(value, words.place, |value| {
            if let DeValue::String(_) = value.get_ref() {
                let what = unsaid.to_owned();
                return Ok(Said { by: self.who(value)?, what, age: 0, expired: None, is_revoked: false });
            }
            let fields = self.reader.fields(value, words)?;
            let what = fields.get("type").or_else(|| fields.get("builder"));
            let is_revoked = match fields.get("revoked").map(|value| (value.get_ref(), value)) {
                Some((DeValue::Boolean(is_revoked), _)) => *is_revoked,
                Some((other, value)) => {
                    return Err(self.reader.wrong_form(value, "as `revoked`", "true or false", other));
                }
                None => false,
            };
            Ok(Said {
                by: self.by(&fields, words)?,
                what: what.map_or(Ok(unsaid.to_owned()), |value| self.uri(value))?,
                age: fields.get("age").map_or(Ok(0), |value| self.age(value, "as `age`"))?,
                expired: fields.get("expired").map(|value| self.age(value, "as `expired`")).transpose()?,
                is_revoked,
            })
        })
    }

    fn advisory(&self, value: &Value<'t>) -> Result<(Who, Severity), PolicyError> {
        let fields = self.reader.fields(value, &words::ADVISORIES)?;
        let Some(severity) = fields.get("severity") else {
            let message = "an advisory has a `severity`: low, medium, high or critical";
            return Err(self.reader.refuse(&fields.span, message));
        };
        let severity = match self.word(severity, &SEVERITY)? {
            "low" => Severity::Low,
            "medium" => Severity::Medium,
            "high" => Severity::High,
            _ => Severity::Critical,
        };
        Ok((self.by(&fields, &words::ADVISORIES)?, severity))
    }

    fn revocation(&self, value: &Value<'t>) -> Result<(Who, Subject), PolicyError> {
        if let DeValue::String(_) = value.get_ref() {
            return Ok((self.who(value)?, Subject::Release));
        }
        let fields = self.reader.fields(value, &words::REVOKED)?;
        let subject = match fields.get("subject").map(|value| self.word(value, &words::SUBJECT)).transpose()? {
            Some("key") => Subject::Key,
            _ => Subject::Release,
        };
        Ok((self.by(&fields, &words::REVOKED)?, subject))
    }

    fn channel(&self, value: &Value<'t>) -> Result<(State, UnixSeconds), PolicyError> {
        if let DeValue::String(_) = value.get_ref() {
            return Ok((self.state(value)?, 0));
        }
        let fields = self.reader.fields(value, &words::CHANNEL)?;
        let Some(state) = fields.get("state") else {
            return Err(self.reader.refuse(&fields.span, "a channel has a `state`, such as \"fresh\""));
        };
        let age = fields.get("age").map_or(Ok(0), |value| self.age(value, "as `age`"))?;
        Ok((self.state(state)?, age))
    }

    fn state(&self, value: &Value<'t>) -> Result<State, PolicyError> {
        Ok(match self.word(value, &words::STATE)? {
            "frozen" => State::Frozen,
            "elsewhere" => State::Elsewhere,
            "rolled-back" => State::RolledBack,
            "contradicted" => State::Contradicted,
            _ => State::Fresh,
        })
    }
}

/// What is expected.
impl<'t> File<'t, '_> {
    fn title(&self, value: &Value<'t>) -> Result<String, PolicyError> {
        let (title, span) = self.reader.string(value, "as `title` of a case")?;
        if title.trim().is_empty() || title.chars().count() > MAX_TITLE_CHARS || !title.chars().all(is_plain) {
            let message = format!("a case's title is one line of 1 to {MAX_TITLE_CHARS} printable characters");
            return Err(self.reader.refuse(&span, message));
        }
        Ok(title.to_owned())
    }

    fn rule(&self, value: &Value<'t>) -> Result<String, PolicyError> {
        let word = self.reader.string(value, "as `rule`")?;
        let rules = self.policy.rules.iter().map(|rule| rule.name.as_str());
        let rules = rules.chain([DEFAULT_RULE, REVOCATION_RULE]);
        match rules.clone().find(|rule| *rule == word.0) {
            Some(rule) => Ok(rule.to_owned()),
            None => Err(self.reader.unknown(word, "rule", "in the policy", rules)),
        }
    }

    fn missing(&self, value: &Value<'t>) -> Result<BTreeSet<String>, PolicyError> {
        let rules = &self.policy.rules;
        let there: BTreeSet<String> =
            rules.iter().flat_map(|rule| &rule.require).map(|requirement| requirement.to_string()).collect();
        let words = match value.get_ref() {
            DeValue::Array(listed) if listed.is_empty() => Vec::new(),
            _ => self.reader.strings(value, "as `missing`")?,
        };
        let mut missing = BTreeSet::new();
        for word in words {
            if !there.contains(word.0) {
                let there = there.iter().map(String::as_str);
                return Err(self.reader.unknown(word, "requirement", "in the policy, written like this,", there));
            }
            missing.insert(word.0.to_owned());
        }
        Ok(missing)
    }
}

/// Values of the forms that the file has.
impl<'t> File<'t, '_> {
    /// The items of a list, or the one that stands there without one.
    fn each<'a, T>(
        &self,
        value: &'a Value<'t>,
        place: &str,
        read: impl Fn(&'a Value<'t>) -> Result<T, PolicyError>,
    ) -> Result<Vec<T>, PolicyError> {
        let DeValue::Array(listed) = value.get_ref() else { return Ok(vec![read(value)?]) };
        if let Some(one_more) = listed.get(MAX_LISTED) {
            return Err(self.reader.refuse(&one_more.span(), format!("at most {MAX_LISTED} are read {place}")));
        }
        listed.iter().map(read).collect()
    }

    fn by(&self, fields: &Fields<'_, 't>, words: &Words) -> Result<Who, PolicyError> {
        match fields.get("by") {
            Some(value) => self.who(value),
            None => Err(self.reader.refuse(&fields.span, format!("`by` is missing {}: who says it?", words.place))),
        }
    }

    /// A signer of the policy, `~NAME` for somebody whom it does not name, or an OpenSSH key.
    fn who(&self, value: &Value<'t>) -> Result<Who, PolicyError> {
        let (text, span) = self.reader.string(value, "as somebody")?;
        if let Some(who) = self.people.borrow().get(text) {
            return Ok(Arc::clone(who));
        }
        let who = self.new_person(text, span)?;
        self.people.borrow_mut().insert(text.to_owned(), Arc::clone(&who));
        Ok(who)
    }

    fn new_person(&self, text: &str, span: Range<usize>) -> Result<Who, PolicyError> {
        if let Some(name) = text.strip_prefix('~') {
            let name = self.reader.name(&(name, span))?;
            return Ok(self.stranger(&name));
        }
        if text.contains(char::is_whitespace) {
            let key = public_key(text).map_err(|problem| self.reader.refuse(&span, problem))?;
            return Ok(self.holder_of(&key));
        }
        if let Some(key) = self.policy.keys(text).and_then(|keys| keys.first()) {
            return Ok(self.holder_of(key));
        }
        if self.policy.roles.keys().any(|role| **role == *text) {
            let message = format!("`{text}` is a role, and nobody is one: name signers of it");
            return Err(self.reader.refuse(&span, message));
        }
        let signers = self.policy.signers.keys().map(|name| &**name);
        let mut error = self.reader.unknown((text, span), "signer", "in [signers] of the policy", signers);
        if error.suggestion.is_none() {
            error.message.push_str("; somebody whom it does not name is written with a tilde, as in \"~mallory\"");
        }
        Err(error)
    }

    fn holder_of(&self, key: &PublicKey) -> Who {
        Arc::new(Person { key: stand_in::secret(key), called: self.policy.shown(key) })
    }

    fn stranger(&self, name: &str) -> Who {
        Arc::new(Person { key: stand_in::stranger(name), called: format!("~{name}") })
    }

    fn word(&self, value: &Value<'t>, words: &Words) -> Result<&'static str, PolicyError> {
        self.reader.word(self.reader.string(value, words.place)?, words)
    }

    fn name(&self, value: &Value<'t>, place: &str) -> Result<Name, PolicyError> {
        self.reader.name(&self.reader.string(value, place)?)
    }

    fn bounded<'a, T: TryFrom<&'a str, Error: std::fmt::Display>>(
        &self,
        value: &'a Value<'t>,
        place: &str,
    ) -> Result<T, PolicyError> {
        let (text, span) = self.reader.string(value, place)?;
        T::try_from(text).map_err(|error| self.reader.refuse(&span, error.to_string()))
    }

    fn bounded_or<'a, T: TryFrom<&'a str, Error: std::fmt::Display>>(
        &self,
        value: Option<&'a Value<'t>>,
        place: &str,
        otherwise: &'static str,
    ) -> Result<T, PolicyError> {
        match value {
            Some(value) => self.bounded(value, place),
            None => T::try_from(otherwise).map_err(|error| self.reader.refuse(&(0..0), error.to_string())),
        }
    }

    fn size(&self, value: &Value<'t>, place: &str) -> Result<u64, PolicyError> {
        let (text, span) = self.reader.string(value, place)?;
        Size::parse(text).map(|size| size.bytes).map_err(|problem| self.reader.refuse(&span, problem))
    }

    fn age(&self, value: &Value<'t>, place: &str) -> Result<UnixSeconds, PolicyError> {
        let (text, span): (&str, Range<usize>) = self.reader.string(value, place)?;
        Age::parse(text).map(|age| age.seconds).map_err(|problem| self.reader.refuse(&span, problem))
    }

    fn processors(&self, value: &Value<'t>) -> Result<u32, PolicyError> {
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.reader.wrong_form(value, "as `vcpus`", "a whole number", value.get_ref()));
        };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(self.reader.refuse(&value.span(), "this is no number of processors, from 1")),
        }
    }

    fn uri(&self, value: &Value<'t>) -> Result<String, PolicyError> {
        let (text, span): Word<'_> = self.reader.string(value, "as a URI")?;
        let is_uri = (1..=MAX_URI_BYTES).contains(&text.len())
            && text.contains(':')
            && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        match is_uri {
            true => Ok(text.to_owned()),
            false => Err(self.reader.refuse(&span, format!("this is no URI of at most {MAX_URI_BYTES} bytes"))),
        }
    }
}
