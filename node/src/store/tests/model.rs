//! Random commands against the store and against a model that is nothing but maps.

use proptest::prelude::*;
use rialto_protocol::image::chunker::{Piece, cut_whole};

use super::dependent::edition;
use super::*;

/// Small segments, so that they are sealed and merged within a few commands.
const SMALL: Options = Options { segment_bytes: 1 << 20, ..OPTIONS };
/// Contents to choose from; neighbours share their middle.
const CONTENTS: u8 = 6;

#[derive(Debug, Clone)]
enum Command {
    Add(u8),
    AddFile(u8),
    Fetch(u8),
    FetchHalf(u8),
    /// A fetch begins that other commands run beside: space is set aside, bases are held.
    BeginFetch(u8),
    /// It goes on by so many chunks, in any order, encoded against a base if the flag says so.
    GoOn(u8, u8, bool),
    EndFetch(u8),
    Hold(u8),
    /// The hold that was taken first is dropped.
    LetGo,
    PutChunk(u8),
    Remove(u8),
    Pin(u8),
    Unpin(u8),
    Collect(Option<u8>),
    Commit,
    Reopen,
    LoseIndex,
}

#[derive(Default)]
struct Model {
    /// Whether it is pinned, by content.
    listed: BTreeMap<u8, bool>,
    chunks: BTreeSet<Hash>,
}

fn make(number: u8) -> Vec<u8> {
    let number = u64::from(number);
    let middle = noise(1000 + number / 2, 150_000);
    let own = noise(number, 1 + 30_000 * number as usize);
    // Of which each has an edition, so that chunks of one are stored against another's.
    let edition = edition(2000, 200_000, number as usize);
    [text(number, 40_000), vec![0; 200_000], middle, vec![0; 70_000], own, vec![0; 70_000], edition].concat()
}

/// A content, and its chunks by name in order.
struct Content {
    bytes: Vec<u8>,
    chunks: Vec<(Hash, Vec<u8>)>,
}

/// All there are: making them takes some time.
fn all() -> &'static [Content] {
    static ALL: std::sync::OnceLock<Vec<Content>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let cut = |bytes: Vec<u8>| {
            let mut chunks = Vec::new();
            cut_whole(&bytes, |piece| {
                if let Piece::Data { bytes, .. } = piece {
                    chunks.push((Hash::of(bytes), bytes.to_vec()));
                }
            });
            Content { bytes, chunks }
        };
        (0..CONTENTS).map(make).map(cut).collect()
    })
}

fn content(number: u8) -> Vec<u8> {
    all()[usize::from(number)].bytes.clone()
}

fn chunks(number: u8) -> impl Iterator<Item = &'static [u8]> {
    all()[usize::from(number)].chunks.iter().map(|(_, chunk)| &chunk[..])
}

fn names(number: u8) -> impl Iterator<Item = Hash> {
    all()[usize::from(number)].chunks.iter().map(|(name, _)| *name)
}

fn command() -> impl Strategy<Value = Command> {
    let number = 0..CONTENTS;
    prop_oneof![
        2 => number.clone().prop_map(Command::Add),
        2 => number.clone().prop_map(Command::AddFile),
        2 => number.clone().prop_map(Command::Fetch),
        2 => number.clone().prop_map(Command::FetchHalf),
        4 => number.clone().prop_map(Command::BeginFetch),
        8 => (number.clone(), 1..12u8, any::<bool>()).prop_map(|(number, chunks, flag)| Command::GoOn(number, chunks, flag)),
        2 => number.clone().prop_map(Command::EndFetch),
        2 => number.clone().prop_map(Command::Hold),
        1 => Just(Command::LetGo),
        1 => number.clone().prop_map(Command::PutChunk),
        4 => number.clone().prop_map(Command::Remove),
        1 => number.clone().prop_map(Command::Pin),
        1 => number.clone().prop_map(Command::Unpin),
        3 => prop::option::of(number).prop_map(Command::Collect),
        1 => Just(Command::Commit),
        1 => Just(Command::Reopen),
        1 => Just(Command::LoseIndex),
    ]
}

/// A fetch under way.
struct Fetching {
    /// Chunks that are still to come, by their places in the manifest.
    missing: BTreeSet<usize>,
    room: Reservation,
    bases: Vec<ImageId>,
    /// Its image was taken off the list meanwhile, so that it is nobody's any more.
    was_removed: bool,
    _hold: Hold,
}

