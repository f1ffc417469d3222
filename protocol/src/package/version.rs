//! Which of two versions comes first, by the rules of the ecosystem that they are of.

use std::cmp::Ordering;

/// How versions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As `dpkg` does (Debian Policy, 5.6.12): `debian-*`, `ubuntu-*`.
    Debian,
    /// Semantic Versioning 2.0: `cargo`, `npm`, `go`.
    Semantic,
}

impl Order {
    /// The order of an ecosystem, where it is one that is known here.
    pub fn of(ecosystem: &str) -> Option<Self> {
        match ecosystem {
            "cargo" | "npm" | "go" => Some(Self::Semantic),
            _ => match ecosystem.split('-').next() {
                Some("debian" | "ubuntu") => Some(Self::Debian),
                _ => None,
            },
        }
    }

    /// Whether `a` comes before `b`; `None` where one of them is no version of that form.
    pub fn is_before(self, a: &str, b: &str) -> Option<bool> {
        let order = match self {
            Self::Debian => compare_debian(a, b),
            Self::Semantic => compare_semantic(a, b),
        };
        order.map(Ordering::is_lt)
    }
}

/// Compares as `dpkg --compare-versions` does: epoch, upstream version, revision. `None` where one is no version.
pub fn compare_debian(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (Debian::parse(a)?, Debian::parse(b)?);
    let by_epoch = a.epoch.cmp(&b.epoch);
    Some(by_epoch.then_with(|| parts(a.upstream, b.upstream)).then_with(|| parts(a.revision, b.revision)))
}

struct Debian<'a> {
    epoch: u32,
    upstream: &'a [u8],
    revision: &'a [u8],
}

impl<'a> Debian<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) if epoch.bytes().all(|c| c.is_ascii_digit()) => (epoch.parse().ok()?, rest),
            Some(_) => return None,
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let fits = |text: &str, more: &[u8]| {
            text.bytes().all(|c| c.is_ascii_alphanumeric() || b".+~".contains(&c) || more.contains(&c))
        };
        let is_version = upstream.starts_with(|c: char| c.is_ascii_digit())
            && fits(upstream, b"-:")
            && fits(revision, b"")
            && !(rest.contains('-') && revision.is_empty());
        is_version.then_some(Self { epoch, upstream: upstream.as_bytes(), revision: revision.as_bytes() })
    }
}

