//! Search: which releases fit a question, the newest of them, and how many there are of each sort.
//!
//! Releases have row numbers, and sets of rows are bitmaps. Rows are in ascending order of `issued`, but for those that came
//! late since they were numbered last: the newest that fit are found from the end of a bitmap, and none but these and the
//! late ones is looked at.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash as StdHash;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{Arch, Release};
use roaring::RoaringBitmap;

use super::dictionary::Dictionary;
use super::words;

/// Tags, and publishers, among which the commonest of a large result are found.
const MAX_COUNTED: usize = 512;
/// A result up to this many rows is counted row by row.
const COUNTED_BY_ROW: u64 = 4_096;
/// Rows out of order, or gone, below which numbering anew is not worth it.
const WORTH_NUMBERING: usize = 4_096;

/// The number of a row.
pub(super) type RowNumber = u32;

/// One release.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Where the index has its record.
    pub(super) slot: u32,
    publisher: u32,
    arch: Arch,
    pub(super) issued: UnixSeconds,
    /// The latest `issued` of this row and all before it: of a row that is not late, its own.
    latest: UnixSeconds,
    pub(super) sequence: u64,
    /// Stands for publisher and name.
    pub(super) appliance: u64,
    tags: (u32, u8),
    images: (u32, u8),
}

impl Row {
    fn is_late(&self) -> bool {
        self.issued < self.latest
    }
}

/// What a publisher is called, where it has a name.
pub type Petname<'a> = &'a dyn Fn(&PublicKey) -> Option<String>;

/// A question. All conditions must hold.
#[derive(Default)]
pub struct Query<'a> {
    /// Each must begin a word of name, publisher, version, summary, description or tags.
    pub words: &'a str,
    /// What a publisher is called here, where it has a name.
    pub petname: Option<Petname<'a>>,
    /// Only of one of these, where it is said.
    pub publishers: Option<Vec<PublicKey>>,
    /// Only with this tag.
    pub tag: Option<Name>,
    /// Only for this architecture.
    pub arch: Option<Arch>,
    /// Only those issued then or later.
    pub since: Option<UnixSeconds>,
}

/// How many of what was found are of which sort, the commonest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facets {
    /// By publisher. Of a large result, among the 512 publishers that have most releases.
    pub publishers: Vec<(PublicKey, u64)>,
    /// By tag. Of a large result, among the 512 commonest tags.
    pub tags: Vec<(Name, u64)>,
    /// By architecture.
    pub archs: Vec<(Arch, u64)>,
}

/// Rows by something that a release has.
#[derive(Debug)]
struct Sort<K> {
    numbers: HashMap<K, u32>,
    kinds: Vec<(K, RoaringBitmap)>,
    /// By how many rows they have.
    common: BTreeSet<(u64, u32)>,
}

/// The releases, as they are searched.
#[derive(Debug, Default)]
pub(super) struct Search {
    rows: Vec<Row>,
    /// Those that are there.
    present: RoaringBitmap,
    /// Rows that are late: each was issued before one that has a row before it. The others are in ascending order of `issued`.
    late: RoaringBitmap,
    words: Dictionary,
    publishers: Sort<PublicKey>,
    tags: Sort<Name>,
    archs: [RoaringBitmap; ARCHS.len()],
    tag_lists: Vec<u32>,
    image_lists: Vec<u64>,
}

const ARCHS: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

fn arch_place(arch: Arch) -> usize {
    match arch {
        Arch::X86_64 => 0,
        Arch::Aarch64 => 1,
    }
}

impl<K> Default for Sort<K> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), kinds: Vec::new(), common: BTreeSet::new() }
    }
}

impl<K: StdHash + Eq + Clone> Sort<K> {
    fn number(&mut self, kind: &K) -> u32 {
        if let Some(number) = self.numbers.get(kind) {
            return *number;
        }
        let number = self.kinds.len() as u32;
        self.kinds.push((kind.clone(), RoaringBitmap::new()));
        self.numbers.insert(kind.clone(), number);
        number
    }

    fn rows(&self, kind: &K) -> Option<&RoaringBitmap> {
        self.numbers.get(kind).map(|number| &self.kinds[*number as usize].1)
    }

    fn change(&mut self, number: u32, change: impl FnOnce(&mut RoaringBitmap)) {
        let Some((_, rows)) = self.kinds.get_mut(number as usize) else { return };
        self.common.remove(&(rows.len(), number));
        change(rows);
        if !rows.is_empty() {
            self.common.insert((rows.len(), number));
        }
    }

