//! `kill -9` of a node in the middle of its work, at many moments: what was acknowledged is there, the rest goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rialto_testnet::site::{SOON, Site};
use rialto_testnet::wait::eventually;
use rialto_tests::held::{Held, noise};
use rialto_tests::liars::{FETCH, holds, lie};
use rialto_tests::scene::{Scene, add, catch, goes_on, hostile, missing, segment_bytes, start, verify};
use rialto_tests::stage::{accepting, list};

#[test]
fn a_node_killed_at_any_moment_of_an_addition_keeps_what_it_acknowledged() {
    const BYTES: usize = 48 << 20;
    let scene = Scene::new();
    let mut site = scene.site("uni");
    let mut kept = Vec::new();
    let big = scene.file("big", &noise(BYTES, 1));
    // From the first bytes that reach the disk to the last but a few; what was written is not written again, so the
    // moments are in what is left.
    let mut killed_within = 0;
    for moment in 1..=6u64 {
        kept.push(add(&site, &scene.file("kept", &noise(300_000 + moment as usize, moment))));
        let goal = (BYTES as u64 / 7) * moment;
        let mut adding = start(&site, &["image", "add", &big]);
        if catch(&mut adding, || segment_bytes(&site) >= goal) && adding.is_running() {
            killed_within += 1;
        }
        site.kill();
        let (code, _) = adding.end(SOON);
        assert!(matches!(code, Some(0 | 5)), "{code:?}");
        site.start().expect("the node starts again");
        for image in &kept {
            verify(&site, image);
        }
    }
    assert!(killed_within >= 5, "only {killed_within} of 6 kills came while it was adding");
    let added = site.json(&["image", "add", &big]).expect("the addition goes on");
    assert!(added["new_chunks"].as_u64() < added["chunks"].as_u64().map(|all| all / 2), "{added}");
    verify(&site, added["image"].as_str().expect("an id"));
    assert_eq!(list(&site.json(&["image", "ls"]).expect("the list")).len(), kept.len() + 1);
    goes_on(&mut site, &scene);
}

#[test]
fn a_fetch_killed_at_any_moment_goes_on_with_what_is_missing() {
    /// Chunks that the holder sends before it waits for the node to die.
    const STEP: usize = 130;
    /// Chunks that a kill may cost: 2 MiB are collected before they are written, and no chunk is shorter than 8 KiB.
    const LOST: usize = 2 * 1024 / 8;
    let scene = Scene::new();
    let image = Arc::new(Held::random(32 << 20, 41));
    let mut shop = scene.site("shop");
    let kept = add(&shop, &scene.file("kept", &noise(1 << 20, 3)));
    let mut lacked = image.chunks.len();
    let mut most_lost = 0;
    for moment in 0..6 {
        let peer = hostile(&shop);
        let step = STEP * usize::from(moment > 0);
        let asked = holds(
            &peer,
            &image,
            lie(move |image: Arc<Held>, mut talk, index, position| async move {
                if position >= step {
                    talk.until_closed().await;
                    return (talk, false);
                }
                let is_sent = image.send(&mut talk, index).await.is_ok();
                (talk, is_sent)
            }),
        );
        let fetch = start(&shop, &["fetch", &image.name()]);
        eventually(SOON, "what the holder sends", || match missing(&shop, &image.name()) {
            Some(left) if left + step == lacked && asked.load(Ordering::SeqCst) > step => Ok(()),
            left => Err(format!("{left:?} of {lacked} are missing")),
        })
        .expect("it is stored");
        shop.kill();
        assert_eq!(fetch.end(SOON).0, Some(5));
        shop.start().expect("the node starts again");
        verify(&shop, &kept);
        let left = missing(&shop, &image.name()).unwrap_or(lacked);
        assert!(left <= lacked, "a kill took away what an earlier one had left: {left} of {lacked} are missing");
        assert!(left + step >= lacked, "{left} of {lacked} are missing at moment {moment}, after {step} were sent");
        let lost = left + step - lacked;
        assert!(lost <= LOST, "{lost} chunks were lost");
        most_lost = most_lost.max(lost);
        lacked = left;
    }
    assert!(most_lost < STEP, "every kill cost all that came before it");
    let peer = hostile(&shop);
    let asked = holds(
        &peer,
        &image,
        lie(|image: Arc<Held>, mut talk, index, _| async move {
            let is_sent = image.send(&mut talk, index).await.is_ok();
            (talk, is_sent)
        }),
    );
    let (code, fetched) = start(&shop, &["fetch", &image.name()]).end(FETCH);
    assert_eq!(code, Some(0), "{fetched}");
    assert_eq!(asked.load(Ordering::SeqCst), lacked, "only what is missing is asked for");
    assert!(fetched["wire_bytes"].as_u64() < fetched["bytes"].as_u64(), "{fetched}");
    verify(&shop, &image.name());
    goes_on(&mut shop, &scene);
}

