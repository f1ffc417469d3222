//! `kill -9` of a process that works on a store, hundreds of times at random moments: whatever it said it holds, it holds.
//!
//! SIGKILL leaves what was written in the machine's memory, where a loss of power does not. So what lies in the newest
//! segment behind the last thing said is cut off or overwritten in every other round, as a disk would that had not got it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rialto_node::store::{Options, RecentChunks, Store, StoreError, Stored, encode_against};
use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::Manifest;
use rialto_testnet::site::SOON;
use rialto_testnet::wait::eventually;
use rialto_tests::held::{Held, noise};

/// Where the child finds its store, and what it does there.
const STORE: &str = "RIALTO_TESTS_STORE";
const SEED: &str = "RIALTO_TESTS_SEED";
const COLLECTS_BESIDE: &str = "RIALTO_TESTS_COLLECTS_BESIDE";
/// Kills of each of the four tests.
const KILLS: u64 = 55;
/// Images to choose from.
const IMAGES: u64 = 10;
/// Segments of the least length there is, so that they are sealed, merged and collected all the time.
const OPTIONS: Options = Options { free_space_floor_bytes: 0, quota_bytes: None, segment_bytes: 1 << 20 };

/// The content of an image. Neighbours share a part of it, and each has its edition of a text, so that chunks of one are
/// stored against another's.
fn content(number: u64) -> Vec<u8> {
    let own = noise(40_000 + 23_000 * number as usize, number + 1);
    let text: Vec<u8> = noise(60_000, 99).iter().flat_map(|byte| [b'a' + byte % 16, b'a' + byte / 16]).collect();
    let edition =
        text.chunks(17_000).flat_map(|piece| [piece, format!("edition {number}").as_bytes()].concat()).collect();
    [noise(60_000, 100 + number / 2), vec![0; 100_000], own, vec![0; 100_000], edition].concat()
}

/// What the child says on stdout; what it says is so from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// The store is open.
    Ready,
    /// The image is listed.
    Begun(u64),
    /// The image is listed, and so many of its chunks are held.
    Holds(u64, usize),
    /// The image is listed, and whole.
    Whole(u64),
    Pinned(u64),
    /// From now on it may or may not be pinned, or listed.
    Loosening(u64),
    Unpinned(u64),
    Removed(u64),
    /// Bytes may be moved.
    Collecting,
    /// The newest segment and its length, all of which was made durable.
    Durable(u64, u64),
}

impl Said {
    fn line(self) -> String {
        let (word, numbers) = match self {
            Self::Ready => ("ready", (0, 0)),
            Self::Begun(image) => ("begun", (image, 0)),
            Self::Holds(image, chunks) => ("holds", (image, chunks as u64)),
            Self::Whole(image) => ("whole", (image, 0)),
            Self::Pinned(image) => ("pinned", (image, 0)),
            Self::Loosening(image) => ("loosening", (image, 0)),
            Self::Unpinned(image) => ("unpinned", (image, 0)),
            Self::Removed(image) => ("removed", (image, 0)),
            Self::Collecting => ("collecting", (0, 0)),
            Self::Durable(segment, bytes) => ("durable", (segment, bytes)),
        };
        format!("said {word} {} {}\n", numbers.0, numbers.1)
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("said ")?.split(' ');
        let word = words.next()?;
        let (one, two) = (words.next()?.parse().ok()?, words.next()?.trim_end().parse().ok()?);
        Some(match word {
            "ready" => Self::Ready,
            "begun" => Self::Begun(one),
            "holds" => Self::Holds(one, two as usize),
            "whole" => Self::Whole(one),
            "pinned" => Self::Pinned(one),
            "loosening" => Self::Loosening(one),
            "unpinned" => Self::Unpinned(one),
            "removed" => Self::Removed(one),
            "collecting" => Self::Collecting,
            "durable" => Self::Durable(one, two),
            _ => return None,
        })
    }
}

