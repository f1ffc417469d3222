//! libtorrent as the peer to compare with: seeds and leeches that are processes of their own (`libtorrent_peer.py`).

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{BenchError, Result, peers};
use crate::wait;

/// The longest download of any benchmark, on a busy machine.
const DONE_WITHIN: Duration = Duration::from_secs(300);
/// Installing the package.
const INSTALL_WITHIN: Duration = Duration::from_secs(300);
const SCRIPT: &str = include_str!("libtorrent_peer.py");

/// The installed library.
pub(super) struct Libtorrent {
    python: PathBuf,
    script: PathBuf,
    /// Its version.
    pub(super) version: String,
}

/// Content that leeches can ask for: a `.torrent` file, and the directory that has the content.
pub(super) struct Torrent {
    file: PathBuf,
    directory: PathBuf,
    bytes: u64,
}

/// One running seed or leech. Dropping it ends it.
pub(super) struct Peer {
    process: Child,
    input: Option<ChildStdin>,
    said: Receiver<String>,
}

/// What a leech came to.
pub(super) struct Leeched {
    /// From adding the torrent to having it whole and checked.
    pub(super) seconds: f64,
}

impl Libtorrent {
    /// The one installed in `cache`, from PyPI where it is not there yet.
    ///
    /// # Errors
    /// [`BenchError::Missing`]: it cannot be installed.
    pub(super) fn installed(cache: &Path) -> Result<Self> {
        let home = cache.join("libtorrent");
        let python = home.join("bin/python");
        let version = || {
            let asked = &mut Command::new(&python);
            wait::run_within(asked.args(["-c", "import libtorrent; print(libtorrent.__version__)"]), INSTALL_WITHIN)
                .ok()
                .filter(|ended| ended.status.success())
                .map(|ended| String::from_utf8_lossy(&ended.stdout).trim().to_owned())
        };
        if version().is_none() {
            let failed = |error: BenchError| BenchError::Missing(format!("libtorrent cannot be installed: {error}"));
            peers::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home)).map_err(failed)?;
            peers::run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "libtorrent"]))
                .map_err(failed)?;
        }
        let version = version().ok_or_else(|| BenchError::Missing("libtorrent does not load".into()))?;
        let script = home.join("peer.py");
        fs::write(&script, SCRIPT)?;
        Ok(Self { python, script, version })
    }

    /// How the table names it.
    pub(super) fn name(&self) -> String {
        format!("libtorrent {}", self.version)
    }

    /// Prepares a file to be seeded; its pieces are hashed now, outside of what is measured.
    pub(super) fn offer(&self, file: &Path) -> Result<Torrent> {
        let torrent = file.with_extension("torrent");
        peers::run(Command::new(&self.python).arg(&self.script).arg("make").arg(file).arg(&torrent))?;
        let directory = file.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Torrent { file: torrent, directory, bytes: fs::metadata(file)?.len() })
    }

    /// Starts a seed; `within` runs it in a network namespace. Returns when it listens at `address` (IP and port; port
    /// 0 lets the system pick), with the port.
    pub(super) fn seed(&self, torrent: &Torrent, address: &str, within: Option<&str>) -> Result<(Peer, u16)> {
        let mut command = self.command(within);
        let mut seed = Peer::start(command.arg("seed").arg(&torrent.file).arg(&torrent.directory).arg(address))?;
        let port = seed.hear()?["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or_else(|| BenchError::Peer("a libtorrent seed names no port".into()))?;
        Ok((seed, port))
    }

    /// Loads a leech that will download into `directory`; [`Peer::go`] starts its clock.
    pub(super) fn leech(
        &self,
        torrent: &Torrent,
        directory: &Path,
        address: &str,
        peers: &[String],
        within: Option<&str>,
    ) -> Result<Peer> {
        fs::create_dir_all(directory)?;
        let mut command = self.command(within);
        command.arg("leech").arg(&torrent.file).arg(directory).arg(address).args(peers);
        let mut leech = Peer::start(&mut command)?;
        leech.hear()?;
        Ok(leech)
    }

    /// One seed to one leech over loopback: MB/s. What the leech wrote is removed.
    pub(super) fn one_to_one(&self, torrent: &Torrent, base: &Path) -> Result<f64> {
        let (_seed, port) = self.seed(torrent, "127.0.0.1:0", None)?;
        let directory = base.join("leech");
        let mut leech = self.leech(torrent, &directory, "127.0.0.1:0", &[format!("127.0.0.1:{port}")], None)?;
        leech.go()?;
        let leeched = leech.leeched()?;
        drop(leech);
        fs::remove_dir_all(&directory)?;
        Ok(torrent.bytes as f64 / 1e6 / leeched.seconds)
    }

    fn command(&self, within: Option<&str>) -> Command {
        let mut command = match within {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.python);
                command
            }
            None => Command::new(&self.python),
        };
        command.arg(&self.script);
        command
    }
}

impl Peer {
    fn start(command: &mut Command) -> Result<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (sender, said) = sync_channel(16);
        std::thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(|line| line.ok())
            {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, input, said })
    }

    /// Starts a leech's clock.
    pub(super) fn go(&mut self) -> Result<()> {
        let input = self.input.as_mut().ok_or_else(|| BenchError::Peer("a libtorrent leech was ended".into()))?;
        input.write_all(b"\n")?;
        Ok(input.flush()?)
    }

    /// Waits until a leech has everything.
    pub(super) fn leeched(&mut self) -> Result<Leeched> {
        let said = self.hear()?;
        let seconds = said["seconds"].as_f64();
        let seconds = seconds.ok_or_else(|| BenchError::Peer(format!("a libtorrent leech says {said}")))?;
        Ok(Leeched { seconds })
    }

    /// Ends a seed, which then tells how many bytes of content it has uploaded.
    pub(super) fn uploaded_bytes(mut self) -> Result<u64> {
        self.input = None;
        let said = self.hear()?;
        said["uploaded"].as_u64().ok_or_else(|| BenchError::Peer(format!("a libtorrent seed says {said}")))
    }

    fn hear(&mut self) -> Result<Value> {
        let started = Instant::now();
        loop {
            match self.said.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    let value = serde_json::from_str(&line);
                    return value.map_err(|_| BenchError::Peer(format!("libtorrent says {line}")));
                }
                Err(RecvTimeoutError::Timeout) if wait::is_interrupted() => return Err(BenchError::Interrupted),
                Err(RecvTimeoutError::Timeout) if started.elapsed() < DONE_WITHIN => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(BenchError::Peer(format!("libtorrent was not done within {DONE_WITHIN:?}")));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(BenchError::Peer("libtorrent ended before its time".into()));
                }
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        wait::end(&mut self.process);
    }
}
