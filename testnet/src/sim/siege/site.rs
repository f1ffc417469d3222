//! A site of the siege: whose it is, its records, and the clock that it goes by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rialto_node::trust::{Clock, Policy, Reading};
use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::{ChannelName, Position};

use super::super::site::{Character, Site};

/// Whose a site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Honest,
    Forger,
    Replayer,
    Withholder,
    Flooder,
    Equivocator,
    Partitioner,
}

impl Side {
    /// What the attacker's sites do, in turn.
    pub(super) const HOSTILE: [Self; 6] =
        [Self::Forger, Self::Replayer, Self::Withholder, Self::Flooder, Self::Equivocator, Self::Partitioner];
}

/// What happens to an honest site's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is put back by more than a year while it runs.
    PutBack,
    /// It is back in 1990 after a restart: the battery is empty.
    BootsIn1990,
    /// It steps forward by two hours.
    StepsForward,
    /// After a restart, it says 2099.
    BootsIn2099,
    /// It leaps to 2099 while it runs.
    LeapsTo2099,
    /// The machine slept for a year.
    SleepsAYear,
}

impl Fault {
    pub(super) const ALL: [Self; 6] =
        [Self::PutBack, Self::BootsIn1990, Self::StepsForward, Self::BootsIn2099, Self::LeapsTo2099, Self::SleepsAYear];
}

/// How far a clock may be stepped by hand, in seconds.
const STEP: i64 = 2 * 60 * 60;
const YEAR: i64 = 365 * 86_400;
const YEAR_1990: UnixSeconds = 631_152_000;
const YEAR_2099: UnixSeconds = 4_070_908_800;

/// A clock on the wall, and what the site makes of it.
#[derive(Debug)]
pub(super) struct Timepiece {
    clock: Clock,
    /// What the wall says more than the true time, in seconds.
    wrong_by: i64,
    /// What the true time is more here than elsewhere: the site was away for so long.
    pub(super) away: u64,
    /// How far the site's time may rightly be ahead of the true one.
    pub(super) allowed: u64,
    started: Duration,
    /// The latest time that it wrote down.
    latest: UnixSeconds,
}

impl Timepiece {
    pub(super) fn new() -> Self {
        Self { clock: Clock::new(0), wrong_by: 0, away: 0, allowed: 0, started: Duration::ZERO, latest: 0 }
    }

    fn wall(&self, truth: UnixSeconds) -> UnixSeconds {
        truth.saturating_add(self.away).saturating_add_signed(self.wrong_by)
    }

    /// Looks at the clock, and writes the time down where it is believed.
    pub(super) fn read(&mut self, truth: UnixSeconds, elapsed: Duration) -> Reading {
        let wall = self.wall(truth);
        let reading = self.clock.read(wall, elapsed.saturating_sub(self.started));
        if reading.doubt.is_none() {
            self.latest = self.latest.max(reading.now);
        }
        reading
    }

    /// The clock on the wall, without a thought.
    pub(super) fn believe(&self, truth: UnixSeconds) -> Reading {
        Reading { now: self.wall(truth), doubt: None }
    }

    /// The node is started again: what it knows of time is what it wrote down.
    pub(super) fn restart(&mut self, elapsed: Duration) {
        self.clock = Clock::new(self.latest);
        self.started = elapsed;
    }

    pub(super) fn fail(&mut self, fault: Fault, truth: UnixSeconds, elapsed: Duration) {
        let to = |year: UnixSeconds| year.cast_signed() - truth.cast_signed();
        match fault {
            Fault::PutBack => self.wrong_by = -400 * 86_400,
            Fault::BootsIn1990 => self.wrong_by = to(YEAR_1990),
            Fault::StepsForward => {
                self.wrong_by = STEP;
                self.allowed = STEP.unsigned_abs();
            }
            Fault::BootsIn2099 | Fault::LeapsTo2099 => self.wrong_by = to(YEAR_2099),
            Fault::SleepsAYear => self.away = YEAR.unsigned_abs(),
        }
        if matches!(fault, Fault::BootsIn1990 | Fault::BootsIn2099 | Fault::SleepsAYear) {
            self.restart(elapsed);
        }
    }

    /// Somebody sees to it: a wrong clock is put right, and of a right one it is said that it is.
    pub(super) fn mend(&mut self, truth: UnixSeconds, elapsed: Duration) {
        self.wrong_by = 0;
        if self.away > 0 {
            self.clock.accept(self.wall(truth), elapsed.saturating_sub(self.started));
        }
    }
}

/// A site, and what an observer remembers of it.
#[derive(Debug)]
pub(super) struct Besieged {
    pub(super) side: Side,
    pub(super) site: Site,
    pub(super) time: Timepiece,
    /// The policy that its verdicts are measured by.
    pub(super) policy: Arc<Policy>,
    /// The highest place that each channel has led from here: what the observer saw, whatever the site has lost since.
    pub(super) led_from: BTreeMap<ChannelName, Position>,
}

impl Besieged {
    pub(super) fn new(side: Side, number: usize, policy: Arc<Policy>, practised: Arc<Policy>) -> Self {
        let site = Site::new(number, practised, Character::Honest);
        Self { side, site, time: Timepiece::new(), policy, led_from: BTreeMap::new() }
    }

    pub(super) fn is_honest(&self) -> bool {
        self.side == Side::Honest
    }
}
