//! Fetches between sites in one process: honest holders, partial ones, ones that leave, lie, or say nothing.

use std::task::Poll;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, poll};
use libp2p::identity::Keypair;
use rialto_protocol::swarm::{ChunkHeader, FrameHead, FrameKind, Reference, ReferencedHeader};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::net::frames::read_frame;
use crate::net::testing::{self, Site, acquainted, within};
use crate::net::{Net, Protocol};

const LENGTH: usize = 3 << 20;

/// Starts a fetch as a task of its own.
fn start(
    exchange: &Exchange,
    image: ImageId,
) -> (tokio::task::JoinHandle<Result<FetchReport, FetchError>>, watch::Receiver<FetchProgress>) {
    let (progress, seen) = watch::channel(FetchProgress::default());
    let exchange = exchange.clone();
    (tokio::spawn(async move { exchange.fetch(image, &[], &progress).await }), seen)
}

async fn fetch(exchange: &Exchange, image: ImageId) -> Result<FetchReport, FetchError> {
    within(start(exchange, image).0).await.unwrap()
}

fn folders<const N: usize>() -> [TempDir; N] {
    std::array::from_fn(|_| tempdir().unwrap())
}

#[tokio::test]
async fn one_holder_is_asked_for_everything_once() {
    let [a, b] = folders();
    let seed = Site::new(a.path(), &[]).await;
    let image = seed.add(a.path(), LENGTH);
    let shop = Site::new(b.path(), &[&seed.net]).await;
    let report = fetch(&shop.exchange, image).await.unwrap();
    assert!(shop.store.is_complete(&image).unwrap());
    assert_eq!(report.bytes, LENGTH as u64);
    assert_eq!(report.duplicate_bytes, 0);
    assert!(report.wire_bytes < LENGTH as u64 * 102 / 100, "{report:?}");
    assert_eq!(report.peers, BTreeMap::from([(seed.net.local(), report.wire_bytes)]));
    assert!(seed.exchange.uploaded_bytes() >= report.wire_bytes);
}

/// Text of hexadecimal digits, which compresses by half and no better; and the same with a word changed in every chunk.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let mut bytes = vec![0; LENGTH / 2];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let old = data_encoding::HEXLOWER.encode(&bytes).into_bytes();
    let new = old.chunks(5000).flat_map(|piece| [piece, b"a security update"].concat()).collect();
    (old, new)
}

#[tokio::test]
async fn of_an_update_little_more_than_the_difference_is_sent() {
    let [a, b] = folders();
    let seed = Site::new(a.path(), &[]).await;
    let (old, new) = versions();
    let (base, image) = (seed.store.add_bytes(&old).unwrap().image, seed.store.add_bytes(&new).unwrap().image);
    let shop = Site::new(b.path(), &[&seed.net]).await;
    let first = fetch(&shop.exchange, base).await.unwrap();
    let before = shop.store.stored_bytes();
    let update = fetch(&shop.exchange, image).await.unwrap();
    // It is stored as it came, with the names of what it depends on.
    let grown = shop.store.stored_bytes() - before;
    assert!(grown < first.wire_bytes / 10, "{grown} bytes of {update:?}");
    assert!(shop.store.is_complete(&image).unwrap());
    assert!(shop.store.verify(&image, &mut |_, _| (), &|| false).unwrap().damaged.is_empty());
    // The same bytes encoded again come from memory.
    assert!(update.wire_bytes < first.wire_bytes / 10, "{update:?} after {first:?}");
    let [c] = folders();
    let other = Site::new(c.path(), &[&seed.net]).await;
    fetch(&other.exchange, base).await.unwrap();
    assert_eq!(fetch(&other.exchange, image).await.unwrap().wire_bytes, update.wire_bytes);
}

#[tokio::test]
async fn a_base_that_cannot_be_read_costs_bytes_and_nothing_else() {
    let [a, b] = folders();
    let seed = Site::new(a.path(), &[]).await;
    let (old, new) = versions();
    let (base, image) = (seed.store.add_bytes(&old).unwrap().image, seed.store.add_bytes(&new).unwrap().image);
    let shop = Site::new(b.path(), &[&seed.net]).await;
    fetch(&shop.exchange, base).await.unwrap();
    shop.store.commit().unwrap();
    let segments = std::fs::read_dir(b.path().join("store/segments")).unwrap();
    for segment in segments {
        let path = segment.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        // A flipped byte every so often: no run of the base can be read.
        bytes.iter_mut().skip(1000).step_by(5000).for_each(|byte| *byte ^= 1);
        std::fs::write(&path, bytes).unwrap();
    }
    let update = fetch(&shop.exchange, image).await.unwrap();
    assert!(shop.store.is_complete(&image).unwrap());
    assert!(shop.store.verify(&image, &mut |_, _| (), &|| false).unwrap().damaged.is_empty());
    assert!(update.wire_bytes > LENGTH as u64 / 3, "{update:?}");
}

