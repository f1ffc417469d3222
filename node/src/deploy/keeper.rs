//! The task that keeps one instance: it alone changes the instance's record, and it owns its guest.
//!
//! It lives as long as the instance is known and the [`Deployer`](super::Deployer) exists; when the latter goes, so does
//! the task, and the guest stays.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::ids::ImageId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::bases::Bases;
use super::hypervisor::{Guest, GuestEvent, Hypervisor, HypervisorError, Identity, Machine};
use super::instance::{InstanceRecord, Remark, State, note};
use super::plan::Stated;
use super::seed::Seed;
use super::{Caller, DeployError, Progress, console};
use crate::dir::write_new;

/// The seed's name in an instance's home.
pub(super) const SEED_FILE: &str = "seed.img";
/// The operator's values in an instance's home. They may be secrets, like those in the seed beside it.
pub(super) const SETTINGS_FILE: &str = "settings.json";
/// Requests that may wait while the task is busy.
pub(super) const MAX_WAITING: usize = 16;
/// A guest that was ended and is still there after this is ended harder.
const KILL_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a left-over guest may take to die before its instance is removed.
const LEFTOVER_WITHIN: Duration = Duration::from_secs(15);
/// Between looks at the length of the console log.
const CONSOLE_LOOK: Duration = Duration::from_secs(5);

/// What the task is asked.
pub(super) enum Request {
    /// End the guest. Answered when that is under way, not when it is over.
    Stop { force: bool, reply: oneshot::Sender<Result<(), DeployError>> },
    /// Save the guest's memory and end it. Answered when that is done.
    Suspend { reply: oneshot::Sender<Result<(), DeployError>> },
    /// Start the guest from its saved memory. Answered when it runs.
    Resume { reply: oneshot::Sender<Result<(), DeployError>> },
    /// Remove the instance.
    Remove { reply: oneshot::Sender<Result<(), DeployError>> },
    /// Note something in the record.
    Remark { remark: Remark, reply: oneshot::Sender<Result<(), DeployError>> },
}

/// What is to be made of a new instance.
pub(super) struct Plan {
    /// Images to export, each with what the release states of its content.
    pub(super) images: Vec<(ImageId, Option<Stated>)>,
    /// What the guest is told.
    pub(super) seed: Seed,
    /// The operator's values, kept for a release that takes its place.
    pub(super) set: BTreeMap<String, String>,
    /// The machine.
    pub(super) machine: Machine,
    /// Who is told how it goes, and asked before it starts.
    pub(super) caller: Arc<dyn Caller>,
}

pub(super) struct Keeper {
    pub(super) home: PathBuf,
    pub(super) record: watch::Sender<InstanceRecord>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) grace: Duration,
}

impl Keeper {
    /// Makes a new instance, answers when its guest runs or will not, and keeps it from then on.
    pub(super) async fn create(
        mut self,
        bases: Arc<Bases>,
        plan: Plan,
        mut reply: oneshot::Sender<Result<(), DeployError>>,
    ) {
        let made = {
            let (home, record) = (self.home.clone(), self.record.borrow().clone());
            let prepared = prepare(&*self.hypervisor, &bases, home, record, &plan);
            tokio::pin!(prepared);
            loop {
                tokio::select! {
                    made = &mut prepared => break made,
                    () = reply.closed() => break Err(DeployError::Cancelled),
                    request = self.requests.recv() => match request {
                        Some(Request::Stop { reply, .. }) => {
                            let _ = reply.send(Ok(()));
                            break Err(DeployError::Cancelled);
                        }
                        Some(
                            Request::Suspend { reply }
                            | Request::Resume { reply }
                            | Request::Remove { reply }
                            | Request::Remark { reply, .. },
                        ) => {
                            let _ = reply.send(Err(self.is_still(State::Creating)));
                        }
                        // The node ends; at its next start it finds the instance half made.
                        None => return,
                    },
                }
            }
        };
        let started = match made {
            Ok(()) => self.start(&plan).await,
            Err(error) => Err(error),
        };
        let guest = match started {
            Ok(guest) => {
                let _ = reply.send(Ok(()));
                Some(guest)
            }
            Err(error) => {
                let why = note(&error.to_string());
                self.change(|record| {
                    record.state = State::Failed;
                    record.note = Some(why);
                })
                .await;
                let _ = reply.send(Err(error));
                None
            }
        };
        self.keep(guest).await;
    }

