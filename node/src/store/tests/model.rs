//! Random commands against the store and against a model that is nothing but maps.

use proptest::prelude::*;
use rialto_protocol::image::chunker::{Piece, cut_whole};

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

fn content(number: u8) -> Vec<u8> {
    let number = u64::from(number);
    let middle = noise(1000 + number / 2, 150_000);
    [text(number, 40_000), vec![0; 200_000], middle, vec![0; 70_000], noise(number, 1 + 30_000 * number as usize)]
        .concat()
}

fn chunks(number: u8) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    cut_whole(&content(number), |piece| {
        if let Piece::Data { bytes, .. } = piece {
            chunks.push(bytes.to_vec());
        }
    });
    chunks
}

fn names(number: u8) -> impl Iterator<Item = Hash> {
    chunks(number).into_iter().map(|chunk| Hash::of(&chunk))
}

fn command() -> impl Strategy<Value = Command> {
    let any = 0..CONTENTS;
    prop_oneof![
        2 => any.clone().prop_map(Command::Add),
        2 => any.clone().prop_map(Command::AddFile),
        2 => any.clone().prop_map(Command::Fetch),
        2 => any.clone().prop_map(Command::FetchHalf),
        1 => any.clone().prop_map(Command::PutChunk),
        4 => any.clone().prop_map(Command::Remove),
        1 => any.clone().prop_map(Command::Pin),
        1 => any.clone().prop_map(Command::Unpin),
        3 => prop::option::of(any).prop_map(Command::Collect),
        1 => Just(Command::Commit),
        1 => Just(Command::Reopen),
        1 => Just(Command::LoseIndex),
    ]
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
                    for chunk in chunks(number).into_iter().step_by(2) {
                        let name = Hash::of(&chunk);
                        store.put_encoded(name, chunk.len() as u32, Encoding::Raw, &chunk).unwrap();
                        model.chunks.insert(name);
                    }
                    model.listed.entry(number).or_default();
                }
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
                    let roots = model.listed.keys().copied().chain(keep.filter(is_known));
                    let needed: BTreeSet<Hash> = roots.flat_map(names).collect();
                    model.chunks.retain(|name| needed.contains(name));
                    is_exact = true;
                }
                Command::Commit => store.commit().unwrap(),
                Command::Reopen => {
                    drop(store);
                    store = Store::open(folder.path(), SMALL).unwrap();
                }
                Command::LoseIndex => {
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
