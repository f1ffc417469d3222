use std::os::unix::fs::FileExt as _;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn look(content: &[u8], format: SourceFormat) -> Result<Plan, Refusal> {
    inspect(&content, format, None)
}

/// A qcow2 header of version 3 as QEMU writes it, 64 KiB clusters, 1 GiB.
fn qcow2() -> Vec<u8> {
    let mut head = vec![0; 64 * 1024];
    head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    head[23] = 16;
    head[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
    head[100..104].copy_from_slice(&104u32.to_be_bytes());
    head
}

fn descriptor(extent: &str, parent: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=123a\nparentCID={parent}\ncreateType=\"monolithicSparse\"\n\n{extent}\n\nddb.adapterType = \"ide\"\n"
    )
}

/// A sparse extent of 2,048 sectors with this descriptor.
fn vmdk(text: &str) -> Vec<u8> {
    let mut disk = vec![0; 64 * 1024];
    disk[..12].copy_from_slice(b"KDMV\x01\0\0\0\x03\0\0\0");
    disk[12..20].copy_from_slice(&2048u64.to_le_bytes());
    disk[28..36].copy_from_slice(&1u64.to_le_bytes());
    disk[36..44].copy_from_slice(&20u64.to_le_bytes());
    disk[512..512 + text.len()].copy_from_slice(text.as_bytes());
    disk
}

fn good_vmdk() -> Vec<u8> {
    vmdk(&descriptor("RW 2048 SPARSE \"disk.vmdk\"", "ffffffff"))
}

