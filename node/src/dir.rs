//! The node's directory D: where everything of one site lies, and who may use it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rialto_web::api::{ApiError, ErrorCode};

/// The form of the directory that this program reads and writes.
const FORMAT: u32 = 1;
/// Longest path of a UNIX socket in bytes: `sun_path` has 108, and the last is a zero.
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Where a socket is made before it is moved to its name; shorter than the name, so that it fits wherever that does.
const UNFINISHED_SOCKET: &str = ".sock";
/// Longest content of `format`, `lock` and `socket` that is read, in bytes.
const MAX_NOTE_BYTES: u64 = 4096;
/// Hex digits of the directory's hash in the name of its runtime directory: 64 bits, only to tell our own apart.
const RUNTIME_DIGITS: usize = 16;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// There is no node in it.
    #[error("{} is not a node's directory yet", .0.display())]
    NotInitialised(PathBuf),
    /// There is a node in it already.
    #[error("{} holds a node already; nothing was changed", .0.display())]
    AlreadyInitialised(PathBuf),
    /// Written by a newer program, or not by us.
    #[error("{} has format '{found}', and this rialto reads format {FORMAT} only", path.display())]
    OtherFormat {
        /// The directory.
        path: PathBuf,
        /// What its `format` file says.
        found: String,
    },
    /// Another process runs on it.
    #[error("{} is in use by {}", path.display(), holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, where it said so.
        holder: Option<u32>,
    },
    /// The runtime directory for the socket belongs to somebody else, or others may enter it.
    #[error("{} is not a private directory of ours, so the control socket cannot lie there", .0.display())]
    UnsafeRuntimeDir(PathBuf),
    /// No home to put a directory in.
    #[error("cannot tell where the node's directory is: neither RIALTO_DIR, XDG_STATE_HOME nor HOME is set")]
    NoDefault,
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl DirError {
    /// What to do next, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotInitialised(path) => {
                Some(format!("create one: rialto --dir {} init --name NAME --federation NAME", path.display()))
            }
            Self::AlreadyInitialised(path) => Some(format!("start it: rialto --dir {} node", path.display())),
            Self::OtherFormat { .. } => Some("use the version of rialto that wrote it, or a newer one".into()),
            Self::InUse { path, .. } => Some(format!(
                "one directory serves one node: stop the other, or see what it does: rialto --dir {} status",
                path.display()
            )),
            Self::UnsafeRuntimeDir(path) => {
                Some(format!("remove {} or set XDG_RUNTIME_DIR to a directory of yours", path.display()))
            }
            Self::NoDefault => Some("say which: rialto --dir DIRECTORY …".into()),
            Self::Io { source, path, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("run as the user who owns {}", path.display()))
            }
            Self::Io { .. } => None,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl From<DirError> for ApiError {
    fn from(error: DirError) -> Self {
        Self { code: ErrorCode::Failed, message: error.to_string(), hint: error.hint() }
    }
}

/// The directory of one node. Holding this value claims nothing; [`NodeDir::lock`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDir(PathBuf);

