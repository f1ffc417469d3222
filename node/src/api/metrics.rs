//! `/metrics`: what a monitoring system scrapes, in the OpenMetrics text format.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rialto_web::api::{ApiError, Result};

use crate::node::Node;
use crate::node::work::store_error;

/// Sites that have a metric of their own: those with which most was exchanged.
const MAX_PEERS: usize = 20;

/// The metrics of this moment. They are read when they are asked for: nothing is counted twice.
pub(super) fn text(node: &Node) -> Result<String> {
    let images = node.store.images().map_err(store_error)?;
    let instances = node.deployer.list();
    let running = instances.iter().filter(|instance| instance.state == "running").count();
    let is_readable = node.policy.borrow().status.error.is_none();
    let mut registry = Registry::with_prefix("rialto");
    let mut gauge = |name: &str, help: &str, unit: Option<Unit>, value: u64| {
        let metric = Gauge::<i64>::default();
        metric.set(i64::try_from(value).unwrap_or(i64::MAX));
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, metric),
            None => registry.register(name, help, metric),
        }
    };
    gauge("peers", "Connected peers", None, node.net.peers().borrow().len() as u64);
    gauge("bans", "Peers kept away from, each thing counted", None, node.net.bans().list().len() as u64);
    gauge(
        "strangers_kept_out",
        "Connections refused since the node started, because the list of members does not have the peer",
        None,
        node.net.bans().strangers(),
    );
    gauge("records", "Records in the catalog", None, node.catalog.len() as u64);
    gauge(
        "records_evictable",
        "Length of the records that may be evicted",
        Some(Unit::Bytes),
        node.catalog.evictable_bytes(),
    );
    gauge("images", "Images in the store, incomplete ones included", None, images.len() as u64);
    gauge("store", "Length of the store's own files", Some(Unit::Bytes), node.store.stored_bytes());
    gauge(
        "store_free",
        "Free space on the store's file system",
        Some(Unit::Bytes),
        node.store.free_bytes().map_err(store_error)?,
    );
    gauge("store_reserved", "Space set aside for fetches", Some(Unit::Bytes), node.store.reserved_bytes());
    if let Some(quota) = node.config.store.quota {
        gauge("store_quota", "What the store may take", Some(Unit::Bytes), quota.bytes());
    }
    gauge("instances_running", "Instances that run", None, running as u64);
    gauge("instances", "Instances in any state", None, instances.len() as u64);
    gauge(
        "policy_readable",
        "1 while the policy file can be read, 0 while nothing is accepted",
        None,
        is_readable.into(),
    );
    gauge("uptime", "Time since the node started", Some(Unit::Seconds), node.started.elapsed().as_secs());
    let scrub = node.scrub.status();
    gauge("scrub_damaged_chunks", "Damaged chunks found since the node started", None, scrub.damaged_chunks);
    gauge(
        "scrub_read",
        "Bytes of the store that were checked since the node started",
        Some(Unit::Bytes),
        scrub.read_bytes,
    );
    traffic(node, &mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| ApiError::failed(error.to_string()))?;
    Ok(text)
}

/// What moved between this node and others.
fn traffic(node: &Node, registry: &mut Registry) {
    let totals = node.exchange.traffic();
    let counter = |value: u64| {
        let counter = Counter::<u64, AtomicU64>::default();
        counter.inc_by(value);
        counter
    };
    for (name, help, value) in [
        ("uploaded", "Chunks and pages sent to other sites", totals.sent_bytes),
        ("downloaded", "Chunks and pages received from other sites", totals.received_bytes),
        ("duplicate", "Of what was received, what was of no use: received twice, or refused", totals.duplicate_bytes),
    ] {
        registry.register_with_unit(name, help, Unit::Bytes, counter(value));
    }
    let chunks = Family::<Vec<(&str, String)>, Counter<u64, AtomicU64>>::default();
    for (encoding, count) in &totals.chunks {
        for (direction, value) in [("sent", count.sent), ("received", count.received)] {
            chunks
                .get_or_create(&vec![("encoding", (*encoding).to_owned()), ("direction", direction.into())])
                .inc_by(value);
        }
    }
    registry.register("chunks", "Chunks by encoding", chunks);
    let mut peers: Vec<_> = node.exchange.peer_traffic().into_iter().collect();
    peers.sort_by_key(|(_, moved)| std::cmp::Reverse(moved.sent_bytes + moved.received_bytes));
    peers.truncate(MAX_PEERS);
    let rates = Family::<Vec<(&str, String)>, Gauge<f64, AtomicU64>>::default();
    for (peer, moved) in peers {
        for (direction, rate) in [("sent", moved.sent_rate), ("received", moved.received_rate)] {
            rates.get_or_create(&vec![("peer", peer.to_string()), ("direction", direction.into())]).set(rate);
        }
    }
    registry.register("peer_rate", "Bytes a second lately, of the sites with which most was exchanged", rates);
}
