//! How fast gossip is: one record at a time through a mesh of up to a thousand sites, in virtual time.
//!
//! It is gossipsub as nodes are set up for it, as far as time goes: who publishes sends to every peer, each site passes on to
//! its mesh what it has not seen, once it has checked and stored it; and each second, sites tell a few others what they have
//! lately seen, who ask for what they lack. The numbers are the library's defaults, which nodes leave alone. Who takes part in
//! the mesh and passes nothing on costs the eager way; the lazy one is there for that.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use libp2p::gossipsub;

use super::timeline::{Micros, SECOND, Timeline};

/// What to measure. Everything random follows from `seed`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// From which everything random follows.
    pub seed: u64,
    /// Number of sites.
    pub sites: usize,
    /// Connections that each site begins; others begin as many with it, on average.
    pub connections: usize,
    /// One way between two sites takes this long.
    pub latency: Duration,
    /// Checking and storing a record takes a site this long, before it passes it on.
    pub handling: Duration,
    /// Sites that pass nothing on, of a hundred.
    pub mute_percent: u32,
    /// Records, each said at a site of its own.
    pub records: usize,
}

impl Mesh {
    /// Links of 50 ms, and 10 ms for a record at each site: a signature, and an fsync on a slow disk.
    pub fn new(seed: u64, sites: usize) -> Self {
        Self {
            seed,
            sites,
            connections: 8,
            latency: Duration::from_millis(50),
            handling: Duration::from_millis(10),
            mute_percent: 0,
            records: 20,
        }
    }
}

/// How long records took, from where they were said to each other site that passes on what it hears.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshSummary {
    /// Sites, mute ones included.
    pub sites: usize,
    /// Arrivals measured.
    pub arrivals: usize,
    /// Arrivals that never came: sites that are cut off by mute ones.
    pub lost: usize,
    /// The middle one, in seconds.
    pub median_seconds: f64,
    /// Of a hundred, ninety-nine were as fast, in seconds.
    pub p99_seconds: f64,
    /// The slowest, in seconds.
    pub slowest_seconds: f64,
    /// Copies of a record that a site received, on average.
    pub copies: f64,
}

impl fmt::Display for MeshSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sites       {}", self.sites)?;
        writeln!(f, "arrivals    {}, {} never came", self.arrivals, self.lost)?;
        writeln!(
            f,
            "seconds     {:.3} the middle one, {:.3} p99, {:.3} the slowest",
            self.median_seconds, self.p99_seconds, self.slowest_seconds
        )?;
        write!(f, "copies      {:.1} of a record at a site", self.copies)
    }
}

#[derive(Debug)]
enum Event {
    /// The record arrives.
    Record(usize),
    /// It was checked and stored, and goes on.
    Ready(usize),
    /// A site tells others what it has seen.
    Heartbeat(usize),
    /// It is told of a record, and asks for it where it lacks it.
    Told(usize),
    /// It is asked for it.
    Asked { by: usize },
}

/// What one site does with one record.
#[derive(Debug, Clone, Default)]
struct State {
    arrived_at: Option<Micros>,
    heartbeats_left: usize,
}

/// Lets each record run its course.
pub fn run(mesh: &Mesh) -> MeshSummary {
    let mut random = fastrand::Rng::with_seed(mesh.seed);
    let settings = gossipsub::Config::default();
    let links = draw_links(mesh, &mut random);
    let meshes = draw_meshes(&links, &settings, &mut random);
    let mute: Vec<bool> = (0..mesh.sites).map(|_| random.u32(..100) < mesh.mute_percent).collect();
    let (mut times, mut lost, mut copies) = (Vec::new(), 0, 0);
    for _ in 0..mesh.records {
        let speakers: Vec<usize> = (0..mesh.sites).filter(|site| !mute[*site]).collect();
        let Some(&origin) = random.choice(&speakers) else { continue };
        let mut course = Course {
            mesh,
            settings: &settings,
            links: &links,
            meshes: &meshes,
            mute: &mute,
            copies: 0,
            states: Vec::new(),
        };
        let arrived = course.run(origin, &mut random);
        copies += course.copies;
        for site in speakers.into_iter().filter(|site| *site != origin) {
            match arrived[site] {
                Some(at) => times.push(at),
                None => lost += 1,
            }
        }
    }
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last()).copied().unwrap_or(0);
    let seconds = |micros: Micros| micros as f64 / SECOND as f64;
    MeshSummary {
        sites: mesh.sites,
        arrivals: times.len(),
        lost,
        median_seconds: seconds(at(0.5)),
        p99_seconds: seconds(at(0.99)),
        slowest_seconds: seconds(at(1.0)),
        copies: copies as f64 / (mesh.records * mesh.sites).max(1) as f64,
    }
}

/// One record on its way.
struct Course<'m> {
    mesh: &'m Mesh,
    settings: &'m gossipsub::Config,
    links: &'m [BTreeSet<usize>],
    meshes: &'m [BTreeSet<usize>],
    mute: &'m [bool],
    copies: usize,
    states: Vec<State>,
}

