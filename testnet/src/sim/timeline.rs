//! Virtual time: what happens when, and the trace of what happened.

use std::collections::BTreeMap;
use std::time::Duration;

use rialto_protocol::ids::Hash;

/// Virtual time, in microseconds since the beginning.
pub(super) type Micros = u64;

pub(super) const SECOND: Micros = 1_000_000;

/// What is still to happen, in order, and a hash of what has.
#[derive(Debug)]
pub(super) struct Timeline<E> {
    now: Micros,
    /// By time; ties are broken by the order of scheduling.
    events: BTreeMap<(Micros, u64), E>,
    next_event: u64,
    happened: u64,
    trace: blake3::Hasher,
}

impl<E> Timeline<E> {
    pub(super) fn new() -> Self {
        Self { now: 0, events: BTreeMap::new(), next_event: 0, happened: 0, trace: blake3::Hasher::new() }
    }

    pub(super) fn now(&self) -> Micros {
        self.now
    }

    /// The time as the state machines of `protocol` take it.
    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// Events that have happened.
    pub(super) fn happened(&self) -> u64 {
        self.happened
    }

    /// Something is to happen after a while.
    pub(super) fn after(&mut self, after: Micros, event: E) {
        self.events.insert((self.now + after, self.next_event), event);
        self.next_event += 1;
    }

    /// Goes on to what happens next.
    pub(super) fn next(&mut self) -> Option<E> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        self.happened += 1;
        Some(event)
    }

    /// Adds what happened to the trace.
    pub(super) fn note(&mut self, what: &str, numbers: &[u64]) {
        self.trace.update(&self.now.to_be_bytes());
        self.trace.update(what.as_bytes());
        for number in numbers {
            self.trace.update(&number.to_be_bytes());
        }
    }

    /// The hash of everything noted, in order.
    pub(super) fn trace(&self) -> Hash {
        Hash(*self.trace.finalize().as_bytes())
    }
}
