//! Instances in real QEMU: small guests that speak over the serial port, from deployment to removal and through crashes.
//!
//! [`conformance`] is what any hypervisor must do; it takes a `Deployer` over one.

use std::fs::File;
use std::io;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use futures::StreamExt as _;
use rialto_protocol::bounded::{List, Name, Text};
use rialto_protocol::ids::{Hash, PublicKey};
use rialto_protocol::record::{
    Arch, Body, Boot, ContextError, ContextInput, Disk, DiskFormat, InputType, Release, Requirements,
};
use rialto_protocol::signed::Draft;
use rialto_web::api::{ApiError, ErrorCode};
use tempfile::TempDir;
use tokio::time::timeout;

use super::hypervisor::{Identity, Saved};
use super::process::Process;
use super::*;
use crate::store::FlatDigests;

/// Nothing here takes longer, even on a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(60);
const GREETING: &str = "the appliance speaks";

#[tokio::test]
async fn conformance() {
    let site = Site::new();
    let deployer = site.open().await;
    let mut changes = deployer.changes();
    let spec = site.spec(&[("greeting", "hello")], &[(0, 80)]);
    let deployed = deployer.deploy(&accepted(&release(SPEAKS)), spec, quiet()).await.unwrap();
    assert_eq!(deployed.state, "running");
    assert_eq!(deployed.accelerator, "tcg");
    assert_eq!(deployer.list(), std::slice::from_ref(&deployed));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let id = deployed.instance.as_str();
    assert_eq!(deployer.find(&id[..5]).unwrap().instance, id);
    console_says(&deployer, id, GREETING).await;

    let port = deployed.ports[0].host;
    let taken = deployer.deploy(&accepted(&release(SPEAKS)), site.spec(&[], &[(port, 80)]), quiet()).await;
    assert!(matches!(taken, Err(DeployError::Port(PortError::Ours { instance, .. })) if instance == id));
    assert!(matches!(deployer.remove(id).await, Err(DeployError::NotOver { .. })));
    deployer.remark(id, Remark::Warning(Some("its release was revoked".into()))).await.unwrap();
    assert_eq!(deployer.find(id).unwrap().note.as_deref(), Some("its release was revoked"));

    assert_eq!(deployer.settings(id).unwrap(), BTreeMap::from([("greeting".to_owned(), "hello".to_owned())]));

    let followed = deployer.logs(id, true).unwrap();
    assert_eq!(deployer.stop(id, true).await.unwrap().state, "stopped");
    assert_eq!(deployer.stop(id, false).await.unwrap().state, "stopped", "stopping twice is no error");
    timeout(DEADLINE, followed.collect::<Vec<_>>()).await.expect("the console ends with the instance");
    assert_eq!(deployer.remove(id).await.unwrap().state, "stopped");
    assert!(deployer.list().is_empty());
    assert!(matches!(deployer.find(id), Err(DeployError::NotFound(_))));
    assert_eq!(site.files("instances"), 0);
    assert_eq!(site.files("bases"), 0, "no instance needs the base any more");
}

#[tokio::test]
async fn a_running_instance_is_adopted_and_stopped_when_it_ignores_the_power_button() {
    let site = Site::new();
    let deployer = site.open().await;
    let deployed = deployer.deploy(&accepted(&release(SPEAKS)), site.spec(&[], &[]), quiet()).await.unwrap();
    let id = deployed.instance.clone();
    drop(deployer);
    let deployer = site.open().await;
    assert_eq!(deployer.list(), [deployed]);
    console_says(&deployer, &id, GREETING).await;
    assert_eq!(site.files("bases"), 2, "a base and its digests");
    let stopped = timeout(DEADLINE, deployer.stop(&id, false)).await.unwrap().unwrap();
    assert_eq!((stopped.state.as_str(), stopped.note), ("stopped", None));
}

/// What the guest has counted to so far, by the console: it writes the digits 0 to 9 over and over.
async fn counted(deployer: &Deployer, id: &str, at_least: usize) -> Vec<u8> {
    let mut stream = deployer.logs(id, true).unwrap();
    let counting = timeout(DEADLINE, async {
        let mut all = Vec::new();
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes);
            if let Some(at) = String::from_utf8_lossy(&all).find(GREETING) {
                let digits = all[at + GREETING.len()..].to_vec();
                if digits.len() >= at_least {
                    return digits;
                }
            }
        }
        panic!("the console ended");
    });
    counting.await.expect("it counts in time")
}

