//! Runs `qemu-img` on disks that were looked at before, under resource limits.
//!
//! The tool is given the open file that was looked at, never a name that could lead elsewhere by now, and is told the
//! format and that there is no backing file, whatever the header says. It writes into a folder of the node's own.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempPath;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Content, ConvertError, Plan, SourceFormat, inspect};
use crate::deploy::{disk_tools, note, tool_environment};

/// Address space, in bytes: QEMU's libraries and a megabyte of metadata for each of its caches fit well.
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;
/// Processor time: decompressing [`super::MAX_VIRTUAL_BYTES`] would take longer, an appliance's disk takes a minute.
const CPU_SECONDS: u64 = 3600;
const OPEN_FILES: u64 = 64;
/// Added to the length of the result, for what a format needs beside the content: qcow2's tables take 1/8192.
const OVERHEAD: u64 = 1024;
/// How often free space is looked at while the tool writes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much of what the tool says is kept.
const MAX_SAID_BYTES: u64 = 4096;
/// The file that the tool has open as its standard input.
const INPUT: &str = "/proc/self/fd/0";

/// The folder where flat content lies until it is in the store.
#[derive(Debug, Clone)]
pub(crate) struct Scratch(Arc<Place>);

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    floor_bytes: u64,
}

/// Flat content of a disk.
#[derive(Debug)]
pub(crate) enum Flat {
    /// The file is flat already.
    AsItIs,
    /// A file that is removed when this is dropped.
    Made(TempPath),
}

impl Scratch {
    /// Opens the folder, and removes what an interrupted conversion left in it. `floor_bytes` stay free on its file
    /// system.
    pub(crate) fn open(folder: PathBuf, floor_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self(Arc::new(Place { folder, floor_bytes })))
    }

    /// The flat content of a disk: looked at and, where it is not flat, converted. `progress` is told parts of the
    /// disk's length, in bytes. Dropping the future stops the tool.
    ///
    /// # Errors
    /// See [`ConvertError`].
    pub(crate) async fn flatten(
        &self,
        path: &Path,
        format: SourceFormat,
        member: Option<String>,
        progress: impl Fn(u64, u64),
    ) -> Result<Flat, ConvertError> {
        let (place, path) = (Arc::clone(&self.0), path.to_owned());
        let looking = tokio::task::spawn_blocking(move || look(&place.folder, &path, format, member.as_deref()));
        let Some(Prepared { input, path, plan, output }) =
            looking.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?
        else {
            return Ok(Flat::AsItIs);
        };
        let watched = Watched { folder: &self.0.folder, floor_bytes: self.0.floor_bytes, path: &path };
        let told = |percent: f64| progress((plan.virtual_bytes as f64 * percent / 100.0) as u64, plan.virtual_bytes);
        convert(input, &plan, "raw", &output, watched, told).await?;
        Ok(Flat::Made(output))
    }

    /// A new file in the folder.
    pub(crate) fn file(&self) -> io::Result<TempPath> {
        new_file(&self.0.folder)
    }
}

/// Makes a qcow2 file at `output`, which exists, of a flat file.
///
/// # Errors
/// See [`ConvertError`].
pub(crate) async fn export_qcow2(
    flat: &Path,
    output: &Path,
    floor_bytes: u64,
    progress: impl Fn(u64, u64),
) -> Result<(), ConvertError> {
    let input = File::open(flat).map_err(ConvertError::io("open", flat))?;
    let bytes = input.metadata().map_err(ConvertError::io("read", flat))?.len();
    let plan = Plan { driver: "raw", stretch: None, virtual_bytes: bytes };
    let folder = output.parent().unwrap_or(Path::new("/"));
    let watched = Watched { folder, floor_bytes, path: output };
    let told = |percent: f64| progress((bytes as f64 * percent / 100.0) as u64, bytes);
    convert(input, &plan, "qcow2", output, watched, told).await
}

struct Prepared {
    input: File,
    path: PathBuf,
    plan: Plan,
    output: TempPath,
}

/// Looks at the disk; `None` where it is flat.
fn look(
    folder: &Path,
    path: &Path,
    format: SourceFormat,
    member: Option<&str>,
) -> Result<Option<Prepared>, ConvertError> {
    let is_file = fs::metadata(path).map_err(ConvertError::io("open", path))?.is_file();
    if !is_file && format == SourceFormat::Raw {
        // A device, or what the store refuses.
        return Ok(None);
    }
    if !is_file {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(ConvertError::io("convert", path)(source));
    }
    let input = File::open(path).map_err(ConvertError::io("open", path))?;
    let length = input.metadata().map_err(ConvertError::io("read", path))?.len();
    let content = Opened { file: &input, length };
    let plan = inspect(&content, format, member)
        .map_err(|refusal| ConvertError::Refused { path: path.to_owned(), refusal })?;
    if format == SourceFormat::Raw {
        return Ok(None);
    }
    let output = new_file(folder).map_err(ConvertError::io("create a file in", folder))?;
    Ok(Some(Prepared { input, path: path.to_owned(), plan, output }))
}

