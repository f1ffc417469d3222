//! What is inside of a release, and whether an advisory bears on it.
//!
//! A bill of materials names packages ([`Bom`]), most of them by a [package URL](https://github.com/package-url/purl-spec), which
//! says what ecosystem they are of. An advisory names an ecosystem, a package and the first version without the flaw. Whether
//! the two meet is answered with [`Bearing::Yes`] where that is known, and with [`Bearing::Unknown`], which is no answer to build
//! trust on, wherever it is not: a version that cannot be compared, a distribution that is not said.

mod bom;
mod version;

pub use bom::{Bom, BomError, MAX_BOM_BYTES, MAX_PACKAGES};
pub use version::{Order, compare_debian, compare_semantic};

use crate::record::Advisory;

/// One package inside of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name, as its ecosystem has it.
    pub name: String,
    /// Its version, where that is said.
    pub version: Option<String>,
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// The source package that it was built from, where that has another name, or another version: `upstream` of its URL.
    pub source: Option<(String, Option<String>)>,
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ecosystem {
    /// `debian-12`, `cargo`: as advisories name them.
    Known(String),
    /// A distribution, of which it is not said which release.
    Some(&'static str),
    /// Not said, or of a kind that is not known here.
    Unknown,
}

/// Whether an advisory bears on a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearing {
    /// It has the flaw.
    Yes,
    /// It may have.
    Unknown(&'static str),
    /// It is another package, or a version without the flaw.
    No,
}

/// What advisories can be about, as [`Package::from_purl`] names it, but for the releases of distributions: `debian-12`,
/// `ubuntu-22.04`.
pub const ECOSYSTEMS: [&str; 6] = ["cargo", "go", "maven", "npm", "pypi", "rubygems"];
/// Distributions whose releases are ecosystems of their own.
const DISTRIBUTIONS: [(&str, &str); 2] = [("debian", "debian-12"), ("ubuntu", "ubuntu-22.04")];

/// Why an advisory could never be of use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Useless {
    /// No package is ever of this ecosystem.
    #[error(
        "no package is of an ecosystem '{0}'; they are debian-N, ubuntu-YY.MM, {list}",
        list = ECOSYSTEMS.join(", ")
    )]
    Ecosystem(String),
    /// The distribution is known, and its releases have another form.
    #[error("'{found}' is no release of {family} that packages are known by: write it as {example}")]
    Release {
        /// The distribution.
        family: &'static str,
        /// What was given.
        found: String,
        /// A release of it.
        example: &'static str,
    },
    /// A version that cannot be compared with any other.
    #[error("'{version}' is no version of the form that {ecosystem} has, so nothing could be compared with it")]
    Version {
        /// The version.
        version: String,
        /// The ecosystem.
        ecosystem: String,
    },
}

