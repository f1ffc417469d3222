//! Instances: accepted releases, booted.
//!
//! [`Deployer::deploy`] takes an [`Accepted`] release and nothing else; what its guest finds of the operator's settings is
//! described in [`seed`], the life of an instance in [`instance`].
//!
//! ```text
//! DIRECTORY/bases/<image>.raw          images as flat files, read only, shared by all instances, removed when unused
//! DIRECTORY/instances/<id>/            an instance's home, 0700
//!     instance.json                    its record
//!     disk<n>.qcow2                    what its guest wrote, over a base
//!     seed.img                         what its guest is told
//!     settings.json                    the operator's values, for a release that takes its place
//!     memory.state                     its guest's memory, while it is suspended
//!     console.log, console.log.1       what its guest wrote to the serial port: 16 MiB, then the log is cut
//!     qemu.log, qmp.sock               QEMU's own messages, and its control socket
//! ```

mod bases;
mod console;
mod error;
pub mod hypervisor;
pub mod instance;
mod keeper;
mod memory;
mod plan;
mod ports;
mod probe;
mod process;
mod qemu;
mod qmp;
pub mod seed;
mod suspend;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rialto_protocol::ids::{ImageId, RecordId};
use rialto_web::api::{BoxStream, Instance, PortForward};
use tokio::sync::{mpsc, oneshot, watch};

use crate::dir::read_bounded;
use crate::trust::Accepted;
use bases::Bases;
use hypervisor::{Accelerator, Hypervisor, HypervisorError};
pub(crate) use instance::{Followed, InstanceRecord, Proposal, Remark, State, note};
use keeper::{Keeper, MAX_WAITING, Request, blocking};
use qemu::Qemu;

pub use bases::ImageSource;
pub use error::DeployError;
pub use plan::Limits;
pub use ports::PortError;
pub use probe::{MissingTool, accelerator, missing_tools};
pub(crate) use probe::{disk_tools, environment as tool_environment};

/// How long a guest that was asked to stop may take, where nothing else is set.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(20);
/// Values of one instance are at most this long: they came in a request of 64 KiB, and JSON can escape each byte to six.
const MAX_SETTINGS_BYTES: u64 = 512 * 1024;
/// An instance's id has this many random bytes, written in hexadecimal.
const ID_BYTES: usize = 8;

/// Runs instances, and finds those again that ran before. Cheap to clone; guests outlive the last clone.
#[derive(Clone)]
pub struct Deployer {
    shared: Arc<Shared>,
}

/// How a [`Deployer`] works.
#[derive(Debug, Clone)]
pub struct DeployOptions {
    /// How long a guest that was asked to stop may take before it is ended.
    pub grace: Duration,
    /// Use this accelerator and try no other; `None` finds out which runs a guest.
    pub accelerator: Option<Accelerator>,
    /// What one instance may have of this machine.
    pub limits: Limits,
}

impl Default for DeployOptions {
    fn default() -> Self {
        Self { grace: DEFAULT_GRACE, accelerator: None, limits: Limits::of_this_machine() }
    }
}

/// What the operator adds to a release.
#[derive(Debug, Clone, Default)]
pub struct DeploySpec {
    /// Values of the release's context inputs.
    pub set: BTreeMap<String, String>,
    /// Ports to publish on this machine's loopback; host port 0 picks a free one.
    pub publish: Vec<PortForward>,
    /// `publisher/name@version`, as the site knows it.
    pub title: String,
    /// The channel that it follows from then on.
    pub follows: Option<Followed>,
    /// The instance whose place it takes, which is suspended: its ports and its memory are free for this one.
    pub replaces: Option<String>,
}

/// How far a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// `exporting`, `creating` or `starting`.
    pub stage: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; 0 while unknown.
    pub total: u64,
}

/// Who asked for a deployment.
pub trait Caller: Send + Sync {
    /// Takes how far it is. Must not block.
    fn progress(&self, at: Progress);

    /// Why the guest shall not start after all: asked when everything is made, which can take minutes. May block.
    fn objection(&self) -> Option<String> {
        None
    }
}

struct Shared {
    instances: PathBuf,
    bases: Arc<Bases>,
    hypervisor: Arc<dyn Hypervisor>,
    options: DeployOptions,
    /// Never held across an await. Instances whose task has ended are gone.
    table: Mutex<BTreeMap<String, Handle>>,
    changes: watch::Sender<u64>,
}

