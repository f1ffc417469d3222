//! Fewer and larger writes and reads on a connection: what a TCP connection is wrapped in, below and above its encryption.
//!
//! yamux writes a header, a body of 16 KiB, and flushes, frame after frame; each would be an encrypted record and a system
//! call of its own, and the reader's TLS asks its socket for some KiB at a time. Here what is written is held until the
//! connection has nothing more to write, or [`HELD_BYTES`] are together, and the socket is read [`READ_BYTES`] at a time.
//!
//! That there is nothing more to write shows in the connection being read: yamux drains its streams before it reads, and
//! a handshake reads the answer to what it wrote. So [`Corked::poll_flush`] only notes that a flush is due, and the next
//! read, before anything else, carries it out. Who writes, flushes and never reads must close: that flushes too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use futures::io::{AsyncRead, AsyncWrite, BufReader};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};

/// Bytes held before they are written whatever comes: four TLS records, which go in one system call.
const HELD_BYTES: usize = 64 * 1024;
/// Bytes read from the socket at a time.
const READ_BYTES: usize = 64 * 1024;

/// An encryption whose socket is read in large pieces, and written in large pieces.
#[derive(Clone)]
pub(super) struct Corking<U>(pub(super) U);

impl<U: UpgradeInfo> UpgradeInfo for Corking<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C, U, S> InboundConnectionUpgrade<C> for Corking<U>
where
    C: AsyncRead,
    U: InboundConnectionUpgrade<BufReader<C>, Output = (PeerId, S), Future: Send + 'static>,
{
    type Output = (PeerId, Corked<S>);
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        let upgrade = self.0.upgrade_inbound(BufReader::with_capacity(READ_BYTES, socket), info);
        upgrade.map_ok(|(peer, stream)| (peer, Corked::new(stream))).boxed()
    }
}

impl<C, U, S> OutboundConnectionUpgrade<C> for Corking<U>
where
    C: AsyncRead,
    U: OutboundConnectionUpgrade<BufReader<C>, Output = (PeerId, S), Future: Send + 'static>,
{
    type Output = (PeerId, Corked<S>);
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        let upgrade = self.0.upgrade_outbound(BufReader::with_capacity(READ_BYTES, socket), info);
        upgrade.map_ok(|(peer, stream)| (peer, Corked::new(stream))).boxed()
    }
}

/// A connection that holds what is written until it is read, closed, or [`HELD_BYTES`] are together.
pub(super) struct Corked<S> {
    inner: S,
    held: Vec<u8>,
    /// Of `held`, bytes that `inner` has taken.
    taken: usize,
    /// `inner` has taken bytes since it was flushed, or bytes are held, and a flush was asked for.
    is_flush_due: bool,
}

impl<S> Corked<S> {
    fn new(inner: S) -> Self {
        Self { inner, held: Vec::new(), taken: 0, is_flush_due: false }
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Hands everything that is held to `inner`.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.held.len() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held[self.taken..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.taken += bytes,
            }
        }
        self.held.clear();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_flush_now(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.is_flush_due = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        // Where it cannot be carried out yet, the socket wakes this task when it can, and this is tried again.
        if self.is_flush_due
            && let Poll::Ready(Err(error)) = self.poll_flush_now(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() > HELD_BYTES {
            ready!(self.poll_release(cx))?;
        }
        let bytes = &bytes[..bytes.len().min(HELD_BYTES)];
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_flush_due = true;
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush_now(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use proptest::prelude::*;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    /// Counts the writes that reach what it wraps.
    struct Counted<S> {
        inner: S,
        writes: usize,
    }

    impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.inner).poll_read(cx, buffer)
        }
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.writes += 1;
            Pin::new(&mut self.inner).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_close(cx)
        }
    }

    /// Two ends of a connection on whose way so many bytes can be.
    fn connection(bytes: usize) -> (Corked<impl AsyncRead + AsyncWrite>, impl AsyncRead + AsyncWrite) {
        let (one, other) = tokio::io::duplex(bytes);
        (Corked::new(one.compat()), other.compat())
    }

    #[tokio::test]
    async fn what_was_flushed_goes_out_when_the_answer_is_read() {
        let (mut asker, mut answerer) = connection(1024);
        let answering = async {
            let mut question = [0; 8];
            answerer.read_exact(&mut question).await.unwrap();
            answerer.write_all(&question).await.unwrap();
        };
        let asking = async {
            asker.write_all(b"ques").await.unwrap();
            asker.write_all(b"tion").await.unwrap();
            asker.flush().await.unwrap();
            let mut answer = [0; 8];
            asker.read_exact(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(futures::join!(asking, answering).0, *b"question");
    }

    #[tokio::test]
    async fn closing_sends_what_is_held() {
        let (mut writer, mut reader) = connection(16);
        let mut read = Vec::new();
        let writing = async {
            writer.write_all(&[7; 100]).await.unwrap();
            writer.close().await.unwrap();
        };
        futures::join!(writing, reader.read_to_end(&mut read)).1.unwrap();
        assert_eq!(read, [7; 100]);
    }

    #[tokio::test]
    async fn a_hundred_frames_are_a_few_writes() {
        let (one, mut other) = tokio::io::duplex(4 << 20);
        let mut corked = Corked::new(Counted { inner: one.compat(), writes: 0 });
        for _ in 0..100 {
            corked.write_all(&[1; 12]).await.unwrap();
            corked.write_all(&[2; 16 * 1024]).await.unwrap();
            corked.flush().await.unwrap();
        }
        tokio::io::AsyncWriteExt::write_all(&mut other, b"!").await.unwrap();
        corked.read_exact(&mut [0]).await.unwrap();
        assert!(corked.inner.writes <= 100 * (16 * 1024 + 12) / HELD_BYTES * 2, "{} writes", corked.inner.writes);
        let mut read = vec![0; 100 * (16 * 1024 + 12)];
        tokio::io::AsyncReadExt::read_exact(&mut other, &mut read).await.unwrap();
        assert!(read.chunks(16 * 1024 + 12).all(|frame| frame[..12] == [1; 12] && frame[12..].iter().all(|&b| b == 2)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Both ends write pieces of any size, flushing after some, while they read what the other writes.
        #[test]
        fn every_byte_arrives_once_and_in_order(
            way in 500usize..5000,
            pieces in prop::collection::vec((0usize..80_000, any::<bool>()), 0..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let sent: Vec<u8> = (0..pieces.iter().map(|(bytes, _)| bytes).sum()).map(|n: usize| (n % 251) as u8).collect();
            let received = runtime.block_on(async {
                let (one, mut other) = connection(way);
                // One task may poll both halves in turn, as yamux does: `split` shares the connection behind a lock.
                let (mut read, mut write) = one.split();
                let writing = async {
                    let mut rest = &sent[..];
                    for &(bytes, is_flushed) in &pieces {
                        let (piece, after) = rest.split_at(bytes);
                        write.write_all(piece).await.unwrap();
                        if is_flushed {
                            write.flush().await.unwrap();
                        }
                        rest = after;
                    }
                    write.close().await.unwrap();
                };
                let echoing = async {
                    let mut received = Vec::new();
                    other.read_to_end(&mut received).await.unwrap();
                    other.write_all(b"done").await.unwrap();
                    received
                };
                let hearing = async {
                    let mut word = [0; 4];
                    read.read_exact(&mut word).await.unwrap();
                    word
                };
                let (received, word, ()) = futures::join!(echoing, hearing, writing);
                assert_eq!(&word, b"done");
                received
            });
            prop_assert_eq!(received, sent);
        }
    }
}