/// Content of a megabyte and its footer.
fn vhd(kind: u32) -> Vec<u8> {
    let mut disk = vec![7; 1 << 20];
    let mut footer = vec![0u8; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[12..16].copy_from_slice(&0x1_0000u32.to_be_bytes());
    footer[48..56].copy_from_slice(&(1u64 << 20).to_be_bytes());
    footer[60..64].copy_from_slice(&kind.to_be_bytes());
    let sum = !footer.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    disk.extend(footer);
    disk
}

fn tar(files: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, content) in files {
        let mut head = vec![0u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[100..107].copy_from_slice(b"0000644");
        head[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        head[156] = *kind;
        head[257..265].copy_from_slice(b"ustar\x0000");
        head[148..156].fill(b' ');
        let sum: u64 = head.iter().map(|&byte| u64::from(byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(head);
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[test]
fn good_disks_are_passed_on() {
    assert_eq!(look(&qcow2(), SourceFormat::Qcow2).unwrap().virtual_bytes, 1 << 30);
    assert_eq!(look(&good_vmdk(), SourceFormat::Vmdk).unwrap().virtual_bytes, 1 << 20);
    let fixed = Plan { driver: "vpc", stretch: None, virtual_bytes: 1 << 20 };
    assert_eq!(look(&vhd(2), SourceFormat::Vhd), Ok(fixed));
    let archive = tar(&[("a.ovf", b'0', b"<Envelope/>"), ("a.vmdk", b'0', &good_vmdk())]);
    let found = look(&archive, SourceFormat::Ova).unwrap();
    assert_eq!((found.driver, found.stretch), ("vmdk", Some((1536, 64 * 1024))));
    assert_eq!(look(b"anything", SourceFormat::Raw).unwrap().virtual_bytes, 8);
}

#[test]
fn a_qcow2_that_leads_elsewhere_is_refused() {
    let changed = |at: usize, bytes: &[u8]| {
        let mut disk = qcow2();
        disk[at..at + bytes.len()].copy_from_slice(bytes);
        look(&disk, SourceFormat::Qcow2).unwrap_err()
    };
    let mut backed = qcow2();
    backed[14..16].copy_from_slice(&[2, 0]);
    backed[19] = 11;
    backed[512..523].copy_from_slice(b"/etc/passwd");
    let refusal = look(&backed, SourceFormat::Qcow2).unwrap_err();
    assert_eq!(refusal, Refusal::Backing(Shown::new(b"/etc/passwd")));
    assert!(refusal.to_string().contains("/etc/passwd"));
    assert!(matches!(changed(79, &[4]), Refusal::Elsewhere(_)), "external data");
    assert!(matches!(changed(104, b"DATA\0\0\0\x04/dev"), Refusal::Elsewhere(_)), "name of external data");
    assert!(matches!(changed(79, &[32]), Refusal::Unknown(_)), "a feature of later");
    assert!(matches!(changed(79, &[1]), Refusal::Damaged(_)), "dirty");
    assert_eq!(changed(35, &[1]), Refusal::Encrypted);
    assert!(matches!(changed(7, &[9]), Refusal::Unknown(_)));
    assert!(matches!(changed(23, &[63]), Refusal::Damaged(_)));
    assert!(matches!(changed(24, &[0x7f]), Refusal::Absurd(_)));
}

#[test]
fn a_vmdk_that_leads_elsewhere_is_refused() {
    let with = |text: &str| look(&vmdk(text), SourceFormat::Vmdk).unwrap_err();
    let own = "RW 2048 SPARSE \"disk.vmdk\"";
    assert!(matches!(with(&descriptor(own, "1234abcd")), Refusal::Backing(_)));
    let hinted = descriptor(own, "ffffffff") + "parentFileNameHint=\"/etc/shadow\"\n";
    assert_eq!(with(&hinted), Refusal::Backing(Shown::new(b"/etc/shadow")));
    // QEMU looks for this word anywhere.
    assert!(matches!(with(&(descriptor(own, "ffffffff") + "# parentFileNameHint=\"/x\"\n")), Refusal::Backing(_)));
    let two = descriptor(&format!("{own}\nRW 9 FLAT \"/dev/sda\" 0"), "ffffffff");
    assert_eq!(with(&two), Refusal::Elsewhere(Shown::new(b"/dev/sda")));
    assert!(matches!(with(&descriptor("RW 2048 FLAT \"/etc/passwd\" 0", "ffffffff")), Refusal::Elsewhere(_)));
    assert!(matches!(with(&descriptor("RW 4096 SPARSE \"d\"", "ffffffff")), Refusal::Damaged(_)));
    assert!(matches!(with(&descriptor(own, "ffffffff").replace("Sparse", "Flat")), Refusal::Elsewhere(_)));
    let text = descriptor("RW 2048 FLAT \"disk-flat.vmdk\" 0", "ffffffff");
    let refusal = look(text.as_bytes(), SourceFormat::Vmdk).unwrap_err();
    assert_eq!(refusal, Refusal::Elsewhere(Shown::new(b"disk-flat.vmdk")));
    // Without sectors, QEMU reads the list of extents.
    let mut empty = good_vmdk();
    empty[12..20].fill(0);
    assert!(matches!(look(&empty, SourceFormat::Vmdk), Err(Refusal::Elsewhere(_))));
    let mut huge = good_vmdk();
    huge[19] = 0x7f;
    assert!(look(&huge, SourceFormat::Vmdk).is_err());
}

#[test]
fn a_vhd_that_leads_elsewhere_is_refused() {
    assert!(matches!(look(&vhd(4), SourceFormat::Vhd), Err(Refusal::Backing(_))));
    assert!(matches!(look(&vhd(9), SourceFormat::Vhd), Err(Refusal::Unknown(_))));
    assert!(matches!(look(&vhd(3), SourceFormat::Vhd), Err(Refusal::Damaged(_))), "no copy of the footer in front");
    let mut polyglot = vhd(2);
    polyglot[..4].copy_from_slice(b"QFI\xfb");
    assert!(matches!(look(&polyglot, SourceFormat::Vhd), Err(Refusal::Polyglot { found: Foreign::Qcow2, .. })));
    let mut changed = vhd(2);
    changed[(1 << 20) + 30] ^= 1;
    assert!(matches!(look(&changed, SourceFormat::Vhd), Err(Refusal::Damaged(_))));
}

#[test]
fn what_is_said_and_what_is_there_must_agree() {
    let disks = [(SourceFormat::Qcow2, qcow2()), (SourceFormat::Vmdk, good_vmdk()), (SourceFormat::Vhd, vhd(2))];
    for (format, disk) in &disks {
        for said in SourceFormat::ALL.into_iter().filter(|said| said != format) {
            assert!(look(disk, said).is_err(), "{format} passes for {said}");
        }
        // Cut anywhere in its header, it never passes for whole.
        for length in [0, 1, 3, 4, 71, 103] {
            assert!(look(&disk[..length], *format).is_err());
        }
    }
    let error = look(&qcow2(), SourceFormat::Raw).unwrap_err().to_string();
    assert!(error.contains("format = \"qcow2\""), "{error}");
    assert_eq!(inspect(&&qcow2()[..], SourceFormat::Qcow2, Some("a")), Err(Refusal::NoArchive));
}

#[test]
fn an_archive_holds_plain_files_with_plain_names() {
    let disk = good_vmdk();
    let refused = |files: &[(&str, u8, &[u8])]| {
        let refusal = look(&tar(files), SourceFormat::Ova).unwrap_err();
        assert!(matches!(refusal, Refusal::Archive(_)), "{refusal:?}");
    };
    refused(&[("../a.vmdk", b'0', &disk)]);
    refused(&[("/etc/a.vmdk", b'0', &disk)]);
    refused(&[("a\\b.vmdk", b'0', &disk)]);
    refused(&[("..", b'0', &disk)]);
    refused(&[("a\x1b.vmdk", b'0', &disk)]);
    refused(&[("a.vmdk", b'0', &disk), ("A.VMDK", b'0', &disk)]);
    for kind in *b"1234567SxgLKV" {
        refused(&[("a.vmdk", kind, &disk)]);
    }
    refused(&[("a.ovf", b'0', b"")]);
    let names: Vec<String> = (0..65).map(|number| format!("{number}")).collect();
    refused(&names.iter().map(|name| (name.as_str(), b'0', &b""[..])).collect::<Vec<_>>());

    let two = tar(&[("a.vmdk", b'0', &disk), ("b.vmdk", 0, &disk)]);
    let several = look(&two, SourceFormat::Ova).unwrap_err();
    assert_eq!(several, Refusal::Several(vec![Shown::new(b"a.vmdk"), Shown::new(b"b.vmdk")]));
    assert_eq!(inspect(&&two[..], SourceFormat::Ova, Some("b.vmdk")).unwrap().stretch.unwrap().1, 64 * 1024);
    assert!(matches!(inspect(&&two[..], SourceFormat::Ova, Some("c")), Err(Refusal::NoMember { .. })));
    assert!(matches!(look(&two[..70_000], SourceFormat::Ova), Err(Refusal::Damaged(_))));
    // A disk within is looked at like any other.
    let bad = tar(&[("a.vmdk", b'0', b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0\n")]);
    assert!(matches!(look(&bad, SourceFormat::Ova), Err(Refusal::Elsewhere(_))));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        which in 0usize..5,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        near_the_head in any::<bool>(),
        length in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let archive = tar(&[("a.ovf", b'0', b"<Envelope/>"), ("a.vmdk", b'0', &good_vmdk())]);
        let mut disk = [qcow2(), good_vmdk(), vhd(2), vhd(3), archive][which].clone();
        for (at, byte) in damage {
            let within = if near_the_head { disk.len().min(1024) } else { disk.len() };
            let at = at.index(within);
            disk[at] = byte;
        }
        if is_cut {
            disk.truncate(length.index(disk.len()));
        }
        for format in SourceFormat::ALL {
            if let Ok(plan) = look(&disk, format) {
                prop_assert!(plan.virtual_bytes <= MAX_VIRTUAL_BYTES);
                if let Some((start, length)) = plan.stretch {
                    prop_assert!(start + length <= disk.len() as u64);
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for format in SourceFormat::ALL {
            let _ = look(&bytes, format);
        }
    }
}

/// Runs `qemu-img`, or says why the test is skipped.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn qemu_img(arguments: &[&str]) -> Option<()> {
    match Command::new("qemu-img").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(())
        }
        Err(error) => {
            eprintln!("skipped: qemu-img does not run here: {error}");
            None
        }
    }
}

#[tokio::test]
async fn what_qemu_img_makes_becomes_flat_again() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = Scratch::open(folder.path().join("scratch"), 0).unwrap();
    let (raw, length) = (folder.path().join("raw"), 8 << 20);
    let file = std::fs::File::create(&raw).unwrap();
    file.set_len(length).unwrap();
    for at in [0, 1 << 20, 5 << 20] {
        file.write_all_at(&crate::store::noise(at, 200_000), at).unwrap();
    }
    let content = std::fs::read(&raw).unwrap();
    let named = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let cases = [
        (SourceFormat::Qcow2, "qcow2", "compat=1.1"),
        (SourceFormat::Qcow2, "qcow2", "compat=0.10,cluster_size=4096"),
        (SourceFormat::Qcow2, "qcow2", "compression_type=zstd,extended_l2=on"),
        (SourceFormat::Vmdk, "vmdk", "subformat=monolithicSparse"),
        (SourceFormat::Vmdk, "vmdk", "subformat=streamOptimized"),
        (SourceFormat::Vhd, "vpc", "subformat=dynamic,force_size=on"),
        (SourceFormat::Vhd, "vpc", "subformat=fixed,force_size=on"),
    ];
    for (number, (format, driver, options)) in cases.into_iter().enumerate() {
        let made = named(&format!("{number}.disk"));
        let Some(()) = qemu_img(&["convert", "-O", driver, "-o", options, raw.to_str().unwrap(), &made]) else {
            return;
        };
        let mut path = PathBuf::from(&made);
        let mut said = format;
        if options.contains("streamOptimized") {
            // As it comes in an appliance.
            let archive = tar(&[("a.ovf", b'0', b"<Envelope/>"), ("a.vmdk", b'0', &std::fs::read(&made).unwrap())]);
            path = named("appliance.ova").into();
            std::fs::write(&path, archive).unwrap();
            said = SourceFormat::Ova;
        }
        let last = std::cell::Cell::new((0, 0));
        let flat = scratch.flatten(&path, said, None, |done, total| last.set((done, total))).await;
        let flat = flat.unwrap_or_else(|error| panic!("{options}: {error}"));
        let Flat::Made(made) = flat else { panic!("{options}") };
        assert_eq!(last.get(), (length, length), "{options}");
        assert!(std::fs::read(&made).unwrap() == content, "{options}");
    }
    // What one of them refers to is refused, and nothing is left behind.
    let backed = named("backed.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw.to_str().unwrap(), &backed]).unwrap();
    let refused = scratch.flatten(Path::new(&backed), SourceFormat::Qcow2, None, |_, _| ()).await;
    assert!(matches!(refused, Err(ConvertError::Refused { refusal: Refusal::Backing(_), .. })), "{refused:?}");
    assert_eq!(std::fs::read_dir(folder.path().join("scratch")).unwrap().count(), 0);

    let qcow2 = PathBuf::from(named("exported.qcow2"));
    std::fs::write(&qcow2, b"").unwrap();
    export_qcow2(&raw, &qcow2, 0, |_, _| ()).await.unwrap();
    let Flat::Made(again) = scratch.flatten(&qcow2, SourceFormat::Qcow2, None, |_, _| ()).await.unwrap() else {
        panic!()
    };
    assert!(std::fs::read(&again).unwrap() == content);
}

#[tokio::test]
async fn a_damaged_disk_and_a_full_one_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    std::fs::write(&path, qcow2()).unwrap();
    if qemu_img(&["--version"]).is_none() {
        return;
    }
    let scratch = Scratch::open(folder.path().join("scratch"), 0).unwrap();
    // Its tables are not there.
    let failed = scratch.flatten(&path, SourceFormat::Qcow2, None, |_, _| ()).await;
    assert!(matches!(failed, Err(ConvertError::Failed { .. })), "{failed:?}");
    let scratch = Scratch::open(folder.path().join("scratch"), u64::MAX).unwrap();
    let full = scratch.flatten(&path, SourceFormat::Qcow2, None, |_, _| ()).await;
    assert!(matches!(full, Err(ConvertError::DiskFull { .. })), "{full:?}");
    assert_eq!(std::fs::read_dir(folder.path().join("scratch")).unwrap().count(), 0);
}