    /// The commonest among the rows of a result, each with its number of rows.
    fn count(
        &self,
        result: &RoaringBitmap,
        of_row: impl Fn(RowNumber, &mut dyn FnMut(u32)),
        most: usize,
    ) -> Vec<(K, u64)> {
        let mut counts: Vec<(u64, u32)> = if result.len() <= COUNTED_BY_ROW {
            let mut counts: HashMap<u32, u64> = HashMap::new();
            for row in result {
                of_row(row, &mut |kind| *counts.entry(kind).or_default() += 1);
            }
            counts.into_iter().map(|(kind, count)| (count, kind)).collect()
        } else {
            let mut counts = BTreeSet::new();
            for (rows, kind) in self.common.iter().rev().take(MAX_COUNTED) {
                // No other can have more rows here than it has at all.
                if counts.len() == most && counts.first().is_some_and(|(least, _)| least >= rows) {
                    break;
                }
                counts.insert((self.kinds[*kind as usize].1.intersection_len(result), *kind));
                if counts.len() > most {
                    counts.pop_first();
                }
            }
            counts.into_iter().collect()
        };
        counts.retain(|(count, _)| *count > 0);
        counts.sort_unstable_by_key(|(count, kind)| (Reverse(*count), *kind));
        counts.truncate(most);
        counts.into_iter().map(|(count, kind)| (self.kinds[kind as usize].0.clone(), count)).collect()
    }
}

impl Search {
    /// Number of releases.
    pub(super) fn len(&self) -> usize {
        self.present.len() as usize
    }

    pub(super) fn row(&self, number: RowNumber) -> Option<&Row> {
        self.rows.get(number as usize)
    }

    /// What stands for the images of a row.
    pub(super) fn images(&self, number: RowNumber) -> &[u64] {
        self.row(number).map_or(&[], |row| list(&self.image_lists, row.images))
    }

    /// Whoever has a release here.
    pub(super) fn publishers(&self) -> impl Iterator<Item = &PublicKey> {
        self.publishers.kinds.iter().filter(|(_, rows)| !rows.is_empty()).map(|(key, _)| key)
    }

    /// Writes down a release, and gives its row and how many words it has. It is found from when it is
    /// [restored](Self::restore).
    pub(super) fn add(
        &mut self,
        slot: u32,
        release: &Release,
        issued: UnixSeconds,
        appliance: u64,
        images: &[u64],
    ) -> (RowNumber, usize) {
        let number = self.rows.len() as RowNumber;
        let tags: BTreeSet<u32> = release.tags.iter().map(|tag| self.tags.number(tag)).collect();
        let publisher = self.publishers.number(&release.publisher);
        let row = Row {
            slot,
            publisher,
            arch: release.arch,
            issued,
            latest: self.rows.last().map_or(issued, |last| last.latest.max(issued)),
            sequence: release.sequence,
            appliance,
            tags: append(&mut self.tag_lists, tags),
            images: append(&mut self.image_lists, images.iter().copied()),
        };
        if row.is_late() {
            self.late.insert(number);
        }
        self.rows.push(row);
        (number, words::of_release(release, |word| self.words.add(word, number)))
    }

    /// Takes a release out. Its row is kept for a while, should it come back.
    pub(super) fn remove(&mut self, number: RowNumber) {
        self.set_present(number, false);
    }

    /// Puts a release back that was taken out of this row, not before a new numbering.
    pub(super) fn restore(&mut self, number: RowNumber, slot: u32) {
        if let Some(row) = self.rows.get_mut(number as usize) {
            row.slot = slot;
            self.set_present(number, true);
        }
    }

    fn set_present(&mut self, number: RowNumber, is_present: bool) {
        let set = move |rows: &mut RoaringBitmap| {
            if is_present {
                rows.insert(number)
            } else {
                rows.remove(number)
            };
        };
        let Some(row) = self.rows.get(number as usize) else { return };
        set(&mut self.present);
        set(&mut self.archs[arch_place(row.arch)]);
        self.publishers.change(row.publisher, set);
        for tag in list(&self.tag_lists, row.tags) {
            self.tags.change(*tag, set);
        }
    }

    /// Whether so much is out of order, or gone, that [`Search::number_anew`] is worth its time.
    pub(super) fn is_disordered(&self) -> bool {
        let gone = self.rows.len() - self.len();
        gone > self.len() / 2 + WORTH_NUMBERING || self.late.len() as usize > self.len() / 16 + WORTH_NUMBERING
    }