fn new_file(folder: &Path) -> io::Result<TempPath> {
    Ok(tempfile::Builder::new().prefix("flat-").tempfile_in(folder)?.into_temp_path())
}

struct Opened<'a> {
    file: &'a File,
    length: u64,
}

impl Content for Opened<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }
}

struct Watched<'a> {
    folder: &'a Path,
    floor_bytes: u64,
    /// Named in errors.
    path: &'a Path,
}

impl Watched<'_> {
    fn check(&self) -> Result<(), ConvertError> {
        let free = crate::store::free_bytes(self.folder).map_err(ConvertError::io("look at", self.folder))?;
        if free >= self.floor_bytes {
            return Ok(());
        }
        Err(ConvertError::DiskFull { path: self.path.to_owned(), free, floor: self.floor_bytes })
    }
}

async fn convert(
    input: File,
    plan: &Plan,
    to: &str,
    output: &Path,
    watched: Watched<'_>,
    progress: impl Fn(f64),
) -> Result<(), ConvertError> {
    watched.check()?;
    let (prlimit, qemu_img) = disk_tools().map_err(|(what, fix)| ConvertError::Missing { what, fix })?;
    let most = plan.virtual_bytes + plan.virtual_bytes / OVERHEAD + (1 << 20);
    let mut child = Command::new(prlimit)
        .arg(format!("--as={ADDRESS_SPACE_BYTES}"))
        .arg(format!("--cpu={CPU_SECONDS}"))
        .arg(format!("--fsize={most}"))
        .arg(format!("--nofile={OPEN_FILES}"))
        .args(["--core=0", "--"])
        .arg(qemu_img)
        .args(["convert", "-p", "-O", to])
        .arg(source(plan))
        // Absolute, so that it is no option, no protocol and no description in JSON.
        .arg(output)
        .env_clear()
        .envs(tool_environment())
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ConvertError::io("run qemu-img on", watched.path))?;
    let stderr = child.stderr.take();
    let saying = tokio::spawn(async move { said(stderr).await });
    follow(&mut child, &watched, progress).await?;
    let status = child.wait().await.map_err(ConvertError::io("run qemu-img on", watched.path))?;
    let said = saying.await.unwrap_or_default();
    if status.success() { Ok(()) } else { Err(failed(watched.path, status, &said)) }
}

/// What the tool reads, in the words of QEMU's block layer: nothing is left for it to guess.
fn source(plan: &Plan) -> String {
    let file = json!({"driver": "file", "filename": INPUT, "locking": "off"});
    let file = match plan.stretch {
        Some((offset, size)) => json!({"driver": "raw", "offset": offset, "size": size, "file": file}),
        None => file,
    };
    let mut source = json!({"driver": plan.driver, "file": file});
    if matches!(plan.driver, "qcow2" | "vmdk") {
        source["backing"] = Value::Null;
    }
    format!("json:{source}")
}

/// Passes on how far it is, and stops it where the disk gets full.
async fn follow(child: &mut Child, watched: &Watched<'_>, progress: impl Fn(f64)) -> Result<(), ConvertError> {
    let Some(mut stdout) = child.stdout.take() else { return Ok(()) };
    let mut look = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            read = stdout.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(length) => if let Some(percent) = percent(&buffer[..length]) {
                    progress(percent);
                },
            },
            _ = look.tick() => watched.check()?,
        }
    }
}

/// The last of what looks like `    (12.34/100%)`.
fn percent(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let number = text.rsplit('(').find_map(|part| part.split_once("/100%")).map(|(number, _)| number)?;
    number.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))
}

async fn said(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut said = Vec::new();
    // What cannot be read was not said.
    let _ = (&mut from).take(MAX_SAID_BYTES).read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    note(&String::from_utf8_lossy(&said))
}

fn failed(path: &Path, status: ExitStatus, said: &str) -> ConvertError {
    let said = match status.signal() {
        Some(signal) => format!("it was stopped by signal {signal}, as when it uses more than it is allowed. {said}"),
        None if said.is_empty() => format!("{status}"),
        None => said.to_owned(),
    };
    ConvertError::Failed { path: path.to_owned(), said }
}
