//! [`Policy`]: the site's file of rules, read. What it says of one release is [`evaluate`](super::evaluate)'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{Arch, Severity};
use rialto_web::api::VerdictKind;

use super::statements::Statements;
use super::words::{Age, Glob, Size, SizeRange};
use super::{parse, summary};

/// A policy file is at most this long: room for several thousand signers, and nothing that would slow a node down.
pub const MAX_POLICY_BYTES: usize = 1024 * 1024;

/// The site's policy: who its signers are, what roles they have, and the rules in the order in which they are asked.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(super) text: Arc<str>,
    pub(super) hash: String,
    pub(super) signers: BTreeMap<Name, Arc<Signer>>,
    pub(super) petnames: BTreeMap<PublicKey, Name>,
    pub(super) roles: BTreeMap<Name, Arc<Role>>,
    pub(super) rules: Vec<Rule>,
    /// The rule named `default`, which fits every release.
    pub(super) default: Rule,
    /// Every key whose statements are listened to, ascending, each once: those of roles, and of all signers where a rule counts
    /// whoever has rebuilt a release.
    pub(super) role_keys: Vec<PublicKey>,
    /// What was read of statements, and who has signed them: never more than can be found out again.
    pub(super) statements: Arc<Statements>,
}

/// Why a policy file cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// The word that was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        match &self.suggestion {
            Some(word) => write!(f, "; did you mean `{word}`?"),
            None => Ok(()),
        }
    }
}

impl Policy {
    /// Reads a policy. Strict: a word that this program does not act on is an error, never nothing.
    ///
    /// # Errors
    /// One mistake in the file, with its place; also a text over [`MAX_POLICY_BYTES`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        parse::policy(text)
    }

    /// The file, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// BLAKE3 of the file, in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// What this site calls the holder of a key.
    pub fn petname(&self, key: &PublicKey) -> Option<&Name> {
        self.petnames.get(key)
    }

    /// What to call the holder of a key: the petname, or the key's fingerprint (`~…`).
    pub fn shown(&self, key: &PublicKey) -> String {
        self.petname(key).map_or_else(|| key.fingerprint(), Name::to_string)
    }

    /// The keys of a signer, in the order of the file; `None` where the policy does not name it.
    pub fn keys(&self, petname: &str) -> Option<&[PublicKey]> {
        self.signers.values().find(|signer| *signer.name == *petname).map(|signer| signer.keys.as_slice())
    }

    /// Whether the policy names this key. The records of such keys are kept in full.
    pub fn names(&self, key: &PublicKey) -> bool {
        self.petnames.contains_key(key)
    }

    /// Every key that the policy names, ascending.
    pub fn named_keys(&self) -> impl ExactSizeIterator<Item = &PublicKey> {
        self.petnames.keys()
    }

    /// The policy in plain sentences, with a warning for each rule that lets in more than one might think.
    pub fn summary(&self) -> String {
        summary::of(self)
    }

    /// Whether any rule asks where channels point.
    pub fn asks_for_channels(&self) -> bool {
        let requirements = self.rules.iter().chain([&self.default]).flat_map(|rule| &rule.require);
        requirements.into_iter().any(|requirement| matches!(requirement, Requirement::ChannelFresh(_)))
    }

    /// Whether any rule asks what is inside of releases.
    pub fn asks_what_is_inside(&self) -> bool {
        let requirements = self.rules.iter().flat_map(|rule| &rule.require);
        requirements.into_iter().any(|requirement| matches!(requirement, Requirement::NoAdvisory { .. }))
    }

    /// Whether two keys are one signer here: the same key, or two that the policy lists under one name.
    pub(super) fn is_one_signer(&self, a: &PublicKey, b: &PublicKey) -> bool {
        a == b || matches!((self.petname(a), self.petname(b)), (Some(a), Some(b)) if a == b)
    }
}

/// Someone who makes statements, by this site's name for them. Several keys (rotation) count once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signer {
    pub(super) name: Name,
    /// At least one.
    pub(super) keys: Vec<PublicKey>,
}

/// What some signers are relied on for, together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: Name,
    /// At least one, each once.
    pub(super) signers: Vec<Arc<Signer>>,
    /// How many of them must say so: 1 to all.
    pub(super) threshold: usize,
    /// How long a statement counts after it was issued.
    pub(super) max_age: Option<Age>,
    /// Whether keys that a signer lent its releases to sign these for it.
    pub(super) is_delegated: bool,
}

/// One rule: which releases it decides on, and how.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) matches: Match,
    pub(super) require: Vec<Requirement>,
    pub(super) then: VerdictKind,
    /// `Hold` or `Reject`: what becomes of a release that some of `require` is not met for.
    pub(super) otherwise: VerdictKind,
    pub(super) on_revoke: OnRevoke,
    pub(super) update: Update,
}

/// The releases that a rule decides on: those that fit every part that is given, by any of the values listed there.
#[derive(Debug, Clone, Default)]
pub(super) struct Match {
    pub(super) publishers: Option<Vec<Arc<Signer>>>,
    pub(super) names: Option<Vec<Glob>>,
    pub(super) arch: Option<Vec<Arch>>,
    pub(super) tags: Option<Vec<Name>>,
    /// Of the disks together.
    pub(super) sizes: Option<Vec<SizeRange>>,
    /// Of the node that judges: the releases themselves are of none.
    pub(super) federations: Option<Vec<Name>>,
}