/// Whether an advisory can bear on anything: its ecosystem is one that packages are of, and where versions of that are
/// compared, it names one.
///
/// # Errors
/// Why it cannot.
pub fn is_of_use(ecosystem: &str, fixed: Option<&str>) -> Result<(), Useless> {
    let is_number = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    let family = DISTRIBUTIONS.iter().find(|(family, _)| is_of(ecosystem, family));
    let is_known = match family {
        Some((family, _)) => {
            let release = ecosystem.get(family.len() + 1..).unwrap_or_default();
            match *family {
                "debian" => is_number(release),
                _ => release.split_once('.').is_some_and(|(year, month)| is_number(year) && is_number(month)),
            }
        }
        None => ECOSYSTEMS.contains(&ecosystem),
    };
    match (is_known, family) {
        (true, _) => {}
        (false, Some((family, example))) => {
            return Err(Useless::Release { family, found: ecosystem.to_owned(), example });
        }
        (false, None) => return Err(Useless::Ecosystem(ecosystem.to_owned())),
    }
    let is_version =
        |version: &str| Order::of(ecosystem).is_none_or(|order| order.is_before(version, version).is_some());
    match fixed {
        Some(version) if !is_version(version) => {
            Err(Useless::Version { version: version.to_owned(), ecosystem: ecosystem.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Releases of Debian by the names that bills of materials give them.
const DEBIAN_RELEASES: [(&str, &str); 6] = [
    ("buster", "debian-10"),
    ("bullseye", "debian-11"),
    ("bookworm", "debian-12"),
    ("trixie", "debian-13"),
    ("forky", "debian-14"),
    ("duke", "debian-15"),
];

impl Package {
    /// A package that only its name and version are known of.
    pub fn unplaced(name: String, version: Option<String>) -> Self {
        Self { name, version, ecosystem: Ecosystem::Unknown, source: None }
    }

    /// Reads a package URL: `pkg:deb/debian/openssl@3.0.11-1~deb12u2?arch=amd64&distro=debian-12`. `None` where it is none.
    pub fn from_purl(purl: &str) -> Option<Self> {
        let rest = purl.strip_prefix("pkg:")?.trim_start_matches('/');
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (path, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, path) = path.split_once('/')?;
        // A namespace of npm begins with an escaped '@', so the last one begins the version.
        let (path, version) = match path.rsplit_once('@') {
            Some((path, version)) if !path.is_empty() => (path, Some(unescaped(version)?)),
            _ => (path, None),
        };
        let (namespace, name) = match path.trim_end_matches('/').rsplit_once('/') {
            Some((namespace, name)) => (Some(unescaped(namespace)?), unescaped(name)?),
            None => (None, unescaped(path)?),
        };
        if name.is_empty() {
            return None;
        }
        let qualifier = |wanted: &str| {
            let value = qualifiers.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == wanted);
            value.and_then(|(_, value)| unescaped(value))
        };
        let kind = kind.to_ascii_lowercase();
        let ecosystem = match kind.as_str() {
            "deb" => distribution(namespace.as_deref(), qualifier("distro").as_deref()),
            known @ ("cargo" | "npm" | "pypi") => Ecosystem::Known(known.into()),
            "golang" => Ecosystem::Known("go".into()),
            "gem" => Ecosystem::Known("rubygems".into()),
            "maven" => Ecosystem::Known("maven".into()),
            _ => Ecosystem::Unknown,
        };
        let name = match (kind.as_str(), namespace) {
            ("npm" | "golang", Some(namespace)) => format!("{namespace}/{name}"),
            ("maven", Some(namespace)) => format!("{namespace}:{name}"),
            _ => name,
        };
        let source = qualifier("upstream").map(|source| match source.split_once('@') {
            Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
            None => (source, None),
        });
        Some(Self { name, version, ecosystem, source })
    }

    /// The names that advisories can know it by: its own, and its source's.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [self.name.as_str()].into_iter().chain(self.source.iter().map(|(name, _)| name.as_str()))
    }

    /// Whether an advisory bears on it.
    pub fn is_hit_by(&self, advisory: &Advisory) -> Bearing {
        let version = match &self.source {
            Some((name, version)) if **name == *advisory.package => version.as_ref().or(self.version.as_ref()),
            _ if *self.name == *advisory.package => self.version.as_ref(),
            _ => return Bearing::No,
        };
        match &self.ecosystem {
            Ecosystem::Known(ecosystem) if **ecosystem != *advisory.ecosystem => return Bearing::No,
            Ecosystem::Some(family) if !is_of(&advisory.ecosystem, family) => return Bearing::No,
            Ecosystem::Unknown => return Bearing::Unknown("the bill of materials does not say where it comes from"),
            Ecosystem::Some(_) => {
                return Bearing::Unknown(
                    "the bill of materials does not say which release of its distribution it is of",
                );
            }
            Ecosystem::Known(_) => {}
        }
        let Some(fixed) = &advisory.fixed else { return Bearing::Yes };
        let Some(version) = version else {
            return Bearing::Unknown("the bill of materials does not say its version");
        };
        if **version == **fixed {
            return Bearing::No;
        }
        match Order::of(&advisory.ecosystem).map(|order| order.is_before(version, fixed)) {
            Some(Some(true)) => Bearing::Yes,
            Some(Some(false)) => Bearing::No,
            Some(None) => Bearing::Unknown("its version, or the one of the advisory, is not of its ecosystem's form"),
            None => Bearing::Unknown("versions of its ecosystem are not compared by this program"),
        }
    }
}

fn distribution(namespace: Option<&str>, distro: Option<&str>) -> Ecosystem {
    let distro = distro.unwrap_or_default();
    if let Some((_, release)) = DEBIAN_RELEASES.iter().find(|(name, _)| *name == distro) {
        return Ecosystem::Known((*release).to_owned());
    }
    match namespace {
        Some("debian") => match distro.strip_prefix("debian-") {
            // Point releases take the same updates.
            Some(release) if release.starts_with(|c: char| c.is_ascii_digit()) => {
                Ecosystem::Known(format!("debian-{}", release.split('.').next().unwrap_or_default()))
            }
            _ => Ecosystem::Some("debian"),
        },
        Some("ubuntu") if distro.starts_with("ubuntu-") => Ecosystem::Known(distro.to_owned()),
        Some("ubuntu") => Ecosystem::Some("ubuntu"),
        _ => Ecosystem::Unknown,
    }
}

/// Whether an ecosystem is a release of this distribution.
fn is_of(ecosystem: &str, family: &str) -> bool {
    ecosystem.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Undoes percent-encoding; `None` where it is not UTF-8.
fn unescaped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |c: Option<&u8>| c.and_then(|c| char::from(*c).to_digit(16));
        match (bytes[at], hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                plain.push(u8::try_from(high * 16 + low).ok()?);
                at += 3;
            }
            (byte, ..) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Severity;
    use proptest::prelude::*;

    fn advisory(ecosystem: &str, package: &str, fixed: Option<&str>) -> Advisory {
        Advisory {
            id: "CVE-1".try_into().unwrap(),
            ecosystem: ecosystem.try_into().unwrap(),
            package: package.try_into().unwrap(),
            fixed: fixed.map(|fixed| fixed.try_into().unwrap()),
            severity: Severity::High,
            summary: None,
        }
    }

    fn known(name: &str, version: &str, ecosystem: &str) -> Package {
        let ecosystem = Ecosystem::Known(ecosystem.into());
        Package { name: name.into(), version: Some(version.into()), ecosystem, source: None }
    }

    #[test]
    fn package_urls_are_read() {
        for (purl, package) in [
            (
                "pkg:deb/debian/openssl@3.0.11-1~deb12u2?arch=amd64&distro=debian-12",
                known("openssl", "3.0.11-1~deb12u2", "debian-12"),
            ),
            (
                "pkg:deb/debian/openssl@3.0.11-1%7Edeb12u2?distro=bookworm",
                known("openssl", "3.0.11-1~deb12u2", "debian-12"),
            ),
            ("pkg:deb/debian/g%2B%2B@4%3A12.2?distro=debian-12.5", known("g++", "4:12.2", "debian-12")),
            ("pkg:deb/ubuntu/bash@5.1-6ubuntu1?distro=ubuntu-22.04", known("bash", "5.1-6ubuntu1", "ubuntu-22.04")),
            ("pkg:cargo/serde@1.0.1", known("serde", "1.0.1", "cargo")),
            ("pkg:npm/%40scope/name@2.0.0", known("@scope/name", "2.0.0", "npm")),
            ("pkg:golang/github.com/a/b@v1.2.3#x/y", known("github.com/a/b", "v1.2.3", "go")),
            ("pkg:maven/org.a/b@1", known("org.a:b", "1", "maven")),
        ] {
            assert_eq!(Package::from_purl(purl), Some(package), "{purl}");
        }
        let unplaced = Package::from_purl("pkg:deb/debian/bash@5?arch=amd64").unwrap();
        assert_eq!(unplaced.ecosystem, Ecosystem::Some("debian"));
        assert_eq!(Package::from_purl("pkg:rpm/fedora/bash@5").unwrap().ecosystem, Ecosystem::Unknown);
        let built = Package::from_purl("pkg:deb/debian/libssl3@3.0.11-1?upstream=openssl&distro=debian-12").unwrap();
        assert_eq!(built.names().collect::<Vec<_>>(), ["libssl3", "openssl"]);
        for bad in ["", "pkg:", "pkg:deb", "deb/debian/x", "pkg:npm/", "pkg:cargo/%ff"] {
            assert_eq!(Package::from_purl(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_advisory_bears_on_versions_before_the_one_that_is_fixed() {
        use Bearing::{No, Unknown, Yes};
        let openssl = known("openssl", "3.0.11-1~deb12u2", "debian-12");
        let is = |package: &Package, ecosystem, name, fixed| match package.is_hit_by(&advisory(ecosystem, name, fixed))
        {
            Unknown(_) => Unknown(""),
            bearing => bearing,
        };
        for (ecosystem, package, fixed, expected) in [
            ("debian-12", "openssl", Some("3.0.11-1~deb12u3"), Yes),
            ("debian-12", "openssl", Some("3.0.11-1~deb12u2"), No),
            ("debian-12", "openssl", Some("3.0.11-1~deb12u1"), No),
            ("debian-12", "openssl", None, Yes),
            ("debian-12", "openssh", None, No),
            ("debian-11", "openssl", None, No),
            ("debian-12", "openssl", Some("not a version"), Unknown("")),
        ] {
            assert_eq!(is(&openssl, ecosystem, package, fixed), expected, "{ecosystem} {package} {fixed:?}");
        }
        let unplaced = Package::from_purl("pkg:deb/debian/openssl@3.0.11-1").unwrap();
        assert_eq!(is(&unplaced, "debian-11", "openssl", Some("1")), Unknown(""), "of which release, nobody knows");
        assert_eq!(is(&unplaced, "ubuntu-22.04", "openssl", None), No);
        assert_eq!(is(&Package::unplaced("openssl".into(), None), "npm", "openssl", None), Unknown(""));
        let unversioned = Package { version: None, ..openssl };
        assert_eq!(is(&unversioned, "debian-12", "openssl", None), Yes);
        assert_eq!(is(&unversioned, "debian-12", "openssl", Some("3")), Unknown(""));
        assert_eq!(is(&known("flask", "1.0", "pypi"), "pypi", "flask", Some("1.0.1")), Unknown(""));
        assert_eq!(is(&known("flask", "1.0", "pypi"), "pypi", "flask", Some("1.0")), No);
        let built =
            Package::from_purl("pkg:deb/debian/libssl3@1.0?upstream=openssl@3.0.11-1&distro=debian-12").unwrap();
        assert_eq!(is(&built, "debian-12", "openssl", Some("3.0.10-1")), No, "the source's own version");
        assert_eq!(is(&built, "debian-12", "openssl", Some("3.0.12-1")), Yes);
    }

    #[test]
    fn an_advisory_is_of_use_where_packages_can_be_of_its_ecosystem() {
        for (ecosystem, fixed) in [
            ("debian-12", Some("3.0.11-1~deb12u3")),
            ("ubuntu-22.04", None),
            ("cargo", Some("1.2.3")),
            ("go", Some("v1.2.3")),
            ("pypi", Some("whatever it is")),
        ] {
            assert_eq!(is_of_use(ecosystem, fixed), Ok(()), "{ecosystem}");
        }
        for (ecosystem, fixed, says) in [
            ("debian", None, "debian-12"),
            ("debian-12.5", None, "debian-12"),
            ("debian-bookworm", None, "debian-12"),
            ("ubuntu-22", None, "ubuntu-22.04"),
            ("debianish", None, "rubygems"),
            ("crates.io", None, "cargo"),
            ("debian-12", Some("openssl 3"), "no version"),
            ("npm", Some("1.2"), "no version"),
        ] {
            let error = is_of_use(ecosystem, fixed).unwrap_err().to_string();
            assert!(error.contains(says), "{ecosystem}: {error}");
        }
    }

    /// Whatever is read from a package URL, an advisory can be published about.
    #[test]
    fn every_ecosystem_of_a_package_url_is_one_of_advisories() {
        for purl in [
            "pkg:deb/debian/a@1?distro=debian-12",
            "pkg:deb/debian/a@1?distro=trixie",
            "pkg:deb/ubuntu/a@1?distro=ubuntu-24.04",
            "pkg:cargo/a@1.0.0",
            "pkg:npm/a@1.0.0",
            "pkg:pypi/a@1",
            "pkg:golang/a/b@v1.0.0",
            "pkg:gem/a@1",
            "pkg:maven/a/b@1",
        ] {
            let Some(Package { ecosystem: Ecosystem::Known(ecosystem), .. }) = Package::from_purl(purl) else {
                panic!("{purl}");
            };
            assert_eq!(is_of_use(&ecosystem, None), Ok(()), "{purl}");
        }
    }

    proptest! {
        #[test]
        fn no_url_panics(text in "pkg:[a-z]{0,5}/[%@a-z0-9/?&=#]{0,40}") {
            let _ = Package::from_purl(&text);
        }
    }
}
