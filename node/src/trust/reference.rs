//! The reference of the policy language, and its worked examples: files beside it, which are tests.

/// The reference, in Markdown.
pub const REFERENCE: &str = include_str!("../../policy/reference.md");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ed25519_dalek::SigningKey;
    use rialto_protocol::bounded::{List, Name};
    use rialto_protocol::record::{PREDICATE_TESTED, Record, Release};
    use rialto_protocol::signed::Verified;
    use rialto_web::api::VerdictKind::{self, Accept, Hold, Reject};
    use sha2::{Digest as _, Sha256};

    use super::super::expect::words as expectations;
    use super::super::testing::{DAY, NOW, disk, endorsement, openssh, public, signed};
    use super::super::words::{
        ARCH, DEFAULT, MATCH, ON_REVOKE, OTHERWISE, REQUIREMENT, ROLE, RULE, SEVERITY, TABLES, THEN, UPDATE,
    };
    use super::super::{Expectations, Facts, Policy, evaluate};
    use super::REFERENCE;

    const CAUTIOUS: &str = include_str!("../../policy/cautious-site.toml");
    const FEDERATION: &str = include_str!("../../policy/research-federation.toml");
    const MIRROR: &str = include_str!("../../policy/mirror.toml");
    /// Each with what is expected of it.
    const EXPECTED: [(&str, &str); 3] = [
        (CAUTIOUS, include_str!("../../policy/cautious-site.expect.toml")),
        (FEDERATION, include_str!("../../policy/research-federation.expect.toml")),
        (MIRROR, include_str!("../../policy/mirror.expect.toml")),
    ];

    /// The keys of the examples are made of their names.
    fn key(name: &str) -> SigningKey {
        let seed = Sha256::digest(format!("an example of rialto's policy reference: {name}"));
        SigningKey::from_bytes(&seed.into())
    }

    fn release(publisher: &str, change: impl FnOnce(&mut Release)) -> Verified<Record> {
        let key = key(publisher);
        let (name, version) = (Name::try_from("batch-worker").unwrap(), "1".try_into().unwrap());
        let disks = List::try_from(vec![disk("root")]).unwrap();
        let mut release = Release::minimal(public(&key), name, version, disks, "Works".try_into().unwrap());
        change(&mut release);
        signed(&rialto_protocol::record::Body::Release(Box::new(release)), &[&key], NOW)
    }

    fn verdict(policy: &str, release: &Verified<Record>, facts: &Facts<'_>) -> (VerdictKind, String) {
        let policy = Policy::parse(policy).unwrap_or_else(|error| panic!("{error}"));
        let verdict = evaluate(&policy, release, facts, NOW);
        (verdict.kind(), verdict.rule().to_owned())
    }

    fn alone(policy: &str, release: &Verified<Record>) -> (VerdictKind, String) {
        verdict(policy, release, &Facts::default())
    }

    fn tags(words: &[&str]) -> List<Name, 16> {
        List::try_from(words.iter().map(|word| Name::try_from(*word).unwrap()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_word_of_the_file_is_in_the_reference() {
        let places =
            [TABLES, ROLE, RULE, MATCH, REQUIREMENT, SEVERITY, DEFAULT, THEN, OTHERWISE, ON_REVOKE, UPDATE, ARCH];
        let missing: Vec<&str> = places
            .iter()
            .flat_map(|words| words.known)
            .filter(|word| {
                let forms = [format!("`{word}`"), format!("`{word}:"), format!("[{word}]")];
                !forms.iter().any(|form| REFERENCE.contains(form))
            })
            .copied()
            .collect();
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn every_word_of_expectations_is_in_the_reference_and_in_an_example() {
        let places = [
            expectations::TABLES,
            expectations::CASE,
            expectations::EXPECT,
            expectations::ENDORSED,
            expectations::REBUILT,
            expectations::PROVENANCE,
            expectations::SBOM,
            expectations::ADVISORIES,
            expectations::REVOKED,
            expectations::SUBJECT,
            expectations::CHANNEL,
            expectations::STATE,
        ];
        let reference = &REFERENCE[REFERENCE.find("## Expectations").unwrap()..];
        let examples = EXPECTED.map(|(_, expected)| expected).concat();
        let words: BTreeSet<&str> = places.iter().flat_map(|words| words.known).copied().collect();
        let is_missing = |word: &&str| {
            let in_reference =
                [format!("`{word}`"), format!("[{word}]"), format!("`\"{word}\"`"), format!("`{word} =")];
            let in_examples = [format!("\n{word} "), format!("[{word}]"), format!("\"{word}\""), format!(" {word} = ")];
            !in_reference.iter().any(|form| reference.contains(form))
                || !in_examples.iter().any(|form| examples.contains(form))
        };
        // What an example says of a revocation without saying so.
        let unsaid = ["release"];
        assert_eq!(
            words.into_iter().filter(is_missing).filter(|word| !unsaid.contains(word)).collect::<Vec<_>>(),
            [""; 0]
        );
    }

    #[test]
    fn the_examples_do_what_is_expected_of_them_and_every_rule_is_tried() {
        for (policy, expected) in EXPECTED {
            let expectations = Expectations::parse(expected, &Policy::parse(policy).unwrap()).unwrap();
            let tried = expectations.run(NOW).unwrap();
            for tried in &tried {
                assert!(tried.is_as_expected, "{tried:?}");
            }
            assert_eq!(expectations.idle_rules(&tried).collect::<Vec<_>>(), [""; 0]);
        }
    }

    /// The example in the text, under the policy that the README has.
    #[test]
    fn the_example_of_expectations_in_the_reference_works() {
        let reference = &REFERENCE[REFERENCE.find("## Expectations").unwrap()..];
        let lines =
            reference.lines().skip_while(|line| !line.contains("[given]")).take_while(|line| !line.starts_with("Each"));
        let example: String = lines.map(|line| format!("{}\n", line.trim())).collect();
        let signers: String =
            ["uni", "lab", "security"].map(|name| format!("{name} = {:?}\n", openssh(&public(&key(name))))).concat();
        let policy = format!(
            "[signers]\n{signers}[roles]\nreviewers = {{ signers = [\"lab\", \"security\"], threshold = 2 }}\n\
             [[rule]]\nmatch = {{ publisher = \"uni\", name = \"batch-*\" }}\nrequire = \"endorsed-by:reviewers\"\nthen = \"accept\""
        );
        let tried = Expectations::parse(&example, &Policy::parse(&policy).unwrap()).unwrap().run(NOW).unwrap();
        assert!(tried.len() == 1 && tried[0].is_as_expected, "{tried:?}");
    }

    #[test]
    fn every_requirement_and_every_word_of_match_is_in_an_example() {
        let all = [CAUTIOUS, FEDERATION, MIRROR].concat();
        let is_there = |word: &&&str| all.contains(&format!("\"{word}")) || all.contains(&format!("{word} = "));
        let words = || REQUIREMENT.known.iter().chain(MATCH.known);
        assert_eq!(words().filter(|word| !is_there(word)).collect::<Vec<_>>(), [&""; 0]);
    }

    #[test]
    fn a_cautious_site_holds_until_all_is_known_and_rejects_what_it_does_not_want() {
        let plain = release("cern", |_| {});
        let policy = Policy::parse(CAUTIOUS).unwrap();
        let held = evaluate(&policy, &plain, &Facts::default(), NOW);
        assert_eq!((held.kind(), held.rule()), (Hold, "production workers"));
        let unmet: Vec<&str> =
            held.requirements().iter().filter(|outcome| !outcome.met).map(|outcome| outcome.name.as_str()).collect();
        assert_eq!(
            unmet,
            [
                "endorsed-by:reviewers",
                "channel-fresh:7d",
                "sbom",
                "no-advisory:high:alarm",
                "provenance:https://builder.example.org/",
                "licence:MIT|Apache-2.0|GPL-2.0-or-later|GPL-3.0-or-later",
            ]
        );
        assert_eq!(alone(CAUTIOUS, &release("cern", |r| r.tags = tags(&["demo"]))), (Reject, "no experiments".into()));
        assert_eq!(alone(CAUTIOUS, &release("desy", |_| {})), (Reject, "default".into()));
        assert_eq!(alone(CAUTIOUS, &release("mallory", |_| {})), (Reject, "default".into()));
    }

    #[test]
    fn a_research_federation_takes_what_was_tested_this_week() {
        let physics = || Some(Name::try_from("physics").unwrap());
        let plain = release("uni", |_| {});
        let tested = |age| {
            let said = endorsement(plain.id, |e| e.predicate = PREDICATE_TESTED.try_into().unwrap());
            signed(&said, &[&key("lab")], NOW - age)
        };
        for (age, federation, expected) in [
            (0, physics(), (Accept, "tested physics")),
            (8 * DAY, physics(), (Hold, "tested physics")),
            (0, Some("arts".try_into().unwrap()), (Hold, "default")),
        ] {
            let tested = tested(age);
            let facts = Facts { endorsements: vec![&tested], federation, ..Facts::default() };
            assert_eq!(verdict(FEDERATION, &plain, &facts), (expected.0, expected.1.to_owned()));
        }
        let reproducible = release("lab", |release| release.tags = tags(&["reproducible"]));
        assert_eq!(alone(FEDERATION, &reproducible), (Hold, "rebuilt to the same bits".into()));
    }

    #[test]
    fn a_mirror_accepts_nothing_whatever_is_said_of_it() {
        let large = |release: &mut Release| {
            let disk = rialto_protocol::record::Disk { bytes: 300 << 30, ..disk("root") };
            release.disks = List::try_from(vec![disk]).unwrap();
        };
        assert_eq!(alone(MIRROR, &release("uni", |_| {})), (Hold, "kept, not booted".into()));
        assert_eq!(alone(MIRROR, &release("lab", large)), (Reject, "too large to keep".into()));
        assert_eq!(alone(MIRROR, &release("mallory", |_| {})), (Reject, "default".into()));
    }
}