#[tokio::test]
async fn a_holder_that_still_fetches_passes_on_what_it_gets() {
    let [a, b, c] = folders();
    let seed = Site::new(a.path(), &[]).await;
    let image = seed.add(a.path(), LENGTH);
    // It fetches, has half of it, and knows nobody yet who has the rest.
    let relay = Site::new(b.path(), &[]).await;
    seed.give(&relay.store, &image, |place| place % 2 == 0);
    let (relaying, _) = start(&relay.exchange, image);
    let shop = Site::new(c.path(), &[&relay.net]).await;
    let (shopping, mut seen) = start(&shop.exchange, image);
    within(seen.wait_for(|progress| progress.bytes_done >= LENGTH as u64 / 3)).await.unwrap();
    assert!(!shop.store.is_complete(&image).unwrap());
    // The rest comes to the relay, and through it to the shop (or straight from the seed, once the shop hears of it).
    seed.net.dial(&relay.net).await;
    within(relaying).await.unwrap().unwrap();
    let report = within(shopping).await.unwrap().unwrap();
    assert!(report.peers.get(&relay.net.local()).is_some_and(|&bytes| bytes >= LENGTH as u64 / 3), "{report:?}");
    assert!(shop.store.is_complete(&image).unwrap());
}

#[tokio::test]
async fn a_fetch_that_was_cancelled_leaves_nothing_behind_and_can_be_started_again() {
    let [a, b] = folders();
    let seed = Site::new(a.path(), &[]).await;
    let image = seed.add(a.path(), LENGTH);
    let shop = Site::new(b.path(), &[]).await;
    let (progress, _seen) = watch::channel(FetchProgress::default());
    {
        let first = shop.exchange.fetch(image, &[], &progress);
        let second = shop.exchange.fetch(image, &[], &progress);
        let (mut first, mut second) = (Box::pin(first), Box::pin(second));
        assert!(matches!((poll!(&mut first), poll!(&mut second)), (Poll::Pending, Poll::Pending)));
        drop(first);
        assert!(shop.exchange.news(&image).is_some(), "the second goes on");
    }
    assert!(shop.exchange.news(&image).is_none());
    seed.net.dial(&shop.net).await;
    fetch(&shop.exchange, image).await.unwrap();
}

#[tokio::test]
async fn an_image_that_nobody_knows_does_not_stay_on_the_list() {
    let [a] = folders();
    let shop = Site::new(a.path(), &[]).await;
    let (progress, _seen) = watch::channel(FetchProgress::default());
    let nobody = ImageId::from_hash(Hash([9; 32]));
    let error = within(shop.exchange.fetch(nobody, &[], &progress)).await.unwrap_err();
    assert!(matches!(error, FetchError::NoHolder { missing_chunks: 0, .. }), "{error}");
    assert_eq!(shop.store.images().unwrap(), []);
}