fn counts_on(digits: &[u8]) -> bool {
    digits.iter().enumerate().all(|(place, digit)| *digit == b'0' + (place % 10) as u8)
}

#[tokio::test]
async fn a_suspended_guest_goes_on_where_it_stood_still_also_under_another_node() {
    let site = Site::new();
    let deployer = site.open().await;
    let deployed = deployer.deploy(&accepted(&release(COUNTS)), site.spec(&[], &[(0, 80)]), quiet()).await.unwrap();
    let id = deployed.instance.as_str();
    counted(&deployer, id, 12).await;
    assert!(matches!(deployer.resume(id).await, Err(DeployError::OtherState { wanted: "suspended", .. })));
    assert_eq!(deployer.suspend(id).await.unwrap().state, "suspended");
    assert!(Process::find(Identity::of(id)).unwrap().is_none(), "its process is gone");
    assert!(site.home(id).join("memory.state").is_file());
    let stood_at = counted(&deployer, id, 12).await;
    assert!(matches!(deployer.suspend(id).await, Err(DeployError::OtherState { wanted: "running", .. })));
    assert!(matches!(deployer.remove(id).await, Err(DeployError::NotOver { .. })));
    let taken =
        deployer.deploy(&accepted(&release(SPEAKS)), site.spec(&[], &[(deployed.ports[0].host, 80)]), quiet()).await;
    assert!(matches!(taken, Err(DeployError::Port(PortError::Ours { .. }))), "its port stays its own");

    drop(deployer);
    let deployer = site.open().await;
    assert_eq!(deployer.find(id).unwrap().state, "suspended");
    assert_eq!(site.files("bases"), 2, "a base and its digests");
    assert_eq!(deployer.resume(id).await.unwrap().state, "running");
    assert!(!site.home(id).join("memory.state").exists(), "a memory of the past is no use beside the disks of now");
    let digits = counted(&deployer, id, stood_at.len() + 12).await;
    assert!(counts_on(&digits), "{}", String::from_utf8_lossy(&digits));
    assert!(std::net::TcpStream::connect(("127.0.0.1", deployed.ports[0].host)).is_ok());

    // Once more, and given up.
    deployer.suspend(id).await.unwrap();
    let stopped = deployer.stop(id, false).await.unwrap();
    assert!(stopped.state == "stopped" && stopped.note.is_some_and(|note| note.contains("in memory is gone")));
    assert!(!site.home(id).join("memory.state").exists());
    deployer.remove(id).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_cannot_be_saved_runs_on() {
    let site = Site::new();
    let deployer = site.open().await;
    let id = deployer.deploy(&accepted(&release(COUNTS)), site.spec(&[], &[]), quiet()).await.unwrap().instance;
    counted(&deployer, &id, 3).await;
    // Every byte written there is one too many, as on a full disk.
    std::os::unix::fs::symlink("/dev/full", site.home(&id).join("memory.state.new")).unwrap();
    let error = deployer.suspend(&id).await.unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    let found = deployer.find(&id).unwrap();
    assert_eq!(found.state, "running");
    assert!(found.note.is_some_and(|note| note.contains("No space left")));
    let digits = counted(&deployer, &id, 30).await;
    assert!(counts_on(&digits), "{}", String::from_utf8_lossy(&digits));
    assert_eq!(deployer.suspend(&id).await.unwrap().state, "suspended", "once there is room");
    deployer.stop(&id, true).await.unwrap();
}

#[tokio::test]
async fn a_memory_that_cannot_be_loaded_leaves_the_instance_suspended() {
    let site = Site::new();
    let deployer = site.open().await;
    let id = deployer.deploy(&accepted(&release(COUNTS)), site.spec(&[], &[]), quiet()).await.unwrap().instance;
    counted(&deployer, &id, 3).await;
    deployer.suspend(&id).await.unwrap();
    let (memory, away) = (site.home(&id).join("memory.state"), site.home(&id).join("away"));
    fs::copy(&memory, &away).unwrap();
    let whole = fs::metadata(&memory).unwrap().len();
    File::options().write(true).open(&memory).unwrap().set_len(whole / 2).unwrap();
    let error = deployer.resume(&id).await.unwrap_err();
    assert!(matches!(error, DeployError::Hypervisor(HypervisorError::DidNotStart(_))), "{error:?}");
    assert_eq!(deployer.find(&id).unwrap().state, "suspended");
    fs::rename(away, memory).unwrap();
    assert_eq!(deployer.resume(&id).await.unwrap().state, "running");
    deployer.stop(&id, true).await.unwrap();
}

/// What is on disk when the node dies at each step of suspending and resuming, and what the next one makes of it.
#[tokio::test]
async fn a_crash_between_a_guest_and_its_saved_memory_loses_neither() {
    let site = Site::new();
    let deployer = site.open().await;
    let id = deployer.deploy(&accepted(&release(COUNTS)), site.spec(&[], &[]), quiet()).await.unwrap().instance;
    counted(&deployer, &id, 3).await;
    drop(deployer);
    let record = InstanceRecord::read(&site.home(&id), &id).unwrap();
    let memory = site.home(&id).join("memory.state");
    let rewind = |state: State, saved: Option<&Saved>| {
        InstanceRecord { state, saved: saved.cloned(), ..record.clone() }.write(&site.home(&id)).unwrap();
    };
    // Before the memory was whole: the guest goes on.
    rewind(State::Suspending, None);
    fs::write(site.home(&id).join("memory.state.new"), b"half").unwrap();
    let deployer = site.open().await;
    assert_eq!(deployer.find(&id).unwrap().state, "running");
    assert!(!site.home(&id).join("memory.state.new").exists());
    // Saved, the guest gone, the last word not written.
    deployer.suspend(&id).await.unwrap();
    drop(deployer);
    let saved = InstanceRecord::read(&site.home(&id), &id).unwrap().saved;
    for state in [State::Suspending, State::Resuming] {
        rewind(state, saved.as_ref());
        let deployer = site.open().await;
        assert_eq!(deployer.find(&id).unwrap().state, "suspended", "{state:?}");
    }
    // Loaded, the memory forgotten, the guest not told to go on.
    let deployer = site.open().await;
    deployer.resume(&id).await.unwrap();
    drop(deployer);
    rewind(State::Resuming, saved.as_ref());
    assert!(!memory.exists());
    let deployer = site.open().await;
    assert_eq!(deployer.find(&id).unwrap().state, "running");
    let digits = counted(&deployer, &id, 40).await;
    assert!(counts_on(&digits), "{}", String::from_utf8_lossy(&digits));
    // Nothing is left of it at all.
    drop(deployer);
    site.kill(&id).await;
    rewind(State::Suspended, saved.as_ref());
    let deployer = site.open().await;
    assert_eq!(deployer.find(&id).unwrap().state, "failed");
}

#[tokio::test]
async fn a_guest_that_powers_itself_off_is_stopped() {
    let site = Site::new();
    let deployer = site.open().await;
    let deployed = deployer.deploy(&accepted(&release(LEAVES)), site.spec(&[], &[]), quiet()).await.unwrap();
    let over = becomes_over(&deployer, &deployed.instance).await;
    assert_eq!((over.state.as_str(), over.note), ("stopped", None));
    console_says(&deployer, &deployed.instance, GREETING).await;
}

#[tokio::test]
async fn a_killed_guest_is_failed_whoever_started_it() {
    let site = Site::new();
    let deployer = site.open().await;
    let accepted = accepted(&release(SPEAKS));
    let first = deployer.deploy(&accepted, site.spec(&[], &[]), quiet()).await.unwrap().instance;
    let second = deployer.deploy(&accepted, site.spec(&[], &[]), quiet()).await.unwrap().instance;
    site.kill(&first).await;
    let over = becomes_over(&deployer, &first).await;
    assert_eq!(over.state, "failed");
    assert!(over.note.as_ref().is_some_and(|note| note.contains("signal: 9")), "{over:?}");

    drop(deployer);
    let deployer = site.open().await;
    site.kill(&second).await;
    let over = becomes_over(&deployer, &second).await;
    assert_eq!(over.state, "failed");
    assert!(over.note.as_ref().is_some_and(|note| note.contains("without a shutdown")), "{over:?}");
    for id in [first, second] {
        deployer.remove(&id).await.unwrap();
    }
    assert_eq!(site.files("bases"), 0);
}

#[tokio::test]
async fn a_guest_that_ended_while_the_node_was_away_is_stopped() {
    let site = Site::new();
    let deployer = site.open().await;
    let deployed = deployer.deploy(&accepted(&release(SPEAKS)), site.spec(&[], &[]), quiet()).await.unwrap();
    drop(deployer);
    site.kill(&deployed.instance).await;
    let deployer = site.open().await;
    let found = deployer.find(&deployed.instance).unwrap();
    assert_eq!(
        (found.state.as_str(), found.note.as_deref()),
        ("stopped", Some("the guest ended while the node was away"))
    );
}

#[tokio::test]
async fn a_damaged_record_is_failed_and_its_guest_can_still_be_ended() {
    let site = Site::new();
    let deployer = site.open().await;
    let id = deployer.deploy(&accepted(&release(SPEAKS)), site.spec(&[], &[]), quiet()).await.unwrap().instance;
    drop(deployer);
    fs::write(site.home(&id).join(instance::RECORD_FILE), b"{\"v\": 1, \"i").unwrap();
    let deployer = site.open().await;
    let found = deployer.find(&id).unwrap();
    assert_eq!(found.state, "failed");
    assert!(found.note.is_some_and(|note| note.contains("cannot be read")));
    assert!(Process::find(Identity::of(&id)).unwrap().is_some(), "it still runs");
    deployer.remove(&id).await.unwrap();
    assert!(Process::find(Identity::of(&id)).unwrap().is_none());
    assert_eq!(site.files("instances"), 0);
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_failed_and_can_be_removed() {
    let site = Site::new();
    drop(site.open().await);
    for (id, state) in [("00000000000000aa", State::Creating), ("00000000000000bb", State::Starting)] {
        let home = site.home(id);
        fs::create_dir(&home).unwrap();
        let mut record = InstanceRecord::new(id.into(), RecordId::of(b"r"), "t", jiff::Timestamp::UNIX_EPOCH);
        record.state = state;
        record.write(&home).unwrap();
    }
    for rubbish in [".new-00000000000000cc", ".gone-00000000000000dd"] {
        fs::create_dir(site.home(rubbish)).unwrap();
    }
    fs::write(site.path().join("bases/x.part"), b"half").unwrap();
    let deployer = site.open().await;
    assert_eq!(deployer.list().iter().map(|instance| instance.state.as_str()).collect::<Vec<_>>(), ["failed"; 2]);
    assert!(matches!(deployer.find("00000000000000"), Err(DeployError::Ambiguous(_))));
    assert_eq!((site.files("instances"), site.files("bases")), (2, 0));
    deployer.remove("00000000000000aa").await.unwrap();
    deployer.remove("00000000000000bb").await.unwrap();
    assert_eq!(site.files("instances"), 0);
}

#[tokio::test]
async fn values_and_ports_are_refused_before_anything_is_made() {
    let site = Site::new();
    let deployer = site.open().await;
    let mut release = release(SPEAKS);
    let input = |kind, required| ContextInput { kind, required, secret: false, default: None, description: None };
    let inputs: BTreeMap<Name, ContextInput> = [
        ("greeting".try_into().unwrap(), input(InputType::String, true)),
        ("count".try_into().unwrap(), input(InputType::Integer, false)),
    ]
    .into();
    release.context = inputs.try_into().unwrap();
    let accepted = accepted(&release);
    let deploy = |set: &[(&str, &str)], publish: &[(u16, u16)]| {
        let spec = site.spec(set, publish);
        let (deployer, accepted) = (deployer.clone(), accepted.clone());
        async move { deployer.deploy(&accepted, spec, quiet()).await.unwrap_err() }
    };
    assert!(matches!(deploy(&[], &[]).await, DeployError::Context(ContextError::Missing(_))));
    let unknown = deploy(&[("greeting", "a"), ("colour", "b")], &[]).await;
    assert!(matches!(unknown, DeployError::Context(ContextError::Unknown { .. })));
    let wrong = deploy(&[("greeting", "a"), ("count", "many")], &[]).await;
    assert!(matches!(wrong, DeployError::Context(ContextError::WrongType(..))));
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let taken = deploy(&[("greeting", "a")], &[(port, 80)]).await;
    assert!(matches!(taken, DeployError::Port(PortError::Unavailable { .. })));
    assert!(deployer.list().is_empty());
    assert_eq!((site.files("instances"), site.files("bases")), (0, 0));
}

#[tokio::test]
async fn releases_that_do_not_fit_this_machine_are_refused() {
    let site = Site::new();
    let deployer = site.open().await;
    let unfit: [fn(&mut Release); 7] = [
        |release| release.arch = Arch::Aarch64,
        |release| release.requirements.vcpus = 0,
        |release| release.requirements.vcpus = 100_000,
        |release| release.requirements.memory_bytes = 1,
        |release| release.requirements.memory_bytes = u64::MAX,
        |release| release.requirements.disk_bytes = u64::MAX,
        |release| release.disks = List::default(),
    ];
    for change in unfit {
        let mut release = release(SPEAKS);
        change(&mut release);
        let refused = deployer.deploy(&accepted(&release), DeploySpec::default(), quiet()).await;
        assert!(matches!(refused, Err(DeployError::Unfit(_))), "{refused:?}");
    }
    assert_eq!(site.files("instances"), 0);
}

#[tokio::test]
async fn a_release_that_does_not_fit_beside_the_others_is_refused() {
    let site = Site::new();
    let memory_bytes = release(SPEAKS).requirements.memory_bytes;
    let limits = Limits { all_memory_bytes: memory_bytes - 1, ..Limits::of_this_machine() };
    let options = DeployOptions { accelerator: Some(Accelerator::Tcg), limits, ..DeployOptions::default() };
    let deployer = Deployer::open(site.path(), Arc::new(Disks), options).await.unwrap();
    let refused = deployer.deploy(&accepted(&release(SPEAKS)), DeploySpec::default(), quiet()).await.unwrap_err();
    assert!(refused.to_string().contains("deploy.memory"), "{refused}");
    assert_eq!(site.files("instances"), 0);
}

/// What reviewers said of one disk by its digest would otherwise count for another, which the publisher put under it.
#[tokio::test]
async fn a_disk_under_the_digests_of_another_does_not_boot() {
    let site = Site::new();
    let deployer = site.open().await;
    let (genuine, other) = (release(SPEAKS), release(LEAVES).disks[0].clone());
    let deploy = |disk: Disk| {
        let release = Release { disks: vec![disk].try_into().unwrap(), ..genuine.clone() };
        let deployer = deployer.clone();
        async move { deployer.deploy(&accepted(&release), DeploySpec::default(), quiet()).await }
    };
    let disk = || genuine.disks[0].clone();
    for wrong in [Disk { sha256: other.sha256, ..disk() }, Disk { blake3: other.blake3, ..disk() }] {
        let refused = deploy(wrong).await;
        assert!(matches!(refused, Err(DeployError::WrongDigests(image)) if image == disk().image), "{refused:?}");
    }
    assert!(deployer.list().iter().all(|instance| instance.state == "failed"));
    assert_eq!(deploy(disk()).await.unwrap().state, "running");
}

/// Between the last verdict and the guest's first instruction lies the export of its disks, which can take minutes.
#[tokio::test]
async fn what_is_withdrawn_while_it_is_made_does_not_start() {
    let site = Site::new();
    let deployer = site.open().await;
    let refused =
        deployer.deploy(&accepted(&release(SPEAKS)), DeploySpec::default(), Arc::new(Fickle)).await.unwrap_err();
    assert!(matches!(refused, DeployError::Refused(_)), "{refused}");
    assert_eq!(ApiError::from(refused).code, ErrorCode::Refused);
    let failed = deployer.list();
    assert!(failed.iter().all(|instance| instance.state == "failed"), "{failed:?}");
    assert!(failed[0].note.as_ref().is_some_and(|note| note.contains("revoked meanwhile")), "{failed:?}");
    assert!(Process::find(Identity::of(&failed[0].instance)).unwrap().is_none(), "nothing was started");
    deployer.remove(&failed[0].instance).await.unwrap();
}

#[tokio::test]
async fn images_that_cannot_be_had_or_are_not_what_was_said_fail_the_instance() {
    let site = Site::new();
    let deployer = site.open().await;
    let mut release = release(SPEAKS);
    let mut disk = release.disks[0].clone();
    disk.bytes += 1;
    release.disks = vec![disk.clone()].try_into().unwrap();
    let wrong = deployer.deploy(&accepted(&release), DeploySpec::default(), quiet()).await;
    assert!(matches!(wrong, Err(DeployError::WrongLength { .. })), "{wrong:?}");
    disk.image = ImageId::of(b"not there");
    release.disks = vec![disk].try_into().unwrap();
    let missing = deployer.deploy(&accepted(&release), DeploySpec::default(), quiet()).await;
    assert!(matches!(missing, Err(DeployError::Export { .. })), "{missing:?}");
    for instance in deployer.list() {
        assert_eq!(instance.state, "failed");
        deployer.remove(&instance.instance).await.unwrap();
    }
    assert_eq!((site.files("instances"), site.files("bases")), (0, 0));
}

#[tokio::test]
async fn a_guest_that_cannot_start_says_why() {
    let site = Site::new();
    let deployer = site.open().await;
    let mut release = release(SPEAKS);
    let kernel = ImageId::of(NO_KERNEL);
    release.boot = Boot::Direct { kernel, initrd: None, cmdline: "console=ttyS0".try_into().unwrap() };
    let refused = deployer.deploy(&accepted(&release), DeploySpec::default(), quiet()).await.unwrap_err();
    let DeployError::Hypervisor(HypervisorError::DidNotStart(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("kernel"), "{why}");
    assert_eq!(deployer.list()[0].state, "failed");
}

/// A node's directory, deeper than a socket's path may be long. Guests that a failed test leaves are ended with it.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix(&"deep".repeat(30)).tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn home(&self, id: &str) -> PathBuf {
        self.path().join("instances").join(id)
    }

    async fn open(&self) -> Deployer {
        let options = DeployOptions {
            grace: Duration::from_millis(300),
            accelerator: Some(Accelerator::Tcg),
            ..DeployOptions::default()
        };
        Deployer::open(self.path(), Arc::new(Disks), options).await.unwrap()
    }

    fn spec(&self, set: &[(&str, &str)], publish: &[(u16, u16)]) -> DeploySpec {
        DeploySpec {
            set: set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            publish: publish.iter().map(|&(host, guest)| PortForward { host, guest }).collect(),
            title: "uni/speaks@1".into(),
            ..DeploySpec::default()
        }
    }

    fn files(&self, directory: &str) -> usize {
        fs::read_dir(self.path().join(directory)).unwrap().count()
    }

    /// `kill -9`, and the wait until it has worked.
    async fn kill(&self, id: &str) {
        let mut process = Process::find(Identity::of(id)).unwrap().expect("its process runs");
        process.kill().unwrap();
        timeout(DEADLINE, process.ended()).await.expect("a killed process ends");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path().join("instances")).into_iter().flatten().flatten() {
            let identity = Identity::of(&entry.file_name().to_string_lossy());
            if let Ok(Some(process)) = Process::find(identity) {
                process.kill().unwrap();
            }
        }
    }
}