impl NodeDir {
    /// The directory at this path, which need not exist yet. A relative path is taken from the current directory, now.
    ///
    /// # Errors
    /// An empty path, or no current directory.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, DirError> {
        let path = path.as_ref();
        std::path::absolute(path).map(Self).map_err(DirError::io("find", path))
    }

    /// Where the directory is when nobody says: `$RIALTO_DIR`, else `$XDG_STATE_HOME/rialto`, else `~/.local/state/rialto`.
    ///
    /// # Errors
    /// None of the three variables is set.
    pub fn default_path() -> Result<PathBuf, DirError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("RIALTO_DIR")
            .or_else(|| set("XDG_STATE_HOME").filter(|path| path.is_absolute()).map(|state| state.join("rialto")))
            .or_else(|| set("HOME").map(|home| home.join(".local/state/rialto")))
            .ok_or(DirError::NoDefault)
    }

    /// The directory itself, absolute.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the administrator sets.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// What the site trusts.
    pub fn policy_file(&self) -> PathBuf {
        self.0.join("policy.toml")
    }

    /// OpenSSH key pairs.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Chunks and manifests.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// What was decided, line by line.
    pub fn decisions_file(&self) -> PathBuf {
        self.0.join("decisions.log")
    }

    /// The policies and records by which that was decided.
    pub fn evidence(&self) -> PathBuf {
        self.0.join("evidence")
    }

    /// Records and rollback floors.
    pub fn records(&self) -> PathBuf {
        self.0.join("records")
    }

    /// Flat content of disks that are being converted.
    pub fn scratch(&self) -> PathBuf {
        self.0.join("scratch")
    }

    /// Overlays, seeds and consoles of instances.
    pub fn instances(&self) -> PathBuf {
        self.0.join("instances")
    }

    /// Which form the directory has.
    pub fn format_file(&self) -> PathBuf {
        self.0.join("format")
    }

    /// Held by the process that runs the node.
    pub fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Says where the control socket is, when it is not `rialto.sock` in the directory.
    fn socket_note(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// Makes the directory and its rooms, private to this user. What exists stays as it is.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn create(&self) -> Result<(), DirError> {
        for path in [self.0.clone(), self.keys(), self.store(), self.records(), self.instances()] {
            create_private_dir(&path).map_err(DirError::io("create", &path))?;
        }
        Ok(())
    }

    /// Whether a node has been set up here.
    pub fn is_initialised(&self) -> bool {
        self.format_file().exists()
    }

    /// Marks the directory as complete: the last step of setting it up.
    ///
    /// # Errors
    /// It is marked already, or the file system refuses.
    pub fn write_format(&self) -> Result<(), DirError> {
        let path = self.format_file();
        write_new(&path, format!("{FORMAT}\n").as_bytes(), 0o644).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => DirError::AlreadyInitialised(self.0.clone()),
            _ => DirError::Io { action: "write", path, source },
        })
    }

    /// Checks that there is a node here whose files this program understands.
    ///
    /// # Errors
    /// There is none, or its form is newer, or cannot be read.
    pub fn check_format(&self) -> Result<(), DirError> {
        let path = self.format_file();
        let text = match read_note(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DirError::NotInitialised(self.0.clone()));
            }
            Err(source) => return Err(DirError::Io { action: "read", path, source }),
        };
        match text.trim().parse::<u32>() {
            Ok(FORMAT) => Ok(()),
            _ => Err(DirError::OtherFormat {
                path: self.0.clone(),
                found: text.trim().escape_debug().take(40).collect(),
            }),
        }
    }

    /// Claims the directory for this process until the lock is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// Another process holds it; the error names it where it said who it is.
    pub fn lock(&self) -> Result<DirLock, DirError> {
        let path = self.lock_file();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(DirError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirError::InUse { path: self.0.clone(), holder: self.lock_holder() });
            }
            Err(TryLockError::Error(source)) => return Err(DirError::Io { action: "lock", path, source }),
        }
        let write_holder = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write_holder(&mut file).map_err(DirError::io("write", &path))?;
        Ok(DirLock { _file: file, dir: self.clone() })
    }

    /// The process that last claimed the directory, as it wrote itself down.
    pub fn lock_holder(&self) -> Option<u32> {
        read_note(&self.lock_file()).ok()?.trim().parse().ok()
    }

    /// Where the control socket is, for those who connect to it.
    ///
    /// # Errors
    /// It lies in a runtime directory that does not belong to the owner of the node's directory.
    pub fn socket(&self) -> Result<PathBuf, DirError> {
        let note = self.socket_note();
        let socket = match read_note(&note) {
            Ok(text) => PathBuf::from(text.trim_end_matches('\n')),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.0.join("rialto.sock")),
            Err(source) => return Err(DirError::Io { action: "read", path: note, source }),
        };
        let owner = fs::metadata(&self.0).map_err(DirError::io("read", &self.0))?.uid();
        let runtime = socket.parent().unwrap_or(Path::new("/")).to_owned();
        match fs::symlink_metadata(&runtime) {
            Ok(found) if found.is_dir() && found.uid() == owner && found.mode() & 0o077 == 0 => Ok(socket),
            // Runtime directories vanish at a reboot, and the note stays: that is a node that is not running.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(socket),
            _ => Err(DirError::UnsafeRuntimeDir(runtime)),
        }
    }

    fn runtime_socket(&self) -> Result<PathBuf, DirError> {
        let digest = blake3::hash(self.0.as_os_str().as_bytes()).to_hex();
        let name = format!("rialto-{}", &digest[..RUNTIME_DIGITS]);
        let socket_in = |base: &OsStr| Path::new(base).join(&name).join("rialto.sock");
        let socket = std::env::var_os("XDG_RUNTIME_DIR")
            .filter(|base| Path::new(base).is_absolute())
            .map(|base| socket_in(&base))
            .filter(|socket| fits_a_socket(socket))
            .unwrap_or_else(|| socket_in(OsStr::new("/tmp")));
        let runtime = socket.parent().unwrap_or(Path::new("/"));
        create_private_dir(runtime).map_err(DirError::io("create", runtime))?;
        let found = fs::symlink_metadata(runtime).map_err(DirError::io("read", runtime))?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(DirError::UnsafeRuntimeDir(runtime.to_owned()));
        }
        Ok(socket)
    }
}

/// The claim of one process on a node's directory.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
    dir: NodeDir,
}

