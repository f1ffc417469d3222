//! Many simulated sites in virtual time, from one seed.
//!
//! The sites run the very code of `protocol` that nodes run: envelopes and their verification, both sides of catch-up,
//! manifests and chunks, the messages of a swarm stream and the download; and the node's own policy parser and judge.
//! What is simulated is everything around it: clocks, links with latency, bandwidth and loss, partitions that heal,
//! gossip (as flooding, without gossipsub's meshes), look-ups of providers, stores in memory, and sites that lie or say
//! nothing.
//!
//! ```text
//! publish ─► gossip, catch-up ─► records of a site ─► verdict ─► fetch ─► store
//! ```
//!
//! What must hold, or [`run`] fails:
//!
//! 1. **Sites converge**: honest sites that name a signer in their policy, and are connected through such sites, end with
//!    the same records of that signer, co-signatures included, and with every one that was published among them.
//! 2. **They judge alike**: such sites with the same policy file come to the same verdict on every release of the
//!    publishers that it names.
//! 3. **What is wanted arrives**: an honest site whose policy accepts a release, or whose operator asked for an image, ends
//!    with all of it, as long as honest sites connect it with one that has it.
//! 4. **Nothing unverified is stored**: what a site holds was made by the signers that it names as its signers, and every
//!    chunk is, byte for byte, one that a publisher cut. Nobody honest is called a liar.
//! 5. **A seed is not drained**: a holder from which many fetch at once uploads no more than a few copies.
//! 6. **Same seed, same trace**: [`Summary::trace`] covers every event and what came of it.

mod catchup;
mod channels;
mod check;
pub mod command;
mod content;
pub mod crowd;
mod fetch;
mod gossip;
mod heard;
pub mod mesh;
mod network;
mod policies;
mod records;
pub mod siege;
mod site;
mod store;
mod swarm;
#[cfg(test)]
mod tests;
mod timeline;
mod upload;
mod world;

use std::fmt;

use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId};

/// What to simulate. Everything random follows from `seed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// From which everything random follows.
    pub seed: u64,
    /// Number of sites.
    pub sites: usize,
    /// Every so many sites, one corrupts what it sends; 0 for none.
    pub one_liar_in: usize,
    /// Every so many sites, one takes part in gossip but stalls whoever asks it for an image; 0 for none.
    pub one_staller_in: usize,
    /// Records by signers that policies name: releases, endorsements, revocations.
    pub records: usize,
    /// Records by a stranger whom no policy names, who floods the federation.
    pub flood: usize,
    /// Images that releases name. The first has a manifest of several pages.
    pub images: usize,
    /// Sites that want one more image, from a single holder, at the same moment.
    pub crowd: usize,
    /// Data of that image, in bytes.
    pub crowd_image_bytes: usize,
    /// Messages lost, of a thousand gossiped. On streams they come late instead.
    pub loss_per_mille: u32,
    /// Swarm streams that break, of a million pages and chunks sent.
    pub breaks_per_million: u32,
    /// Times that the federation falls into two parts for a while.
    pub partitions: usize,
}

impl Scenario {
    /// 50 sites, one liar and one staller in ten, 300 records and a flood of as many, 5 images and a crowd of 8, 2 % loss,
    /// two partitions.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            sites: 50,
            one_liar_in: 10,
            one_staller_in: 10,
            records: 300,
            flood: 300,
            images: 5,
            crowd: 8,
            crowd_image_bytes: 12_000_000,
            loss_per_mille: 20,
            breaks_per_million: 2_000,
            partitions: 2,
        }
    }
}

