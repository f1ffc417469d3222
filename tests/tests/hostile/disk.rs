//! Disks that fill up during a fetch, and disks that change what was written.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rialto_testnet::site::{SOON, Site};
use rialto_testnet::wait::eventually;
use rialto_tests::held::{Held, noise};
use rialto_tests::liars::{FETCH, holds, lie};
use rialto_tests::scene::{Scene, add, hostile, missing, start, system, verify};
use rialto_tests::stage::configure;

/// A file system of its own, in memory, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this machine does not let us mount one.
    fn new(place: PathBuf, mib: u32) -> Option<Self> {
        fs::create_dir_all(&place).expect("a directory");
        let path = place.to_str().expect("a path of text");
        let size = format!("size={mib}m");
        system("mount", &["-t", "tmpfs", "-o", &size, "rialto-tests", path]).then_some(Self(place))
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let file = File::create(&path).expect("a file");
        let (mut at, mut step) = (0, 1 << 20);
        while step > 0 {
            match file.write_at(&vec![7; step], at) {
                Ok(written) if written > 0 => at += written as u64,
                _ => step /= 2,
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        system("umount", &["-l", self.0.to_str().unwrap_or_default()]);
    }
}

fn is_full(error: &serde_json::Value) -> bool {
    let text = |field: &str| error["error"][field].as_str().unwrap_or_default().to_owned();
    text("message").contains("bytes free") && text("hint").contains("free some space")
}

#[test]
fn a_disk_that_fills_up_during_a_fetch_fails_it_and_nothing_else() {
    const FIRST: usize = 100;
    let scene = Scene::new();
    let place = scene.directory().join("small");
    let Some(disk) = SmallDisk::new(place.clone(), 96) else {
        return a_floor_above_the_free_space_fails_a_fetch(&scene);
    };
    let mut shop = scene.site_in(&place, "shop");
    configure(&shop, &[("free-space-floor", "free-space-floor = \"1 MiB\"")]).expect("a configuration");
    shop.start().expect("the node starts");
    let kept = add(&shop, &scene.file("kept", &noise(4 << 20, 3)));

    // More than there is room for is refused before a chunk is asked for.
    let (peer, large) = (hostile(&shop), Arc::new(Held::random(128 << 20, 51)));
    let asked = holds(&peer, &large, lie(|_, talk, _, _| async move { (talk, false) }));
    let (code, error) = start(&shop, &["fetch", &large.name()]).end(FETCH);
    assert!(code == Some(1) && is_full(&error), "{code:?} {error}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    drop((peer, large));

    // What fits when the fetch begins, and no longer when it goes on.
    let (peer, image) = (hostile(&shop), Arc::new(Held::random(24 << 20, 52)));
    let is_full_now = Arc::new(AtomicBool::new(false));
    let goes_on = Arc::clone(&is_full_now);
    let asked = holds(
        &peer,
        &image,
        lie(move |image: Arc<Held>, mut talk, index, position| {
            let goes_on = Arc::clone(&goes_on);
            async move {
                while position >= FIRST && !goes_on.load(Ordering::SeqCst) {
                    tokio::task::yield_now().await;
                }
                let is_sent = image.send(&mut talk, index).await.is_ok();
                (talk, is_sent)
            }
        }),
    );
    let fetch = start(&shop, &["fetch", &image.name()]);
    eventually(SOON, "the first chunks", || match asked.load(Ordering::SeqCst) {
        few @ 0..=FIRST => Err(few),
        _ => Ok(()),
    })
    .expect("they are asked for");
    let ballast = disk.fill();
    is_full_now.store(true, Ordering::SeqCst);
    let (code, error) = fetch.end(FETCH);
    assert!(code == Some(1) && is_full(&error), "{code:?} {error}\n{}", shop.log());

    // Nothing is lost, and the node answers.
    assert!(shop.is_running());
    verify(&shop, &kept);
    let left = missing(&shop, &image.name()).expect("the image is listed");
    assert!(left < image.chunks.len(), "what came before is kept");
    let (code, error) = start(&shop, &["fetch", &image.name()]).end(FETCH);
    assert!(code == Some(1) && is_full(&error), "still full: {code:?} {error}");

    // As soon as there is room, the same fetch goes on from there.
    fs::remove_file(ballast).expect("the ballast goes");
    let before = asked.load(Ordering::SeqCst);
    let (code, fetched) = start(&shop, &["fetch", &image.name()]).end(FETCH);
    assert_eq!(code, Some(0), "{fetched}\n{}", shop.log());
    assert!(asked.load(Ordering::SeqCst) - before <= left, "more was asked for than was missing");
    for image in [&image.name(), &kept] {
        verify(&shop, image);
    }
    shop.stop().expect("the node ends");
    shop.start().expect("the node starts again");
    for image in [&image.name(), &kept] {
        verify(&shop, image);
    }
}

/// Where no disk can be made: the floor does what a small disk would.
fn a_floor_above_the_free_space_fails_a_fetch(scene: &Scene) {
    let mut shop = scene.site("shop");
    let kept = add(&shop, &scene.file("kept", &noise(1 << 20, 3)));
    let mut floor = |floor: &str| {
        shop.stop().expect("the node ends");
        configure(&shop, &[("free-space-floor", &format!("free-space-floor = \"{floor}\""))]).expect("a configuration");
        shop.start().expect("the node starts again");
    };
    floor("4096 TiB");
    let image = Arc::new(Held::random(1 << 20, 53));
    let honest = lie(|image: Arc<Held>, mut talk, index, _| async move {
        let is_sent = image.send(&mut talk, index).await.is_ok();
        (talk, is_sent)
    });
    let peer = hostile(&shop);
    holds(&peer, &image, Arc::clone(&honest));
    let (code, error) = start(&shop, &["fetch", &image.name()]).end(FETCH);
    assert!(code == Some(1) && is_full(&error), "{code:?} {error}");
    verify(&shop, &kept);
    let mut floor = |floor: &str| {
        shop.stop().expect("the node ends");
        configure(&shop, &[("free-space-floor", &format!("free-space-floor = \"{floor}\""))]).expect("a configuration");
        shop.start().expect("the node starts again");
    };
    floor("1 MiB");
    let peer = hostile(&shop);
    holds(&peer, &image, honest);
    let (code, fetched) = start(&shop, &["fetch", &image.name()]).end(FETCH);
    assert_eq!(code, Some(0), "{fetched}");
    verify(&shop, &image.name());
}

/// The one segment of a small store.
fn segment(site: &Site) -> PathBuf {
    let folder = site.directory().join("store/segments");
    let mut entries = fs::read_dir(&folder).expect("the segments");
    entries.next().expect("a segment").expect("its name").path()
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("the segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0xff], at).expect("another byte");
}

#[test]
fn a_store_with_a_damaged_segment_opens_and_serves_what_is_good() {
    let scene = Scene::new();
    let other = scene.site("other");
    let (first, second) = (scene.file("first", &noise(2 << 20, 61)), scene.file("second", &noise(2 << 20, 62)));
    let mut site = scene.site_that_knows("uni", &[&other]);
    let (good, bad) = (add(&site, &first), add(&site, &second));
    add(&other, &second);

    type Damage = fn(&Path);
    // Each in another chunk: what was damaged before is replaced, and lies there unused.
    let damages: [(&str, bool, Damage); 4] = [
        ("a byte of a chunk", false, |path| flip(path, 3 << 20)),
        ("a byte of a chunk, and no index", true, |path| flip(path, (3 << 20) + 300_000)),
        ("the segment's own head, and no index", true, |path| {
            flip(path, 3);
            flip(path, (3 << 20) + 600_000);
        }),
        ("the end of the segment cut off", false, |path| {
            let file = File::options().write(true).open(path).expect("the segment");
            file.set_len(3 << 20).expect("it is shorter");
        }),
    ];
    for (what, without_index, damage) in damages {
        site.stop().expect("the node ends");
        damage(&segment(&site));
        if without_index {
            fs::remove_dir_all(site.directory().join("store/index")).expect("the index goes");
        }
        site.start().unwrap_or_else(|error| panic!("{what}: {error}"));
        verify(&site, &good);
        let verified = site.rialto(&["image", "verify", &bad, "--json"]).expect("it ends");
        // Damaged, or so much so that the node does not know what it should be.
        assert!(matches!(verified.code, Some(1 | 3)), "{what}: {verified}");
        // What is good is served, and what is bad comes again from others.
        site.meets(&[&other]).expect("they meet again");
        site.json(&["fetch", &bad]).unwrap_or_else(|error| panic!("{what}: {error}\n{}", site.log()));
        verify(&site, &bad);
        verify(&site, &good);
    }
    let fetched = other.json(&["fetch", &good]).expect("the good one can be fetched");
    assert!(fetched["wire_bytes"].as_u64() > Some(0), "{fetched}");
    verify(&other, &good);
}