    async fn start(&mut self, plan: &Plan) -> Result<Box<dyn Guest>, DeployError> {
        still_wanted(plan).await?;
        plan.caller.progress(Progress { stage: "starting", done: 0, total: 0 });
        self.change(|record| record.state = State::Starting).await;
        let guest = self.hypervisor.start(&self.home, &plan.machine).await?;
        let pid = guest.pid();
        self.change(|record| {
            record.state = State::Running;
            record.pid = pid;
        })
        .await;
        Ok(guest)
    }

    /// Takes up an instance that an earlier process left, in whatever state.
    pub(super) async fn adopt(&mut self) -> Option<Box<dyn Guest>> {
        let (state, identity) = {
            let record = self.record.borrow();
            (record.state, Identity::of(&record.id))
        };
        if state.is_over() {
            return None;
        }
        let adopted = self.hypervisor.adopt(&self.home, identity).await;
        if matches!(state, State::Suspending | State::Suspended | State::Resuming) {
            return self.adopt_suspended(state, adopted).await;
        }
        let (next, why, guest) = match (adopted, state) {
            (Ok(Some(guest)), State::Creating) => {
                (State::Failed, Some("a guest ran that was never started; remove the instance".to_owned()), Some(guest))
            }
            (Ok(Some(guest)), State::Starting) => (State::Running, None, Some(guest)),
            (Ok(Some(guest)), _) => (state, None, Some(guest)),
            (Ok(None), State::Creating | State::Starting) => {
                (State::Failed, Some("the node ended while the instance was being made; deploy it again".into()), None)
            }
            (Ok(None), _) => match self.hypervisor.last_words(&self.home) {
                Some(said) => (State::Failed, Some(said), None),
                None => (State::Stopped, Some("the guest ended while the node was away".into()), None),
            },
            (Err(error), _) => (State::Failed, Some(format!("the guest was not found again: {error}")), None),
        };
        let pid = guest.as_ref().and_then(|guest| guest.pid());
        self.change(|record| {
            record.state = next;
            record.note = why.or(record.note.take());
            record.pid = pid;
        })
        .await;
        if next.is_over() { None } else { guest }
    }

