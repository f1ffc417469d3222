//! Links between sites: who can hear whom, how late, and how much at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::timeline::{Micros, SECOND};

/// Lies in records after which a peer is not listened to any more.
const MAX_LIES: u32 = 3;
/// One way between two sites takes this long, in microseconds.
const LATENCY: std::ops::Range<Micros> = 2_000..150_000;
/// What a site sends and receives, in bytes per second: 4 to 40 Mbit/s.
const RATES: [u64; 4] = [500_000, 1_000_000, 2_500_000, 5_000_000];

/// Links of a site, beside the two of the ring that connects the honest ones.
const EXTRA_LINKS: usize = 4;

/// The links of all sites.
#[derive(Debug)]
pub(super) struct Network {
    peers: Vec<Vec<usize>>,
    latency: HashMap<(usize, usize), Micros>,
    rates: Vec<u64>,
    /// When what is on its way to a site has come.
    downlink_free_at: Vec<Micros>,
    /// The side of a partition that each site is on.
    parts: Option<Vec<bool>>,
    /// How often one site caught another one lying.
    lies: BTreeMap<(usize, usize), u32>,
}

impl Network {
    pub(super) fn new(sites: usize, random: &mut fastrand::Rng) -> Self {
        let rates = (0..sites).map(|_| RATES[random.usize(..RATES.len())]).collect();
        Self {
            peers: vec![Vec::new(); sites],
            latency: HashMap::new(),
            rates,
            downlink_free_at: vec![0; sites],
            parts: None,
            lies: BTreeMap::new(),
        }
    }

    /// Links two sites, where they are not linked yet.
    pub(super) fn link(&mut self, a: usize, b: usize) {
        if a != b && !self.peers[a].contains(&b) {
            self.peers[a].push(b);
            self.peers[b].push(a);
        }
    }

    /// Links the honest sites in a ring, and each site with some others, one of them honest.
    pub(super) fn draw_links(&mut self, honest: &[usize], random: &mut fastrand::Rng) {
        for (place, &site) in honest.iter().enumerate() {
            self.link(site, honest[(place + 1) % honest.len()]);
        }
        for site in 0..self.peers.len() {
            for _ in 0..EXTRA_LINKS {
                let other = random.usize(..self.peers.len());
                self.link(site, other);
            }
            self.link(site, honest[random.usize(..honest.len())]);
        }
    }

    /// The sites that a site has links to.
    pub(super) fn peers(&self, site: usize) -> &[usize] {
        &self.peers[site]
    }

    /// How long a message takes from one site to another, this time.
    pub(super) fn latency(&mut self, a: usize, b: usize, random: &mut fastrand::Rng) -> Micros {
        let base = *self.latency.entry((a.min(b), a.max(b))).or_insert_with(|| random.u64(LATENCY));
        base + random.u64(..=base / 4)
    }

    /// How long a site's uplink is busy with so many bytes.
    pub(super) fn sending_time(&self, site: usize, bytes: usize) -> Micros {
        bytes as u64 * SECOND / self.rates[site]
    }

    /// When bytes that begin to arrive at `at` have arrived in full, after all that is on its way to the site already.
    pub(super) fn arrival(&mut self, site: usize, bytes: usize, at: Micros) -> Micros {
        let free_at = self.downlink_free_at[site].max(at) + bytes as u64 * SECOND / self.rates[site];
        self.downlink_free_at[site] = free_at;
        free_at
    }

    /// Holds a lie against a peer.
    pub(super) fn caught(&mut self, site: usize, liar: usize) {
        *self.lies.entry((site, liar)).or_default() += 1;
    }

    /// Whether two sites can hear each other and still want to.
    pub(super) fn is_connected(&self, a: usize, b: usize) -> bool {
        let is_whole = self.parts.as_ref().is_none_or(|parts| parts[a] == parts[b]);
        let trusts = |a, b| self.lies.get(&(a, b)).is_none_or(|lies| *lies < MAX_LIES);
        is_whole && trusts(a, b) && trusts(b, a)
    }

    /// The federation falls into parts.
    pub(super) fn split(&mut self, parts: Vec<bool>) {
        self.parts = Some(parts);
    }

    /// It is whole again.
    pub(super) fn heal(&mut self) {
        self.parts = None;
    }

    /// Groups of these sites that are linked with each other through sites of the same group.
    pub(super) fn components(&self, among: &BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
        let (mut left, mut components) = (among.clone(), Vec::new());
        while let Some(first) = left.pop_first() {
            let (mut component, mut frontier) = (BTreeSet::from([first]), vec![first]);
            while let Some(site) = frontier.pop() {
                for peer in &self.peers[site] {
                    if left.contains(peer) && self.is_connected(site, *peer) {
                        left.remove(peer);
                        component.insert(*peer);
                        frontier.push(*peer);
                    }
                }
            }
            components.push(component);
        }
        components
    }
}