/// What came of a scenario in which everything held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Sites, liars and stallers included.
    pub sites: usize,
    /// Sites that corrupt what they send.
    pub liars: usize,
    /// Sites that stall whoever asks them for an image.
    pub stallers: usize,
    /// Events simulated.
    pub events: u64,
    /// Virtual time until all had converged, in microseconds.
    pub virtual_micros: u64,
    /// Records published, the flood included.
    pub published: usize,
    /// Gossip messages sent.
    pub gossiped: u64,
    /// Of those, lost on the way.
    pub lost: u64,
    /// Catch-up sessions begun.
    pub sessions: u64,
    /// Of those, cut off by a partition or a lie.
    pub sessions_cut: u64,
    /// Records that came by catch-up and were new.
    pub caught_up: u64,
    /// Corrupted records and messages refused.
    pub refused: u64,
    /// Records that a site evicted because it names none of their signers.
    pub evicted: u64,
    /// Heads of channels that came to a site and were passed over, a higher one being known.
    pub superseded: u64,
    /// Channels that contradict themselves, and of which a site holds the proof.
    pub contradictions: u64,
    /// Pairs of verdicts compared between sites with the same policy.
    pub verdicts: u64,
    /// Verdicts that accept a release.
    pub accepted: u64,
    /// Images fetched by a site, to the last chunk.
    pub fetched: u64,
    /// Swarm streams opened.
    pub streams: u64,
    /// Of those, broken in the middle.
    pub streams_broken: u64,
    /// Times that a holder lost its place because it delivered nothing in time.
    pub stalled: u64,
    /// Lies of holders that were found out: wrong chunks, pages and messages.
    pub chunks_refused: u64,
    /// Bytes of pages and chunks sent.
    pub wire_bytes: u64,
    /// Bytes of chunks that came a second time.
    pub duplicate_bytes: u64,
    /// What the first holder of an image uploaded of it, in hundredths of a copy: the most of any image that came to be
    /// wanted little by little.
    pub seed_percent: u64,
    /// The same for the image that a crowd wanted at once.
    pub crowd_percent: u64,
    /// The hash of every event and its outcome, in order.
    pub trace: Hash,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            sites: 0,
            liars: 0,
            stallers: 0,
            events: 0,
            virtual_micros: 0,
            published: 0,
            gossiped: 0,
            lost: 0,
            sessions: 0,
            sessions_cut: 0,
            caught_up: 0,
            refused: 0,
            evicted: 0,
            superseded: 0,
            contradictions: 0,
            verdicts: 0,
            accepted: 0,
            fetched: 0,
            streams: 0,
            streams_broken: 0,
            stalled: 0,
            chunks_refused: 0,
            wire_bytes: 0,
            duplicate_bytes: 0,
            seed_percent: 0,
            crowd_percent: 0,
            trace: Hash([0; 32]),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |percent: u64| percent as f64 / 100.0;
        writeln!(f, "sites       {} ({} of them liars, {} stallers)", self.sites, self.liars, self.stallers)?;
        writeln!(f, "events      {} in {:.1} s of virtual time", self.events, self.virtual_micros as f64 / 1e6)?;
        writeln!(f, "published   {} records", self.published)?;
        writeln!(f, "gossip      {} messages, {} lost", self.gossiped, self.lost)?;
        writeln!(
            f,
            "catch-up    {} sessions, {} cut off, {} records",
            self.sessions, self.sessions_cut, self.caught_up
        )?;
        writeln!(f, "refused     {} corrupted messages", self.refused)?;
        writeln!(f, "evicted     {} records of signers that nobody there names", self.evicted)?;
        writeln!(
            f,
            "channels    {} heads passed over, {} contradictions proved",
            self.superseded, self.contradictions
        )?;
        writeln!(f, "verdicts    {} compared, {} accept", self.verdicts, self.accepted)?;
        writeln!(
            f,
            "images      {} fetched, {:.1} MB sent, {:.1} MB of it twice",
            self.fetched,
            self.wire_bytes as f64 / 1e6,
            self.duplicate_bytes as f64 / 1e6
        )?;
        writeln!(
            f,
            "streams     {} opened, {} broken; {} lies of holders refused, {} stalled",
            self.streams, self.streams_broken, self.chunks_refused, self.stalled
        )?;
        writeln!(
            f,
            "seeds       uploaded {:.2} copies at most, and {:.2} to a crowd",
            percent(self.seed_percent),
            percent(self.crowd_percent)
        )?;
        write!(f, "trace       {}", self.trace)
    }
}

/// What did not hold.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Sites that are connected did not come to hold the same.
    #[error(
        "after {seconds} s of virtual time, site {site} holds {held} of the {published} records of signer {signer}"
    )]
    NotConverged {
        /// The site.
        site: usize,
        /// The signer that it names.
        signer: PublicKey,
        /// Records of that signer that it holds in full.
        held: usize,
        /// Records of that signer that there are.
        published: usize,
        /// Virtual time waited.
        seconds: u64,
    },
    /// A site did not get what it wants.
    #[error("after {seconds} s of virtual time, site {site} lacks {missing} chunks of image {image}")]
    NotFetched {
        /// The site.
        site: usize,
        /// The image that it wants.
        image: ImageId,
        /// Chunks that it lacks.
        missing: usize,
        /// Virtual time waited.
        seconds: u64,
    },
    /// A fetcher of a crowd did not get the image.
    #[error("after {seconds} s of virtual time, site {site} lacks {missing} chunks of the image that a crowd fetches")]
    Unserved {
        /// The site.
        site: usize,
        /// Chunks that it lacks.
        missing: usize,
        /// Virtual time waited.
        seconds: u64,
    },
    /// Two sites with the same policy judge differently.
    #[error("sites {} and {} have the same policy, and come to different verdicts on release {release}", sites[0], sites[1])]
    Disagreement {
        /// The release.
        release: RecordId,
        /// The sites.
        sites: [usize; 2],
    },
    /// A site holds what nobody made.
    #[error("site {site} holds a record that its signers did not make, or bytes that no publisher cut")]
    Unverified {
        /// The site.
        site: usize,
    },
    /// An honest site was taken for a liar.
    #[error("site {site} is honest, and was dropped as a liar")]
    Slandered {
        /// The site.
        site: usize,
    },
    /// A single holder had to send too much.
    #[error("a holder uploaded {percent} % of an image that several fetched at once; {allowed} % are allowed")]
    Overloaded {
        /// Hundredths of a copy that it uploaded.
        percent: u64,
        /// Hundredths of a copy that are allowed.
        allowed: u64,
    },
    /// Federations under siege did not hold.
    #[error("{failed} of {run} federations did not hold")]
    Besieged {
        /// Those that did not.
        failed: usize,
        /// All that were simulated.
        run: usize,
    },
    /// Standard output is closed.
    #[error("cannot print the summary: {0}")]
    Output(std::io::Error),
    /// The simulator itself is wrong.
    #[error("the simulator could not make or exchange a record: {0}")]
    Broken(String),
}

/// Simulates, until all sites that should have converged have.
///
/// # Errors
/// The first thing that does not hold.
pub fn run(scenario: &Scenario) -> Result<Summary, SimError> {
    world::World::new(scenario)?.run()
}
