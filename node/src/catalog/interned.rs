//! Values that many records share, each held once for as long as one of them does.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Shared values.
#[derive(Debug)]
pub(super) struct Interned<T: ?Sized + Hash + Eq>(HashSet<Arc<T>>);

impl<T: ?Sized + Hash + Eq> Default for Interned<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: ?Sized + Hash + Eq> Interned<T> {
    /// The one that is equal to this.
    pub(super) fn share(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(shared) = self.0.get(&value) {
            return Arc::clone(shared);
        }
        self.0.insert(Arc::clone(&value));
        value
    }

    /// Gives one back; the last one that goes is forgotten.
    pub(super) fn release(&mut self, value: &Arc<T>) {
        // Ours, and the one that is given back.
        if Arc::strong_count(value) <= 2 {
            self.0.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_the_last_one_is_forgotten() {
        let mut interned = Interned::<str>::default();
        let one = interned.share(Arc::from("peer"));
        let other = interned.share(Arc::from("peer"));
        assert!(Arc::ptr_eq(&one, &other));
        interned.release(&one);
        drop(one);
        assert_eq!(interned.0.len(), 1);
        interned.release(&other);
        assert!(interned.0.is_empty());
    }
}
