//! A guest's process: found by its identity, followed and signalled through a pidfd, so never mistaken for another.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::process::ExitStatus;

use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use super::hypervisor::Identity;

/// A command line is at most this long, as far as we look: ours have some 3 KiB and the kernel's command line.
const MAX_COMMAND_LINE_BYTES: u64 = 64 * 1024;

/// A process that we started or found.
pub(super) struct Process {
    pid: Pid,
    handle: AsyncFd<OwnedFd>,
    child: Option<Child>,
}

impl Process {
    /// Takes on a process that we just started.
    ///
    /// # Errors
    /// It has been waited for already, or the machine is out of file descriptors.
    pub(super) fn started(child: Child) -> io::Result<Self> {
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self { pid, handle: follow(pidfd_open(pid, PidfdFlags::empty())?)?, child: Some(child) })
    }

    /// Finds our user's process with `-uuid <identity>` in its command line.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(super) fn find(identity: Identity) -> io::Result<Option<Self>> {
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            if !is_ours(pid, identity) {
                continue;
            }
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            // Looked at again now that the handle is held: the number cannot have passed to another process unnoticed.
            if is_ours(pid, identity) {
                return Ok(Some(Self { pid, handle: follow(handle)?, child: None }));
            }
        }
        Ok(None)
    }

    /// Its number, for people.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().cast_unsigned()
    }

    /// Waits until it has ended; tells how, where it is a child of ours. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        // An error here could only mean that there is nothing to wait for.
        let _ = self.handle.readable().await;
        match &mut self.child {
            Some(child) => child.wait().await.ok(),
            None => None,
        }
    }

    /// Kills it, whatever it is doing.
    ///
    /// # Errors
    /// Not permitted. That it has ended already is no error.
    pub(super) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(self.handle.get_ref(), Signal::KILL) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Registers a pidfd with the runtime, which tells when it becomes readable: when the process has ended.
#[expect(
    deprecated,
    reason = "deprecated since a type could lend a descriptor that it does not keep open; an OwnedFd keeps its own, and the replacement is unsafe"
)]
fn follow(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(handle)
}

fn is_ours(pid: Pid, identity: Identity) -> bool {
    let directory = format!("/proc/{}", pid.as_raw_pid());
    let is_our_user = fs::metadata(&directory).is_ok_and(|entry| entry.uid() == geteuid().as_raw());
    is_our_user && command_line(&directory).is_ok_and(|line| names_identity(&line, identity))
}

fn command_line(directory: &str) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    fs::File::open(format!("{directory}/cmdline"))?.take(MAX_COMMAND_LINE_BYTES).read_to_end(&mut line)?;
    Ok(line)
}

fn names_identity(command_line: &[u8], identity: Identity) -> bool {
    let arguments: Vec<&[u8]> = command_line.split(|&byte| byte == 0).collect();
    arguments.windows(2).any(|pair| pair[0] == b"-uuid" && pair[1] == identity.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_process_is_found_by_its_identity_and_seen_to_end() {
        let identity = Identity::of("process test");
        assert!(Process::find(identity).unwrap().is_none());
        // The command line shows once the program is loaded, which it has told us when it speaks.
        let script = ["-c", "echo ready; read -r wait; exit 7", "-uuid", &identity.to_string()];
        let mut command = tokio::process::Command::new("sh");
        let mut child = command.args(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).await.unwrap();
        let stdin = child.stdin.take();
        let mut started = Process::started(child).unwrap();
        let mut found = Process::find(identity).unwrap().unwrap();
        assert_eq!(found.pid(), started.pid());
        drop(stdin);
        assert_eq!(started.ended().await.and_then(|status| status.code()), Some(7));
        assert!(found.ended().await.is_none());
        assert!(found.kill().is_ok(), "an ended process needs no killing");
        assert!(Process::find(identity).unwrap().is_none());
    }
}