impl Course<'_> {
    fn run(&mut self, origin: usize, random: &mut fastrand::Rng) -> Vec<Option<Micros>> {
        let [latency, handling] = [self.mesh.latency, self.mesh.handling].map(|time| time.as_micros() as Micros);
        let heartbeat = self.settings.heartbeat_interval().as_micros() as Micros;
        self.states = vec![State::default(); self.mesh.sites];
        let mut timeline = Timeline::new();
        self.states[origin].arrived_at = Some(0);
        // Who publishes sends to every peer that it has.
        self.has_it(origin, random.u64(..heartbeat), &mut timeline);
        for &peer in &self.links[origin] {
            timeline.after(latency, Event::Record(peer));
        }
        while let Some(event) = timeline.next() {
            match event {
                Event::Record(to) => {
                    self.copies += 1;
                    let state = &mut self.states[to];
                    if state.arrived_at.is_none() {
                        state.arrived_at = Some(timeline.now() + handling);
                        timeline.after(handling, Event::Ready(to));
                    }
                }
                Event::Ready(site) if self.mute[site] => {}
                Event::Ready(site) => {
                    let first = random.u64(..heartbeat);
                    self.has_it(site, first, &mut timeline);
                    for &peer in &self.meshes[site] {
                        timeline.after(latency, Event::Record(peer));
                    }
                }
                Event::Heartbeat(site) => {
                    for peer in self.told(site, random) {
                        timeline.after(latency, Event::Told(peer));
                    }
                    self.states[site].heartbeats_left -= 1;
                    if self.states[site].heartbeats_left > 0 {
                        timeline.after(heartbeat, Event::Heartbeat(site));
                    }
                }
                Event::Told(to) => {
                    if self.states[to].arrived_at.is_none() {
                        timeline.after(latency, Event::Asked { by: to });
                    }
                }
                Event::Asked { by: from } => timeline.after(latency, Event::Record(from)),
            }
        }
        self.states.iter().map(|state| state.arrived_at).collect()
    }

    /// The site has the record, and will tell of it for as long as it remembers.
    fn has_it(&mut self, site: usize, first: Micros, timeline: &mut Timeline<Event>) {
        let state = &mut self.states[site];
        state.heartbeats_left = self.settings.history_gossip();
        timeline.after(first, Event::Heartbeat(site));
    }

    /// Peers outside of its mesh that a site tells of what it has seen.
    fn told(&self, site: usize, random: &mut fastrand::Rng) -> Vec<usize> {
        let mut others: Vec<usize> = self.links[site].difference(&self.meshes[site]).copied().collect();
        random.shuffle(&mut others);
        let share = (others.len() as f64 * self.settings.gossip_factor()) as usize;
        others.truncate(share.max(self.settings.gossip_lazy()));
        others
    }
}

fn draw_links(mesh: &Mesh, random: &mut fastrand::Rng) -> Vec<BTreeSet<usize>> {
    let mut links = vec![BTreeSet::new(); mesh.sites];
    for site in 0..mesh.sites {
        for _ in 0..mesh.connections {
            let other = random.usize(..mesh.sites);
            if other != site {
                links[site].insert(other);
                links[other].insert(site);
            }
        }
    }
    links
}

/// Meshes as they settle: each site grafts peers until it has as many as it wants, and none gets more than it bears.
fn draw_meshes(
    links: &[BTreeSet<usize>],
    settings: &gossipsub::Config,
    random: &mut fastrand::Rng,
) -> Vec<BTreeSet<usize>> {
    let mut meshes = vec![BTreeSet::new(); links.len()];
    let mut order: Vec<usize> = (0..links.len()).collect();
    random.shuffle(&mut order);
    for site in order {
        let mut peers: Vec<usize> = links[site].iter().copied().collect();
        random.shuffle(&mut peers);
        for peer in peers {
            if meshes[site].len() >= settings.mesh_n() {
                break;
            }
            if meshes[peer].len() < settings.mesh_n_high() {
                meshes[site].insert(peer);
                meshes[peer].insert(site);
            }
        }
    }
    meshes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reaches_a_thousand_sites_within_two_seconds() {
        let summary = run(&Mesh::new(1, 1_000));
        assert_eq!((summary.lost, summary.arrivals), (0, 20 * 999));
        assert!(summary.p99_seconds <= 2.0, "{summary}");
        // It cannot be faster than the links.
        assert!(summary.median_seconds >= 0.1, "{summary}");
        assert!(summary.copies < 12.0, "{summary}");
    }

    #[test]
    fn sites_that_pass_nothing_on_do_not_keep_it_from_the_others() {
        let summary = run(&Mesh { mute_percent: 20, ..Mesh::new(2, 1_000) });
        assert!(summary.lost == 0 && summary.p99_seconds <= 2.0, "{summary}");
    }

    #[test]
    fn slow_links_are_seen() {
        let summary = run(&Mesh { latency: Duration::from_secs(1), records: 2, ..Mesh::new(3, 1_000) });
        assert!(summary.p99_seconds > 2.0, "{summary}");
        assert_eq!(run(&Mesh::new(4, 100)), run(&Mesh::new(4, 100)));
    }
}
