//! The words of a file of expectations.

use crate::trust::words::Words;

pub(in crate::trust) const TABLES: Words =
    Words { place: "at the top of the file", known: &["given", "case"], planned: &[] };
/// Some words, then what can be said of a release, in `[given]` and in every case.
macro_rules! and_facts {
    ($($word:literal),*) => {
        &[
            $($word,)*
            "publisher",
            "name",
            "version",
            "arch",
            "tags",
            "size",
            "memory",
            "vcpus",
            "licence",
            "federation",
            "age",
            "expired",
            "signed-by",
            "endorsed-by",
            "rebuilt-by",
            "provenance",
            "sbom",
            "advisories",
            "channel",
            "revoked-by",
        ]
    };
}
pub(in crate::trust) const FACTS: Words = Words { place: "in [given]", known: and_facts!(), planned: &[] };
/// What is expected, then [`FACTS`].
pub(in crate::trust) const CASE: Words =
    Words { place: "in [[case]]", known: and_facts!("title", "expect", "rule", "missing"), planned: FACTS.planned };
pub(in crate::trust) const EXPECT: Words =
    Words { place: "as `expect`", known: &["accept", "hold", "reject"], planned: &[] };
pub(in crate::trust) const ENDORSED: Words =
    Words { place: "in `endorsed-by`", known: &["by", "type", "age", "expired", "revoked"], planned: &[] };
pub(in crate::trust) const REBUILT: Words =
    Words { place: "in `rebuilt-by`", known: &["by", "age", "expired", "revoked"], planned: &[] };
pub(in crate::trust) const PROVENANCE: Words =
    Words { place: "in `provenance`", known: &["by", "builder", "age", "expired", "revoked"], planned: &[] };
pub(in crate::trust) const ADVISORIES: Words =
    Words { place: "in `advisories`", known: &["by", "severity"], planned: &[] };
pub(in crate::trust) const REVOKED: Words = Words { place: "in `revoked-by`", known: &["by", "subject"], planned: &[] };
pub(in crate::trust) const SUBJECT: Words = Words { place: "as `subject`", known: &["release", "key"], planned: &[] };
pub(in crate::trust) const CHANNEL: Words = Words { place: "in `channel`", known: &["state", "age"], planned: &[] };
pub(in crate::trust) const STATE: Words = Words {
    place: "as the state of a channel",
    known: &["fresh", "frozen", "elsewhere", "rolled-back", "contradicted"],
    planned: &[],
};
pub(in crate::trust) const SBOM: Words = Words { place: "as `sbom`", known: &["named", "known"], planned: &[] };
