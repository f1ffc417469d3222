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

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::UnixSeconds;
use crate::codec::{self, CodecError, Value};
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

    pub(crate) fn decode(kind: &str, body: Value) -> Self {
        fn read<T: Serialize + DeserializeOwned>(body: Value, wrap: impl FnOnce(T) -> Body) -> Body {
            codec::decode_value(body).map_or(Body::Opaque, wrap)
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

    pub(crate) fn encode(&self) -> Result<(&'static str, Value), CodecError> {
        fn write<T: Serialize>(kind: &'static str, body: &T) -> Result<(&'static str, Value), CodecError> {
            Ok((kind, codec::to_value(body)?))
        }
        match self {
            Self::Release(release) => write(Self::RELEASE, release),
            Self::Endorsement(endorsement) => write(Self::ENDORSEMENT, endorsement),
            Self::Revocation(revocation) => write(Self::REVOCATION, revocation),
            Self::Channel(channel) => write(Self::CHANNEL, channel),
            Self::Delegation(delegation) => write(Self::DELEGATION, delegation),
            Self::Advisory(advisory) => write(Self::ADVISORY, advisory),
            Self::Recipe(recipe) => write(Self::RECIPE, recipe),
            Self::Component(component) => write(Self::COMPONENT, component),
            Self::Opaque => Err(CodecError::Form("an opaque record cannot be written anew".into())),
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
