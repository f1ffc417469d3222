//! An image in memory, cut and listed as every site would, so that a test or a benchmark can serve it well
//! or badly.

use std::collections::BTreeMap;

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::chunker::{Piece, cut_whole};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::{Entry, ManifestBuilder};
use rialto_protocol::swarm::{ChunkHeader, Message};

use crate::hostile::Talk;

/// An image: its content, chunks and pages.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its id.
    pub id: ImageId,
    /// Its content.
    pub content: Vec<u8>,
    /// Its chunks, in order.
    pub chunks: Vec<Vec<u8>>,
    /// Its manifest's pages by hash.
    pub pages: BTreeMap<Hash, Vec<u8>>,
}

impl Held {
    /// The image of some content.
    pub fn of(content: Vec<u8>) -> Self {
        let (mut builder, mut chunks) = (ManifestBuilder::new(), Vec::new());
        cut_whole(&content, |piece| {
            let entry = match piece {
                Piece::Data { bytes, .. } => {
                    chunks.push(bytes.to_vec());
                    Entry::Chunk { hash: Hash::of(bytes), length: bytes.len() as u32 }
                }
                Piece::Hole { length, .. } => Entry::Hole { length },
            };
            builder.push(entry).expect("the chunker's pieces fit a manifest");
        });
        let mut pages = builder.take_pages();
        let (id, _, rest) = builder.finish().expect("a manifest");
        pages.extend(rest);
        Self { id, content, chunks, pages: pages.into_iter().map(|page| (page.hash, page.bytes)).collect() }
    }

    /// The image of so many bytes that no compression shortens; the same bytes for the same seed.
    pub fn random(bytes: usize, seed: u64) -> Self {
        Self::of(noise(bytes, seed))
    }

    /// The image's id, as commands take it.
    pub fn name(&self) -> String {
        self.id.to_string()
    }

    /// Serves a fetcher as an honest holder would, except that `chunk` sends the chunks: it is given the stream and the
    /// index of each that is asked for, and ends the stream by `false`.
    pub async fn serve(&self, mut talk: Talk, mut chunk: impl AsyncFnMut(&mut Talk, u32) -> bool) {
        if !self.greet(&mut talk).await {
            return;
        }
        while let Some(indices) = self.asked(&mut talk).await {
            for index in indices {
                if !chunk(&mut talk, index).await {
                    return;
                }
            }
        }
    }

    /// Claims to have everything; `false` where the fetcher asks for another image, or is gone.
    pub async fn greet(&self, talk: &mut Talk) -> bool {
        match talk.hear().await {
            Some(Message::Hello { image, .. }) if image == self.id => talk.claim_everything().await.is_ok(),
            // Another image: this holder has only one.
            _ => {
                talk.say(&Message::Absent).await.ok();
                false
            }
        }
    }

    /// Sends the pages that the fetcher asks for, until it asks for chunks: their indices; `None` at the end.
    pub async fn asked(&self, talk: &mut Talk) -> Option<Vec<u32>> {
        loop {
            match talk.hear().await? {
                Message::WantPages { hashes } => {
                    for hash in hashes {
                        talk.page(&self.pages[&hash]).await.ok()?;
                    }
                }
                Message::Want { chunks } => return Some(chunks.indices_below(self.chunks.len() as u32).collect()),
                _ => {}
            }
        }
    }

    /// Sends a chunk as it is.
    ///
    /// # Errors
    /// The other side has ended the stream.
    pub async fn send(&self, talk: &mut Talk, index: u32) -> std::io::Result<()> {
        talk.chunk(ChunkHeader { index, encoding: Encoding::Raw }, &self.chunks[index as usize]).await
    }
}

/// Bytes that no compression shortens; the same for the same seed.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut content = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut content);
    content
}
