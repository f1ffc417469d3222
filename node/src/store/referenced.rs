//! Chunks encoded against others: what a receiver holds already need not be sent, and not be stored again.
//!
//! The reference is the plain bytes of a run of chunks, one after the other, used as a raw-content zstd dictionary
//! (RFC 8878 §5).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::chunker::MAX_CHUNK_BYTES;
use rialto_protocol::image::manifest::ChunkRef;
use rialto_protocol::image::similarity::Features;
use zstd::zstd_safe::{CCtx, DCtx};

use super::error::PeerFault;
use super::journal::{Listed, Origin};
use super::packed::{Packed, pays, pays_unseen};
use super::writer::Floor;
use super::{Store, StoreError, dependent, packed};
use crate::recent::Recent;

/// Of a security update, level 1 sends 5 % more than this, and level 5 sends 2 % less in four times the time.
const LEVEL: i32 = 3;
/// What a dictionary of the other kind begins with. A run that does so is not used: zstd would not take it for content.
const DICTIONARY_MAGIC: [u8; 4] = 0xec30_a437_u32.to_le_bytes();

/// Plain bytes of chunks that [`RecentChunks`] keeps.
const KEPT_BYTES: usize = 8 << 20;

thread_local! {
    static ENCODER: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECODER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Encodes a chunk against a reference, or returns `None` where less than `limit` bytes are not enough.
pub fn encode_against(reference: &[u8], plain: &[u8], limit: usize) -> Option<Vec<u8>> {
    if reference.starts_with(&DICTIONARY_MAGIC) {
        return None;
    }
    // Whatever does not fit is not worth sending.
    let mut packed = vec![0; limit.saturating_sub(1)];
    let length = ENCODER
        .with_borrow_mut(|encoder| encoder.compress_using_dict(&mut packed[..], plain, reference, LEVEL).ok())?;
    packed.truncate(length);
    packed.shrink_to_fit();
    Some(packed)
}

impl Store {
    /// Decodes a chunk that another site encoded against a `run` of chunks held here, checks it against its name, and
    /// stores it: as it came where that pays, else by itself. Returns whether it is new.
    ///
    /// # Errors
    /// [`StoreError::Peer`] where it is not the chunk of that name; [`StoreError::Damaged`] and [`StoreError::NotHeld`]
    /// where the run cannot be read here; else the disk is full or fails.
    pub fn put_referenced(
        &self,
        expected: Hash,
        plain_length: u32,
        run: &[ChunkRef],
        runs: &RecentChunks,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        let mut plain = Vec::new();
        decode(expected, plain_length, &runs.read(run)?, bytes, &mut plain)?;
        let plain = &plain[..plain_length as usize];
        if self.has_chunk(&expected)? {
            return Ok(false);
        }
        let put = |packed| Ok(self.put_packed(expected, plain, packed, Floor::Reserved)? > 0);
        let names: Vec<Hash> = run.iter().map(|chunk| chunk.hash).collect();
        let came = dependent::names_bytes(names.len()) + bytes.len();
        let (mut buffer, mut alone) = (Vec::new(), None);
        if !pays_unseen(came, plain.len()) {
            let packed = Packed::of(plain, &mut buffer);
            if !pays(came, packed.length(plain)) {
                return put(packed);
            }
            alone = Some(packed);
        }
        let features = Features::of(plain);
        if self.0.are_bases(&names)? {
            return put(Packed::Dependent(&dependent::payload(&names, bytes), features));
        }
        // Some of the run depends on others itself.
        let limit = alone.map_or(plain.len() / 4, |alone| packed::limit(alone.length(plain)));
        match self.pack_against(runs, plain, &names, limit)? {
            Some(payload) => put(Packed::Dependent(&payload, features)),
            None => put(alone.unwrap_or(Packed::Held)),
        }
    }

    /// The similarity features of a chunk: as they were stored with it, or else computed from its bytes.
    ///
    /// # Errors
    /// As [`Store::read_chunk`].
    pub fn features(&self, hash: &Hash) -> Result<Features, StoreError> {
        match self.stored_features(hash)? {
            Some(features) => Ok(features),
            None => Ok(Features::of(&self.read_chunk(hash)?)),
        }
    }

    /// Whole images that another one may be encoded against, `preferred` first and then the newest; at most `count`.
    ///
    /// # Errors
    /// A failing disk or index.
    pub fn bases(
        &self,
        preferred: &[ImageId],
        count: usize,
        mut may_be_named: impl FnMut(&ImageId, Origin) -> bool,
    ) -> Result<Vec<ImageId>, StoreError> {
        let listed = self.0.journal().images().clone();
        let mut newest: Vec<(&ImageId, &Listed)> = listed.iter().filter(|(_, listed)| !listed.is_partial).collect();
        newest.sort_by_key(|(image, listed)| (!preferred.contains(image), std::cmp::Reverse(listed.added)));
        let mut bases = Vec::new();
        for (image, listed) in newest {
            if bases.len() == count {
                break;
            }
            if may_be_named(image, listed.origin) && self.is_complete(image)? {
                bases.push(*image);
            }
        }
        Ok(bases)
    }

    /// Keeps images from being collected, whether or not they are listed, until the hold is dropped.
    pub fn hold(&self, images: Vec<ImageId>) -> Hold {
        let mut held = self.0.held();
        for image in &images {
            *held.entry(*image).or_default() += 1;
        }
        drop(held);
        Hold { store: self.clone(), images }
    }
}

/// Images that are not collected while this lives.
#[derive(Debug)]
pub struct Hold {
    store: Store,
    images: Vec<ImageId>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.store.0.held();
        for image in &self.images {
            if let Some(times) = held.get_mut(image) {
                *times -= 1;
                if *times == 0 {
                    held.remove(image);
                }
            }
        }
    }
}

