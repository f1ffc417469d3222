//! Images in the store of one site: in, out, kept, forgotten.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use rialto_testnet::site::text;
use rialto_tests::stage::{NOTHING, Outcome, Stage, list, noise, shown};

const MIB: u64 = 1 << 20;

#[test]
fn an_image_comes_out_as_it_went_in_and_as_sparse() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    // 64 MiB with two islands of data, and a length that is no multiple of anything.
    let (first, second) = (noise("first", 400_000), noise("second", 123_457));
    let sparse = stage.path().join("sparse");
    let file = File::create(&sparse)?;
    file.set_len(64 * MIB + 4321)?;
    file.write_all_at(&first, 3 * MIB + 17)?;
    file.write_all_at(&second, 40 * MIB)?;

    let added = site.json(&["image", "add", &shown(&sparse)])?;
    let image = text(&added, "image")?;
    assert_eq!(added["bytes"], 64 * MIB + 4321);
    assert!(added["stored_bytes"].as_u64() < Some(MIB), "holes take no room: {added}");

    let out = stage.path().join("out");
    let written = site.json(&["image", "get", &image, "-o", &shown(&out)])?;
    assert_eq!(written["bytes"], added["bytes"]);
    assert!(fs::read(&sparse)? == fs::read(&out)?, "the same bytes");
    assert!(fs::metadata(&out)?.blocks() * 512 < 4 * MIB, "{} blocks", fs::metadata(&out)?.blocks());

    // Written out in full, it is the same image, and nothing of it is new.
    let dense = stage.file("dense", fs::read(&sparse)?)?;
    let again = site.json(&["image", "add", &shown(&dense)])?;
    assert_eq!(again["image"], image.as_str());
    assert_eq!((&again["new_chunks"], &again["stored_bytes"]), (&0.into(), &0.into()), "{again}");
    assert_eq!(again["chunks"], added["chunks"]);
    assert_eq!(list(&site.json(&["image", "ls"])?).len(), 1);
    Ok(())
}

#[test]
fn an_existing_file_is_not_half_overwritten_by_an_image_that_is_not_there() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    let precious = stage.file("precious", "mine")?;
    site.refused(&["image", "get", NOTHING, "-o", &shown(&precious)], 3)?;
    assert_eq!(fs::read_to_string(&precious)?, "mine");
    Ok(())
}

#[test]
fn images_are_checked_pinned_forgotten_and_their_space_comes_back() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    let add = |name: &str| -> Outcome<String> {
        let file = stage.file(name, noise(name, 2 << 20))?;
        Ok(text(&site.json(&["image", "add", &shown(&file)])?, "image")?)
    };
    let (kept, gone) = (add("kept")?, add("gone")?);
    let verified = site.json(&["image", "verify", &kept[..20]])?;
    assert!(verified["bad_chunks"] == 0 && verified["good_chunks"].as_u64() > Some(10), "{verified}");
    let full = site.status()?["store_bytes"].as_u64();

    site.json(&["image", "pin", &gone])?;
    let pinned = site.json(&["image", "ls"])?;
    let is_pinned = |image: &str| {
        list(&pinned).iter().find(|listed| listed["image"] == image).map(|listed| listed["is_pinned"] == true)
    };
    assert_eq!((is_pinned(&gone), is_pinned(&kept)), (Some(true), Some(false)));
    site.refused(&["image", "rm", &gone], 1)?;
    site.json(&["image", "unpin", &gone])?;
    site.json(&["image", "rm", &gone])?;
    let collected = site.json(&["image", "gc"])?;
    site.refused(&["image", "verify", &gone], 3)?;
    assert!(collected["dropped_chunks"].as_u64() > Some(10), "{collected}");
    assert!(collected["freed_bytes"].as_u64() > Some(MIB), "{collected}");
    let after = site.status()?["store_bytes"].as_u64();
    assert!(after < full.map(|full| full - MIB), "{after:?} of {full:?} bytes");
    assert_eq!(site.json(&["image", "verify", &kept])?["bad_chunks"], 0);
    let images = site.json(&["image", "ls"])?;
    assert_eq!(list(&images).iter().map(|image| image["image"].as_str()).collect::<Vec<_>>(), [Some(&*kept)]);
    Ok(())
}

#[test]
fn two_files_that_share_content_share_chunks() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    let old = noise("os", 4 << 20);
    let mut new = old.clone();
    new.splice(1_000_000..1_000_100, noise("update", 300));
    site.json(&["image", "add", &shown(&stage.file("old", &old)?)])?;
    let added = site.json(&["image", "add", &shown(&stage.file("new", &new)?)])?;
    let (new_chunks, chunks) = (added["new_chunks"].as_u64(), added["chunks"].as_u64());
    assert!(new_chunks > Some(0) && new_chunks < chunks.map(|chunks| chunks / 4), "{added}");
    Ok(())
}

/// `qemu-img` with these arguments; what it prints.
fn qemu_img(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new("qemu-img").args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_disk_in_qcow2_goes_in_and_comes_out_with_the_same_content() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    let raw =
        stage.file("disk.raw", [noise("disk", 600 * 512), vec![0; 2 << 20], noise("end", 1024 * 512)].concat())?;
    let (raw, qcow2, out) = (shown(&raw), shown(&stage.path().join("in.qcow2")), stage.path().join("out.qcow2"));
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &raw, &qcow2])?;

    let converted = site.json(&["image", "add", &qcow2, "--format", "qcow2"])?;
    let plain = site.json(&["image", "add", &raw])?;
    assert_eq!((&converted["image"], &plain["new_chunks"]), (&plain["image"], &0.into()));

    site.json(&["image", "get", &text(&converted, "image")?, "-o", &shown(&out), "--format", "qcow2"])?;
    let same = qemu_img(&["compare", "-f", "raw", "-F", "qcow2", &raw, &shown(&out)])?;
    assert!(same.contains("identical"), "{same}");

    // What it is said to be is what it must be, and what leads elsewhere is refused.
    let refused = site.refused(&["image", "add", &qcow2, "--format", "vmdk"], 1)?;
    assert!(text(&refused, "message")?.contains("vmdk"), "{refused}");
    let leads_away = shown(&stage.path().join("leads-away.qcow2"));
    qemu_img(&["create", "-f", "qcow2", "-b", &raw, "-F", "raw", &leads_away])?;
    let refused = site.refused(&["image", "add", &leads_away, "--format", "qcow2"], 1)?;
    assert!(text(&refused, "message")?.contains("backing file"), "{refused}");
    assert_eq!(list(&site.json(&["image", "ls"])?).len(), 1);
    Ok(())
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_block_device_that_is_mounted_is_refused() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    let disk = stage.file("disk", vec![0; 8 << 20])?;
    assert!(Command::new("mke2fs").args(["-q", "-F"]).arg(&disk).status()?.success());
    let mounted = stage.path().join("mounted");
    fs::create_dir(&mounted)?;
    if !Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&mounted).status()?.success() {
        eprintln!("skipped: nothing can be mounted here");
        return Ok(());
    }
    let devices = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&mounted).output()?;
    let device = String::from_utf8(devices.stdout)?.trim().to_owned();
    // Nothing is asserted before it is unmounted again.
    let refused = site.refused(&["image", "add", &device], 1);
    assert!(Command::new("umount").arg(&mounted).status()?.success());
    assert!(text(&refused?, "message")?.contains("in use"), "mounted, and taken");
    Ok(())
}
