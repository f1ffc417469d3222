//! Sites in one process: records by gossip and by catch-up.

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use rialto_protocol::ids::{Hash, PublicKey, RecordId};
use rialto_protocol::record::{Body, Endorsement, EndorsementBody};
use rialto_protocol::signed::{Draft, Envelope};
use rialto_protocol::sync::{Beginning, SyncSet};
use tempfile::tempdir;
use tokio_util::sync::CancellationToken;

use super::gossip::{self, Records, Taken};
use super::testing::{net, within};
use super::{Net, sync};
use crate::catalog::{Catalog, Outcome};

const NOW: u64 = 1_700_000_000;

/// A catalog without a node, which may have no room.
struct Library {
    catalog: Catalog,
    has_room: bool,
}

impl Records for Library {
    fn take(&self, envelopes: Vec<Vec<u8>>, from: Option<PeerId>) -> Vec<Taken> {
        if !self.has_room {
            return vec![Taken::NotKept; envelopes.len()];
        }
        let source = from.map(|peer| peer.to_string());
        let taken = |outcome| match outcome {
            Outcome::New | Outcome::Merged => Taken::New,
            Outcome::Duplicate | Outcome::Ignored(_) => Taken::Ignored,
            Outcome::Refused(error) => Taken::Refused(error.to_string()),
        };
        let outcomes = self.catalog.insert_batch(&envelopes, source.as_deref(), NOW).unwrap();
        outcomes.into_iter().map(taken).collect()
    }

    fn sync_set(&self) -> SyncSet {
        self.catalog.sync_set()
    }

    fn envelope(&self, id: Beginning) -> Option<Vec<u8>> {
        self.catalog.envelope(id)
    }

    fn is_wanted(&self, id: Beginning) -> bool {
        self.catalog.is_wanted(id, NOW)
    }
}

fn library(folder: &Path) -> Arc<Library> {
    let catalog = Catalog::open(folder, "test".parse().unwrap(), 1 << 20).unwrap();
    Arc::new(Library { catalog, has_room: true })
}

/// A statement that two keys may sign, signed by some of them.
fn statement(signers: &[u8]) -> Envelope {
    let [one, two] = [1, 2].map(|seed| SigningKey::from_bytes(&[seed; 32]));
    let body = Body::Endorsement(Endorsement {
        subject: RecordId::from_hash(Hash([5; 32])),
        predicate: "https://example.org/tested/v1".try_into().unwrap(),
        body: EndorsementBody::Native { note: None },
        expires: None,
    });
    let issuers = [&one, &two].map(|key| PublicKey(key.verifying_key().to_bytes()));
    let draft = Draft::new(issuers, None, NOW, &body).unwrap();
    let sign = |draft: Draft, &seed: &u8| draft.sign(if seed == 1 { &one } else { &two }).unwrap();
    signers.iter().fold(draft, sign).seal()
}

async fn signatures_reach(library: &Library, count: usize) {
    let mut changes = library.catalog.changes();
    let id = statement(&[1]).id();
    while library.catalog.get(&id).is_none_or(|record| record.signers().len() < count) {
        within(changes.changed()).await.unwrap();
    }
}

#[tokio::test]
async fn co_signatures_that_two_sites_have_apart_come_together_by_catch_up() {
    let (a, b) = (tempdir().unwrap(), tempdir().unwrap());
    let (here, there) = (library(a.path()), library(b.path()));
    here.catalog.insert(&statement(&[1]).encode(), None, NOW).unwrap();
    there.catalog.insert(&statement(&[2]).encode(), None, NOW).unwrap();
    let shutdown = CancellationToken::new();
    let (one, incoming) = net(Keypair::generate_ed25519(), &[]).await;
    sync::spawn(one.clone(), Arc::clone(&here) as _, incoming.ready, shutdown.clone()).unwrap();
    let (other, incoming) = net(Keypair::generate_ed25519(), &[&one]).await;
    sync::spawn(other.clone(), Arc::clone(&there) as _, incoming.ready, shutdown.clone()).unwrap();
    signatures_reach(&here, 2).await;
    signatures_reach(&there, 2).await;
    shutdown.cancel();
}

/// Three sites in a row, of which the outer ones do not know each other.
async fn row(middle: Arc<Library>) -> (Net, super::Incoming, Net, super::Incoming, Net) {
    let (relay, incoming) = net(Keypair::generate_ed25519(), &[]).await;
    tokio::spawn(gossip::run(relay.clone(), middle, incoming.gossip));
    let (left, left_incoming) = net(Keypair::generate_ed25519(), &[&relay]).await;
    let (right, right_incoming) = net(Keypair::generate_ed25519(), &[&relay]).await;
    let mut peers = relay.peers();
    within(peers.wait_for(|views| views.len() == 2)).await.unwrap();
    (left, left_incoming, right, right_incoming, relay)
}

#[tokio::test]
async fn what_a_relay_has_no_room_for_reaches_the_next_site() {
    let folder = tempdir().unwrap();
    let catalog = Catalog::open(folder.path(), "test".parse().unwrap(), 1 << 20).unwrap();
    let (left, _left_incoming, _right, mut heard, _relay) = row(Arc::new(Library { catalog, has_room: false })).await;
    let said = statement(&[1]).encode();
    left.publish(said.clone()).await.unwrap();
    let gossip = within(heard.gossip.recv()).await.unwrap();
    assert_eq!(gossip.bytes, said);
}

#[tokio::test]
async fn what_is_said_while_nobody_listens_waits_and_is_heard_once() {
    let (left, _incoming) = net(Keypair::generate_ed25519(), &[]).await;
    let (first, second) = (statement(&[1]).encode(), statement(&[2]).encode());
    left.publish(first.clone()).await.unwrap();
    left.publish(first.clone()).await.unwrap();
    left.publish(second.clone()).await.unwrap();
    let (_right, mut heard) = net(Keypair::generate_ed25519(), &[&left]).await;
    assert_eq!(within(heard.gossip.recv()).await.unwrap().bytes, first);
    assert_eq!(within(heard.gossip.recv()).await.unwrap().bytes, second);
}

#[tokio::test]
async fn a_site_that_leaves_says_goodbye() {
    let (stays, _incoming) = net(Keypair::generate_ed25519(), &[]).await;
    let (leaves, _other) = net(Keypair::generate_ed25519(), &[&stays]).await;
    let mut peers = stays.peers();
    within(peers.wait_for(|views| !views.is_empty())).await.unwrap();
    leaves.shutdown().await;
    within(peers.wait_for(|views| views.is_empty())).await.unwrap();
}