impl Fetching {
    fn begin(store: &Store, seed: &Store, image: &ImageId) -> Self {
        let bases = store.bases(&[], 16, |_, _| true).unwrap();
        let hold = store.hold(bases.clone());
        store.begin_fetch(image).unwrap();
        store.put_page(&image.hash(), &seed.read_page(&image.hash()).unwrap()).unwrap();
        let missing: BTreeSet<usize> =
            store.missing_chunks(image).unwrap().into_iter().map(|index| index as usize).collect();
        Self { missing, room: store.reserve(1000, 1 << 20).unwrap(), bases, was_removed: false, _hold: hold }
    }

    /// Puts a chunk, against one of a base, or as it is.
    fn put(&self, store: &Store, chunk: &[u8], is_referenced: bool) {
        let (name, length) = (Hash::of(chunk), chunk.len() as u32);
        let runs = RecentChunks::new(store.clone());
        for base in self.bases.iter().filter(|_| is_referenced) {
            let manifest = store.manifest(base).expect("a base is held");
            for run in manifest.chunks.chunks(3) {
                let reference = runs.read(run).expect("the chunks of a base are held");
                if let Some(bytes) = encode_against(&reference, chunk, chunk.len() / 4) {
                    store.put_referenced(name, length, run, &runs, &bytes).unwrap();
                    return;
                }
            }
        }
        store.put_encoded(name, length, Encoding::Raw, chunk).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_does_what_the_model_does(commands in prop::collection::vec(command(), 1..30)) {
        let (_seed_folder, seed) = store();
        let images: Vec<_> = (0..CONTENTS).map(|number| seed.add_bytes(&content(number)).unwrap().image).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), SMALL).unwrap();
        let mut model = Model::default();
        let mut fetching: BTreeMap<u8, Fetching> = BTreeMap::new();
        let mut holds: std::collections::VecDeque<(u8, Hold)> = std::collections::VecDeque::new();
        // Chunks that the model does not hold, and that may have come back with a rebuilt index.
        let mut is_exact = true;

