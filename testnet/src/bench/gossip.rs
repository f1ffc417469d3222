//! One record by gossip to 30 nodes on this machine: when it is in each catalog, counted from when it was in the publisher's.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rialto_node::dir::NodeDir;

use super::table::{Row, Target};
use super::{Bench, BenchError, FEDERATION, Result};
use crate::site::{Plan, Site};

/// Nodes, the publisher among them.
const NODES: usize = 30;
/// Peers that each has before anything is measured: as many as it wants in its mesh.
const PEERS: u64 = 6;
/// Records that each run measures, each published at another node.
const RECORDS: usize = 10;
/// The longest wait for all nodes to meet, or to hear of a record.
const WITHIN: Duration = Duration::from_secs(60);
/// News that wait to be read, far more than there are nodes.
const NEWS: usize = 4_096;

/// A node's catalog has changed.
type News = (usize, Instant);

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut sites: Vec<(Site, String)> = Vec::new();
    for number in 0..NODES {
        let plan = Plan::new(&format!("gossip{number}"), FEDERATION);
        // Each knows two that are there already, and finds the others through them.
        let known = [0, number / 2].into_iter().filter_map(|known| sites.get(known)).map(|(site, _)| site);
        let plan = known.into_iter().try_fold(plan, Plan::knows)?;
        let mut site = Site::init(&bench.rialto, &bench.base, &plan)?;
        site.start()?;
        let key = site.new_key("news")?;
        sites.push((site, key));
    }
    for (site, _) in &sites {
        let is_met = |status: &serde_json::Value| status["peers"].as_u64() >= Some(PEERS);
        site.until(WITHIN, "peers", &["status"], is_met)?;
    }
    let (tell, news) = sync_channel(NEWS);
    for (number, (site, _)) in sites.iter().enumerate() {
        listen(number, site, tell.clone())?;
    }
    // The first one is for the meshes to settle.
    publish(&sites, 0, "the first", &news)?;
    let what = |share: &str| format!("one record to {NODES} nodes, {share}");
    let mut p99 = Row::new("gossip", what("p99 of its arrivals"), "s").must(Target::AtMost(1.0));
    let mut median = Row::new("gossip", what("the middle one"), "s");
    for run in 0..bench.runs {
        let mut times: Vec<f64> = Vec::new();
        for record in 0..RECORDS {
            let publisher = (run as usize * RECORDS + record) % NODES;
            times.extend(publish(&sites, publisher, &format!("run {run}, record {record}"), &news)?);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        p99.push(at(0.99), f64::NAN);
        median.push(at(0.5), f64::NAN);
    }
    for (site, _) in sites {
        bench.remove(site)?;
    }
    Ok(vec![p99, median])
}

/// Publishes a record at a node; gives the seconds from when it was in that node's catalog until it was in each other's.
fn publish(sites: &[(Site, String)], publisher: usize, what: &str, news: &Receiver<News>) -> Result<Vec<f64>> {
    // Nothing else changes a catalog: what is there by now is of the record before.
    while news.try_recv().is_ok() {}
    let (site, key) = &sites[publisher];
    site.json(&["revoke", key, "--key", "news", "--reason", what])?;
    let mut arrived = BTreeMap::new();
    let started = Instant::now();
    while arrived.len() < sites.len() {
        let left = WITHIN.saturating_sub(started.elapsed());
        let Ok((site, at)) = news.recv_timeout(left) else {
            let found = format!("it is at {} of them", arrived.len());
            return Err(BenchError::Claim { expected: format!("a record at all of {NODES} nodes"), found });
        };
        arrived.entry(site).or_insert(at);
    }
    let from = arrived.remove(&publisher).unwrap_or(started);
    Ok(arrived.values().map(|at| at.saturating_duration_since(from).as_secs_f64()).collect())
}

/// Tells of every change of a node's catalog, as it happens, until the node ends.
fn listen(number: usize, site: &Site, tell: SyncSender<News>) -> Result<()> {
    let directory = NodeDir::new(site.directory()).and_then(|directory| directory.socket());
    let socket = directory.map_err(|error| BenchError::Missing(error.to_string()))?;
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /api/v1/changes HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut lines = BufReader::new(stream).lines();
    // It listens once it has answered.
    let answer = lines.next().transpose()?.unwrap_or_default();
    if !answer.contains(" 200 ") {
        return Err(BenchError::Claim { expected: "changes as they happen".to_owned(), found: answer });
    }
    std::thread::spawn(move || {
        for line in lines.map_while(std::result::Result::ok) {
            if line.contains("\"catalog\"") && tell.send((number, Instant::now())).is_err() {
                return;
            }
        }
    });
    Ok(())
}
