//! Bases: images of the store as flat files, shared by all instances and never written to.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rialto_protocol::ids::ImageId;
use tokio::sync::Mutex;

/// Where bases come from: the store.
pub trait ImageSource: Send + Sync + 'static {
    /// Writes the image's flat content to a new file at `path`, sparse where it can be. Blocks; it is called off the
    /// async threads. Content is checked against the image's hashes on the way. Blocks may be shared with the file at
    /// `like`, which is a base too.
    ///
    /// # Errors
    /// The image is not complete, or the file cannot be written.
    fn export(&self, image: &ImageId, path: &Path, like: Option<&Path>) -> io::Result<()>;
}

/// The directory of bases. One export runs at a time, and none while unused ones are removed.
pub(super) struct Bases {
    directory: PathBuf,
    source: Arc<dyn ImageSource>,
    turn: Arc<Mutex<()>>,
}

impl Bases {
    /// Opens the directory, and removes what interrupted exports left in it.
    pub(super) fn open(directory: PathBuf, source: Arc<dyn ImageSource>) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { directory, source, turn: Arc::default() })
    }

    /// The file's name in the directory.
    pub(super) fn file_name(image: &ImageId) -> String {
        format!("{image}.raw")
    }

    /// The flat file of an image, where there is one.
    pub(super) fn path(&self, image: &ImageId) -> Option<PathBuf> {
        let path = self.directory.join(Self::file_name(image));
        path.is_file().then_some(path)
    }

    /// Makes sure that the image is there as a flat file; the length of that, in bytes.
    pub(super) async fn ensure(&self, image: ImageId) -> io::Result<u64> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (directory, source) = (self.directory.clone(), Arc::clone(&self.source));
        let export = move || {
            // Moved in here: who stops waiting must not let the next export in before this one is over.
            let _turn = turn;
            export(&directory, &*source, &image)
        };
        tokio::task::spawn_blocking(export).await.map_err(io::Error::other)?
    }

    /// Removes bases that are not among those `used()`, which is asked while no export runs.
    pub(super) async fn remove_unused(&self, used: impl FnOnce() -> BTreeSet<ImageId>) -> io::Result<()> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let used: BTreeSet<String> = used().iter().map(Self::file_name).collect();
        let directory = self.directory.clone();
        let remove = move || {
            let _turn = turn;
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let is_used = entry.file_name().to_str().is_some_and(|name| used.contains(name));
                if !is_used {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(remove).await.map_err(io::Error::other)?
    }
}

fn export(directory: &Path, source: &dyn ImageSource, image: &ImageId) -> io::Result<u64> {
    let finished = directory.join(Bases::file_name(image));
    if let Ok(metadata) = fs::metadata(&finished) {
        return Ok(metadata.len());
    }
    let part = directory.join(format!("{image}.part"));
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let like = newest(directory)?;
    let written = source.export(image, &part, like.as_deref()).and_then(|()| {
        let file = File::open(&part)?;
        file.set_permissions(Permissions::from_mode(0o400))?;
        file.sync_all()?;
        fs::rename(&part, &finished)?;
        File::open(directory)?.sync_all()?;
        Ok(file.metadata()?.len())
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// The base that was made last: most likely an earlier version of what is to be made now.
fn newest(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path().extension().is_none_or(|extension| extension != "raw") {
            continue;
        }
        newest = newest.max(Some((entry.metadata()?.modified()?, entry.path())));
    }
    Ok(newest.map(|(_, path)| path))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Writes 3 bytes, or fails after having written them.
    struct Counted(AtomicUsize, bool);

    impl ImageSource for Counted {
        fn export(&self, _: &ImageId, path: &Path, _: Option<&Path>) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            fs::write(path, b"abc")?;
            if self.1 { Err(io::Error::other("chunk missing")) } else { Ok(()) }
        }
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[tokio::test]
    async fn a_base_is_exported_once_and_kept_while_it_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let source = Arc::new(Counted(AtomicUsize::new(0), false));
        let bases = Bases::open(directory.path().to_owned(), source.clone()).unwrap();
        let (a, b) = (ImageId::of(b"a"), ImageId::of(b"b"));
        for image in [a, b, a] {
            assert_eq!(bases.ensure(image).await.unwrap(), 3);
        }
        assert_eq!(source.0.load(Ordering::Relaxed), 2);
        bases.remove_unused(|| [b].into()).await.unwrap();
        assert_eq!(files(directory.path()), 1);
        assert!(directory.path().join(Bases::file_name(&b)).exists());
    }

    #[tokio::test]
    async fn a_failed_or_interrupted_export_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x.part"), b"half").unwrap();
        let bases = Bases::open(directory.path().to_owned(), Arc::new(Counted(AtomicUsize::new(0), true))).unwrap();
        assert!(bases.ensure(ImageId::of(b"a")).await.is_err());
        assert_eq!(files(directory.path()), 0);
    }
}
