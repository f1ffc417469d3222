//! A QMP connection: commands to QEMU and events from it, over the socket in the guest's home.
//!
//! QEMU serves one client at a time, so whoever owns the guest owns the one connection. Events that arrive while a
//! command waits for its answer are kept for whoever asks next.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use qapi::Command;
use qapi::futures::{QapiEvents, QapiService, QmpStreamTokio};
use qapi::qmp::{self, Event, QmpCommand};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::hypervisor::{GuestStatus, HypervisorError, Identity};

/// The socket's name in the guest's home.
pub(super) const SOCKET: &str = "qmp.sock";
/// How long an answer may take: QEMU answers in milliseconds, unless the machine is overloaded or its disk hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Events kept while a command waits; a guest that resets itself in a loop must not fill our memory.
const MAX_KEPT_EVENTS: usize = 64;

/// An open connection to one guest's QEMU.
pub(super) struct Qmp {
    /// The same socket: files are handed over beside what is written.
    socket: OwnedFd,
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    events: QapiEvents<QmpStreamTokio<ReadHalf<UnixStream>>>,
    kept: VecDeque<Notice>,
    has_ended: bool,
}

/// The events that this node acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// The guest is being shut down: by itself, by a signal or by a command.
    Shutdown {
        /// Whether it was the guest's panic.
        is_panic: bool,
    },
    /// The guest restarted itself.
    Reset,
    /// The guest's kernel gave up.
    Panicked,
    /// The guest is paused since its disk cannot be read or written.
    IoError(String),
}

impl Qmp {
    /// Connects to the socket in `home` and checks that the guest behind it is `identity`.
    ///
    /// # Errors
    /// No socket, no answer in time, or another guest's answer.
    pub(super) async fn connect(home: &Path, identity: Identity) -> Result<Self, HypervisorError> {
        let silent = |_| HypervisorError::Silent(ANSWER_WITHIN);
        let stream = open_socket(home).await.map_err(HypervisorError::io("connect to the guest's control socket"))?;
        let socket = stream.as_fd().try_clone_to_owned();
        let socket = socket.map_err(HypervisorError::io("keep the guest's control socket"))?;
        let negotiated = timeout(ANSWER_WITHIN, async { QmpStreamTokio::open(stream).await?.negotiate().await });
        let stream = negotiated.await.map_err(silent)?.map_err(HypervisorError::io("talk to the guest's QEMU"))?;
        let (service, events) = stream.into_parts();
        let mut qmp = Self { socket, service, events, kept: VecDeque::new(), has_ended: false };
        let found = qmp.execute(qmp::query_uuid {}).await?.UUID;
        if found != identity.to_string() {
            return Err(HypervisorError::OtherGuest { home: home.to_owned(), found, expected: identity });
        }
        Ok(qmp)
    }

    /// Runs a command.
    ///
    /// # Errors
    /// Refused, no answer in time, or the connection has ended.
    pub(super) async fn execute<C>(&mut self, command: C) -> Result<C::Ok, HypervisorError>
    where
        C: Command + QmpCommand,
    {
        // Answers arrive through the same stream as events, so it must be read while we wait.
        let answer = timeout(ANSWER_WITHIN, self.service.execute(command));
        tokio::pin!(answer);
        let answered = loop {
            tokio::select! {
                biased;
                answered = &mut answer => break answered,
                event = self.events.next(), if !self.has_ended => match event {
                    Some(Ok(event)) => {
                        if let Some(notice) = Notice::of(event) && self.kept.len() < MAX_KEPT_EVENTS {
                            self.kept.push_back(notice);
                        }
                    }
                    Some(Err(_)) | None => self.has_ended = true,
                },
            }
        };
        match answered {
            Ok(Ok(ok)) => Ok(ok),
            Ok(Err(qapi::ExecuteError::Qapi(error))) => {
                Err(HypervisorError::Refused { command: C::NAME, why: error.to_string() })
            }
            Ok(Err(qapi::ExecuteError::Io(error))) => Err(HypervisorError::io("talk to the guest's QEMU")(error)),
            Err(_) => Err(HypervisorError::Silent(ANSWER_WITHIN)),
        }
    }

    /// The next event that matters; `None` once the connection has ended. Cancel-safe.
    pub(super) async fn notice(&mut self) -> Option<Notice> {
        if let Some(notice) = self.kept.pop_front() {
            return Some(notice);
        }
        while !self.has_ended {
            match self.events.next().await {
                Some(Ok(event)) => {
                    if let Some(notice) = Notice::of(event) {
                        return Some(notice);
                    }
                }
                Some(Err(_)) | None => self.has_ended = true,
            }
        }
        None
    }

    /// Hands QEMU an open file, to be called `name` there.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub(super) async fn hand_over(&mut self, file: BorrowedFd<'_>, name: &str) -> Result<(), HypervisorError> {
        let files = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&files));
        // A file travels with bytes, and white space between commands means nothing. It waits there for the command.
        let sent = sendmsg(&self.socket, &[IoSlice::new(b"\n")], &mut beside, SendFlags::NOSIGNAL);
        sent.map_err(|error| HypervisorError::io("hand QEMU a file")(error.into()))?;
        self.execute(qmp::getfd { fdname: name.to_owned() }).await.map(|_| ())
    }

    /// How the guest is, by QEMU's word.
    pub(super) async fn status(&mut self) -> Result<GuestStatus, HypervisorError> {
        let status = self.execute(qmp::query_status {}).await?;
        Ok(match status.status {
            _ if status.running => GuestStatus::Running,
            qmp::RunState::inmigrate => GuestStatus::Loading,
            _ => GuestStatus::Paused,
        })
    }
}

impl Notice {
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::SHUTDOWN { data, .. } => {
                Some(Self::Shutdown { is_panic: data.reason == qmp::ShutdownCause::guest_panic })
            }
            Event::RESET { data, .. } if data.guest => Some(Self::Reset),
            Event::GUEST_PANICKED { .. } => Some(Self::Panicked),
            Event::BLOCK_IO_ERROR { data, .. } if data.action == qmp::BlockErrorAction::stop => {
                let why = if data.nospace == Some(true) { "no space left".to_owned() } else { data.reason };
                Some(Self::IoError(why))
            }
            _ => None,
        }
    }
}

/// Connects through an open handle of the directory: a socket's path may have 107 bytes, a home's may have more.
async fn open_socket(home: &Path) -> std::io::Result<UnixStream> {
    let directory = File::open(home)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    timeout(ANSWER_WITHIN, UnixStream::connect(path))
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut)))
}