/// What QEMU does not take for a kernel.
const NO_KERNEL: &[u8] = b"no kernel";

/// What a guest does after it has said [`GREETING`].
type Program = &'static [u8];
/// Halts for ever.
const SPEAKS: Program = &[0xf4, 0xeb, 0xfd];
/// Powers off through ACPI: `mov dx, 0x604; mov ax, 0x2000; out dx, ax`, then halts.
const LEAVES: Program = &[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd];

/// Counts in memory for ever, and writes each digit to the serial port, with a pause that a translated guest needs about
/// 10 ms for. With interrupts off, so that nothing but a saved memory can carry the count on.
const COUNTS: Program = &[
    0xfa, // cli
    0xc6,
    0x06,
    0x00,
    0x05,
    b'0', // mov byte [0x500], '0'
    0xa0,
    0x00,
    0x05, // next: mov al, [0x500]
    0xba,
    0xf8,
    0x03, // mov dx, 0x3f8
    0xee, // out dx, al
    0xfe,
    0x06,
    0x00,
    0x05, // inc byte [0x500]
    0x80,
    0x3e,
    0x00,
    0x05,
    b'9' + 1, // cmp byte [0x500], ':'
    0x75,
    0x05, // jne pause
    0xc6,
    0x06,
    0x00,
    0x05,
    b'0', // mov byte [0x500], '0'
    0x66,
    0xb9,
    0x80,
    0x96,
    0x98,
    0x00, // pause: mov ecx, 10000000
    0x66,
    0x49, // again: dec ecx
    0x75,
    0xfc, // jnz again
    0xeb,
    0xdd, // jmp next
];

