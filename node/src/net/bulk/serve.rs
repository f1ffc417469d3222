//! The holder's side of a swarm stream: says what it has, and sends what it is asked for.

mod seats;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::io::BufReader;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{PeerId, Stream};
use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::manifest::{MAX_PAGE_BYTES, Manifest};
use rialto_protocol::swarm::{Batch, FrameHead, FrameKind, Message, Queue, Ranges};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::seats::{Seat, Seats};
use super::super::frames::{invalid, read_frame};
use super::super::{NetError, Protocol};
use super::Exchange;
use super::references::{Encoder, Framing};
use super::spreads::Stream as Spreading;

/// A first message that does not come in this time does not come.
const HELLO: Duration = Duration::from_secs(10);
/// A peer that does not take [`PIECE_BYTES`] in this time is gone.
const WRITE: Duration = Duration::from_secs(60);
/// Bytes written under one deadline: small, so that a slow line is not taken for a dead one.
const PIECE_BYTES: usize = 32 * 1024;
/// Bytes read from the store and written to the stream in one go, at most and at least.
const BATCH_BYTES: usize = 1024 * 1024;
const BATCH_MIN_BYTES: usize = 64 * 1024;
/// Writing a batch should take no longer: until it is written, the fetcher hears no news, and what it cancels is sent all
/// the same.
const BATCH_TIME: Duration = Duration::from_millis(50);
/// A fetcher of an image that is being fetched here too waits so long for its manifest to be known here.
const MANIFEST_WAIT: Duration = Duration::from_secs(5);
/// Messages read ahead of being acted on; then the peer has to wait.
const READ_AHEAD: usize = 32;

impl Exchange {
    /// Serves swarm streams until `shutdown`.
    ///
    /// # Errors
    /// It is served already.
    pub fn serve(&self, shutdown: CancellationToken) -> Result<(), NetError> {
        let mut incoming = self
            .net
            .accept(Protocol::Swarm)
            .map_err(|_| super::super::behaviour::set_up("the swarm protocol", "it is served already"))?;
        let exchange = self.clone();
        let seats = Seats::default();
        tokio::spawn(async move {
            loop {
                let (peer, stream) = tokio::select! {
                    () = shutdown.cancelled() => return,
                    next = incoming.next() => match next {
                        Some(next) => next,
                        None => return,
                    },
                };
                let seat = seats.take(peer);
                let (exchange, shutdown) = (exchange.clone(), shutdown.clone());
                tokio::spawn(async move {
                    let served = tokio::select! {
                        () = shutdown.cancelled() => return,
                        served = exchange.serve_stream(peer, stream, seat) => served,
                    };
                    if let Err(error) = served {
                        tracing::debug!(%peer, %error, "an upload ended early");
                    }
                });
            }
        });
        Ok(())
    }

    async fn serve_stream(&self, peer: PeerId, mut stream: Stream, seat: Option<Seat>) -> io::Result<()> {
        let hello = timeout(HELLO, read_frame(&mut stream)).await??;
        let Some((FrameKind::Hello, payload)) = hello else {
            return Err(invalid("the stream does not begin with Hello"));
        };
        let Some(Message::Hello { image, bases }) = Message::decode(FrameKind::Hello, &payload).map_err(invalid)?
        else {
            return Err(invalid("not a Hello"));
        };
        self.is_asked_by(&image, peer);
        let refusal = match (self.holding(image, bases, seat.is_some()).await, seat) {
            (Ok(holding), Some(seat)) => {
                return tokio::select! {
                    uploaded = self.upload(peer, &seat, stream, holding) => uploaded,
                    // The fetcher finds the stream closed, and comes back later.
                    () = seat.lost() => Ok(()),
                };
            }
            (Ok(_), None) => Message::Busy,
            (Err(refusal), _) => refusal,
        };
        send(&mut stream, &refusal).await?;
        timeout(WRITE, stream.close()).await?
    }

