//! Bases: images of the store as flat files, shared by all instances and never written to.
//!
//! Beside each lies what its content's digests are, once somebody asked: a release states those of its disks, and in-toto
//! statements speak of them only, so that a disk boots under no other digests than its own.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rialto_protocol::ids::{Hash, ImageId, Sha256};
use tokio::sync::Mutex;

use crate::store::FlatDigests;

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

    /// The digests of a base that [`Bases::ensure`] made, read from its content where nobody asked before.
    pub(super) async fn digests(&self, image: ImageId) -> io::Result<FlatDigests> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let directory = self.directory.clone();
        let read = move || {
            let _turn = turn;
            digests(&directory, &image)
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// Removes bases that are not among those `used()`, which is asked while no export runs.
    pub(super) async fn remove_unused(&self, used: impl FnOnce() -> BTreeSet<ImageId>) -> io::Result<()> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let used: BTreeSet<String> =
            used().iter().flat_map(|image| [Self::file_name(image), digests_name(image)]).collect();
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

fn digests_name(image: &ImageId) -> String {
    format!("{image}.digests")
}

fn digests(directory: &Path, image: &ImageId) -> io::Result<FlatDigests> {
    let noted = directory.join(digests_name(image));
    if let Some((blake3, sha256)) = fs::read(&noted).ok().as_deref().and_then(two_hashes) {
        return Ok(FlatDigests { blake3: Hash(blake3), sha256: Sha256(sha256) });
    }
    let digests = FlatDigests::of(File::open(directory.join(Bases::file_name(image)))?)?;
    let part = directory.join(format!("{image}.digests.part"));
    let mut file = File::create(&part)?;
    file.write_all(&[digests.blake3.0, digests.sha256.0].concat())?;
    file.sync_all()?;
    fs::rename(&part, &noted)?;
    Ok(digests)
}

/// `None` for what is not exactly two hashes long: whatever that is, it is made anew.
fn two_hashes(noted: &[u8]) -> Option<([u8; 32], [u8; 32])> {
    let (first, rest) = noted.split_first_chunk()?;
    Some((*first, rest.try_into().ok()?))
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
    async fn a_bases_digests_are_those_of_its_content_and_are_noted() {
        let directory = tempfile::tempdir().unwrap();
        let bases = Bases::open(directory.path().to_owned(), Arc::new(Counted(AtomicUsize::new(0), false))).unwrap();
        let image = ImageId::of(b"a");
        assert!(bases.digests(image).await.is_err(), "there is no base yet");
        bases.ensure(image).await.unwrap();
        let digests = bases.digests(image).await.unwrap();
        assert_eq!(digests.blake3, Hash::of(b"abc"));
        // FIPS 180-2, appendix B.1.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests.sha256.to_string(), sha256);
        let noted = directory.path().join(digests_name(&image));
        assert_eq!(fs::read(&noted).unwrap().len(), 64);
        // A note that was cut off is no note.
        fs::write(&noted, [0; 63]).unwrap();
        assert_eq!(bases.digests(image).await.unwrap(), digests);
        bases.remove_unused(|| [image].into()).await.unwrap();
        assert_eq!(files(directory.path()), 2);
        bases.remove_unused(BTreeSet::new).await.unwrap();
        assert_eq!(files(directory.path()), 0);
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
