//! Holders of images that answer as a test wants them to, and fetches that meet them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::swarm::{ChunkHeader, Message};
use rialto_testnet::site::{SOON, Site};
use rialto_testnet::wait::eventually;

use crate::held::Held;
use crate::hostile::{Hostile, Part, Talk};
use crate::scene::{Scene, add, goes_on, hostile, introduce, start, verify};

/// What is long enough for a fetch that has to get round a peer that stalls: twice its patience, and a busy machine.
pub const FETCH: Duration = Duration::from_secs(60);
/// The images of these tests: some 250 chunks, more than is asked of one peer at once.
pub const IMAGE_BYTES: usize = 8 << 20;

/// How a holder answers for one chunk; `false` ends the stream.
pub type Lie = Arc<dyn Fn(Arc<Held>, Talk, u32, usize) -> Answered + Send + Sync>;
/// The stream, and whether it goes on.
pub type Answered = std::pin::Pin<Box<dyn Future<Output = (Talk, bool)> + Send>>;

/// A [`Lie`] of an asynchronous function.
pub fn lie<F: Future<Output = (Talk, bool)> + Send + 'static>(
    tell: impl Fn(Arc<Held>, Talk, u32, usize) -> F + Send + Sync + 'static,
) -> Lie {
    Arc::new(move |image, talk, index, position| Box::pin(tell(image, talk, index, position)))
}

/// Makes the peer a holder of the image that answers by `lie`; the count is of chunks that it was asked for.
pub fn holds(peer: &Hostile, image: &Arc<Held>, lie: Lie) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let (image, count) = (Arc::clone(image), Arc::clone(&asked));
    peer.on(Part::Swarm, move |mut talk| {
        let (image, count, lie) = (Arc::clone(&image), Arc::clone(&count), Arc::clone(&lie));
        async move {
            if !is_hello_of(&mut talk, &image).await || talk.claim_everything().await.is_err() {
                return;
            }
            while let Some(message) = talk.hear().await {
                match message {
                    Message::WantPages { hashes } => {
                        for hash in hashes {
                            talk.page(&image.pages[&hash]).await.ok();
                        }
                    }
                    Message::Want { chunks } => {
                        for index in chunks.indices_below(image.chunks.len() as u32) {
                            let position = count.fetch_add(1, Ordering::SeqCst);
                            let (back, goes_on) = lie(Arc::clone(&image), talk, index, position).await;
                            talk = back;
                            if !goes_on {
                                return;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    });
    asked
}

/// Whether a fetcher asks for this image; any other is told that it is absent.
pub async fn is_hello_of(talk: &mut Talk, image: &Held) -> bool {
    match talk.hear().await {
        Some(Message::Hello { image: asked, .. }) if asked == image.id => true,
        _ => {
            talk.say(&Message::Absent).await.ok();
            false
        }
    }
}

/// The header of a chunk that is sent as it is.
pub fn raw(index: u32) -> ChunkHeader {
    ChunkHeader { index, encoding: Encoding::Raw }
}

/// A fetch that has a liar to ask and nobody else, and later an honest holder beside it.
pub fn fetched_from_the_honest_one(lie: Lie) -> (Scene, Site) {
    let scene = Scene::new();
    let image = Arc::new(Held::random(IMAGE_BYTES, 11));
    let mut uni = scene.site("uni");
    add(&uni, &scene.file("image", &image.content));
    let mut shop = scene.site("shop");
    let peer = hostile(&shop);
    let asked = holds(&peer, &image, lie);

    let fetch = start(&shop, &["fetch", &image.name()]);
    until_asked(&asked);
    introduce(&mut uni, &shop);
    let (code, fetched) = fetch.end(FETCH);
    assert_eq!(code, Some(0), "{fetched}\n{}", shop.log());
    verify(&shop, &image.name());
    goes_on(&mut shop, &scene);
    drop(uni);
    (scene, shop)
}

/// Waits until a hostile holder was asked for a chunk.
pub fn until_asked(asked: &AtomicUsize) {
    let look = || if asked.load(Ordering::SeqCst) > 0 { Ok(()) } else { Err("nothing was asked") };
    eventually(SOON, "a chunk asked of the hostile holder", look).expect("the fetch asks it");
}
