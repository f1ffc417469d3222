//! What is said: the kinds of record that sites exchange.

mod advisory;
mod channel;
mod context;
mod delegation;
mod endorsement;
mod recipe;
mod release;
mod revocation;

pub use advisory::{Advisory, Severity};
pub use channel::Channel;
pub use context::{ContextError, ContextInput, ContextSchema, InputType};
pub use delegation::{DelegatedRole, Delegation, DelegationError, MAX_DELEGATED_NAMES, MAX_DELEGATES};
pub use endorsement::{Endorsement, EndorsementBody, PREDICATE_REBUILT, PREDICATE_TESTED};
pub use recipe::{Component, MAX_INLINE_BYTES, Recipe, Source};
pub use release::{Arch, Boot, Disk, DiskFormat, Firmware, Release, Requirements};
pub use revocation::{Revocation, RevocationSubject};

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use crate::UnixSeconds;
use crate::codec::Part;
use crate::ids::RecordId;
use crate::signed::Header;

/// One signed statement, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its name: the hash of its payload.
    pub id: RecordId,
    /// What it says about itself.
    pub header: Header,
    /// What it says.
    pub body: Body,
}

/// What a record says, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// One immutable version of an appliance.
    Release(Box<Release>),
    /// What a third party says of a release.
    Endorsement(Endorsement),
    /// A statement withdrawn.
    Revocation(Revocation),
    /// Where a channel points.
    Channel(Channel),
    /// Keys that act for a publisher.
    Delegation(Delegation),
    /// A flaw in a package.
    Advisory(Box<Advisory>),
    /// How an appliance is built.
    Recipe(Box<Recipe>),
    /// A part that recipes share.
    Component(Box<Component>),
    /// A kind or version that this node does not know, or a form of a known kind that it cannot read. It is kept and
    /// relayed as it is, and policy never accepts anything on its strength.
    Opaque,
}

/// A record issued further ahead of our clock than this is not taken in: 10 minutes forgives clocks that drift.
pub const MAX_AHEAD_SECONDS: UnixSeconds = 600;

impl Body {
    const RELEASE: &'static str = "release";
    const ENDORSEMENT: &'static str = "endorsement";
    const REVOCATION: &'static str = "revocation";
    const CHANNEL: &'static str = "channel";
    const DELEGATION: &'static str = "delegation";
    const ADVISORY: &'static str = "advisory";
    const RECIPE: &'static str = "recipe";
    const COMPONENT: &'static str = "component";

    pub(crate) fn decode(kind: &str, body: Part<'_>) -> Self {
        fn read<T: Serialize + DeserializeOwned>(body: Part<'_>, wrap: impl FnOnce(T) -> Body) -> Body {
            body.read().map_or(Body::Opaque, wrap)
        }
        match kind {
            Self::RELEASE => read(body, |release| Self::Release(Box::new(release))),
            Self::ENDORSEMENT => read(body, Self::Endorsement),
            Self::REVOCATION => read(body, Self::Revocation),
            Self::CHANNEL => read(body, Self::Channel),
            Self::DELEGATION => read(body, Self::Delegation),
            Self::ADVISORY => read(body, |advisory| Self::Advisory(Box::new(advisory))),
            Self::RECIPE => read(body, |recipe| Self::Recipe(Box::new(recipe))),
            Self::COMPONENT => read(body, |component| Self::Component(Box::new(component))),
            _ => Self::Opaque,
        }
    }

    /// The name of its kind; none where it is opaque.
    pub(crate) fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Release(_) => Some(Self::RELEASE),
            Self::Endorsement(_) => Some(Self::ENDORSEMENT),
            Self::Revocation(_) => Some(Self::REVOCATION),
            Self::Channel(_) => Some(Self::CHANNEL),
            Self::Delegation(_) => Some(Self::DELEGATION),
            Self::Advisory(_) => Some(Self::ADVISORY),
            Self::Recipe(_) => Some(Self::RECIPE),
            Self::Component(_) => Some(Self::COMPONENT),
            Self::Opaque => None,
        }
    }

    /// Whether records of this kind must name their federation (`true`) or must not (`false`); `None` for kinds unknown here.
    pub fn belongs_to_a_federation(&self) -> Option<bool> {
        match self {
            Self::Revocation(_) | Self::Channel(_) | Self::Delegation(_) => Some(true),
            Self::Release(_) | Self::Endorsement(_) | Self::Advisory(_) | Self::Recipe(_) | Self::Component(_) => {
                Some(false)
            }
            Self::Opaque => None,
        }
    }

    /// Whether every version of this program reads this kind. A record of a later kind that is wrong in itself comes
    /// from nodes that could not know: it says nothing, and nobody is blamed for it.
    pub(crate) fn is_of_the_first_kinds(&self) -> bool {
        matches!(self, Self::Release(_) | Self::Endorsement(_) | Self::Revocation(_))
    }

    /// The release, where it is one.
    pub fn release(&self) -> Option<&Release> {
        match self {
            Self::Release(release) => Some(release),
            _ => None,
        }
    }

    /// The endorsement, where it is one.
    pub fn endorsement(&self) -> Option<&Endorsement> {
        match self {
            Self::Endorsement(endorsement) => Some(endorsement),
            _ => None,
        }
    }

    /// The revocation, where it is one.
    pub fn revocation(&self) -> Option<&Revocation> {
        match self {
            Self::Revocation(revocation) => Some(revocation),
            _ => None,
        }
    }

    /// The head of a channel, where it is one.
    pub fn channel(&self) -> Option<&Channel> {
        match self {
            Self::Channel(channel) => Some(channel),
            _ => None,
        }
    }

    /// The delegation, where it is one.
    pub fn delegation(&self) -> Option<&Delegation> {
        match self {
            Self::Delegation(delegation) => Some(delegation),
            _ => None,
        }
    }

    /// The advisory, where it is one.
    pub fn advisory(&self) -> Option<&Advisory> {
        match self {
            Self::Advisory(advisory) => Some(advisory),
            _ => None,
        }
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Release(release) => release.serialize(serializer),
            Self::Endorsement(endorsement) => endorsement.serialize(serializer),
            Self::Revocation(revocation) => revocation.serialize(serializer),
            Self::Channel(channel) => channel.serialize(serializer),
            Self::Delegation(delegation) => delegation.serialize(serializer),
            Self::Advisory(advisory) => advisory.serialize(serializer),
            Self::Recipe(recipe) => recipe.serialize(serializer),
            Self::Component(component) => component.serialize(serializer),
            Self::Opaque => Err(serde::ser::Error::custom("an opaque record cannot be written anew")),
        }
    }
}
