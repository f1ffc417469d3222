//! Exports that share blocks with an earlier flat file, on a file system that can do so.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A btrfs in a file, mounted for as long as this lives; `None` where this machine cannot.
struct Btrfs(tempfile::TempDir);

impl Btrfs {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        std::fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
        std::fs::create_dir(folder.path().join("mounted")).unwrap();
        let does = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).arg(&disk).current_dir(&folder).output();
            output.is_ok_and(|output| output.status.success())
        };
        let is_made = does("mkfs.btrfs", &["--quiet"]);
        let mounted = folder.path().join("mounted");
        let is_mounted = is_made
            && Command::new("mount")
                .args(["-o", "loop"])
                .arg(&disk)
                .arg(&mounted)
                .output()
                .is_ok_and(|o| o.status.success());
        is_mounted.then_some(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("mounted").join(name)
    }

    /// Bytes that can still be written, as far as it is known once everything is on disk.
    fn free(&self) -> u64 {
        let root = std::fs::File::open(self.path(".")).unwrap();
        rustix::fs::syncfs(&root).unwrap();
        let found = rustix::fs::fstatvfs(&root).unwrap();
        found.f_bfree * found.f_frsize
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        Command::new("umount").arg(self.path("")).status().ok();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn two_versions_share_blocks_and_each_is_exact() {
    const MIB: usize = 1 << 20;
    let Some(btrfs) = Btrfs::mount() else {
        eprintln!("skipped: no btrfs can be made and mounted here");
        return;
    };
    let (_folder, store) = store();
    let mut old = [noise(1, 12 * MIB), vec![0; 4 * MIB], noise(2, 8 * MIB + 77)].concat();
    let mut new = old.clone();
    new[3 * MIB..3 * MIB + 5000].copy_from_slice(&noise(3, 5000));
    new.extend_from_slice(&noise(4, 100_000));
    let (old_image, new_image) = (add(&store, &old).image, add(&store, &new).image);
    let export = |image, path: &Path, like: Option<&Path>| {
        store.export(image, path, like, &mut |_, _| (), &|| false).unwrap();
    };
    let (first, second, third) = (btrfs.path("first"), btrfs.path("second"), btrfs.path("third"));
    export(&old_image, &first, None);
    let before = btrfs.free();
    export(&new_image, &second, Some(&first));
    let taken = before - btrfs.free();
    assert!(taken < 4 * MIB as u64, "{taken} bytes are taken for what is nearly the same");
    assert!(std::fs::read(&second).unwrap() == new);

    // What it is cloned from may be anything: other bytes, and bytes where the image has a hole.
    let tampered = OpenOptions::new().write(true).open(&first).unwrap();
    tampered.write_all_at(b"not what it was", 5 * MIB as u64).unwrap();
    tampered.write_all_at(b"no hole", 14 * MIB as u64).unwrap();
    tampered.set_len(30 * MIB as u64).unwrap();
    export(&old_image, &third, Some(&first));
    assert!(std::fs::read(&third).unwrap() == old);
    // And be gone.
    old.clear();
    export(&new_image, &third, Some(&btrfs.path("never was")));
    assert!(std::fs::read(&third).unwrap() == new);
}
