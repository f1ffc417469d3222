//! A guest's console: read as it grows, and kept from growing without end.

use std::fs;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rialto_web::api::BoxStream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::watch;

use super::instance::InstanceRecord;

/// A console log is cut when it is longer than this; what was in it becomes `console.log.1`, replacing the one before.
/// While the node is away nobody cuts it.
pub(super) const MAX_CONSOLE_BYTES: u64 = 16 << 20;
/// Between looks at whether the file has grown.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Read at a time.
const READ_BYTES: usize = 64 * 1024;

/// The content of the console at `path`; with `follow` also what comes, until the instance is over or the node ends.
pub(super) fn stream(path: PathBuf, seen: watch::Receiver<InstanceRecord>, follow: bool) -> BoxStream<Bytes> {
    let tail = Tail { path, file: None, offset: 0, seen, left: if follow { None } else { Some(u64::MAX) } };
    Box::pin(futures::stream::unfold(tail, |mut tail| async move {
        match tail.next().await {
            Ok(bytes) => bytes.map(|bytes| (bytes, tail)),
            Err(error) => {
                tracing::warn!("cannot read {}: {error}", tail.path.display());
                None
            }
        }
    }))
}

/// Cuts the console at `path` where it is too long. QEMU appends, so it goes on writing at the new end; what it writes in
/// the instant between copying and cutting is lost.
pub(super) fn cut(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.len() > MAX_CONSOLE_BYTES {
        fs::copy(path, path.with_extension("log.1"))?;
        fs::OpenOptions::new().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

struct Tail {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
    seen: watch::Receiver<InstanceRecord>,
    /// Bytes still to be read, where the end is known from the start.
    left: Option<u64>,
}

impl Tail {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Asked before reading: what was written before the end is read before the end is told.
            let is_over = self.seen.has_changed().is_err() || self.seen.borrow_and_update().state.is_over();
            if let Some(bytes) = self.read().await? {
                return Ok(Some(bytes));
            }
            if is_over || self.left.is_some() {
                return Ok(None);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = self.seen.changed() => {}
            }
        }
    }

    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let file = match &mut self.file {
            Some(file) => file,
            none => match File::open(&self.path).await {
                Ok(file) => none.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let length = file.metadata().await?.len();
        if length < self.offset {
            file.seek(SeekFrom::Start(0)).await?;
            self.offset = 0;
        }
        let left = self.left.map(|left| left.min(length.saturating_sub(self.offset)));
        let most = left.map_or(READ_BYTES, |left| usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES));
        let mut bytes = BytesMut::with_capacity(most);
        let count = (&mut *file).take(most as u64).read_buf(&mut bytes).await?;
        self.offset += count as u64;
        self.left = left.map(|left| left - count as u64);
        Ok((count > 0).then(|| bytes.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures::StreamExt as _;
    use rialto_protocol::ids::RecordId;

    use super::super::instance::State;
    use super::*;

    fn record() -> InstanceRecord {
        InstanceRecord::new("a".into(), RecordId::of(b"r"), "t", jiff::Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_followed_console_is_read_to_its_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("console.log");
        let (sender, seen) = watch::channel(record());
        let mut stream = stream(path.clone(), seen, true);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(b"one").unwrap();
        assert_eq!(stream.next().await.as_deref(), Some(&b"one"[..]));
        file.set_len(0).unwrap();
        file.write_all(b"2").unwrap();
        assert_eq!(stream.next().await.as_deref(), Some(&b"2"[..]), "after it was cut");
        file.write_all(b"last").unwrap();
        sender.send_modify(|record| record.state = State::Stopped);
        assert_eq!(stream.next().await.as_deref(), Some(&b"last"[..]));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_console_that_is_not_followed_ends_at_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("console.log");
        let (_sender, seen) = watch::channel(record());
        assert!(stream(path.clone(), seen.clone(), false).next().await.is_none());
        fs::write(&path, vec![b'x'; 100_000]).unwrap();
        let read: Vec<Bytes> = stream(path, seen, false).collect().await;
        assert_eq!(read.iter().map(Bytes::len).sum::<usize>(), 100_000);
    }

    #[test]
    fn a_long_console_is_cut() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("console.log");
        fs::File::create(&path).unwrap().set_len(MAX_CONSOLE_BYTES + 1).unwrap();
        cut(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(fs::metadata(home.path().join("console.log.1")).unwrap().len(), MAX_CONSOLE_BYTES + 1);
    }
}
