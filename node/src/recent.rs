//! Bytes that were made or read last, kept by name within a bound.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What keeping one takes beside its bytes, about.
const OVERHEAD_BYTES: usize = 256;

/// Byte strings by name; the oldest go first.
#[derive(Debug)]
pub(crate) struct Recent<K> {
    kept: BTreeMap<K, Arc<[u8]>>,
    /// In the order in which they came.
    order: VecDeque<K>,
    bytes: usize,
    max_bytes: usize,
}

impl<K: Ord + Copy> Recent<K> {
    /// Keeps at most so many bytes, with what keeping them takes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { kept: BTreeMap::new(), order: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// What is kept under a name.
    pub(crate) fn get(&self, name: &K) -> Option<Arc<[u8]>> {
        self.kept.get(name).cloned()
    }

    /// Keeps bytes under a name, and lets go of the oldest where that is too much.
    pub(crate) fn keep(&mut self, name: K, bytes: &Arc<[u8]>) {
        match self.kept.insert(name, Arc::clone(bytes)) {
            Some(before) => self.bytes -= before.len() + OVERHEAD_BYTES,
            None => self.order.push_back(name),
        }
        self.bytes += bytes.len() + OVERHEAD_BYTES;
        while self.bytes > self.max_bytes
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.kept.remove(&oldest).map_or(0, |gone| gone.len() + OVERHEAD_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_the_bound_holds() {
        let mut recent = Recent::new(10_000);
        for name in 0..100 {
            recent.keep(name, &vec![name as u8; 1000].into());
            recent.keep(name, &vec![name as u8; 900].into());
            assert!(recent.bytes <= 10_000 && recent.kept.len() == recent.order.len());
            assert_eq!(recent.get(&name).map(|bytes| bytes.len()), Some(900));
        }
        assert_eq!(recent.get(&0), None);
        assert!(recent.get(&98).is_some());
    }
}