/// A disk whose boot sector writes the greeting to the serial port and goes on with `program`.
fn disk(program: Program) -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x00, 0x7d, // mov si, 0x7d00
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz program
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf5, // jmp next
    ];
    code.extend_from_slice(program);
    let mut disk = vec![0; 1 << 20];
    disk[..code.len()].copy_from_slice(&code);
    disk[0x100..0x100 + GREETING.len()].copy_from_slice(GREETING.as_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// A store that holds the two disks, and what is no kernel.
struct Disks;

impl ImageSource for Disks {
    fn export(&self, image: &ImageId, path: &Path, _: Option<&Path>) -> io::Result<()> {
        let held = [disk(SPEAKS), disk(LEAVES), disk(COUNTS), NO_KERNEL.to_vec()]
            .into_iter()
            .find(|held| ImageId::of(held) == *image);
        fs::write(path, held.ok_or_else(|| io::Error::other("3 chunks are missing"))?)
    }
}

fn release(program: Program) -> Release {
    let content = disk(program);
    let disk = Disk {
        image: ImageId::of(&content),
        format: DiskFormat::Raw,
        bytes: content.len() as u64,
        blake3: Hash::of(&content),
        sha256: FlatDigests::of(&content[..]).unwrap().sha256,
    };
    let requirements = Requirements { vcpus: 1, memory_bytes: 32 << 20, disk_bytes: 0, firmware: None };
    let greeting =
        ContextInput { kind: InputType::String, required: false, secret: false, default: None, description: None };
    let release = Release::minimal(
        PublicKey(key().verifying_key().to_bytes()),
        "speaks".try_into().unwrap(),
        "1".try_into().unwrap(),
        vec![disk].try_into().unwrap(),
        Text::try_from("Speaks").unwrap(),
    );
    let context = BTreeMap::from([("greeting".try_into().unwrap(), greeting)]).try_into().unwrap();
    Release { requirements, context, ..release }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn accepted(release: &Release) -> Accepted {
    let body = Body::Release(Box::new(release.clone()));
    let draft = Draft::new([release.publisher], None, 1, &body).unwrap().sign(&key()).unwrap();
    Accepted::for_test(&draft.seal().verify().unwrap()).unwrap()
}

fn quiet() -> Arc<dyn Caller> {
    Arc::new(Quiet)
}

struct Quiet;

impl Caller for Quiet {
    fn progress(&self, _: Progress) {}
}

/// Changes its mind while the instance is made.
struct Fickle;

impl Caller for Fickle {
    fn progress(&self, _: Progress) {}

    fn objection(&self) -> Option<String> {
        Some("its release was revoked meanwhile".to_owned())
    }
}

async fn console_says(deployer: &Deployer, id: &str, text: &str) {
    let mut stream = deployer.logs(id, true).unwrap();
    let said = timeout(DEADLINE, async {
        let mut all = Vec::new();
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes);
            if String::from_utf8_lossy(&all).contains(text) {
                return true;
            }
        }
        false
    });
    assert!(said.await.expect("the console speaks in time"), "the console ended without '{text}'");
}

async fn becomes_over(deployer: &Deployer, id: &str) -> Instance {
    let mut changes = deployer.changes();
    let over = timeout(DEADLINE, async {
        loop {
            changes.borrow_and_update();
            let instance = deployer.find(id).unwrap();
            if matches!(instance.state.as_str(), "stopped" | "failed") {
                return instance;
            }
            changes.changed().await.unwrap();
        }
    });
    over.await.expect("the instance is over in time")
}