#[derive(Clone)]
struct Handle {
    requests: mpsc::Sender<Request>,
    seen: watch::Receiver<InstanceRecord>,
}

impl Deployer {
    /// Opens the directory, which is made where it is missing, and adopts the instances in it: guests that run are
    /// followed again, what a crash left half made is marked failed, what cannot be read is listed as failed.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub async fn open(
        directory: &Path,
        images: Arc<dyn ImageSource>,
        options: DeployOptions,
    ) -> Result<Self, DeployError> {
        let hypervisor = Arc::new(Qemu::new(directory.join("instances"), options.accelerator));
        Self::open_with(directory, images, options, hypervisor).await
    }

    /// As [`Deployer::open`], over another hypervisor.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub async fn open_with(
        directory: &Path,
        images: Arc<dyn ImageSource>,
        options: DeployOptions,
        hypervisor: Arc<dyn Hypervisor>,
    ) -> Result<Self, DeployError> {
        let (instances, bases) = (directory.join("instances"), directory.join("bases"));
        let (bases, records) = {
            let instances = instances.clone();
            let open = move || Ok((Bases::open(bases, images)?, read_instances(&instances)?));
            blocking("open the directory of instances", open).await?
        };
        let shared = Shared {
            instances,
            bases: Arc::new(bases),
            hypervisor,
            options,
            table: Mutex::default(),
            changes: watch::Sender::new(0),
        };
        let deployer = Self { shared: Arc::new(shared) };
        let adopted = records.into_iter().map(|record| {
            let id = record.id.clone();
            let (handle, mut keeper) = deployer.keeper(record);
            async move {
                let guest = keeper.adopt().await;
                tokio::spawn(keeper.keep(guest));
                (id, handle)
            }
        });
        let adopted = futures::future::join_all(adopted).await;
        deployer.table().extend(adopted);
        deployer.remove_unused_bases().await;
        Ok(deployer)
    }

    /// Boots a release, and returns when its guest runs. Everything that can be refused is refused before anything is
    /// made. Dropped before it returns, it leaves a failed instance, or a running one if it was that far.
    ///
    /// # Errors
    /// Values that do not fit the release's context schema, ports that are taken, a machine beyond this site's limits,
    /// missing tools, images that are not complete, an objection of the caller's, a guest that does not start.
    pub async fn deploy(
        &self,
        accepted: &Accepted,
        spec: DeploySpec,
        caller: Arc<dyn Caller>,
    ) -> Result<Instance, DeployError> {
        let draft = plan::Draft::check(accepted, &spec, &self.shared.options.limits)?;
        let accelerator = self.shared.hypervisor.probe().await?;
        let id = new_id()?;
        let (handle, started) = {
            let mut table = self.table();
            draft.check_beside(memory_in_use(&table, None), &self.shared.options.limits)?;
            let owner = |port| port_owner(&table, port).filter(|owner| Some(owner) != spec.replaces.as_ref());
            let ports = ports::settle(&spec.publish, owner)?;
            let mut record = InstanceRecord::new(id.clone(), accepted.id(), &spec.title, jiff::Timestamp::now());
            draft.describe(&mut record, accelerator, &ports);
            record.follows = spec.follows;
            record.replaces = spec.replaces;
            let plan = draft.plan(accepted, &id, ports, caller);
            record.machine = Some(plan.machine.clone());
            let (handle, keeper) = self.keeper(record);
            let (reply, started) = oneshot::channel();
            tokio::spawn(keeper.create(Arc::clone(&self.shared.bases), plan, reply));
            table.insert(id, handle.clone());
            (handle, started)
        };
        self.shared.changes.send_modify(|count| *count += 1);
        started.await.map_err(|_| DeployError::ShuttingDown)??;
        Ok(handle.shown())
    }

    /// Whether [`Deployer::deploy`] would refuse at once: for callers who have something long to do before.
    ///
    /// # Errors
    /// Values that do not fit the release's context schema, ports that are taken, a machine beyond this site's limits.
    pub fn check(&self, accepted: &Accepted, spec: &DeploySpec) -> Result<(), DeployError> {
        let draft = plan::Draft::check(accepted, spec, &self.shared.options.limits)?;
        let table = self.table();
        let replaced = spec.replaces.as_deref();
        draft.check_beside(memory_in_use(&table, replaced), &self.shared.options.limits)?;
        // The ports of the one that is replaced are open for as long as it runs.
        let is_other =
            |forward: &&PortForward| port_owner(&table, forward.host).as_deref() != replaced || replaced.is_none();
        let others: Vec<PortForward> = spec.publish.iter().filter(is_other).copied().collect();
        ports::settle(&others, |port| port_owner(&table, port))?;
        Ok(())
    }

    /// All instances, oldest first.
    pub fn list(&self) -> Vec<Instance> {
        let mut records: Vec<InstanceRecord> =
            self.table().values().map(|handle| handle.seen.borrow().clone()).collect();
        records.sort_by(|a, b| (a.created_unix_ms, &a.id).cmp(&(b.created_unix_ms, &b.id)));
        records.iter().map(InstanceRecord::shown).collect()
    }

    /// Every instance with its release and state: what a revocation is checked against.
    pub fn releases(&self) -> Vec<(String, RecordId, State)> {
        let row = |record: &InstanceRecord| (record.id.clone(), record.release, record.state);
        self.table().values().map(|handle| row(&handle.seen.borrow())).collect()
    }

    /// One instance, by its id or the unique start of it.
    ///
    /// # Errors
    /// No such instance, or several.
    pub fn find(&self, id: &str) -> Result<Instance, DeployError> {
        Ok(self.handle(id)?.shown())
    }

    /// Ends an instance's guest and returns when it has ended: asked first, and after the time of grace, or at once with
    /// `force`, without asking. One that is over stays as it is.
    ///
    /// # Errors
    /// No such instance.
    pub async fn stop(&self, id: &str, force: bool) -> Result<Instance, DeployError> {
        let mut handle = self.handle(id)?;
        handle.ask(|reply| Request::Stop { force, reply }).await?;
        let over = handle.seen.wait_for(|record| record.state.is_over()).await;
        over.map(|record| record.shown()).map_err(|_| DeployError::ShuttingDown)
    }

    /// Saves a running instance's memory to disk and ends its process; its ports stay its own. Returns when it is done.
    ///
    /// # Errors
    /// No such instance, it does not run, or its memory cannot be saved: then it runs on.
    pub async fn suspend(&self, id: &str) -> Result<Instance, DeployError> {
        let handle = self.handle(id)?;
        handle.ask(|reply| Request::Suspend { reply }).await?;
        Ok(handle.shown())
    }

    /// Starts a suspended instance where it stood still. Returns when its guest runs.
    ///
    /// # Errors
    /// No such instance, it is not suspended, there is not enough memory beside the others, one of its ports is taken by
    /// another program, or its memory cannot be loaded: then it stays suspended.
    pub async fn resume(&self, id: &str) -> Result<Instance, DeployError> {
        let handle = self.handle(id)?;
        let asked = {
            let (in_use, record) = (memory_in_use(&self.table(), None), handle.seen.borrow());
            plan::check_memory(record.memory_bytes, in_use, &self.shared.options.limits)
        };
        asked?;
        handle.ask(|reply| Request::Resume { reply }).await?;
        Ok(handle.shown())
    }

    /// The flat file of an image that instances run on, where there is one. It may go at any time.
    pub fn base(&self, image: &ImageId) -> Option<PathBuf> {
        self.shared.bases.path(image)
    }

    /// Removes an instance that is over, with all that its guest wrote. Returns it as it last was.
    ///
    /// # Errors
    /// No such instance, or it is not over.
    pub async fn remove(&self, id: &str) -> Result<Instance, DeployError> {
        let handle = self.handle(id)?;
        handle.ask(|reply| Request::Remove { reply }).await?;
        self.remove_unused_bases().await;
        Ok(handle.shown())
    }

    /// What the guest wrote to its console; with `follow` also what it will write, until the instance is over.
    ///
    /// # Errors
    /// No such instance.
    pub fn logs(&self, id: &str, follow: bool) -> Result<BoxStream<Bytes>, DeployError> {
        let seen = self.handle(id)?.seen;
        let home = self.shared.instances.join(&seen.borrow().id);
        Ok(console::stream(self.shared.hypervisor.console(&home), seen, follow))
    }

    /// Notes something in an instance's record, such as that its release was revoked.
    ///
    /// # Errors
    /// No such instance, or one that is being made.
    pub async fn remark(&self, id: &str, remark: Remark) -> Result<(), DeployError> {
        self.handle(id)?.ask(|reply| Request::Remark { remark, reply }).await
    }

    /// The records of all instances.
    pub fn records(&self) -> Vec<InstanceRecord> {
        self.table().values().map(|handle| handle.seen.borrow().clone()).collect()
    }

    /// The operator's values that an instance was deployed with. Blocks on the disk.
    ///
    /// # Errors
    /// No such instance, or one whose values cannot be read: an earlier version of this program kept none.
    pub fn settings(&self, id: &str) -> Result<BTreeMap<String, String>, DeployError> {
        let record = self.handle(id)?.seen.borrow().clone();
        let path = self.shared.instances.join(&record.id).join(keeper::SETTINGS_FILE);
        let text = read_bounded(&path, MAX_SETTINGS_BYTES);
        let read = text.and_then(|text| Ok(serde_json::from_str(&text)?));
        read.map_err(|source| DeployError::Io { doing: "read the values that the instance was deployed with", source })
    }

    /// A counter that grows whenever an instance comes, changes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// What executes guests here. Boots one to find out, the first time.
    ///
    /// # Errors
    /// QEMU is missing, or runs nothing at all.
    pub async fn accelerator(&self) -> Result<Accelerator, HypervisorError> {
        self.shared.hypervisor.probe().await
    }

    fn keeper(&self, record: InstanceRecord) -> (Handle, Keeper) {
        let (sender, requests) = mpsc::channel(MAX_WAITING);
        let home = self.shared.instances.join(&record.id);
        let (record, seen) = watch::channel(record);
        let keeper = Keeper {
            home,
            record,
            requests,
            changes: self.shared.changes.clone(),
            hypervisor: Arc::clone(&self.shared.hypervisor),
            grace: self.shared.options.grace,
        };
        (Handle { requests: sender, seen }, keeper)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        // Nothing that holds it can leave it half changed, so a panic elsewhere does not spoil it.
        let mut table = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, handle| !handle.requests.is_closed());
        table
    }

    fn handle(&self, id: &str) -> Result<Handle, DeployError> {
        let shown = || id.chars().take(80).collect::<String>();
        let table = self.table();
        if let Some(handle) = table.get(id) {
            return Ok(handle.clone());
        }
        let mut found = table.iter().filter(|(known, _)| !id.is_empty() && known.starts_with(id));
        match (found.next(), found.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (None, _) => Err(DeployError::NotFound(shown())),
            (Some(_), Some(_)) => Err(DeployError::Ambiguous(shown())),
        }
    }

    async fn remove_unused_bases(&self) {
        let used = || -> BTreeSet<ImageId> {
            self.table().values().flat_map(|handle| handle.seen.borrow().images.clone()).collect()
        };
        if let Err(error) = self.shared.bases.remove_unused(used).await {
            tracing::warn!("cannot remove unused bases: {error}");
        }
    }
}

