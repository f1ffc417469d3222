//! Differences by ranges: the sites compare fingerprints of ranges of their sets, and split those that differ (Meyer,
//! "Range-Based Set Reconciliation", 2023; the `negentropy` crate). It works whatever the differences are, and whoever
//! made them.

use std::collections::BTreeSet;

use negentropy::Negentropy;

use super::{MAX_DIFFERENCES, MAX_ROUNDS, SyncError};
use crate::ids::Hash;
use crate::sync::name::ShortId;
use crate::sync::set::SyncSet;

/// A step is at most this long, in bytes.
const STEP_BYTES: u64 = 60 * 1024;

/// The initiator's side.
#[derive(Debug)]
pub(super) struct Ranges {
    negentropy: Negentropy<'static, SyncSet>,
    /// What to send next.
    pub(super) step: Option<Vec<u8>>,
    rounds: usize,
    /// What the peer has and we lack.
    pub(super) needed: BTreeSet<ShortId>,
    /// What we have and the peer lacks.
    pub(super) surplus: BTreeSet<ShortId>,
}

impl Ranges {
    pub(super) fn new(set: SyncSet) -> Result<Self, SyncError> {
        let mut negentropy = side(set)?;
        let step = Some(negentropy.initiate().map_err(own_set)?);
        Ok(Self { negentropy, step, rounds: 0, needed: BTreeSet::new(), surplus: BTreeSet::new() })
    }

    /// Takes a step of the peer, of which `is_wanted` says what is needed; says whether this was the last, or enough for one
    /// session.
    pub(super) fn take_step(
        &mut self,
        step: &[u8],
        mut is_wanted: impl FnMut(&ShortId) -> bool,
    ) -> Result<bool, SyncError> {
        self.rounds += 1;
        let (mut have, mut need) = (Vec::new(), Vec::new());
        self.step = self.negentropy.reconcile_with_ids(step, &mut have, &mut need).map_err(malformed)?;
        let short = |id: negentropy::Id| ShortId::from(&Hash(*id));
        self.surplus.extend(have.into_iter().map(short));
        self.needed.extend(need.into_iter().map(short).filter(|id| is_wanted(id)));
        for found in [&mut self.surplus, &mut self.needed] {
            while found.len() > MAX_DIFFERENCES {
                found.pop_last();
            }
        }
        if self.step.is_some() && self.rounds >= MAX_ROUNDS {
            return Err(SyncError::TooManyRounds);
        }
        Ok(self.step.is_none() || self.needed.len() >= MAX_DIFFERENCES || self.surplus.len() >= MAX_DIFFERENCES)
    }
}

/// The responder's side.
pub(super) fn side(set: SyncSet) -> Result<Negentropy<'static, SyncSet>, SyncError> {
    Negentropy::owned(set, STEP_BYTES).map_err(own_set)
}

/// The responder's answer to a step.
pub(super) fn answer(negentropy: &mut Negentropy<'static, SyncSet>, step: &[u8]) -> Result<Vec<u8>, SyncError> {
    negentropy.reconcile(step).map_err(malformed)
}

fn malformed(error: negentropy::Error) -> SyncError {
    SyncError::Malformed(error.to_string())
}

fn own_set(error: negentropy::Error) -> SyncError {
    SyncError::Set(error.to_string())
}
