//! From the text of a policy file to a [`Policy`], refusing every word that would mean nothing: its tables and rules.

mod requirements;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::Arch;
use rialto_web::api::VerdictKind;
use toml::Spanned;
use toml::de::DeValue;

use super::policy::{MAX_POLICY_BYTES, Match, OnRevoke, Policy, PolicyError, Requirement, Role, Rule, Signer, Update};
use super::reader::{Fields, Reader, Value, Word};
use super::words::{self, Age, Glob, SizeRange, Words, is_plain, shown};

/// What explanations and logs call the decisions that no rule of the file made; no rule may take such a name.
pub(super) const DEFAULT_RULE: &str = "default";
/// See [`DEFAULT_RULE`]: nothing could decide.
pub(super) const NO_RULE: &str = "none";
/// See [`DEFAULT_RULE`]: a revocation that counts.
pub(super) const REVOCATION_RULE: &str = "revocation";

/// A rule's name is for people to read, in one line.
const MAX_RULE_NAME_CHARS: usize = 100;

pub(super) fn policy(text: &str) -> Result<Policy, PolicyError> {
    policy_with(text, |key| key)
}

/// Reads a policy with another key in the place of each.
pub(super) fn policy_with(text: &str, replaced: impl Fn(PublicKey) -> PublicKey) -> Result<Policy, PolicyError> {
    let reader = Reader { text };
    let document = reader.document(MAX_POLICY_BYTES)?;
    let tables = reader.fields_of(document.get_ref(), document.span(), &words::TABLES)?;

    let (signers, petnames) = match tables.get("signers") {
        Some(value) => reader.signers(value, replaced)?,
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

/// The signers by name, and the name that each of their keys goes by.
type Named = (BTreeMap<Name, Arc<Signer>>, BTreeMap<PublicKey, Name>);

/// The tables of the file.
impl Reader<'_> {
    fn signers(&self, value: &Value<'_>, replaced: impl Fn(PublicKey) -> PublicKey) -> Result<Named, PolicyError> {
        let mut signers = BTreeMap::new();
        let mut petnames: BTreeMap<PublicKey, Name> = BTreeMap::new();
        for (key, value) in self.entries(value, "in [signers]")? {
            let name = self.name(&key)?;
            let mut keys = Vec::new();
            for (text, span) in self.strings(value, "as the key of a signer")? {
                let key = public_key(text).map(&replaced).map_err(|problem| self.refuse(&span, problem))?;
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
            let is_delegated = match fields.get("delegated").map(|value| (value.get_ref(), value.span())) {
                None => false,
                Some((DeValue::Boolean(is_delegated), _)) => *is_delegated,
                Some((_, span)) => return Err(self.refuse(&span, "`delegated` is true or false")),
            };
            let max_age = fields.get("max-age").map(|value| self.age(value)).transpose()?;
            roles.insert(name.clone(), Arc::new(Role { name, signers: members, threshold, max_age, is_delegated }));
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

    fn verdict(&self, value: &Value<'_>, words: &Words) -> Result<VerdictKind, PolicyError> {
        Ok(match self.word(self.string(value, words.place)?, words)? {
            "accept" => VerdictKind::Accept,
            "reject" => VerdictKind::Reject,
            _ => VerdictKind::Hold,
        })
    }

    fn age(&self, value: &Value<'_>) -> Result<Age, PolicyError> {
        let (text, span) = self.string(value, "as `max-age`")?;
        Age::parse(text).map_err(|problem| self.refuse(&span, problem))
    }

    fn threshold(&self, value: &Value<'_>, members: usize) -> Result<usize, PolicyError> {
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

    fn signer(&self, word: &Word<'_>, signers: &BTreeMap<Name, Arc<Signer>>) -> Result<Arc<Signer>, PolicyError> {
        match signers.values().find(|signer| *signer.name == *word.0) {
            Some(signer) => Ok(Arc::clone(signer)),
            None => Err(self.unknown(word.clone(), "signer", "in [signers]", signers.keys().map(|name| &**name))),
        }
    }
}

/// Reads one key as `authorized_keys` has it: `ssh-ed25519 AAAA… comment`. `Err` says what is wrong, without repeating
/// the text: it may be a private key by mistake.
pub(super) fn public_key(text: &str) -> Result<PublicKey, String> {
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