impl Handle {
    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), DeployError>>) -> Request,
    ) -> Result<(), DeployError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| DeployError::ShuttingDown)?;
        answer.await.map_err(|_| DeployError::ShuttingDown)?
    }

    fn shown(&self) -> Instance {
        self.seen.borrow().shown()
    }
}

/// Memory of all instances that have any, but for one, in bytes.
fn memory_in_use(table: &BTreeMap<String, Handle>, but: Option<&str>) -> u64 {
    let live = table.values().map(|handle| handle.seen.borrow());
    let live = live.filter(|record| record.state.has_memory() && Some(record.id.as_str()) != but);
    live.fold(0, |sum, record| sum.saturating_add(record.memory_bytes))
}

fn port_owner(table: &BTreeMap<String, Handle>, port: u16) -> Option<String> {
    let has_port =
        |record: &InstanceRecord| !record.state.is_over() && record.ports.iter().any(|forward| forward.host == port);
    table.iter().find(|(_, handle)| has_port(&handle.seen.borrow())).map(|(id, _)| id.clone())
}

fn new_id() -> Result<String, DeployError> {
    let mut bytes = [0; ID_BYTES];
    let failed = |error: getrandom::Error| DeployError::Io { doing: "make a random id", source: error.into() };
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// The instances of a directory; what a crash left of others (names that begin with a dot) is removed.
fn read_instances(directory: &Path) -> std::io::Result<Vec<InstanceRecord>> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    let mut records = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type()?.is_dir() {
            tracing::warn!("{} is no instance; it is left alone", entry.path().display());
        } else if name.starts_with('.') {
            fs::remove_dir_all(entry.path())?;
        } else {
            records.push(InstanceRecord::read(&entry.path(), &name).unwrap_or_else(|error| {
                tracing::error!("the record of instance {name} cannot be read: {error}");
                InstanceRecord::damaged(&name, &error)
            }));
        }
    }
    Ok(records)
}
