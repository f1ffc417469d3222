//! The time that verdicts go by: the node's own clock, which never runs backwards, and is not believed when it leaps.
//!
//! A clock that is put back would make what has expired good again; one that is put forward and believed would hold
//! everything for ever, because the latest time is remembered. So the latest time is a floor, and a leap forward is not
//! remembered until a person has said that it is right: until then nothing is accepted.

use std::fmt;
use std::time::Duration;

use rialto_protocol::UnixSeconds;

use super::verdict::time_shown;

/// A running clock may be put forward by so much at once: more is a leap. 24 hours.
const MAX_LEAP: UnixSeconds = 24 * 60 * 60;
/// A node may have been off for so long: a longer time is a leap. 30 days.
const MAX_OFF: UnixSeconds = 30 * MAX_LEAP;

/// The time that verdicts go by. Pure: the clock on the wall and the time since some start come in as arguments.
#[derive(Debug, Clone)]
pub struct Clock {
    /// The latest time that is believed, and what the monotonic time was then. `None` before the first look.
    base: Option<(UnixSeconds, Duration)>,
    /// The latest time of the run before; 0 for none.
    latest: UnixSeconds,
}

/// What a look at the clock finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The time to go by: not before any that was read before.
    pub now: UnixSeconds,
    /// Why nothing is accepted by this time.
    pub doubt: Option<Doubt>,
}

/// A leap of the clock that nobody has said to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The latest time that is believed.
    pub latest: UnixSeconds,
    /// What the clock says.
    pub wall: UnixSeconds,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wall, latest) = (time_shown(self.wall), time_shown(self.latest));
        write!(
            f,
            "this machine's clock says {wall}, and the latest time that is known to be right is {latest}: nothing is \
             accepted until it is put right, or until somebody says that it is right with rialto doctor --accept-clock"
        )
    }
}

impl Clock {
    /// A clock that was at `latest` when the node ran last; 0 where it never did.
    pub fn new(latest: UnixSeconds) -> Self {
        Self { base: None, latest }
    }

    /// Looks at the clock.
    pub fn read(&mut self, wall: UnixSeconds, monotonic: Duration) -> Reading {
        let (expected, allowed) = match self.base {
            Some((base, at)) => (base.saturating_add(monotonic.saturating_sub(at).as_secs()), MAX_LEAP),
            None if self.latest == 0 => (wall, 0),
            None => (self.latest, MAX_OFF),
        };
        if wall > expected.saturating_add(allowed) {
            // The time goes on from what is believed.
            return Reading { now: expected, doubt: Some(Doubt { latest: expected, wall }) };
        }
        let now = wall.max(expected);
        if now > expected || self.base.is_none() {
            self.base = Some((now, monotonic));
        }
        Reading { now, doubt: None }
    }

    /// Takes the clock as it is for right: it was really off for so long. It never goes back by this.
    pub fn accept(&mut self, wall: UnixSeconds, monotonic: Duration) {
        let now = self.read(wall, monotonic).now;
        self.base = Some((wall.max(now), monotonic));
    }

    /// Takes the clock as it is for right, also where that is before the latest time: that one was wrong.
    pub fn reset(&mut self, wall: UnixSeconds, monotonic: Duration) {
        self.base = Some((wall, monotonic));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixSeconds = 1_790_000_000;
    const DAY: UnixSeconds = 86_400;
    const YEAR_2099: UnixSeconds = 4_070_908_800;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_time_of_all_is_believed() {
        let mut clock = Clock::new(0);
        assert_eq!(clock.read(NOW, secs(5)), Reading { now: NOW, doubt: None });
    }

    #[test]
    fn a_clock_that_is_put_back_does_not_take_the_time_with_it() {
        let mut clock = Clock::new(NOW);
        assert_eq!(clock.read(NOW - 400 * DAY, secs(0)).now, NOW, "over a restart");
        assert_eq!(clock.read(NOW - 400 * DAY, secs(60)), Reading { now: NOW + 60, doubt: None }, "and it goes on");
        assert_eq!(clock.read(NOW + 100, secs(61)).now, NOW + 100);
        assert_eq!(clock.read(0, secs(71)).now, NOW + 110);
    }

    #[test]
    fn one_boot_in_2099_does_not_brick_a_site() {
        let mut clock = Clock::new(NOW);
        let reading = clock.read(YEAR_2099, secs(0));
        assert_eq!(reading.doubt, Some(Doubt { latest: NOW, wall: YEAR_2099 }));
        assert_eq!(reading.now, NOW);
        // The clock is put right: all is as before.
        assert_eq!(clock.read(NOW + 30, secs(40)), Reading { now: NOW + 30, doubt: None });
    }

    #[test]
    fn a_leap_while_it_runs_is_doubted_and_a_step_is_not() {
        let mut clock = Clock::new(0);
        clock.read(NOW, secs(0));
        assert_eq!(clock.read(NOW + DAY, secs(10)).doubt, None);
        let leap = clock.read(NOW + 3 * DAY, secs(20));
        assert_eq!(
            leap,
            Reading { now: NOW + DAY + 10, doubt: Some(Doubt { latest: NOW + DAY + 10, wall: NOW + 3 * DAY }) }
        );
        assert!(leap.doubt.unwrap().to_string().contains("--accept-clock"));
    }

    #[test]
    fn a_month_off_is_believed_and_a_year_asleep_once_somebody_says_so() {
        assert_eq!(Clock::new(NOW).read(NOW + 30 * DAY, secs(0)).doubt, None);
        let mut clock = Clock::new(NOW);
        assert!(clock.read(NOW + 365 * DAY, secs(0)).doubt.is_some());
        clock.accept(NOW + 365 * DAY, secs(1));
        assert_eq!(clock.read(NOW + 365 * DAY, secs(2)), Reading { now: NOW + 365 * DAY + 1, doubt: None });
    }

    #[test]
    fn only_a_reset_goes_back() {
        let mut clock = Clock::new(YEAR_2099);
        clock.accept(NOW, secs(0));
        assert_eq!(clock.read(NOW, secs(1)).now, YEAR_2099 + 1);
        clock.reset(NOW, secs(2));
        assert_eq!(clock.read(NOW + 1, secs(3)), Reading { now: NOW + 1, doubt: None });
    }

    proptest! {
        /// Whatever the clock does, the time that verdicts go by never runs backwards, and never leaps by itself.
        #[test]
        fn time_goes_on(latest in 1u64..1 << 40, steps in prop::collection::vec((0u64..1 << 40, 0u64..100_000), 1..40)) {
            let (mut clock, mut before, mut monotonic) = (Clock::new(latest), latest, 0);
            for (step, (wall, elapsed)) in steps.into_iter().enumerate() {
                monotonic += elapsed;
                let Reading { now, .. } = clock.read(wall, secs(monotonic));
                prop_assert!(now >= before);
                let allowed = if step == 0 || clock.base.is_none() { MAX_OFF } else { MAX_LEAP.max(MAX_OFF) };
                prop_assert!(now <= before + elapsed + allowed);
                before = now;
            }
        }
    }
}
