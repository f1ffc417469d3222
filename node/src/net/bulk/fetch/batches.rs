//! Chunks on their way to the disk: verified and stored by a bounded number of blocking tasks, and made durable now and then.

use std::sync::Arc;

use libp2p::PeerId;
use rialto_protocol::ids::Hash;
use rialto_protocol::swarm::PeerKey;
use tokio::task::{JoinError, JoinSet};

use super::super::session::Form;
use super::bases::Bases;
use crate::store::{Store, StoreError};

/// Chunk bytes that one blocking task verifies and stores.
const BATCH_BYTES: usize = 1024 * 1024;
/// Chunks that one does, however small.
const BATCH_CHUNKS: usize = 512;
/// Blocking tasks at once; with their batches, the memory of a fetch.
const MAX_BATCHES: usize = 4;
/// Stored bytes after which they are made durable: what a crash can cost.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;

/// A chunk that arrived and is not verified yet.
pub(super) struct Arrived {
    pub(super) key: PeerKey,
    pub(super) peer: PeerId,
    pub(super) index: u32,
    pub(super) hash: Hash,
    pub(super) length: u32,
    pub(super) form: Form,
    pub(super) payload: Vec<u8>,
}

/// What became of one chunk of a batch.
pub(super) struct Stored {
    pub(super) key: PeerKey,
    pub(super) peer: PeerId,
    pub(super) index: u32,
    pub(super) wire_bytes: u64,
    pub(super) result: Result<(), StoreError>,
}

/// What a blocking task did.
pub(super) enum Done {
    /// It stored a batch.
    Batch(Vec<Stored>),
    /// It made everything before durable.
    Commit(Result<(), StoreError>),
}

/// The blocking tasks of a fetch, and the chunks that wait for one.
pub(super) struct Batches {
    store: Store,
    bases: Arc<Bases>,
    tasks: JoinSet<Done>,
    gathered: Vec<Arrived>,
    gathered_bytes: usize,
    uncommitted_bytes: u64,
    is_committing: bool,
}

impl Batches {
    pub(super) fn new(store: Store, bases: Arc<Bases>) -> Self {
        Self {
            store,
            bases,
            tasks: JoinSet::new(),
            gathered: Vec::new(),
            gathered_bytes: 0,
            uncommitted_bytes: 0,
            is_committing: false,
        }
    }

    /// Whether more may be gathered. While all tasks are busy, sessions are not listened to.
    pub(super) fn has_room(&self) -> bool {
        self.gathered_bytes < BATCH_BYTES && self.gathered.len() < BATCH_CHUNKS
    }

    pub(super) fn gather(&mut self, chunk: Arrived) {
        self.gathered_bytes += chunk.payload.len();
        self.gathered.push(chunk);
    }

    /// Starts tasks for what was gathered: when it is enough, or nothing else is to be done. While one task is at work,
    /// small batches wait for it and grow: a task for each chunk would cost more in waking threads than in verifying.
    pub(super) fn dispatch(&mut self, is_idle: bool) {
        let is_worth_it = !self.has_room() || (is_idle && !self.is_storing() && !self.gathered.is_empty());
        if is_worth_it && self.tasks.len() < MAX_BATCHES {
            let (store, bases) = (self.store.clone(), Arc::clone(&self.bases));
            let batch = std::mem::take(&mut self.gathered);
            self.gathered_bytes = 0;
            self.tasks.spawn_blocking(move || {
                let stored = batch.into_iter().map(|chunk| store_one(&store, &bases, chunk)).collect();
                // A full disk is told of by the next chunk, or by the commit.
                store.write_out().ok();
                Done::Batch(stored)
            });
        }
        if self.uncommitted_bytes >= COMMIT_BYTES && !self.is_committing {
            (self.uncommitted_bytes, self.is_committing) = (0, true);
            let store = self.store.clone();
            self.tasks.spawn_blocking(move || Done::Commit(store.commit()));
        }
    }

    /// Whether a task verifies and stores right now.
    fn is_storing(&self) -> bool {
        self.tasks.len() > usize::from(self.is_committing)
    }

    /// The next task that is done; `None` where none runs.
    pub(super) async fn next(&mut self) -> Option<Result<Done, JoinError>> {
        let done = self.tasks.join_next().await?;
        match &done {
            Ok(Done::Batch(stored)) => {
                let kept = stored.iter().filter(|stored| stored.result.is_ok());
                self.uncommitted_bytes += kept.map(|stored| stored.wire_bytes).sum::<u64>();
            }
            Ok(Done::Commit(_)) => self.is_committing = false,
            Err(_) => {}
        }
        Some(done)
    }
}

fn store_one(store: &Store, bases: &Bases, chunk: Arrived) -> Stored {
    let Arrived { key, peer, index, hash, length, form, payload } = chunk;
    let bytes = &payload[form.header_bytes()..];
    let result = match form {
        Form::Encoded(encoding) => store.put_encoded(hash, length, encoding, bytes).map(drop),
        Form::Referenced(reference) => bases.put(store, hash, length, reference, bytes),
    };
    Stored { key, peer, index, wire_bytes: bytes.len() as u64, result }
}