    /// What this node has of an image, or what to say instead.
    async fn holding(&self, image: ImageId, bases: Vec<ImageId>, has_seat: bool) -> Result<Holding, Message> {
        let offers = Arc::clone(&self.offers);
        if !tokio::task::spawn_blocking(move || offers(&image)).await.unwrap_or(false) {
            return Err(Message::Absent);
        }
        // Subscribed before the store is asked, so that no chunk falls between the two.
        let news = match self.news(&image) {
            Some(mut news) if has_seat => {
                // Who fetches it with us will want to know what we get, from the first chunk on. Where the download ends
                // without it, there is nothing.
                timeout(MANIFEST_WAIT, news.manifest.wait_for(|is_known| *is_known)).await.ok();
                Some(news.chunks)
            }
            news => news.map(|news| news.chunks),
        };
        let store = self.store.clone();
        let found = tokio::task::spawn_blocking(move || {
            // A download that has no manifest yet has nothing for anybody: who asks tries again soon by itself. `Busy`
            // would be a promise, and two sites that look for what nobody has would wait for each other.
            let manifest = store.manifest(&image).map_err(|_| Message::Absent)?;
            if !has_seat {
                return Err(Message::Busy);
            }
            let missing: BTreeSet<u32> =
                store.missing_chunks(&image).map_err(|_| Message::Absent)?.into_iter().collect();
            let held = (0..manifest.chunks.len() as u32).filter(|index| !missing.contains(index));
            let told = if missing.is_empty() { Vec::new() } else { Ranges::pieces(held) };
            Ok((manifest, missing, told))
        });
        let (manifest, missing, told) = found.await.unwrap_or(Err(Message::Absent))?;
        Ok(Holding { manifest, missing, told, news, bases })
    }

    async fn upload(&self, peer: PeerId, seat: &Seat, stream: Stream, holding: Holding) -> io::Result<()> {
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        let (messages, mut inbox) = mpsc::channel(READ_AHEAD);
        let reading = async move {
            while let Some((kind, payload)) = read_frame(&mut read).await? {
                let message = Message::decode(kind, &payload).map_err(invalid)?;
                let message = message.ok_or_else(|| invalid("a fetcher sends no chunks"))?;
                if messages.send(message).await.is_err() {
                    break;
                }
            }
            io::Result::Ok(())
        };
        let spreading = self.spreads.join(&holding.manifest);
        let (wanted, batch_bytes) = (Queue::default(), BATCH_MIN_BYTES);
        let mut upload = Upload { exchange: self, peer, seat, holding, wanted, spreading, batch_bytes, encoder: None };
        let writing = async {
            upload.tell_what_there_is(&mut write).await?;
            upload.run(&mut inbox, &mut write).await?;
            timeout(WRITE, write.close()).await?
        };
        // Both halves are polled here, by one task. Writing decides when it is over: a peer that says nothing any more and
        // does not close its half must not keep its seat.
        tokio::select! {
            Err(error) = reading => Err(error),
            written = writing => written,
        }
    }
}

struct Holding {
    manifest: Arc<Manifest>,
    missing: BTreeSet<u32>,
    /// What is held, to be told at the beginning; empty where nothing is missing.
    told: Vec<Ranges>,
    /// Chunks as they are stored, while this node fetches the image itself.
    news: Option<broadcast::Receiver<u32>>,
    /// Images that the fetcher holds.
    bases: Vec<ImageId>,
}

struct Upload<'a> {
    exchange: &'a Exchange,
    peer: PeerId,
    seat: &'a Seat,
    holding: Holding,
    wanted: Queue,
    spreading: Spreading,
    /// Bytes to be sent in one go: about what the fetcher takes in [`BATCH_TIME`].
    batch_bytes: usize,
    /// Made when the first chunks are sent to a fetcher that named bases.
    encoder: Option<Encoder>,
}