    /// Numbers the rows anew, in order; those that are gone are forgotten. About a second for 500,000 releases.
    pub(super) fn number_anew(&mut self) {
        let mut order: Vec<RowNumber> = self.present.iter().collect();
        order.sort_by_key(|number| self.rows[*number as usize].issued);
        let mut places = vec![RowNumber::MAX; self.rows.len()];
        for (place, number) in (0..).zip(&order) {
            places[*number as usize] = place;
        }
        let before = std::mem::take(self);
        self.words = before.words.moved(&places);
        self.rows.reserve_exact(order.len());
        for (number, old) in (0..).zip(order) {
            let row = &before.rows[old as usize];
            let publisher = self.publishers.number(&before.publishers.kinds[row.publisher as usize].0);
            let tags = list(&before.tag_lists, row.tags);
            let tags: Vec<u32> = tags.iter().map(|tag| self.tags.number(&before.tags.kinds[*tag as usize].0)).collect();
            let tags = append(&mut self.tag_lists, tags);
            let images = list(&before.image_lists, row.images).iter().copied();
            let images = append(&mut self.image_lists, images);
            self.rows.push(Row { publisher, tags, images, latest: row.issued, ..row.clone() });
            self.set_present(number, true);
        }
    }

    /// The rows that fit a question.
    pub(super) fn find(&self, query: &Query<'_>) -> RoaringBitmap {
        let mut found: Option<RoaringBitmap> = None;
        let mut narrow = |rows: RoaringBitmap| match &mut found {
            Some(found) => *found &= rows,
            None => found = Some(rows),
        };
        for word in words::of_question(query.words) {
            narrow(self.with_word(&word, query.petname) & &self.present);
        }
        if let Some(keys) = &query.publishers {
            let of_them = keys.iter().filter_map(|key| self.publishers.rows(key));
            narrow(of_them.fold(RoaringBitmap::new(), |all, rows| all | rows));
        }
        if let Some(tag) = &query.tag {
            narrow(self.tags.rows(tag).cloned().unwrap_or_default());
        }
        if let Some(arch) = query.arch {
            narrow(self.archs[arch_place(arch)].clone());
        }
        let mut found = found.unwrap_or_else(|| self.present.clone());
        if let Some(since) = query.since {
            found.remove_range(..self.rows.partition_point(|row| row.latest < since) as RowNumber);
            for number in &found & &self.late {
                if self.rows[number as usize].issued < since {
                    found.remove(number);
                }
            }
        }
        found
    }

    /// The rows in which a word begins like this, or whose publisher is called so.
    fn with_word(&self, word: &str, petname: Option<Petname<'_>>) -> RoaringBitmap {
        let mut rows = self.words.beginning_with(word, self.rows.len());
        for (key, of_publisher) in self.publishers.kinds.iter().filter(|(_, rows)| !rows.is_empty()) {
            let fits = match petname.and_then(|petname| petname(key)) {
                Some(name) => words::fits_name(&name, word),
                None => word.starts_with('~') && key.fingerprint().starts_with(word),
            };
            if fits {
                rows |= of_publisher;
            }
        }
        rows
    }

    /// Rows from the newest to the oldest; of those issued in one second, the later number first.
    pub(super) fn newest_first<'a>(&'a self, rows: &'a RoaringBitmap) -> impl Iterator<Item = RowNumber> + 'a {
        let key = |number: &RowNumber| (self.rows[*number as usize].issued, *number);
        let mut late: Vec<RowNumber> = (rows & &self.late).into_iter().collect();
        late.sort_unstable_by_key(key);
        let mut late = late.into_iter().rev().peekable();
        let mut ordered = rows.iter().rev().filter(|number| !self.rows[*number as usize].is_late()).peekable();
        std::iter::from_fn(move || match (late.peek(), ordered.peek()) {
            (Some(one), Some(next)) if key(one) < key(next) => ordered.next(),
            (Some(_), _) => late.next(),
            (None, _) => ordered.next(),
        })
    }

    /// How many of these rows are of which sort; of each the `most` commonest.
    pub(super) fn facets(&self, rows: &RoaringBitmap, most: usize) -> Facets {
        let of_row = |number: RowNumber, each: &mut dyn FnMut(u32)| each(self.rows[number as usize].publisher);
        let publishers = self.publishers.count(rows, of_row, most);
        let of_row = |number: RowNumber, each: &mut dyn FnMut(u32)| {
            list(&self.tag_lists, self.rows[number as usize].tags).iter().for_each(|tag| each(*tag));
        };
        let tags = self.tags.count(rows, of_row, most);
        let archs = ARCHS.iter().zip(&self.archs).map(|(arch, of_arch)| (*arch, of_arch.intersection_len(rows)));
        Facets { publishers, tags, archs: archs.filter(|(_, count)| *count > 0).collect() }
    }

    /// All rows that are there.
    pub(super) fn all(&self) -> &RoaringBitmap {
        &self.present
    }
}

fn append<T>(lists: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> (u32, u8) {
    let start = lists.len();
    // A release has 16 tags and 12 images at most.
    lists.extend(items.into_iter().take(usize::from(u8::MAX)));
    (start as u32, (lists.len() - start) as u8)
}

fn list<T>(lists: &[T], (start, length): (u32, u8)) -> &[T] {
    lists.get(start as usize..start as usize + usize::from(length)).unwrap_or_default()
}
