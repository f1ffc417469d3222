//! Sizes and durations as people write them in files and on the command line: `256 MiB`, `20s`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Units of [`ByteSize`] in the order in which they are shown, largest first.
const BINARY_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// Decimal units, which disk vendors and networks count in; read, never shown.
const DECIMAL_UNITS: [(&str, u64); 4] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
/// Longest text taken for a size or a duration, in bytes: no sensible one comes near.
const MAX_TEXT_BYTES: usize = 64;

/// Why a text is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number with a unit of bytes.
    #[error(
        "'{0}' is not a size: write a number and a unit, as in \"256 MiB\" (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)"
    )]
    NotASize(String),
    /// Not a number with a unit of bytes or bits a second.
    #[error("'{0}' is not a rate: write a number and a unit, as in \"10 MB/s\" or \"100 Mbit/s\", or \"unlimited\"")]
    NotARate(String),
    /// Not numbers with units of time.
    #[error("'{0}' is not a duration: write a number and a unit, as in \"20s\" or \"1h30m\" (ms, s, m, h, d, w)")]
    NotADuration(String),
}

/// A number of bytes, written as `256 MiB`.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// This many MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// This many GiB.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit of which there is at least one, with one decimal where it is not whole: `1.5 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = BINARY_UNITS.into_iter().find(|&(_, size)| self.0 >= size).unwrap_or(("B", 1));
        let tenths = u128::from(self.0) * 10 / u128::from(size);
        let text = match (tenths / 10, tenths % 10) {
            (whole, 0) => format!("{whole} {unit}"),
            (whole, tenth) => format!("{whole}.{tenth} {unit}"),
        };
        f.pad(&text)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError::NotASize(text.chars().take(MAX_TEXT_BYTES).collect());
        if text.len() > MAX_TEXT_BYTES {
            return Err(refused());
        }
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..split], trimmed[split..].trim_start());
        let size = match unit {
            "" => 1,
            unit => BINARY_UNITS
                .into_iter()
                .chain(DECIMAL_UNITS)
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, size)| size)
                .ok_or_else(refused)?,
        };
        scaled(number, size).map(Self).ok_or_else(refused)
    }
}

/// Units of [`Rate`] that count bits, in bits.
const BIT_UNITS: [(&str, u64); 4] = [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];

/// A number of bytes a second, or no limit: written as `10 MB/s`, `100 Mbit/s`, `unlimited`.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(Option<u64>);

impl Rate {
    /// So many bytes a second; `None` for no limit.
    pub const fn new(bytes_per_second: Option<u64>) -> Self {
        Self(bytes_per_second)
    }

    /// Bytes a second; `None` for no limit.
    pub const fn bytes_per_second(self) -> Option<u64> {
        self.0
    }
}

impl fmt::Display for Rate {
    /// In the units in which lines are sold, with one decimal where it is not whole: `12.5 MB/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0 else { return f.pad("unlimited") };
        let (unit, size) = DECIMAL_UNITS.into_iter().find(|&(_, size)| bytes >= size).unwrap_or(("B", 1));
        let tenths = u128::from(bytes) * 10 / u128::from(size);
        let text = match (tenths / 10, tenths % 10) {
            (whole, 0) => format!("{whole} {unit}/s"),
            (whole, tenth) => format!("{whole}.{tenth} {unit}/s"),
        };
        f.pad(&text)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError::NotARate(text.chars().take(MAX_TEXT_BYTES).collect());
        let trimmed = text.trim();
        if text.len() > MAX_TEXT_BYTES {
            return Err(refused());
        }
        if trimmed == "unlimited" {
            return Ok(Self(None));
        }
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..split], trimmed[split..].trim_start());
        if let Some((_, bits)) = BIT_UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            return scaled(number, bits).map(|bits| Self(Some(bits / 8))).ok_or_else(refused);
        }
        let unit = unit.strip_suffix("/s").filter(|unit| !unit.is_empty()).ok_or_else(refused)?;
        let size: ByteSize = format!("{number}{unit}").parse().map_err(|_| refused())?;
        Ok(Self(Some(size.bytes())))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A decimal number times a unit, exactly, rounded down to whole bytes; `None` where it is no number or too large.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.ends_with('.') || fraction.len() > 9 || (unit == 1 && !fraction.is_empty()) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / 10u128.pow(fraction.len() as u32);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Reads a duration such as `500ms`, `20s`, `5m`, `2h`, `7d`, `1w` or `1h30m`.
///
/// # Errors
/// Anything without a unit, with an unknown one, or longer than `u64` milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let refused = || UnitError::NotADuration(text.chars().take(MAX_TEXT_BYTES).collect());
    let mut rest = text.trim();
    if rest.is_empty() || text.len() > MAX_TEXT_BYTES {
        return Err(refused());
    }
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
        let after = rest[digits..].trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit: u64 = match &after[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(refused()),
        };
        let count: u64 = rest[..digits].parse().map_err(|_| refused())?;
        millis = count.checked_mul(unit).and_then(|part| millis.checked_add(part)).ok_or_else(refused)?;
        rest = after[letters..].trim_start();
    }
    Ok(Duration::from_millis(millis))
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// For `#[serde(deserialize_with)]` on a [`Duration`] written as text.
pub fn deserialize_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1 B", 1),
            ("256 MiB", 256 << 20),
            ("256mib", 256 << 20),
            ("1.5 GiB", 3 << 29),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1 GiB", "1 parsec", "1.", "1.5", "1.2.3 MiB", "17000000 TiB", "1 GiB 2", "0x10"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_binary_units() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (3 << 29, "1.5 GiB"), (u64::MAX, "16777215.9 TiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("20s", 20_000),
            ("1h30m", 5_400_000),
            ("90 d", 7_776_000_000),
            ("1w 1d", 691_200_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "20", "s", "20 parsecs", "-1s", "1.5h", "99999999999999999w", "h1"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("10 MB/s", Some(10_000_000), "10 MB/s"),
            ("100 Mbit/s", Some(12_500_000), "12.5 MB/s"),
            ("1.5kB/s", Some(1_500), "1.5 kB/s"),
            ("1 MiB/s", Some(1 << 20), "1 MB/s"),
            ("7 B/s", Some(7), "7 B/s"),
            ("0 MB/s", Some(0), "0 B/s"),
            ("unlimited", None, "unlimited"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bytes_per_second(), rate.to_string().as_str()), (bytes, shown), "{text}");
        }
        for bad in ["", "10", "10 MB", "MB/s", "10 /s", "fast", "-1 MB/s", "1e9 B/s", "99999999999999999999 GB/s"] {
            assert!(matches!(bad.parse::<Rate>(), Err(UnitError::NotARate(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in ".{0,80}") {
            let _ = text.parse::<ByteSize>();
            let _ = parse_duration(&text);
        }

        #[test]
        fn whole_units_come_back(count in 1u64..1023, unit in 0usize..5) {
            let size = ByteSize(count * BINARY_UNITS[unit].1);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