        for command in commands {
            match command {
                Command::Add(number) | Command::AddFile(number) => {
                    let content = content(number);
                    let is_file = matches!(command, Command::AddFile(_));
                    let added = if is_file { add(&store, &content) } else { store.add_bytes(&content).unwrap() };
                    prop_assert_eq!(added.image, images[usize::from(number)]);
                    let new = names(number).filter(|&name| model.chunks.insert(name)).count() as u64;
                    if is_exact {
                        prop_assert_eq!(added.new_chunks, new);
                    }
                    model.listed.entry(number).or_default();
                }
                Command::Fetch(number) => {
                    fetch(&seed, &store, &images[usize::from(number)]);
                    model.chunks.extend(names(number));
                    model.listed.entry(number).or_default();
                }
                Command::FetchHalf(number) => {
                    let image = &images[usize::from(number)];
                    store.begin_fetch(image).unwrap();
                    store.put_page(&image.hash(), &seed.read_page(&image.hash()).unwrap()).unwrap();
                    for chunk in chunks(number).step_by(2) {
                        let name = Hash::of(chunk);
                        store.put_encoded(name, chunk.len() as u32, Encoding::Raw, chunk).unwrap();
                        model.chunks.insert(name);
                    }
                    model.listed.entry(number).or_default();
                }
                Command::BeginFetch(number) => {
                    if let std::collections::btree_map::Entry::Vacant(place) = fetching.entry(number) {
                        place.insert(Fetching::begin(&store, &seed, &images[usize::from(number)]));
                        model.listed.entry(number).or_default();
                    }
                }
                Command::GoOn(number, count, is_referenced) => {
                    if let Some(fetch) = fetching.get_mut(&number) {
                        let chunks: Vec<&[u8]> = chunks(number).collect();
                        let some: Vec<usize> = fetch.missing.iter().rev().take(count.into()).copied().collect();
                        for place in some {
                            fetch.put(&store, chunks[place], is_referenced);
                            fetch.room.spend_chunk(chunks[place].len() as u64);
                            fetch.missing.remove(&place);
                            model.chunks.insert(Hash::of(chunks[place]));
                        }
                    }
                }
                Command::EndFetch(number) => {
                    if let Some(fetch) = fetching.remove(&number) {
                        let image = &images[usize::from(number)];
                        let is_listed = model.listed.contains_key(&number);
                        let is_whole = names(number).all(|name| model.chunks.contains(&name));
                        // Nothing that it got was lost while it went on.
                        prop_assert!(is_whole || fetch.was_removed || !fetch.missing.is_empty());
                        if is_whole && is_listed {
                            store.record_fetched(image).unwrap();
                        } else if is_exact && is_listed {
                            let result = store.record_fetched(image);
                            prop_assert!(matches!(result, Err(StoreError::MissingChunks { missing: 1.., .. })), "{result:?}");
                        }
                    }
                    prop_assert_eq!(store.reserved_bytes() == 0, fetching.is_empty());
                }
                Command::Hold(number) => {
                    holds.push_back((number, store.hold(vec![images[usize::from(number)]])));
                }
                Command::LetGo => drop(holds.pop_front()),
                Command::PutChunk(number) => {
                    let chunk = noise(77 + u64::from(number), 9000);
                    let is_new = store.put_encoded(Hash::of(&chunk), 9000, Encoding::Raw, &chunk).unwrap();
                    let expected = model.chunks.insert(Hash::of(&chunk));
                    if is_exact {
                        prop_assert_eq!(is_new, expected);
                    }
                }
                Command::Remove(number) => {
                    let result = store.remove(&images[usize::from(number)]);
                    match model.listed.get(&number) {
                        None => prop_assert!(matches!(result, Err(StoreError::NoSuchImage(_)))),
                        Some(true) => prop_assert!(matches!(result, Err(StoreError::Pinned(_)))),
                        Some(false) => {
                            prop_assert!(result.is_ok());
                            model.listed.remove(&number);
                            fetching.entry(number).and_modify(|fetch| fetch.was_removed = true);
                        }
                    }
                }
                Command::Pin(number) | Command::Unpin(number) => {
                    let (image, is_pin) = (&images[usize::from(number)], matches!(command, Command::Pin(_)));
                    let result = if is_pin { store.pin(image) } else { store.unpin(image) };
                    prop_assert_eq!(result.is_ok(), model.listed.contains_key(&number));
                    model.listed.entry(number).and_modify(|is_pinned| *is_pinned = is_pin);
                }
                Command::Collect(keep) => {
                    let kept = keep.map(|number| images[usize::from(number)]).into_iter().collect();
                    store.gc(&kept).unwrap();
                    // An image that is merely kept counts as far as its root page is here.
                    let is_known = |number: &u8| store.has_page(&images[usize::from(*number)].hash()).unwrap();
                    // So does one that is held, or a base of a fetch.
                    let base = |base: &ImageId| images.iter().position(|image| image == base).unwrap() as u8;
                    let bases = fetching.values().flat_map(|fetch| fetch.bases.iter().map(base));
                    let held = holds.iter().map(|(number, _)| *number).chain(bases).chain(keep).filter(is_known);
                    let roots = model.listed.keys().copied().chain(held);
                    let needed: BTreeSet<Hash> = roots.flat_map(names).collect();
                    model.chunks.retain(|name| needed.contains(name));
                    is_exact = true;
                }
                Command::Commit => store.commit().unwrap(),
                Command::Reopen => {
                    fetching.clear();
                    holds.clear();
                    drop(store);
                    store = Store::open(folder.path(), SMALL).unwrap();
                }
                Command::LoseIndex => {
                    fetching.clear();
                    holds.clear();
                    drop(store);
                    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
                    store = Store::open(folder.path(), SMALL).unwrap();
                    is_exact = false;
                }
            }

            let listed: BTreeMap<ImageId, bool> =
                store.images().unwrap().into_iter().map(|image| (image.image, image.is_pinned)).collect();
            let expected: BTreeMap<ImageId, bool> =
                model.listed.iter().map(|(number, is_pinned)| (images[usize::from(*number)], *is_pinned)).collect();
            prop_assert_eq!(listed, expected);
            for number in 0..CONTENTS {
                for name in names(number) {
                    let is_held = store.has_chunk(&name).unwrap();
                    prop_assert!(is_held || !model.chunks.contains(&name));
                    // What is said to be held can be read.
                    prop_assert!(!is_held || store.read_chunk(&name).is_ok_and(|plain| Hash::of(&plain) == name));
                    prop_assert!(!is_exact || is_held == model.chunks.contains(&name));
                }
            }
        }
        for &number in model.listed.keys() {
            let image = images[usize::from(number)];
            let is_complete = names(number).all(|name| model.chunks.contains(&name));
            if is_complete || is_exact {
                prop_assert_eq!(store.is_complete(&image).unwrap(), is_complete);
            }
            if is_complete {
                prop_assert_eq!(export(&store, &image).unwrap(), content(number));
            }
        }
    }
}