fn say(said: Said) {
    let mut out = std::io::stdout().lock();
    // The one who listens may be gone.
    let _ = out.write_all(said.line().as_bytes()).and_then(|()| out.flush());
}

/// The newest segment of a store, and its length in bytes.
fn newest_segment(folder: &Path) -> Option<(u64, u64)> {
    let names = fs::read_dir(folder.join("segments")).ok()?.flatten();
    let number = |name: &str| name.strip_suffix(".segment")?.parse::<u64>().ok();
    let newest = names.filter_map(|entry| number(entry.file_name().to_str()?)).max()?;
    Some((newest, fs::metadata(segment(folder, newest)).ok()?.len()))
}

fn segment(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("segments/{number:08}.segment"))
}

/// Opens a store. Where these tests share a process, a child that another of them starts holds our lock too, from its fork
/// to its exec.
fn open(folder: &Path) -> Store {
    let opened = eventually(SOON, "the lock", || match Store::open(folder, OPTIONS) {
        Err(StoreError::InUse(path)) => Err(path.display().to_string()),
        opened => Ok(opened),
    });
    opened.expect("nobody holds the lock").expect("the store opens")
}

/// Not a test: what the tests below start and kill.
#[test]
#[ignore = "a process that the other tests start"]
fn child() {
    let Some(folder) = std::env::var_os(STORE).map(PathBuf::from) else { return };
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).expect("a seed");
    let mut random = fastrand::Rng::with_seed(seed);
    let store = open(&folder);
    say(Said::Ready);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        if std::env::var_os(COLLECTS_BESIDE).is_some() {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    store.gc(&BTreeSet::new()).expect("a collection");
                }
            });
        }
        // More than there is time for.
        for _ in 0..1000 {
            act(&store, &folder, &mut random);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

fn act(store: &Store, folder: &Path, random: &mut fastrand::Rng) {
    let number = random.u64(..IMAGES);
    match random.u32(..10) {
        0..3 => {
            store.add_bytes(&content(number)).expect("an addition");
            say(Said::Whole(number));
        }
        3..6 => fetch(store, folder, number, random),
        6 => {
            let image = Held::of(content(number)).id;
            say(Said::Loosening(number));
            if store.pin(&image).is_ok() {
                say(Said::Pinned(number));
            }
        }
        7 | 8 => {
            let image = Held::of(content(number)).id;
            say(Said::Loosening(number));
            if random.bool() && store.unpin(&image).is_ok() {
                say(Said::Unpinned(number));
            } else if store.remove(&image).is_ok() {
                say(Said::Removed(number));
            }
        }
        _ => {
            say(Said::Collecting);
            store.gc(&BTreeSet::new()).expect("a collection");
        }
    }
    store.commit().expect("a commit");
    if let Some((segment, bytes)) = newest_segment(folder) {
        say(Said::Durable(segment, bytes));
    }
}

/// As a download does it: chunks in any order, with a commit now and then, sometimes not to the end.
fn fetch(store: &Store, folder: &Path, number: u64, random: &mut fastrand::Rng) {
    let held = Held::of(content(number));
    store.begin_fetch(&held.id).expect("the journal");
    say(Said::Begun(number));
    for (hash, page) in &held.pages {
        store.put_page(hash, page).expect("a page");
    }
    let stop = if random.bool() { held.chunks.len() } else { random.usize(..held.chunks.len()) };
    let bases = store.bases(&[], 1, |_, _| true).expect("the images that are here");
    let _hold = store.hold(bases.clone());
    let base = bases.first().and_then(|base| store.manifest(base).ok());
    for (at, chunk) in held.chunks[..stop].iter().enumerate() {
        if !base.as_ref().is_some_and(|base| put_against(store, base, at, chunk)) {
            store.put_encoded(Hash::of(chunk), chunk.len() as u32, Encoding::Raw, chunk).expect("a chunk");
        }
        if random.u32(..8) == 0 {
            store.commit().expect("a commit");
            say(Said::Holds(number, at + 1));
            if let Some((segment, bytes)) = newest_segment(folder) {
                say(Said::Durable(segment, bytes));
            }
        }
    }
    if store.missing_chunks(&held.id).expect("the pages are here").is_empty() {
        store.record_fetched(&held.id).expect("it is whole");
        say(Said::Whole(number));
    }
}

/// Puts a chunk as a holder may have sent it, against those of a base in the same place. A base that was taken off the list
/// before it was held is none.
fn put_against(store: &Store, base: &Manifest, at: usize, chunk: &[u8]) -> bool {
    let runs = RecentChunks::new(store.clone());
    let run = &base.chunks[at.saturating_sub(1).min(base.chunks.len())..base.chunks.len().min(at + 2)];
    let Some(bytes) = runs.read(run).ok().and_then(|run| encode_against(&run, chunk, chunk.len() / 4)) else {
        return false;
    };
    store.put_referenced(Hash::of(chunk), chunk.len() as u32, run, &runs, &bytes).is_ok()
}

/// What is known of an image that is listed.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// So many of its chunks are held.
    chunks: usize,
    is_whole: bool,
    /// `None` where it may be either.
    is_pinned: Option<bool>,
}