impl Upload<'_> {
    async fn tell_what_there_is(&mut self, write: &mut (impl futures::AsyncWrite + Unpin)) -> io::Result<()> {
        if self.holding.missing.is_empty() {
            return send(write, &Message::Have { is_complete: true, chunks: Ranges::default() }).await;
        }
        let pieces = std::mem::take(&mut self.holding.told);
        if pieces.is_empty() {
            // Nothing yet: still an answer, so that the fetcher knows that more may come.
            send(write, &Message::Have { is_complete: false, chunks: Ranges::default() }).await?;
        }
        for chunks in pieces {
            send(write, &Message::Have { is_complete: false, chunks }).await?;
        }
        Ok(())
    }

    async fn run(
        &mut self,
        inbox: &mut mpsc::Receiver<Message>,
        write: &mut (impl futures::AsyncWrite + Unpin),
    ) -> io::Result<()> {
        loop {
            while let Ok(message) = inbox.try_recv() {
                self.take(message, write).await?;
            }
            self.tell_news(write).await?;
            let mut held_back_until = None;
            if !self.wanted.is_empty() {
                // First the leave to send, then the choice of what: it may have changed while we waited.
                let grant = self.exchange.rates.may_upload(self.peer, self.batch_bytes as u64).await;
                while let Ok(message) = inbox.try_recv() {
                    self.take(message, write).await?;
                }
                let batch = self.next_batch();
                held_back_until = batch.wait_until;
                if !batch.chunks.is_empty() {
                    let begun = Instant::now();
                    let bytes = self.send_batch(batch.chunks, write).await?;
                    grant.used(bytes);
                    self.adjust_batch(begun.elapsed());
                    continue;
                }
            }
            let held_back = async {
                match held_back_until {
                    Some(until) => sleep_until(self.spreading.instant(until)).await,
                    None => std::future::pending().await,
                }
            };
            let news = async {
                match &mut self.holding.news {
                    Some(news) => news.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = timeout(self.exchange.patience.silence, inbox.recv()) => match message {
                    Ok(Some(message)) => self.take(message, write).await?,
                    // The fetcher has closed its half, or says nothing any more.
                    Ok(None) | Err(_) => return Ok(()),
                },
                () = held_back => {}
                heard = news => match heard {
                    Ok(index) => self.tell(vec![index], write).await?,
                    Err(RecvError::Lagged(_)) => self.look_again(write).await?,
                    Err(RecvError::Closed) => {
                        self.holding.news = None;
                        self.look_again(write).await?;
                    }
                },
            }
        }
    }

    /// Tells of chunks stored since the last time, many in one message.
    async fn tell_news(&mut self, write: &mut (impl futures::AsyncWrite + Unpin)) -> io::Result<()> {
        let Some(news) = &mut self.holding.news else { return Ok(()) };
        let mut indices = Vec::new();
        let mut is_behind = false;
        loop {
            match news.try_recv() {
                Ok(index) => indices.push(index),
                Err(TryRecvError::Lagged(_)) => is_behind = true,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => {
                    is_behind = true;
                    self.holding.news = None;
                    break;
                }
            }
        }
        if is_behind { self.look_again(write).await } else { self.tell(indices, write).await }
    }

    /// Asks the store what is there now: some news was missed, or there will be no more.
    async fn look_again(&mut self, write: &mut (impl futures::AsyncWrite + Unpin)) -> io::Result<()> {
        let (store, image) = (self.exchange.store.clone(), self.holding.manifest.id);
        let missing =
            tokio::task::spawn_blocking(move || store.missing_chunks(&image)).await.map_err(io::Error::other)?;
        let missing: BTreeSet<u32> = missing.map_err(io::Error::other)?.into_iter().collect();
        let gained = self.holding.missing.difference(&missing).copied().collect();
        self.tell(gained, write).await
    }

    async fn tell(&mut self, mut indices: Vec<u32>, write: &mut (impl futures::AsyncWrite + Unpin)) -> io::Result<()> {
        indices.sort_unstable();
        indices.dedup();
        for chunks in Ranges::pieces(indices.into_iter().filter(|index| self.holding.missing.remove(index))) {
            send(write, &Message::Have { is_complete: false, chunks }).await?;
        }
        Ok(())
    }

    async fn take(&mut self, message: Message, write: &mut (impl futures::AsyncWrite + Unpin)) -> io::Result<()> {
        match message {
            Message::Want { chunks } => {
                let (end, missing) = (self.holding.manifest.chunks.len() as u32, &self.holding.missing);
                self.wanted.want(&chunks, end, |index| !missing.contains(&index)).map_err(invalid)
            }
            Message::Cancel { chunks } => {
                self.wanted.cancel(&chunks);
                Ok(())
            }
            Message::WantPages { hashes } => self.send_pages(hashes, write).await,
            _ => Err(invalid("a message that only holders send")),
        }
    }

    async fn send_pages(
        &mut self,
        hashes: Vec<Hash>,
        write: &mut (impl futures::AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let known: BTreeSet<Hash> = self.holding.manifest.pages.iter().copied().collect();
        let hashes: Vec<Hash> = hashes.into_iter().filter(|hash| known.contains(hash)).collect();
        // In parts, so that a peer that asks and does not read costs no more memory than with chunks.
        for part in hashes.chunks(BATCH_BYTES / MAX_PAGE_BYTES) {
            let (store, part) = (self.exchange.store.clone(), part.to_vec());
            let frames = tokio::task::spawn_blocking(move || {
                let mut frames = Vec::new();
                for hash in part {
                    let page = store.read_page(&hash).map_err(io::Error::other)?;
                    frames.extend_from_slice(&FrameHead { kind: FrameKind::Page, length: page.len() }.encode());
                    frames.extend_from_slice(&page);
                }
                io::Result::Ok(frames)
            })
            .await
            .map_err(io::Error::other)??;
            self.send_bytes(&frames, write).await?;
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Batch {
        let (chunks, is_complete) = (&self.holding.manifest.chunks, self.holding.missing.is_empty());
        let length = |index: u32| chunks.get(index as usize).map_or(0, |chunk| chunk.length);
        self.spreading.take(&mut self.wanted, is_complete, self.batch_bytes as u64, length)
    }

    /// A batch took so long.
    fn adjust_batch(&mut self, took: Duration) {
        self.batch_bytes = match () {
            () if took > BATCH_TIME => (self.batch_bytes / 2).max(BATCH_MIN_BYTES),
            () if took < BATCH_TIME / 2 => (self.batch_bytes * 2).min(BATCH_BYTES),
            () => self.batch_bytes,
        };
    }

    async fn send_batch(
        &mut self,
        chunks: Vec<u32>,
        write: &mut (impl futures::AsyncWrite + Unpin),
    ) -> io::Result<u64> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for index in chunks {
            let chunk = self.holding.manifest.chunks[index as usize];
            bytes += chunk.length as usize;
            batch.push((index, chunk.hash));
        }
        let framing = Framing {
            store: self.exchange.store.clone(),
            references: self.exchange.references.clone(),
            offers: Arc::clone(&self.exchange.offers),
            manifest: Arc::clone(&self.holding.manifest),
            bases: self.holding.bases.clone(),
            traffic: self.exchange.traffic.clone(),
        };
        let encoder = self.encoder.take();
        let (frames, encoder) = tokio::task::spawn_blocking(move || framing.frames(&batch, bytes, encoder))
            .await
            .map_err(io::Error::other)?;
        self.encoder = encoder;
        self.send_bytes(&frames, write).await?;
        Ok(frames.len() as u64)
    }

    async fn send_bytes(&self, bytes: &[u8], write: &mut (impl futures::AsyncWrite + Unpin)) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            timeout(WRITE, write.write_all(piece)).await??;
            self.exchange.traffic.sent(self.peer, piece.len() as u64);
            self.seat.sent(piece.len() as u64);
        }
        timeout(WRITE, write.flush()).await?
    }
}

async fn send(write: &mut (impl futures::AsyncWrite + Unpin), message: &Message) -> io::Result<()> {
    let frame = message.frame().map_err(invalid)?;
    timeout(WRITE, async {
        write.write_all(&frame).await?;
        write.flush().await
    })
    .await?
}
