//! The fetcher's side of one swarm stream: carries messages to one holder, and what it answers back.

use std::io;
use std::time::Duration;

use futures::io::BufReader;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{PeerId, Stream};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::swarm::{ChunkHeader, FrameKind, Message, PeerKey, Reference, ReferencedHeader};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::frames::{invalid, read_frame};
use super::super::{Net, Protocol};

/// Messages to a holder that wait to be written.
const OUTBOX: usize = 64;
/// Buffer of a stream's reader: small frames are many, chunks go past it.
const READ_BUFFER: usize = 64 * 1024;
/// Opening a stream includes dialling.
const OPEN: Duration = Duration::from_secs(15);
/// A holder that has not said by then what it has does not say it: it looks every chunk up before.
const ANSWER: Duration = Duration::from_secs(30);

/// How the bytes of a chunk are to be read, and that they follow a header of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// By themselves.
    Encoded(Encoding),
    /// With a run of one of the bases that this node named.
    Referenced(Reference),
}

impl Form {
    /// What it is called in the counts of chunks.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Encoded(encoding) => super::traffic::name(encoding),
            Self::Referenced(_) => super::traffic::REFERENCED,
        }
    }

    /// Bytes before those of the chunk.
    pub(super) fn header_bytes(self) -> usize {
        match self {
            Self::Encoded(_) => ChunkHeader::BYTES,
            Self::Referenced(_) => ReferencedHeader::BYTES,
        }
    }
}

/// What a holder said or did.
#[derive(Debug)]
pub(super) enum Said {
    /// It has these chunks too.
    Have { is_complete: bool, chunks: rialto_protocol::swarm::Ranges },
    /// A manifest page.
    Page(Vec<u8>),
    /// A chunk.
    Chunk { index: u32, form: Form, payload: Vec<u8> },
    /// Not now.
    Busy,
    /// It does not have the image.
    Absent,
    /// The stream is over; `Some` where it is the holder's fault.
    Gone(Option<String>),
}

impl Said {
    /// Bytes of a page or chunk, as they are counted.
    pub(super) fn payload_bytes(&self) -> u64 {
        match self {
            Self::Page(page) => page.len() as u64,
            Self::Chunk { payload, form, .. } => payload.len().saturating_sub(form.header_bytes()) as u64,
            _ => 0,
        }
    }
}

/// What is said on one of many sessions.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) key: PeerKey,
    pub(super) peer: PeerId,
    pub(super) said: Said,
}

/// A session as the fetch sees it. Dropping it closes the stream.
pub(super) struct Session {
    pub(super) peer: PeerId,
    outbox: mpsc::Sender<Message>,
    _task: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Opens a stream to the peer, and begins it with `hello`.
    pub(super) fn open(net: Net, peer: PeerId, hello: Message, key: PeerKey, heard: mpsc::Sender<Heard>) -> Self {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let task = tokio::spawn(async move {
            let fault = match converse(net, peer, hello, key, messages, &heard).await {
                Ok(()) => None,
                Err(error) => (error.kind() == io::ErrorKind::InvalidData).then(|| error.to_string()),
            };
            // Where nobody listens any more, the fetch is over.
            heard.send(Heard { key, peer, said: Said::Gone(fault) }).await.ok();
        });
        Self { peer, outbox, _task: AbortOnDrop(task) }
    }

    /// Says something to the holder; `false` where its outbox is full, which no honest holder lets happen.
    pub(super) fn say(&self, message: Message) -> bool {
        self.outbox.try_send(message).is_ok()
    }
}

async fn converse(
    net: Net,
    peer: PeerId,
    hello: Message,
    key: PeerKey,
    mut messages: mpsc::Receiver<Message>,
    heard: &mpsc::Sender<Heard>,
) -> io::Result<()> {
    let stream: Stream =
        timeout(OPEN, net.open(peer, Protocol::Swarm)).await?.map_err(|error| io::Error::other(error.to_string()))?;
    let (read, mut write) = stream.split();
    let mut read = BufReader::with_capacity(READ_BUFFER, read);
    let writing = async {
        write.write_all(&hello.frame().map_err(io::Error::other)?).await?;
        write.flush().await?;
        while let Some(message) = messages.recv().await {
            write.write_all(&message.frame().map_err(io::Error::other)?).await?;
            write.flush().await?;
        }
        write.close().await
    };
    let reading = async {
        let mut next = timeout(ANSWER, read_frame(&mut read)).await??;
        while let Some((kind, payload)) = next {
            let said = understand(kind, payload)?;
            if heard.send(Heard { key, peer, said }).await.is_err() {
                break;
            }
            next = read_frame(&mut read).await?;
        }
        io::Result::Ok(())
    };
    // Both halves are polled here, by one task; when the holder ends the stream, so do we.
    tokio::select! {
        read = reading => read,
        Err(error) = writing => Err(error),
    }
}

fn understand(kind: FrameKind, payload: Vec<u8>) -> io::Result<Said> {
    match kind {
        FrameKind::Page => return Ok(Said::Page(payload)),
        FrameKind::Chunk => {
            let header =
                payload.first_chunk::<{ ChunkHeader::BYTES }>().ok_or_else(|| invalid("a chunk without a header"))?;
            let ChunkHeader { index, encoding } = ChunkHeader::decode(*header).map_err(invalid)?;
            return Ok(Said::Chunk { index, form: Form::Encoded(encoding), payload });
        }
        FrameKind::Referenced => {
            let header = payload.first_chunk::<{ ReferencedHeader::BYTES }>();
            let header = header.ok_or_else(|| invalid("a referenced chunk without a header"))?;
            let ReferencedHeader { index, reference } = ReferencedHeader::decode(*header);
            return Ok(Said::Chunk { index, form: Form::Referenced(reference), payload });
        }
        _ => {}
    }
    match Message::decode(kind, &payload).map_err(invalid)? {
        Some(Message::Have { is_complete, chunks }) => Ok(Said::Have { is_complete, chunks }),
        Some(Message::Busy) => Ok(Said::Busy),
        Some(Message::Absent) => Ok(Said::Absent),
        _ => Err(invalid("a message that only fetchers send")),
    }
}
