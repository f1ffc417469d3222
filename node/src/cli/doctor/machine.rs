//! What the node runs on: open files, the programs that deployment needs, and what runs guests.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Check;
use crate::deploy::hypervisor::{Accelerator, HypervisorError};
use crate::deploy::{self, MissingTool};

/// Connections, segments and overlays are open files.
const MIN_OPEN_FILES: u64 = 1_024;
const KVM: &str = "/dev/kvm";
/// What it means that guests' instructions are translated.
const TRANSLATED: &str = "guests run, many times slower";

/// Looks at the machine, which takes as long as guests take to boot a sector: seconds.
pub(super) async fn examine() -> Vec<Check> {
    let missing = deploy::missing_tools();
    let mut checks = vec![open_files()];
    checks.extend(service_manager());
    checks.extend(tools(&missing));
    checks.push(acceleration(deploy::accelerator().await, &kvm()));
    checks
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < MIN_OPEN_FILES => Check::warn(
            "open files",
            format!("at most {limit}; a busy node needs more"),
            format!("ulimit -n {}, in the shell that starts the node", 64 * MIN_OPEN_FILES),
        ),
        Some(limit) => Check::ok("open files", format!("up to {limit}")),
        None => Check::ok("open files", "without limit"),
    }
}

fn service_manager() -> Option<Check> {
    let what = "systemd runs here; node/dist/rialto.service of the sources starts a node at boot";
    Path::new("/run/systemd/system").is_dir().then(|| Check::ok("service", what))
}

fn tools(missing: &[MissingTool]) -> Vec<Check> {
    if missing.is_empty() {
        return vec![Check::ok("tools", "QEMU, qemu-img, prlimit and UEFI firmware are installed")];
    }
    let missing = missing.iter();
    missing
        .map(|tool| Check::warn("tools", format!("{} is not installed: {}", tool.what, tool.why), tool.fix))
        .collect()
}

/// How far one gets with `/dev/kvm` without a guest.
#[derive(Debug)]
enum Kvm {
    Absent,
    Closed { why: String, fix: String },
    Opens,
}

fn kvm() -> Kvm {
    let Ok(found) = fs::metadata(KVM) else { return Kvm::Absent };
    let Err(error) = OpenOptions::new().read(true).write(true).open(KVM) else { return Kvm::Opens };
    let fix = if found.mode() & 0o060 == 0o060 {
        format!(
            "let the node's user into the group of {KVM}: usermod -aG \"$(stat -c %G {KVM})\" USER; then start it again"
        )
    } else {
        format!(
            "give it to a group, with the node's user in it: chgrp kvm {KVM} && chmod 660 {KVM} && usermod -aG kvm USER"
        )
    };
    Kvm::Closed { why: error.to_string(), fix }
}

/// A guest was booted, so this is what deployments get, whatever [`KVM`] looks like.
fn acceleration(probed: Result<Accelerator, HypervisorError>, kvm: &Kvm) -> Check {
    let name = "acceleration";
    match (probed, kvm) {
        (Ok(Accelerator::Kvm), _) => Check::ok(name, "kvm (it runs a guest)"),
        (Ok(Accelerator::Tcg), Kvm::Absent) => Check::warn(
            name,
            format!("tcg (there is no {KVM}): {TRANSLATED}"),
            "modprobe kvm_intel or kvm_amd; it wants virtualisation enabled in the firmware, or, in a virtual machine, nested \
             virtualisation from its host",
        ),
        (Ok(Accelerator::Tcg), Kvm::Closed { why, fix }) => {
            Check::warn(name, format!("tcg ({KVM} cannot be opened: {why}): {TRANSLATED}"), fix)
        }
        (Ok(Accelerator::Tcg), Kvm::Opens) => Check::warn(
            name,
            format!("tcg (KVM opens but does not run a guest): {TRANSLATED}"),
            "nothing to mend in Rialto; where this is a virtual machine, its host does not pass virtualisation on whole: ask \
             for nested virtualisation",
        ),
        (Err(HypervisorError::Missing { what, fix }), _) => {
            Check::warn(name, format!("unknown, because {what} is not installed"), fix)
        }
        (Err(error), _) => Check::fail(
            name,
            format!("no guest runs here: {error}"),
            "try it by hand: qemu-system-x86_64 -accel tcg -nographic",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_machine_without_tools_is_told_what_to_install() {
        let missing =
            [MissingTool { what: "qemu-img", why: "nothing can be deployed", fix: "apt-get install qemu-utils" }];
        let checks = tools(&missing);
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].fix.as_deref(), Some("apt-get install qemu-utils"));
        assert_eq!(tools(&[])[0].state, State::Ok);
        let unknown =
            Err(HypervisorError::Missing { what: "qemu-system-x86_64", fix: "apt-get install qemu-system-x86" });
        assert_eq!(acceleration(unknown, &Kvm::Opens).state, State::Warn);
    }

    #[test]
    fn a_kvm_that_runs_no_guest_is_not_praised() {
        let check = acceleration(Ok(Accelerator::Tcg), &Kvm::Opens);
        assert_eq!(check.state, State::Warn);
        assert!(check.what.starts_with("tcg (KVM opens but does not run a guest)"), "{}", check.what);
        assert_eq!(acceleration(Ok(Accelerator::Kvm), &Kvm::Opens).state, State::Ok);
    }
}