/// Runs of other characters and runs of digits, in turn: letters before the rest, `~` before even the end, digits as numbers.
fn parts(mut a: &[u8], mut b: &[u8]) -> Ordering {
    fn weight(c: Option<&u8>) -> i32 {
        match c {
            None => 0,
            Some(c) if c.is_ascii_digit() => 0,
            Some(b'~') => -1,
            Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
            Some(c) => i32::from(*c) + 256,
        }
    }
    fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
        let digits = text.iter().take_while(|c| c.is_ascii_digit()).count();
        let (number, rest) = text.split_at(digits);
        *text = rest;
        &number[number.iter().take_while(|c| **c == b'0').count()..]
    }
    while !a.is_empty() || !b.is_empty() {
        while a.first().is_some_and(|c| !c.is_ascii_digit()) || b.first().is_some_and(|c| !c.is_ascii_digit()) {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order.is_ne() {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (one, other) = (number(&mut a), number(&mut b));
        let order = one.len().cmp(&other.len()).then_with(|| one.cmp(other));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Compares by the precedence of <https://semver.org>; a leading `v`, as Go writes it, is passed over. `None` where one is no
/// version of that form.
pub fn compare_semantic(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (Semantic::parse(a)?, Semantic::parse(b)?);
    let by_number = a.numbers.cmp(&b.numbers);
    Some(by_number.then_with(|| match (a.pre.is_empty(), b.pre.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.pre.cmp(&b.pre),
    }))
}

struct Semantic {
    numbers: [u64; 3],
    /// Numbers come before words, as they do in this enumeration.
    pre: Vec<Identifier>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Semantic {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        if build.is_some_and(|build| !build.split('.').all(is_word)) {
            return None;
        }
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let number = |text: &str| {
            let is_number = text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            is_number.then(|| text.parse::<u64>().ok()).flatten()
        };
        let numbers = core.split('.').map(number).collect::<Option<Vec<_>>>()?;
        let identifier = |word: &str| {
            if !is_word(word) {
                return None;
            }
            match word.bytes().all(|c| c.is_ascii_digit()) {
                true => number(word).map(Identifier::Number),
                false => Some(Identifier::Word(word.to_owned())),
            }
        };
        let pre = pre.map(|pre| pre.split('.').map(identifier).collect()).unwrap_or(Some(Vec::new()))?;
        Some(Self { numbers: numbers.try_into().ok()?, pre })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering::{Equal, Greater, Less};

    /// Each is what `dpkg --compare-versions` says of the two.
    #[test]
    fn debian_versions_are_ordered_as_dpkg_orders_them() {
        for (a, b, expected) in [
            ("1.0", "1.0", Equal),
            ("1.0", "1.1", Less),
            ("1.9", "1.10", Less),
            ("1.0-1", "1.0-2", Less),
            ("1.0", "1.0-1", Less),
            ("1.0-0", "1.0", Equal),
            ("1.0~rc1", "1.0", Less),
            ("1.0~rc1-1", "1.0-1", Less),
            ("1.0~~", "1.0~", Less),
            ("1.0~", "1.0", Less),
            ("1.0-1~bpo12+1", "1.0-1", Less),
            ("1.0-1+deb12u1", "1.0-1", Greater),
            ("1.0-1+b1", "1.0-1", Greater),
            ("3.0.11-1~deb12u2", "3.0.11-1~deb12u10", Less),
            ("1:0.1", "9.9", Greater),
            ("0:1.0", "1.0", Equal),
            ("2:1.0", "10:0.1", Less),
            ("1.0a", "1.0", Greater),
            ("1.0a", "1.0b", Less),
            ("1.0a", "1.0+", Less),
            ("1.0+git1", "1.0.1", Less),
            ("1.001", "1.1", Equal),
            ("1.0-1.1", "1.0-1", Greater),
            ("1-1-1", "1-1-2", Less),
            ("1.2.3", "1.2-3", Greater),
            ("99999999999999999999999", "100000000000000000000000", Less),
        ] {
            assert_eq!(compare_debian(a, b), Some(expected), "{a} {b}");
            assert_eq!(compare_debian(b, a), Some(expected.reverse()), "{b} {a}");
        }
        for bad in ["", "a1", "1.0 ", "1_0", "x:1", ":1", "1-", "-1", "99999999999:1", "1é"] {
            assert_eq!(compare_debian(bad, "1"), None, "{bad}");
        }
    }

    #[test]
    fn semantic_versions_are_ordered_as_their_specification_says() {
        let ascending = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ];
        for (at, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(compare_semantic(a, b), Some(at.cmp(&other)), "{a} {b}");
            }
        }
        assert_eq!(compare_semantic("v1.2.3", "1.2.3+build.7"), Some(Equal));
        for bad in
            ["", "1", "1.2", "1.2.3.4", "1.2.x", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3-a..b", "1.2.3+", "1.2.3 "]
        {
            assert_eq!(compare_semantic(bad, "1.0.0"), None, "{bad}");
        }
    }

    #[test]
    fn ecosystems_have_the_order_that_is_theirs() {
        assert_eq!(Order::of("debian-12"), Some(Order::Debian));
        assert_eq!(Order::of("npm"), Some(Order::Semantic));
        for unknown in ["pypi", "debianish-12", "alpine-3", "maven"] {
            assert_eq!(Order::of(unknown), None, "{unknown}");
        }
    }

    proptest! {
        #[test]
        fn each_order_is_an_order(
            a in "[0-9]([0-9a-c.+~:-]{0,8})", b in "[0-9]([0-9a-c.+~:-]{0,8})", c in "[0-9]([0-9a-c.+~:-]{0,8})",
        ) {
            for compare in [compare_debian, compare_semantic] {
                if let (Some(ab), Some(bc), Some(ac)) = (compare(&a, &b), compare(&b, &c), compare(&a, &c)) {
                    prop_assert_eq!(compare(&b, &a), Some(ab.reverse()));
                    prop_assert!(!(ab.is_le() && bc.is_le()) || ac.is_le());
                    prop_assert!(!(ab.is_eq() && bc.is_eq()) || ac.is_eq());
                }
                prop_assert!(compare(&a, &a).is_none_or(Ordering::is_eq));
            }
        }

        #[test]
        fn a_later_revision_is_later(version in "[0-9][0-9a-z.]{0,6}", revision in 0u32..1000, more in 1u32..1000) {
            let of = |revision: u32| format!("{version}-{revision}");
            prop_assert_eq!(compare_debian(&of(revision), &of(revision + more)), Some(Less));
            prop_assert_eq!(compare_debian(&format!("{version}~x-1"), &of(0)), Some(Less));
        }
    }
}
