//! Times as statements write them.

use crate::UnixSeconds;

/// Reads a time of RFC 3339 to the second below; `None` where it is none, or before 1970. A leap second is the second after
/// it.
pub fn rfc3339(text: &str) -> Option<UnixSeconds> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|found| wanted.contains(found));
    let is_form = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let in_range = (1..=12).contains(&month) && (1..=days_in_month).contains(&day);
    if !is_form || !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &bytes[19..];
    if let Some((b'.', fraction)) = rest.split_first() {
        let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
        rest = fraction.get(digits..).filter(|_| digits > 0)?;
    }
    let offset_minutes = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let two = |a: u8, b: u8| {
                (a.is_ascii_digit() && b.is_ascii_digit()).then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
            };
            let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    // Days since 1970-01-01, by years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 719_469;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset_minutes * 60;
    UnixSeconds::try_from(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-23T10:00:00Z", 1_795_428_000),
            ("2021-08-06T17:50:50.52Z", 1_628_272_250),
            ("2000-02-29T23:59:60Z", 951_868_800),
            ("1990-12-31T15:59:59-08:00", 662_687_999),
            ("1937-01-01T12:00:27.87+00:20", u64::MAX),
            ("9999-12-31T23:59:59z", 253_402_300_799),
        ] {
            assert_eq!(rfc3339(text), Some(seconds).filter(|seconds| *seconds != u64::MAX), "{text}");
        }
        for bad in [
            "",
            "2026-11-23",
            "2026-11-23T10:00Z",
            "2026-13-23T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2026-11-31T10:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T10:00:00",
            "2026-11-23T10:00:00.Z",
            "2026-11-23T10:00:00+0100",
            "2026-11-23T10:00:00+24:00",
            "2026-11-23T10:00:00Zx",
            "２026-11-23T10:00:00Z",
            "+026-11-23T10:00:00Z",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn each_day_follows_the_one_before(year in 1970i64..9999, month in 1i64..=12, day in 1i64..=31) {
            let time = |y: i64, m: i64, d: i64| rfc3339(&format!("{y:04}-{m:02}-{d:02}T00:00:00Z"));
            if let Some(at) = time(year, month, day) {
                let next = time(year, month, day + 1).or_else(|| time(year, month + 1, 1)).or_else(|| time(year + 1, 1, 1));
                prop_assert_eq!(next, Some(at + 86_400));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = rfc3339(&text);
        }
    }
}
