//! Freshness: who may move a channel, which of its heads is the newest, and what a head is worth now.
//!
//! ```text
//! Delegation ─► authority ─► which keys sign for a publisher, under which epoch
//! Release ────► published ─► in whose word a release is published
//! Channel ────► heads ─────► the highest (epoch, sequence), and a proof where two contradict each other
//!               pending ───► those that wait for the signatures of more keys
//!               state ─────► fresh · frozen · rolled back · contradicted, at a time and above the floors of a site
//! ```
//!
//! Two questions are kept apart. Whether a head is *rightful* depends on signatures alone, never on the time or on who
//! asks: so all sites come to the same heads. What it is *worth* depends on the clock, on revocations and on what the site
//! has seen before.
//!
//! The attacks that this resists are those of the TUF specification's list, as far as they are about freshness: see the
//! table in the tests.

mod authority;
mod heads;
mod pending;
mod published;
mod state;
#[cfg(test)]
mod tests;

pub use authority::{Authority, Unrightful, authority, is_delegation, rightful};
pub use heads::{Heads, Position};
pub use pending::{Pending, PendingFlaw, pending};
pub use published::{Published, Unpublished, is_lent, published};
pub use state::{ChannelState, Flaw, Floor, Known, state};

use crate::bounded::Name;
use crate::ids::PublicKey;
use crate::record::Channel;

/// A channel of one appliance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelName {
    /// Whose.
    pub publisher: PublicKey,
    /// The appliance.
    pub name: Name,
    /// The channel.
    pub channel: Name,
}

impl From<&Channel> for ChannelName {
    fn from(head: &Channel) -> Self {
        Self { publisher: head.publisher, name: head.name.clone(), channel: head.channel.clone() }
    }
}