    /// Follows the guest and does what is asked, until the instance is removed or the deployer goes.
    pub(super) async fn keep(mut self, mut guest: Option<Box<dyn Guest>>) {
        // A stop that an earlier process began is carried through.
        let mut deadline = (self.state() == State::Stopping).then(|| Instant::now() + self.grace);
        let mut console_look = interval(CONSOLE_LOOK);
        console_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = next_event(&mut guest) => {
                    if self.happened(event).await {
                        guest = None;
                        deadline = None;
                    }
                }
                request = self.requests.recv() => match request {
                    None => return,
                    Some(Request::Stop { force, reply }) => {
                        let (answer, next) = self.stop(&mut guest, force, deadline).await;
                        deadline = next;
                        let _ = reply.send(answer);
                    }
                    Some(Request::Suspend { reply }) => {
                        let _ = reply.send(self.suspend(&mut guest).await);
                    }
                    Some(Request::Resume { reply }) => {
                        let _ = reply.send(self.resume(&mut guest).await);
                    }
                    Some(Request::Remark { remark, reply }) => {
                        let _ = reply.send(self.remark(remark).await);
                    }
                    Some(Request::Remove { reply }) => {
                        let answer = self.remove().await;
                        let is_removed = answer.is_ok();
                        if is_removed {
                            // Closed before the answer: who gets it finds the instance gone.
                            self.requests.close();
                        }
                        let _ = reply.send(answer);
                        if is_removed {
                            self.changes.send_modify(|count| *count += 1);
                            return;
                        }
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    deadline = kill(&mut guest).await;
                }
                _ = console_look.tick(), if guest.is_some() => {
                    let path = self.hypervisor.console(&self.home);
                    let _ = tokio::task::spawn_blocking(move || console::cut(&path)).await;
                }
            }
        }
    }

    /// Records an event; whether it was the end.
    async fn happened(&mut self, event: GuestEvent) -> bool {
        match event {
            GuestEvent::Reset => tracing::debug!("guest in {} restarted itself", self.home.display()),
            GuestEvent::Panicked => {
                self.change(|record| record.note = Some("the guest's kernel panicked".into())).await;
            }
            GuestEvent::IoError(why) => {
                let why = note(&format!("paused, since its disk cannot be written on this machine: {why}"));
                self.change(|record| record.note = Some(why)).await;
            }
            GuestEvent::Ended(why) => {
                self.change(|record| {
                    record.state = if why.is_none() { State::Stopped } else { State::Failed };
                    record.note = why.as_deref().map(note);
                    record.pid = None;
                })
                .await;
                return true;
            }
        }
        false
    }

    /// Begins to end the guest; the second value is when to end it harder.
    async fn stop(
        &mut self,
        guest: &mut Option<Box<dyn Guest>>,
        force: bool,
        deadline: Option<Instant>,
    ) -> (Result<(), DeployError>, Option<Instant>) {
        let Some(running) = guest else {
            let ended = self.end_leftover().await;
            if ended.is_ok() && self.state() == State::Suspended {
                return (self.give_up_saved().await, None);
            }
            return (ended, None);
        };
        if self.state() == State::Running {
            self.change(|record| record.state = State::Stopping).await;
        } else if !force {
            return (Ok(()), deadline);
        }
        if force {
            return (Ok(()), kill(guest).await);
        }
        if let Err(error) = running.stop().await {
            // It cannot be asked, so it will be ended when its time is up.
            tracing::warn!("cannot ask the guest in {} to stop: {error}", self.home.display());
        }
        (Ok(()), Some(Instant::now() + self.grace))
    }

    async fn remove(&mut self) -> Result<(), DeployError> {
        let state = self.state();
        if !state.is_over() {
            return Err(self.is_still(state));
        }
        self.end_leftover().await?;
        let identity = self.identity();
        self.hypervisor.remove(&self.home, identity).await?;
        let home = self.home.clone();
        blocking("remove the instance's directory", move || {
            // Renamed first: a crash in the middle leaves a directory that is known for rubbish.
            let gone = sibling(&home, ".gone-");
            fs::rename(&home, &gone)?;
            fs::remove_dir_all(gone)
        })
        .await
    }

    /// Ends a guest that runs although its instance is over: one whose record is damaged, or that did not answer.
    pub(super) async fn end_leftover(&mut self) -> Result<(), DeployError> {
        let identity = self.identity();
        let Some(guest) = self.hypervisor.adopt(&self.home, identity).await? else { return Ok(()) };
        end(&mut Some(guest)).await
    }

    pub(super) fn state(&self) -> State {
        self.record.borrow().state
    }

    fn identity(&self) -> Identity {
        Identity::of(&self.record.borrow().id)
    }

    fn is_still(&self, state: State) -> DeployError {
        DeployError::NotOver { instance: self.record.borrow().id.clone(), state }
    }

    /// Changes the record: on disk first, then for everyone to see. A disk that refuses is reported and does not keep us
    /// from knowing the truth; the next start finds it out again.
    pub(super) async fn change(&mut self, change: impl FnOnce(&mut InstanceRecord)) {
        let Some(record) = self.changed(change) else { return };
        if let Err(error) = self.write(&record).await {
            tracing::error!("instance {} is {}, which is not on disk: {error}", record.id, record.state.as_str());
        }
        self.show(record);
    }

    /// Changes what must not be lost: where the disk refuses, nothing has changed.
    pub(super) async fn change_durably(&mut self, change: impl FnOnce(&mut InstanceRecord)) -> Result<(), DeployError> {
        let Some(record) = self.changed(change) else { return Ok(()) };
        self.write(&record).await?;
        self.show(record);
        Ok(())
    }

    async fn remark(&mut self, remark: Remark) -> Result<(), DeployError> {
        match remark {
            // Without it, nobody would know after a crash that the instance stands still for another.
            Remark::Updating(_) => self.change_durably(|record| record.remark(remark)).await,
            _ => {
                self.change(|record| record.remark(remark)).await;
                Ok(())
            }
        }
    }

    /// The record as it would be; `None` where that is as it is.
    fn changed(&self, change: impl FnOnce(&mut InstanceRecord)) -> Option<InstanceRecord> {
        let before = self.record.borrow();
        let mut record = before.clone();
        change(&mut record);
        debug_assert!(
            record.state == before.state || before.state.can_become(record.state),
            "{:?} became {:?}",
            before.state,
            record.state
        );
        (record != *before).then_some(record)
    }

    async fn write(&self, record: &InstanceRecord) -> Result<(), DeployError> {
        let (home, record) = (self.home.clone(), record.clone());
        blocking("write the instance's record", move || record.write(&home)).await
    }

    fn show(&self, record: InstanceRecord) {
        tracing::info!("instance {} is {}", record.id, record.state.as_str());
        self.record.send_replace(record);
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Makes everything that the machine needs before it starts.
async fn prepare(
    hypervisor: &dyn Hypervisor,
    bases: &Bases,
    home: PathBuf,
    record: InstanceRecord,
    plan: &Plan,
) -> Result<(), DeployError> {
    let new_home = home.clone();
    blocking("make the instance's directory", move || make_home(&new_home, &record)).await?;
    let total: u64 = plan.images.iter().filter_map(|(_, stated)| *stated).map(|stated| stated.bytes).sum();
    let mut done = 0;
    for (image, stated) in &plan.images {
        let image = *image;
        let refused = |source| DeployError::Export { image, source };
        plan.caller.progress(Progress { stage: "exporting", done, total });
        let found = bases.ensure(image).await.map_err(refused)?;
        let Some(Stated { bytes: expected, digests }) = *stated else { continue };
        if expected != found {
            return Err(DeployError::WrongLength { image, expected, found });
        }
        plan.caller.progress(Progress { stage: "checking", done, total });
        if bases.digests(image).await.map_err(refused)? != digests {
            return Err(DeployError::WrongDigests(image));
        }
        done += expected;
    }
    plan.caller.progress(Progress { stage: "creating", done: total, total });
    let (seed, path) = (plan.seed.clone(), home.join(SEED_FILE));
    blocking("write the seed", move || seed.write(&path)).await?;
    let (set, kept) = (plan.set.clone(), home.join(SETTINGS_FILE));
    blocking("write the settings", move || write_new(&kept, &serde_json::to_vec(&set)?, 0o600)).await?;
    Ok(hypervisor.create(&home, &plan.machine).await?)
}

/// Making it can take minutes, in which what speaks for it can change.
async fn still_wanted(plan: &Plan) -> Result<(), DeployError> {
    let caller = Arc::clone(&plan.caller);
    let objection = blocking("ask whether it may still start", move || Ok(caller.objection())).await?;
    objection.map_or(Ok(()), |why| Err(DeployError::Refused(why)))
}

/// The home appears with its record in it, or not at all.
fn make_home(home: &Path, record: &InstanceRecord) -> io::Result<()> {
    let new = sibling(home, ".new-");
    DirBuilder::new().mode(0o700).create(&new)?;
    record.write(&new)?;
    fs::rename(&new, home)?;
    match home.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn sibling(home: &Path, prefix: &str) -> PathBuf {
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    home.with_file_name(format!("{prefix}{name}"))
}

async fn next_event(guest: &mut Option<Box<dyn Guest>>) -> GuestEvent {
    match guest {
        Some(guest) => guest.event().await,
        None => std::future::pending().await,
    }
}

/// Ends a guest and waits until it is gone.
pub(super) async fn end(guest: &mut Option<Box<dyn Guest>>) -> Result<(), DeployError> {
    let ended = timeout(LEFTOVER_WITHIN, async {
        let mut deadline = kill(guest).await;
        loop {
            tokio::select! {
                event = next_event(guest) => if matches!(event, GuestEvent::Ended(_)) { return },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)) => deadline = kill(guest).await,
            }
        }
    });
    ended.await.map_err(|_| HypervisorError::Silent(LEFTOVER_WITHIN).into())
}

async fn kill(guest: &mut Option<Box<dyn Guest>>) -> Option<Instant> {
    if let Some(guest) = guest
        && let Err(error) = guest.kill().await
    {
        tracing::error!("cannot end a guest: {error}");
    }
    Some(Instant::now() + KILL_AGAIN_AFTER)
}

/// Runs file work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DeployError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|done| done);
    done.map_err(|source| DeployError::Io { doing, source })
}