struct Scene {
    folder: tempfile::TempDir,
    known: BTreeMap<u64, Known>,
    /// Of which it is not known whether they are listed.
    loose: BTreeSet<u64>,
    contents: Vec<Held>,
    random: fastrand::Rng,
    /// Chunks that were found stored against others, in all rounds together.
    dependents: usize,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let contents = (0..IMAGES).map(|number| Held::of(content(number))).collect();
        let random = fastrand::Rng::with_seed(seed);
        Self { folder, known: BTreeMap::new(), loose: BTreeSet::new(), contents, random, dependents: 0 }
    }

    /// One life of the child. Gives how much of the newest segment is durable, where nothing has been moved since.
    fn life(&mut self, collects_beside: bool) -> Option<(u64, u64)> {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "kills::child", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(STORE, self.folder.path()).env(SEED, self.random.u64(..).to_string());
        if collects_beside {
            command.env(COLLECTS_BESIDE, "1");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the child");
        let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
        let mut said: Vec<Said> = Vec::new();
        // One in eight is killed while it opens the store; the others once they have said so many things.
        let wanted = if self.random.u32(..8) == 0 { 0 } else { self.random.usize(1..30) };
        while said.len() < wanted
            && let Some(Ok(line)) = lines.next()
        {
            said.extend(Said::read(&line));
        }
        // The moment itself: anywhere in what it does next.
        thread::sleep(Duration::from_micros(self.random.u64(..12_000)));
        child.kill().expect("it is killed");
        // What it said before is still in the pipe, and the last line may be torn.
        said.extend(lines.map_while(Result::ok).filter_map(|line| Said::read(&line)));
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("panicked"), "{errors}");
        let mut durable = None;
        for said in said {
            self.hear(said);
            durable = match said {
                Said::Durable(segment, bytes) => Some((segment, bytes)),
                // More became durable than was last told, and it was killed before it told how much.
                Said::Collecting | Said::Whole(_) | Said::Holds(..) => None,
                _ => durable,
            };
        }
        durable.filter(|_| !collects_beside)
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Ready | Said::Collecting | Said::Durable(..) => {}
            Said::Begun(number) => {
                self.listed(number);
            }
            Said::Holds(number, chunks) => {
                let known = self.listed(number);
                known.chunks = known.chunks.max(chunks);
            }
            Said::Whole(number) => self.listed(number).is_whole = true,
            Said::Pinned(number) => self.listed(number).is_pinned = Some(true),
            Said::Unpinned(number) => self.listed(number).is_pinned = Some(false),
            Said::Loosening(number) => {
                if let Some(known) = self.known.get_mut(&number) {
                    // What is pinned cannot be removed.
                    if known.is_pinned != Some(true) {
                        self.loose.insert(number);
                    }
                    known.is_pinned = None;
                }
            }
            Said::Removed(number) => {
                self.known.remove(&number);
                self.loose.remove(&number);
            }
        }
    }

    fn listed(&mut self, number: u64) -> &mut Known {
        self.loose.remove(&number);
        self.known.entry(number).or_default()
    }

    /// Takes away, or spoils, what no disk need have kept.
    fn lose_power(&mut self, (number, durable): (u64, u64)) {
        let Some((newest, length)) = newest_segment(self.folder.path()) else { return };
        if newest != number || length <= durable {
            return;
        }
        let path = segment(self.folder.path(), number);
        let file = File::options().write(true).open(path).expect("the segment");
        let at = self.random.u64(durable..length);
        if self.random.bool() {
            file.set_len(at).expect("it is shorter");
        } else {
            let zeros = vec![0; (length - at).min(4096) as usize];
            file.write_all_at(&zeros, at).expect("it is overwritten");
        }
    }

    /// Opens the store, and looks whether all is there that the child said was.
    fn check(&mut self) {
        let store = open(self.folder.path());
        let listed: BTreeMap<ImageId, bool> =
            store.images().expect("the list").iter().map(|image| (image.image, image.is_pinned)).collect();
        for number in std::mem::take(&mut self.loose) {
            if !listed.contains_key(&self.contents[number as usize].id) {
                self.known.remove(&number);
            }
        }
        for (number, known) in &mut self.known {
            let held = &self.contents[*number as usize];
            let is_pinned = *listed.get(&held.id).unwrap_or_else(|| panic!("image {number} is not listed: {known:?}"));
            assert!(known.is_pinned.is_none_or(|known| known == is_pinned), "image {number}: {known:?}");
            known.is_pinned = Some(is_pinned);
            let chunks = if known.is_whole { held.chunks.len() } else { known.chunks };
            for chunk in &held.chunks[..chunks] {
                let read = store.read_chunk(&Hash::of(chunk));
                self.dependents +=
                    usize::from(matches!(store.read_stored(&Hash::of(chunk)), Ok(Stored::Against { .. })));
                assert_eq!(&read.unwrap_or_else(|error| panic!("image {number}, {known:?}: {error}")), chunk);
            }
            assert!(!known.is_whole || store.is_complete(&held.id).expect("its pages"), "image {number}: {known:?}");
        }
        // Whatever else is held is what it is called.
        for chunk in self.contents.iter().flat_map(|held| &held.chunks) {
            if let Ok(read) = store.read_chunk(&Hash::of(chunk)) {
                assert_eq!(&read, chunk);
            }
        }
    }
}

fn kills(seed: u64, collects_beside: bool) {
    let mut scene = Scene::new(seed);
    let mut most = 0;
    for _ in 0..KILLS {
        let durable = scene.life(collects_beside);
        if let Some(durable) = durable
            && scene.random.bool()
        {
            scene.lose_power(durable);
        }
        scene.check();
        most = most.max(scene.known.values().filter(|known| known.is_whole).count());
    }
    assert!(most > 2, "the children hardly ever got as far as to hold something");
    assert!(scene.dependents > 10, "hardly anything was stored against others: {}", scene.dependents);
}

#[test]
fn a_store_killed_at_random_moments_holds_what_it_acknowledged() {
    kills(1, false);
}

#[test]
fn a_store_killed_at_other_moments_holds_what_it_acknowledged() {
    kills(2, false);
}

#[test]
fn a_store_killed_while_it_collects_holds_what_it_acknowledged() {
    kills(3, true);
}

#[test]
fn a_store_killed_while_it_collects_at_other_moments_holds_what_it_acknowledged() {
    kills(4, true);
}