impl DirLock {
    /// Listens on the control socket, mode 0600, in place of whatever a dead node left there. Non-blocking, ready for
    /// `tokio::net::UnixListener::from_std`.
    ///
    /// # Errors
    /// The file system refuses, or the runtime directory that a long path needs is not ours.
    pub fn bind_socket(&self) -> Result<UnixListener, DirError> {
        let in_dir = self.dir.0.join("rialto.sock");
        let note = self.dir.socket_note();
        let socket = if fits_a_socket(&in_dir) { in_dir.clone() } else { self.dir.runtime_socket()? };
        let unfinished = socket.with_file_name(UNFINISHED_SOCKET);
        remove_if_there(&unfinished).map_err(DirError::io("remove", &unfinished))?;
        // Nobody may connect before the mode is set, so it gets its name last.
        let listener = UnixListener::bind(&unfinished).map_err(DirError::io("listen on", &socket))?;
        fs::set_permissions(&unfinished, Permissions::from_mode(0o600)).map_err(DirError::io("protect", &socket))?;
        fs::rename(&unfinished, &socket).map_err(DirError::io("create", &socket))?;
        listener.set_nonblocking(true).map_err(DirError::io("listen on", &socket))?;
        if socket == in_dir {
            remove_if_there(&note).map_err(DirError::io("remove", &note))?;
        } else {
            let text = [socket.as_os_str().as_bytes(), b"\n"].concat();
            replace(&note, &text, 0o600).map_err(DirError::io("write", &note))?;
        }
        Ok(listener)
    }

    /// Removes the control socket and, where there is one, its runtime directory. Failures do not matter: a socket that
    /// nobody listens on says the same.
    pub fn remove_socket(&self) {
        let Ok(socket) = self.dir.socket() else { return };
        let _ = fs::remove_file(&socket);
        if socket.parent() != Some(self.dir.path())
            && let Some(runtime) = socket.parent()
        {
            let _ = fs::remove_dir(runtime);
        }
    }
}

fn fits_a_socket(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn read_note(path: &Path) -> io::Result<String> {
    read_bounded(path, MAX_NOTE_BYTES)
}

/// Reads a whole text file of at most `max_bytes`.
///
/// # Errors
/// It is longer, not UTF-8, or cannot be read.
pub fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(max_bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("it is longer than {max_bytes} bytes")));
    }
    Ok(text)
}

/// Writes a file that must not exist yet, whole or not at all, and durably.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    unfinished(path, content, mode)?.persist_noclobber(path).map_err(|error| error.error)?;
    sync_parent(path)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    unfinished(path, content, mode)?.persist(path).map_err(|error| error.error)?;
    sync_parent(path)
}

fn unfinished(path: &Path, content: &[u8], mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(mode)).tempfile_in(parent)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn fresh() -> (tempfile::TempDir, NodeDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("d")).unwrap();
        dir.create().unwrap();
        (temp, dir)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_newer_format_is_refused() {
        let (_temp, dir) = fresh();
        assert!(matches!(dir.check_format(), Err(DirError::NotInitialised(_))));
        dir.write_format().unwrap();
        dir.check_format().unwrap();
        assert!(matches!(dir.write_format(), Err(DirError::AlreadyInitialised(_))));
        for other in ["2\n", "", "one", "1 or so", &"1".repeat(5000)] {
            fs::write(dir.format_file(), other).unwrap();
            assert!(dir.check_format().is_err(), "{other}");
        }
    }

    #[test]
    fn one_process_holds_the_lock_and_is_named() {
        let (_temp, dir) = fresh();
        let lock = dir.lock().unwrap();
        let refused = dir.lock().unwrap_err();
        assert!(refused.to_string().ends_with(&format!("in use by process {}", std::process::id())), "{refused}");
        drop(lock);
        dir.lock().unwrap();
    }

    #[test]
    fn the_directory_and_its_socket_are_private() {
        let (_temp, dir) = fresh();
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.keys()), 0o700);
        let lock = dir.lock().unwrap();
        fs::write(dir.path().join("rialto.sock"), "left by a dead node").unwrap();
        let _listener = lock.bind_socket().unwrap();
        let socket = dir.socket().unwrap();
        assert_eq!(socket, dir.path().join("rialto.sock"));
        assert_eq!(mode(&socket), 0o600);
        UnixStream::connect(&socket).unwrap();
        lock.remove_socket();
        assert!(!socket.exists());
    }

    #[test]
    fn a_directory_with_a_long_path_has_its_socket_elsewhere() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("long-".repeat(30))).unwrap();
        dir.create().unwrap();
        let lock = dir.lock().unwrap();
        let _listener = lock.bind_socket().unwrap();
        let socket = dir.socket().unwrap();
        assert!(socket.as_os_str().len() <= MAX_SOCKET_PATH_BYTES);
        let runtime = socket.parent().unwrap().to_owned();
        assert_eq!(mode(&runtime), 0o700);
        UnixStream::connect(&socket).unwrap();

        // A runtime directory that others may enter is not trusted, by the node or by its clients.
        fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(dir.socket(), Err(DirError::UnsafeRuntimeDir(_))));
        assert!(matches!(lock.bind_socket(), Err(DirError::UnsafeRuntimeDir(_))));
        fs::set_permissions(&runtime, Permissions::from_mode(0o700)).unwrap();
        lock.remove_socket();
        assert!(!runtime.exists());
    }

    #[test]
    fn new_files_replace_nothing() {
        let (_temp, dir) = fresh();
        write_new(&dir.config_file(), b"first", 0o600).unwrap();
        assert_eq!(write_new(&dir.config_file(), b"second", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(dir.config_file()).unwrap(), b"first");
        assert_eq!(mode(&dir.config_file()), 0o600);
    }
}