/// Reads runs of chunks, and keeps the plain bytes of those read last: neighbouring runs share most of theirs.
#[derive(Debug)]
pub struct RecentChunks {
    store: Store,
    kept: Mutex<Recent<Hash>>,
}

impl RecentChunks {
    /// Over the chunks of a store. Keeps at most 8 MiB of them.
    pub fn new(store: Store) -> Self {
        Self { store, kept: Mutex::new(Recent::new(KEPT_BYTES)) }
    }

    /// The plain bytes of a run, one chunk after the other.
    ///
    /// # Errors
    /// As [`Store::read_chunk`].
    pub fn read(&self, run: &[ChunkRef]) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::with_capacity(run.iter().map(|chunk| chunk.length as usize).sum());
        for chunk in run {
            bytes.extend_from_slice(&self.chunk(&chunk.hash)?);
        }
        Ok(bytes)
    }

    /// The plain bytes of these chunks, one after the other.
    pub(super) fn read_named(&self, names: &[Hash]) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        for name in names {
            bytes.extend_from_slice(&self.chunk(name)?);
        }
        Ok(bytes)
    }

    fn chunk(&self, hash: &Hash) -> Result<Arc<[u8]>, StoreError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = kept().get(hash) {
            return Ok(chunk);
        }
        let chunk: Arc<[u8]> = self.store.read_chunk(hash)?.into();
        kept().keep(*hash, &chunk);
        Ok(chunk)
    }
}

impl super::Inner {
    /// How often each image is held.
    pub(super) fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<ImageId, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the chunk's plain bytes, which were decoded to exactly `plain_length` bytes and hash to `hash`. Nothing is
/// allocated for what is larger than a chunk may be.
pub(super) fn decode<'a>(
    hash: Hash,
    plain_length: u32,
    reference: &[u8],
    bytes: &[u8],
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], PeerFault> {
    let expected = u64::from(plain_length);
    if plain_length == 0 || plain_length as usize > MAX_CHUNK_BYTES {
        return Err(PeerFault::Oversized { hash, length: expected, max: MAX_CHUNK_BYTES as u64 });
    }
    if bytes.len() as u64 >= expected {
        return Err(PeerFault::Oversized { hash, length: bytes.len() as u64, max: expected - 1 });
    }
    buffer.resize(plain_length as usize, 0);
    let plain = &mut buffer[..plain_length as usize];
    let is_content = !reference.starts_with(&DICTIONARY_MAGIC);
    let decoded = DECODER.with_borrow_mut(|decoder| {
        is_content.then(|| decoder.decompress_using_dict(&mut *plain, bytes, reference).ok()).flatten()
    });
    if decoded != Some(plain.len()) {
        return Err(PeerFault::BadReference { hash, expected });
    }
    match Hash::of(plain) {
        found if found == hash => Ok(plain),
        found => Err(PeerFault::WrongHash { expected: hash, found }),
    }
}