/// Whether a file that `is_it` lies below a directory.
fn is_there(directory: &Path, is_it: &dyn Fn(&Path) -> bool) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| is_it(&path) || (path.is_dir() && is_there(&path, is_it)))
}

#[test]
fn a_node_killed_at_any_moment_of_a_deployment_leaves_no_guest_that_cannot_be_removed() {
    let scene = Scene::new();
    let mut site = scene.site("uni");
    let public = site.new_key("releases").expect("a key");
    site.write_policy(&accepting(&public)).expect("a policy");
    let release = scene.published(&site);
    // In the order in which they come to be.
    /// Whether the instance's directory is that far.
    type Moment = fn(&Path) -> bool;
    let moments: [(&str, Moment); 6] = [
        ("the instance's record", |path| path.ends_with("instance.json")),
        ("its base, half written or whole", |path| path.parent().is_some_and(|above| above.ends_with("bases"))),
        ("its base", |path| path.extension().is_some_and(|extension| extension == "raw")),
        ("its seed", |path| path.ends_with("seed.img")),
        ("its disk", |path| path.extension().is_some_and(|extension| extension == "qcow2")),
        ("QEMU's socket", |path| path.ends_with("qmp.sock")),
    ];
    for (moment, is_it) in moments {
        let directories: Vec<PathBuf> = ["bases", "instances"].iter().map(|name| site.directory().join(name)).collect();
        let mut deploying = start(&site, &["deploy", &release]);
        let came = catch(&mut deploying, || directories.iter().any(|directory| is_there(directory, &is_it)));
        assert!(came, "{moment} never came to be");
        site.kill();
        deploying.end(SOON);

        site.start().unwrap_or_else(|error| panic!("killed at {moment}: {error}"));
        removed(&site, moment);
    }
    goes_on(&mut site, &scene);
}

/// What a killed deployment has left is shown as what it is, and can be removed.
fn removed(site: &Site, moment: &str) {
    let settled = site.until(SOON, "states that last", &["ps"], |instances| {
        list(instances).iter().all(|instance| ["failed", "running"].iter().any(|state| instance["state"] == *state))
    });
    let settled = settled.unwrap_or_else(|error| panic!("killed at {moment}: {error}"));
    for instance in list(&settled) {
        let name = instance["instance"].as_str().expect("a name");
        if instance["state"] == "running" {
            // QEMU ran already, and outlived the node.
            site.json(&["stop", name, "--force"]).unwrap_or_else(|error| panic!("killed at {moment}: {error}"));
        }
        site.json(&["rm", name]).unwrap_or_else(|error| panic!("killed at {moment}: {error}"));
    }
    assert_eq!(site.json(&["ps"]).expect("ps"), serde_json::json!([]), "killed at {moment}");
    let gone = eventually(SOON, "no guest", || match site.guests().is_empty() {
        true => Ok(()),
        false => Err(format!("{:?} run", site.guests())),
    });
    gone.unwrap_or_else(|error| panic!("killed at {moment}: {error}"));
    let left = |name: &str| fs::read_dir(site.directory().join(name)).map_or(0, Iterator::count);
    assert_eq!((left("instances"), left("bases")), (0, 0), "killed at {moment}");
}
