//! What a holder sends next on one of the streams on which it is asked for an image.
//!
//! Where several fetch an image at once, each of them is sent what was sent least often: together they hold a whole copy
//! as soon as possible, and pass it on among themselves. A complete holder also holds back for a moment what somebody
//! else was just sent: whoever wants it will mostly have it from there, and says so with `Cancel`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::swarm::{MAX_WANTED, Ranges};

/// So long a chunk that one fetcher was sent is not sent to another one, as long as the holder is complete: about what it
/// takes to pass it on.
const HOLD_BACK: Duration = Duration::from_millis(1000);
/// With fewer fetchers of an image nothing is held back: they need not know each other.
const CROWD: usize = 3;

/// How often each chunk of one image was sent, to all those who fetch it at the moment.
#[derive(Debug)]
pub struct Spread {
    times_sent: Vec<u8>,
    /// Chunks sent within [`HOLD_BACK`], and when.
    recent: BTreeMap<u32, Duration>,
    by_time: VecDeque<(Duration, u32)>,
    streams: usize,
}

/// What is sent next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Indices of the chunks.
    pub chunks: Vec<u32>,
    /// Where there are none although some are wanted: when to ask again.
    pub wait_until: Option<Duration>,
}

/// The chunks that one fetcher wants and was not sent yet, in the order of asking.
#[derive(Debug, Default)]
pub struct Queue {
    wanted: VecDeque<u32>,
}

/// A fetcher asked for more than a holder keeps in mind for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_WANTED} chunks asked for at once")]
pub struct TooMany;

impl Spread {
    /// Nothing was sent of an image of so many chunks, and nobody fetches it.
    pub fn new(chunks: usize) -> Self {
        Self { times_sent: vec![0; chunks], recent: BTreeMap::new(), by_time: VecDeque::new(), streams: 0 }
    }

    /// Somebody begins to fetch.
    pub fn joined(&mut self) {
        self.streams += 1;
    }

    /// One of them has gone.
    pub fn left(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }

    fn is_held_back(&self, index: u32) -> bool {
        self.recent.contains_key(&index)
    }

    fn sent(&mut self, index: u32, now: Duration) {
        if let Some(times) = self.times_sent.get_mut(index as usize) {
            *times = times.saturating_add(1);
        }
        if self.streams >= CROWD {
            self.recent.insert(index, now);
            self.by_time.push_back((now, index));
        }
    }

    fn forget_old(&mut self, now: Duration) {
        while let Some(&(since, index)) = self.by_time.front().filter(|(since, _)| *since + HOLD_BACK <= now) {
            self.by_time.pop_front();
            if self.recent.get(&index) == Some(&since) {
                self.recent.remove(&index);
            }
        }
    }
}

impl Queue {
    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Number of chunks wanted.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// The fetcher wants these; those that `is_held` denies, and those from `end` on, are left out.
    ///
    /// # Errors
    /// [`TooMany`], and nothing is added.
    pub fn want(&mut self, chunks: &Ranges, end: u32, is_held: impl Fn(u32) -> bool) -> Result<(), TooMany> {
        if chunks.count().saturating_add(self.wanted.len() as u64) > MAX_WANTED {
            return Err(TooMany);
        }
        self.wanted.extend(chunks.indices_below(end).filter(|&index| is_held(index)));
        Ok(())
    }

    /// The fetcher does not want these any more.
    pub fn cancel(&mut self, chunks: &Ranges) {
        self.wanted.retain(|&index| !chunks.contains(index));
    }

    /// Takes what is to be sent now: chunks until `bytes` are reached, at least one where any may be sent.
    /// `is_complete` tells whether the holder has the whole image.
    pub fn take(
        &mut self,
        spread: &mut Spread,
        is_complete: bool,
        bytes: u64,
        length: impl Fn(u32) -> u32,
        now: Duration,
    ) -> Batch {
        spread.forget_old(now);
        let mut batch = Batch::default();
        if self.wanted.is_empty() {
            return batch;
        }
        let holds_back = is_complete && spread.streams >= CROWD;
        let chosen = match spread.streams {
            0 | 1 => (0..self.wanted.len()).collect(),
            _ => self.least_sent(spread, holds_back),
        };
        let mut taken = BTreeSet::new();
        let mut taken_bytes = 0;
        for place in chosen {
            if taken_bytes >= bytes {
                break;
            }
            let index = self.wanted[place];
            taken_bytes += u64::from(length(index));
            taken.insert(place);
            batch.chunks.push(index);
        }
        if taken.len() == taken.last().map_or(0, |last| last + 1) {
            self.wanted.drain(..taken.len());
        } else {
            let mut place = 0;
            self.wanted.retain(|_| {
                place += 1;
                !taken.contains(&(place - 1))
            });
        }
        for &index in &batch.chunks {
            spread.sent(index, now);
        }
        if batch.chunks.is_empty() {
            batch.wait_until =
                self.wanted.iter().filter_map(|index| spread.recent.get(index)).min().map(|&since| since + HOLD_BACK);
        }
        batch
    }