impl Match {
    /// Whether there is nothing that it leaves out.
    pub(super) fn is_everything(&self) -> bool {
        matches!(self, Self { publishers: None, names: None, arch: None, tags: None, sizes: None, federations: None })
    }
}

/// What must hold before a rule accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Requirement {
    /// The release itself is signed by enough signers of a role.
    SignedBy(Arc<Role>),
    /// Enough signers of a role have endorsed it, with this predicate where one is given.
    EndorsedBy { role: Arc<Role>, predicate: Option<String> },
    /// Fewer signers of a role than its threshold have revoked it, or its publisher's key.
    NotRevokedBy(Arc<Role>),
    /// It was issued no longer ago than this.
    MaxAge(Age),
    /// Its disks are together no longer than this.
    MaxSize(Size),
    /// It asks for no more memory than this.
    MaxMemory(Size),
    /// It asks for no more virtual processors than this.
    MaxVcpus(u32),
    /// It names a list of what is inside.
    Sbom,
    /// A channel of its publisher's points at it now, by a head that is no older than this where an age is given.
    ChannelFresh(Option<Age>),
    /// It is known how it was built: by whom, where that is given, as enough of a role say, where that is given.
    Provenance { role: Option<Arc<Role>>, builder: Option<String> },
    /// So many others have built it again, and come to the same images; of a role, where that is given.
    RebuiltBy { count: usize, role: Option<Arc<Role>> },
    /// It is known what is inside of it, and no advisory of this severity or worse bears on that; of a role, where that is given.
    NoAdvisory { severity: Severity, role: Option<Arc<Role>> },
    /// Its licence can be met with these.
    Licence(Vec<String>),
}

impl Requirement {
    /// The role that it asks, where it asks one.
    pub(super) fn role(&self) -> Option<&Role> {
        match self {
            Self::SignedBy(role) | Self::EndorsedBy { role, .. } | Self::NotRevokedBy(role) => Some(role),
            Self::Provenance { role, .. } | Self::RebuiltBy { role, .. } | Self::NoAdvisory { role, .. } => {
                role.as_deref()
            }
            _ => None,
        }
    }

    /// The role whose signers' revocations it counts.
    pub(super) fn hears_revocations_of(&self) -> Option<&Role> {
        match self {
            Self::NotRevokedBy(role) => Some(role),
            _ => None,
        }
    }
}

impl fmt::Display for Requirement {
    /// As written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignedBy(role) => write!(f, "signed-by:{}", role.name),
            Self::EndorsedBy { role, predicate: None } => write!(f, "endorsed-by:{}", role.name),
            Self::EndorsedBy { role, predicate: Some(predicate) } => {
                write!(f, "endorsed-by:{}:{predicate}", role.name)
            }
            Self::NotRevokedBy(role) => write!(f, "not-revoked-by:{}", role.name),
            Self::MaxAge(age) => write!(f, "max-age:{age}"),
            Self::MaxSize(size) => write!(f, "max-size:{size}"),
            Self::MaxMemory(size) => write!(f, "max-memory:{size}"),
            Self::MaxVcpus(count) => write!(f, "max-vcpus:{count}"),
            Self::Sbom => f.write_str("sbom"),
            Self::ChannelFresh(None) => f.write_str("channel-fresh"),
            Self::ChannelFresh(Some(age)) => write!(f, "channel-fresh:{age}"),
            Self::Provenance { role, builder } => {
                let parts = [role.as_ref().map(|role| role.name.to_string()), builder.clone()];
                parts.into_iter().flatten().try_fold(f.write_str("provenance")?, |(), part| write!(f, ":{part}"))
            }
            Self::RebuiltBy { count, role: None } => write!(f, "rebuilt-by:{count}"),
            Self::RebuiltBy { count, role: Some(role) } => write!(f, "rebuilt-by:{count}:{}", role.name),
            Self::NoAdvisory { severity, role: None } => write!(f, "no-advisory:{}", severity.as_str()),
            Self::NoAdvisory { severity, role: Some(role) } => {
                write!(f, "no-advisory:{}:{}", severity.as_str(), role.name)
            }
            Self::Licence(allowed) => write!(f, "licence:{}", allowed.join("|")),
        }
    }
}

/// What happens to running instances when their release is revoked. New deployments are refused in either case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRevoke {
    /// They run on, and the node warns of each.
    Warn,
    /// They run on; nothing new is started from the release.
    #[default]
    BlockNew,
    /// Their memory is saved to disk and they stand still, for as long as the revocation counts.
    Suspend,
    /// They are stopped: asked to, and after the time of grace made to.
    Stop,
}

impl OnRevoke {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::BlockNew => "block-new",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
        }
    }
}

/// What happens when a newer release of a deployed appliance is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Update {
    /// Nothing.
    Never,
    /// It is proposed to the operator.
    #[default]
    Propose,
    /// It takes the place of instances that follow its channel.
    Auto,
}

impl Update {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Propose => "propose",
            Self::Auto => "auto",
        }
    }
}
