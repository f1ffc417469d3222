//! Frames on a libp2p stream: bounded before they are allocated, and never waited for without a deadline.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use rialto_protocol::swarm::{FrameHead, FrameKind};

/// Reads one frame of a swarm stream; `None` at the orderly end of the stream.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(FrameKind, Vec<u8>)>> {
    let mut head = [0; FrameHead::BYTES];
    if !read_or_end(stream, &mut head).await? {
        return Ok(None);
    }
    let head = FrameHead::decode(head).map_err(invalid)?;
    Ok(Some((head.kind, read_payload(stream, head.length).await?)))
}

/// Reads one message that its length precedes as a big-endian `u32`; `None` at the orderly end of the stream.
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if !read_or_end(stream, &mut length).await? {
        return Ok(None);
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > max {
        return Err(invalid(format!("a message of {length} bytes, where at most {max} are allowed")));
    }
    read_payload(stream, length).await.map(Some)
}

/// Writes one message with its length before it.
pub(super) async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(invalid)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

/// An error of the peer's making.
pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn read_or_end(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<bool> {
    let Some((first, rest)) = buffer.split_first_mut() else { return Ok(true) };
    if stream.read(std::slice::from_mut(first)).await? == 0 {
        return Ok(false);
    }
    stream.read_exact(rest).await?;
    Ok(true)
}

async fn read_payload(stream: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}
