//! `[swarm]` of `config.toml`: how much this node may send and receive, and at what hours other limits hold.

use std::fmt;

use serde::{Deserialize, Deserializer};

use crate::net::bulk::Limits;
use crate::units::Rate;

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;
/// Periods of one schedule: more than one an hour nobody can oversee.
const MAX_PERIODS: usize = 24;

/// `[swarm]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SwarmConfig {
    /// What may be sent to all sites together.
    pub upload: Rate,
    /// What may be sent to one site.
    #[serde(alias = "upload_per_peer")]
    pub upload_per_peer: Rate,
    /// What may be received from all sites together.
    pub download: Rate,
    /// Hours at which other limits hold; where periods overlap, the first one.
    #[serde(deserialize_with = "periods")]
    pub schedule: Vec<Period>,
}

/// One entry of `[[swarm.schedule]]`: from one time of the day to another, every day. What it does not name stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Period {
    /// When it begins.
    pub from: TimeOfDay,
    /// When it ends: on the next day, where that is not later.
    pub to: TimeOfDay,
    /// As in [`SwarmConfig`].
    #[serde(default)]
    pub upload: Option<Rate>,
    /// As in [`SwarmConfig`].
    #[serde(default, alias = "upload_per_peer")]
    pub upload_per_peer: Option<Rate>,
    /// As in [`SwarmConfig`].
    #[serde(default)]
    pub download: Option<Rate>,
}

/// A time of the day by the clock on the wall, in minutes.
///
/// The hour that the clock skips in spring is skipped, and the one that it repeats in autumn counts twice: whoever writes
/// "22:00" means what the clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

impl SwarmConfig {
    /// The limits at a time of the day.
    pub fn limits_at(&self, time: TimeOfDay) -> Limits {
        let period = self.schedule.iter().find(|period| period.contains(time));
        let rate = |chosen: fn(&Period) -> Option<Rate>, otherwise: Rate| {
            period.and_then(chosen).unwrap_or(otherwise).bytes_per_second()
        };
        Limits {
            upload: rate(|period| period.upload, self.upload),
            upload_per_peer: rate(|period| period.upload_per_peer, self.upload_per_peer),
            download: rate(|period| period.download, self.download),
        }
    }
}

impl Period {
    fn contains(&self, time: TimeOfDay) -> bool {
        match self.from < self.to {
            true => self.from <= time && time < self.to,
            // Over midnight; from a time to itself is the whole day.
            false => self.from <= time || time < self.to,
        }
    }
}

impl TimeOfDay {
    /// The time of the day on this machine's clock, in its time zone.
    pub fn now() -> Self {
        let now = jiff::Zoned::now();
        Self(u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl std::str::FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            let shown: String = text.chars().take(20).collect();
            format!("'{shown}' is not a time of the day; write it as \"22:00\"")
        };
        let number = |digits: &str| match digits.len() {
            1 | 2 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u16>().ok(),
            _ => None,
        };
        let (hour, minute) = text.split_once(':').ok_or_else(refused)?;
        let (hour, minute) = (number(hour).ok_or_else(refused)?, number(minute).ok_or_else(refused)?);
        let minutes = hour * 60 + minute;
        // 24:00 is the end of a day, and the beginning of the next.
        if minute >= 60 || minutes > DAY_MINUTES {
            return Err(refused());
        }
        Ok(Self(minutes % DAY_MINUTES))
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn periods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Period>, D::Error> {
    let periods = Vec::<Period>::deserialize(deserializer)?;
    if periods.len() > MAX_PERIODS {
        return Err(serde::de::Error::custom(format!("{} periods; at most {MAX_PERIODS} are allowed", periods.len())));
    }
    Ok(periods)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> TimeOfDay {
        text.parse().unwrap()
    }

    fn config(text: &str) -> SwarmConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn nights_go_over_midnight() {
        let config = config(
            "upload = \"10 MB/s\"\ndownload = \"80 Mbit/s\"\n\
             [[schedule]]\nfrom = \"22:00\"\nto = \"06:00\"\nupload = \"100 MB/s\"\ndownload = \"unlimited\"\n\
             [[schedule]]\nfrom = \"05:00\"\nto = \"12:30\"\nupload = \"0 MB/s\"\n",
        );
        let day = Limits { upload: Some(10_000_000), upload_per_peer: None, download: Some(10_000_000) };
        let night = Limits { upload: Some(100_000_000), download: None, ..day };
        let morning = Limits { upload: Some(0), ..day };
        for (at, limits) in [
            ("21:59", day),
            ("22:00", night),
            ("23:59", night),
            ("00:00", night),
            ("05:59", night),
            ("06:00", morning),
            ("12:29", morning),
            ("12:30", day),
        ] {
            assert_eq!(config.limits_at(time(at)), limits, "{at}");
        }
    }

    #[test]
    fn a_period_from_a_time_to_itself_is_the_whole_day() {
        let config = config("[[schedule]]\nfrom = \"08:00\"\nto = \"08:00\"\nupload = \"1 kB/s\"\n");
        for at in ["08:00", "07:59", "00:00"] {
            assert_eq!(config.limits_at(time(at)).upload, Some(1_000));
        }
    }

    #[test]
    fn nothing_is_limited_where_nothing_is_said() {
        assert_eq!(SwarmConfig::default().limits_at(time("12:00")), Limits::default());
    }

    #[test]
    fn what_is_no_time_is_refused() {
        assert_eq!(time("24:00"), time("00:00"));
        for text in ["", "22", "22:60", "24:01", "-1:00", "+1:00", "1:2:3", "022:00", "１2:00"] {
            assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_period_and_the_rest_of_the_day_are_the_day(from in 0u16..DAY_MINUTES, to in 0u16..DAY_MINUTES, at in 0u16..DAY_MINUTES) {
            let period = |from, to| Period {
                from: TimeOfDay(from),
                to: TimeOfDay(to),
                upload: None,
                upload_per_peer: None,
                download: None,
            };
            if from != to {
                prop_assert_ne!(period(from, to).contains(TimeOfDay(at)), period(to, from).contains(TimeOfDay(at)));
            }
            prop_assert_eq!(time(&TimeOfDay(at).to_string()), TimeOfDay(at));
            let _ = format!("{from}").parse::<TimeOfDay>();
        }
    }
}