    /// Places of what was sent least often: all that was sent as often, in the order of asking.
    fn least_sent(&self, spread: &Spread, holds_back: bool) -> Vec<usize> {
        let (mut least, mut places) = (u8::MAX, Vec::new());
        for (place, &index) in self.wanted.iter().enumerate() {
            if holds_back && spread.is_held_back(index) {
                continue;
            }
            let times = spread.times_sent.get(index as usize).copied().unwrap_or(0);
            if times < least {
                least = times;
                places.clear();
            }
            if times == least {
                places.push(place);
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u32 = 1000;

    fn all(chunks: u32) -> Ranges {
        Ranges::pieces(0..chunks).pop().unwrap_or_default()
    }

    fn take(queue: &mut Queue, spread: &mut Spread, chunks: u64, now: Duration) -> Batch {
        queue.take(spread, true, chunks * u64::from(CHUNK), |_| CHUNK, now)
    }

    fn crowd(fetchers: usize, chunks: u32) -> (Spread, Vec<Queue>) {
        let mut spread = Spread::new(chunks as usize);
        let queues = (0..fetchers).map(|_| {
            spread.joined();
            let mut queue = Queue::default();
            queue.want(&all(chunks), chunks, |_| true).unwrap();
            queue
        });
        let queues = queues.collect();
        (spread, queues)
    }

    #[test]
    fn one_fetcher_is_sent_what_it_asked_for_in_its_order() {
        let (mut spread, mut queues) = crowd(1, 10);
        let first = take(&mut queues[0], &mut spread, 4, Duration::ZERO);
        let rest = take(&mut queues[0], &mut spread, 100, Duration::ZERO);
        assert_eq!((first.chunks, rest.chunks), (vec![0, 1, 2, 3], (4..10).collect()));
    }

    #[test]
    fn a_crowd_has_a_whole_copy_before_anything_is_sent_twice() {
        let (mut spread, mut queues) = crowd(8, 100);
        let mut sent = BTreeSet::new();
        for turn in 0..100 {
            for index in take(&mut queues[turn % 8], &mut spread, 1, Duration::ZERO).chunks {
                assert!(sent.insert(index), "chunk {index} was sent twice");
            }
        }
        assert_eq!(sent.len(), 100);
        let held_back = take(&mut queues[0], &mut spread, 1, Duration::ZERO);
        assert_eq!(held_back, Batch { chunks: vec![], wait_until: Some(HOLD_BACK) });
        assert_eq!(take(&mut queues[0], &mut spread, 1, HOLD_BACK).chunks.len(), 1);
    }

    #[test]
    fn nothing_is_held_back_from_two_who_need_not_know_each_other() {
        let (mut spread, mut queues) = crowd(2, 4);
        for queue in &mut queues {
            assert_eq!(take(queue, &mut spread, 4, Duration::ZERO).chunks.len(), 4);
        }
    }

    #[test]
    fn who_asks_for_too_much_is_refused() {
        let end = u32::try_from(MAX_WANTED).unwrap() + 2;
        let mut queue = Queue::default();
        assert_eq!(queue.want(&all(end - 1), end, |_| true), Err(TooMany));
        assert!(queue.is_empty());
    }

    proptest! {
        /// Whatever is asked and cancelled, each stream is sent what it wants, as often as it wants it, and never waits for
        /// longer than chunks are held back.
        #[test]
        fn what_is_wanted_is_sent(
            is_complete in any::<bool>(),
            steps in prop::collection::vec((0usize..5, 0u32..40, 1u32..20, 0u8..4, 0u64..300), 1..200),
        ) {
            let mut spread = Spread::new(50);
            (0..5).for_each(|_| spread.joined());
            let mut queues: [Queue; 5] = Default::default();
            let mut model: [Vec<u32>; 5] = Default::default();
            let mut now = Duration::ZERO;
            for (stream, first, count, what, millis) in steps {
                now += Duration::from_millis(millis);
                let ranges = Ranges::pieces(first..first + count).remove(0);
                match what {
                    0 => {
                        queues[stream].want(&ranges, 50, |_| true).unwrap();
                        model[stream].extend(ranges.indices_below(50));
                    }
                    1 => {
                        queues[stream].cancel(&ranges);
                        model[stream].retain(|index| !ranges.contains(*index));
                    }
                    _ => {
                        let batch = queues[stream].take(&mut spread, is_complete, count.into(), |_| 3, now);
                        prop_assert!(batch.chunks.len() <= (count as usize).div_ceil(3));
                        prop_assert_eq!(batch.chunks.is_empty(), batch.wait_until.is_some() || model[stream].is_empty());
                        prop_assert!(batch.wait_until.is_none_or(|until| is_complete && until > now && until <= now + HOLD_BACK));
                        for index in batch.chunks {
                            let place = model[stream].iter().position(|&wanted| wanted == index);
                            prop_assert!(place.is_some());
                            model[stream].remove(place.unwrap());
                        }
                    }
                }
                prop_assert_eq!(queues[stream].len(), model[stream].len());
            }
            for (queue, model) in queues.iter_mut().zip(model) {
                now += HOLD_BACK;
                let mut rest = Vec::new();
                loop {
                    let batch = queue.take(&mut spread, is_complete, u64::MAX, |_| 3, now);
                    rest.extend(batch.chunks);
                    match batch.wait_until {
                        Some(until) => now = until,
                        None if queue.is_empty() => break,
                        None => {}
                    }
                }
                rest.sort_unstable();
                let mut model = model;
                model.sort_unstable();
                prop_assert_eq!(rest, model);
            }
        }
    }
}