#[tokio::test]
async fn two_sites_that_look_for_what_nobody_has_do_not_wait_for_each_other() {
    let [a, b] = folders();
    let one = Site::new(a.path(), &[]).await;
    let other = Site::new(b.path(), &[&one.net]).await;
    acquainted(&one.net, &other.net).await;
    let nobody = ImageId::from_hash(Hash([9; 32]));
    let (first, second) = (start(&one.exchange, nobody).0, start(&other.exchange, nobody).0);
    for fetch in [first, second] {
        let result = within(fetch).await.unwrap();
        assert!(matches!(result, Err(FetchError::NoHolder { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn a_holder_that_left_and_came_back_is_fetched_from_again() {
    let [a, b, c] = folders();
    let maker = Site::new(a.path(), &[]).await;
    let image = maker.add(a.path(), LENGTH);
    let key = Keypair::generate_ed25519();
    let shop = Site::new(b.path(), &[]).await;
    let holder = Site::again(c.path(), key.clone(), &[&shop.net]).await;
    maker.give(&holder.store, &image, |place| place % 2 == 0);
    let (shopping, mut seen) = start(&shop.exchange, image);
    within(seen.wait_for(|progress| progress.bytes_done >= LENGTH as u64 / 3)).await.unwrap();
    maker.give(&holder.store, &image, |_| true);
    holder.leave().await;
    let mut peers = shop.net.peers();
    within(peers.wait_for(|views| views.is_empty())).await.unwrap();
    let again = tempdir().unwrap();
    let holder = Site::again(again.path(), key, &[&shop.net]).await;
    maker.give(&holder.store, &image, |_| true);
    within(shopping).await.unwrap().unwrap();
    assert!(shop.store.is_complete(&image).unwrap());
}

/// A holder of the test's making: says that it has everything, gives pages, and answers what is wanted with a lie.
async fn lie(net: Net, store: Store, lie: fn(u32) -> Vec<u8>) {
    let mut streams = net.accept(Protocol::Swarm).unwrap();
    while let Some((_, mut stream)) = streams.next().await {
        let store = store.clone();
        tokio::spawn(async move {
            let said = Message::Have { is_complete: true, chunks: Ranges::default() };
            stream.write_all(&said.frame().unwrap()).await.unwrap();
            stream.flush().await.unwrap();
            while let Ok(Some((kind, payload))) = read_frame(&mut stream).await {
                let mut answer = Vec::new();
                match Message::decode(kind, &payload).unwrap() {
                    Some(Message::WantPages { hashes }) => {
                        for page in hashes.iter().map(|hash| store.read_page(hash).unwrap()) {
                            answer.extend(FrameHead { kind: FrameKind::Page, length: page.len() }.encode());
                            answer.extend(page);
                        }
                    }
                    Some(Message::Want { chunks }) => {
                        answer.extend(lie(chunks.indices_below(u32::MAX).next().unwrap()));
                    }
                    _ => {}
                }
                if stream.write_all(&answer).await.and(stream.flush().await).is_err() {
                    return;
                }
            }
        });
    }
}

fn wrong_bytes(index: u32) -> Vec<u8> {
    let header = ChunkHeader { index, encoding: rialto_protocol::image::encoding::Encoding::Raw };
    [&header.frame(100)[..], &[0; 100]].concat()
}

/// Against a base that was never named.
fn unnamed_base(index: u32) -> Vec<u8> {
    let header = ReferencedHeader { index, reference: Reference { base: 3, first: 0, count: 1 } };
    [&header.frame(100)[..], &[0; 100]].concat()
}

#[tokio::test]
async fn a_liar_is_banned_and_the_image_comes_from_another() {
    is_banned(wrong_bytes).await;
}

#[tokio::test]
async fn who_refers_to_what_was_not_named_is_banned_and_the_image_comes_from_another() {
    is_banned(unnamed_base).await;
}

async fn is_banned(falsehood: fn(u32) -> Vec<u8>) {
    let [a, b] = folders();
    let seed = Site::new(a.path(), &[]).await;
    let image = seed.add(a.path(), LENGTH);
    let (liar, _incoming) = testing::net(Keypair::generate_ed25519(), &[]).await;
    let _catch_up = liar.accept(Protocol::Sync).unwrap();
    let lying = tokio::spawn(lie(liar.clone(), seed.store.clone(), falsehood));
    let shop = Site::new(b.path(), &[&liar]).await;
    acquainted(&shop.net, &liar).await;
    let (shopping, mut seen) = start(&shop.exchange, image);
    // The liar is alone at first, so that it is believed before it is found out.
    within(seen.wait_for(|progress| progress.bytes > 0)).await.unwrap();
    within(seen.wait_for(|progress| progress.peers == 0)).await.unwrap();
    seed.net.dial(&shop.net).await;
    let report = within(shopping).await.unwrap().unwrap();
    // A hundred bytes each: the first lie, and those that were on their way when it was found out.
    assert!((100..=1_000).contains(&report.duplicate_bytes), "{report:?}");
    assert!(shop.store.is_complete(&image).unwrap());
    lying.abort();
}

#[tokio::test]
async fn a_peer_that_never_closes_its_streams_gives_its_seats_back() {
    let [a] = folders();
    let seed = Site::new(a.path(), &[]).await;
    let image = seed.add(a.path(), 100_000);
    let (guest, _incoming) = testing::net(Keypair::generate_ed25519(), &[&seed.net]).await;
    let _catch_up = guest.accept(Protocol::Sync).unwrap();
    acquainted(&seed.net, &guest).await;
    let ask = async || {
        let mut stream = guest.open(seed.net.local(), Protocol::Swarm).await.unwrap();
        stream.write_all(&Message::Hello { image, bases: Vec::new() }.frame().unwrap()).await.unwrap();
        stream.flush().await.unwrap();
        let (kind, _) = read_frame(&mut stream).await.unwrap().unwrap();
        (stream, kind)
    };
    let mut streams = Vec::new();
    loop {
        let (stream, kind) = within(ask()).await;
        if kind == FrameKind::Busy {
            break;
        }
        streams.push(stream);
    }
    assert!(streams.len() > 1);
    for stream in &mut streams {
        // Our half stays open; an error is an end too.
        assert_eq!(within(stream.read(&mut [0])).await.unwrap_or(0), 0);
    }
    let (_stream, kind) = within(ask()).await;
    assert_eq!(kind, FrameKind::Have);
}
