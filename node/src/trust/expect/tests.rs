//! What a file of expectations may say, what each mistake in it is told, and that a case is judged as the same would be from
//! another site.

use proptest::prelude::*;
use rialto_protocol::record::{RevocationSubject, Severity};
use rialto_web::api::VerdictKind::{self, Accept, Hold, Reject};

use super::words;
use super::{Expectations, MAX_EXPECTATIONS_BYTES, Tried};
use crate::trust::testing::{DAY, NOW, Scene, endorsed, endorsement, openssh, public, revoked, signed, signed_by_some};
use crate::trust::words::Words;
use crate::trust::{Facts, Policy, PolicyError, evaluate};

fn parsed(text: &str, policy: &Policy) -> Expectations {
    Expectations::parse(text, policy).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Every case of a file, judged.
fn run(text: &str, policy: &Policy) -> Vec<Tried> {
    parsed(text, policy).run(NOW).unwrap()
}

/// One case with these lines.
fn one(lines: &str, policy: &Policy) -> Tried {
    run(&format!("[[case]]\nexpect = \"accept\"\n{lines}\n"), policy).remove(0)
}

fn error(text: &str, policy: &Policy) -> PolicyError {
    Expectations::parse(text, policy).map(|read| read.cases.len()).expect_err(text)
}

/// Reviewed releases of cern's.
fn reviewed(scene: &Scene) -> Policy {
    scene.policy("match = { publisher = \"cern\" }\nrequire = \"endorsed-by:reviewers\"\nthen = \"accept\"")
}

#[test]
fn a_case_is_as_expected_only_where_all_that_is_said_of_it_is_so() {
    let policy = reviewed(&Scene::default());
    let case = |lines: &str| run(&format!("[[case]]\npublisher = \"cern\"\n{lines}"), &policy).remove(0);
    for (lines, is_as_expected) in [
        ("expect = \"hold\"", true),
        ("expect = \"accept\"", false),
        ("expect = \"reject\"", false),
        ("expect = \"hold\"\nrule = \"workers\"", true),
        ("expect = \"hold\"\nrule = \"default\"", false),
        ("expect = \"hold\"\nrule = \"workers\"\nmissing = \"endorsed-by:reviewers\"", true),
        ("expect = \"hold\"\nmissing = [\"endorsed-by:reviewers\"]", true),
        ("expect = \"hold\"\nmissing = []", false),
        ("expect = \"accept\"\nendorsed-by = [\"desy\", \"kek\"]\nmissing = []", true),
        ("expect = \"accept\"\nendorsed-by = [\"desy\", \"kek\"]\nmissing = \"endorsed-by:reviewers\"", false),
        ("expect = \"reject\"\nrevoked-by = \"cern\"\nrule = \"revocation\"", true),
    ] {
        assert_eq!(case(lines).is_as_expected, is_as_expected, "{lines}");
    }
}

#[test]
fn reasons_are_in_the_words_of_the_file() {
    let scene = Scene::default();
    let tried = one(
        "publisher = \"cern\"\nendorsed-by = [\"~mallory\", \"desy\", { by = \"kek\", revoked = true }]",
        &reviewed(&scene),
    );
    assert_eq!(
        tried.requirements[0].because,
        "1 of 2 needed: endorsed by desy (endorsed-by 2); security has not endorsed it, kek's endorsement endorsed-by 3 \
         does not count: it was revoked (endorsed-by 3, taken back)"
    );
    let key = openssh(&public(&scene.mallory));
    for (publisher, called) in
        [("\"~mallory\"".to_owned(), "~mallory".to_owned()), (format!("{key:?}"), public(&scene.mallory).fingerprint())]
    {
        let because = one(&format!("publisher = {publisher}"), &reviewed(&scene)).because;
        assert!(because.contains(&format!("no name for its publisher, {called})")), "{because}");
    }
}

/// For each requirement: what a case must say of a release that it does not look at, and what meets it.
#[test]
fn what_is_left_out_is_not_there_and_meets_nothing() {
    const TESTED: &str = "https://rialto.example/predicate/tested/v1";
    let scene = Scene::default();
    let cases: &[(&str, &str, &str)] = &[
        ("signed-by:reviewers", "", "signed-by = [\"cern\", \"desy\", \"security\"]"),
        ("endorsed-by:reviewers", "", "endorsed-by = [\"desy\", \"security\"]"),
        ("endorsed-by:builders:https://rialto.example/predicate/tested/v1", "endorsed-by = \"cern\"", TESTED),
        ("not-revoked-by:reviewers", "revoked-by = [\"desy\", \"kek\"]", "revoked-by = \"desy\""),
        ("not-revoked-by:builders", "publisher = \"desy\"\nrevoked-by = \"cern\"", "revoked-by = \"desy\""),
        ("channel-fresh", "", "channel = \"fresh\""),
        (
            "channel-fresh:1d",
            "channel = { state = \"fresh\", age = \"2d\" }",
            "channel = { state = \"fresh\", age = \"1d\" }",
        ),
        ("max-age:1d", "age = \"25h\"", "age = \"24h\""),
        ("sbom", "", "sbom = \"named\""),
        ("max-size:1 GiB", "size = \"2 GiB\"", "size = \"1 GiB\""),
        ("max-memory:1 GiB", "memory = \"2 GiB\"", "memory = \"1 GiB\""),
        ("max-vcpus:2", "vcpus = 3", "vcpus = 2"),
        ("provenance", "", "provenance = true"),
        ("provenance", "", "provenance = \"cern\""),
        ("provenance:reviewers", "provenance = \"desy\"", "provenance = [\"desy\", \"kek\"]"),
        (
            "provenance:https://x.example/",
            "provenance = true",
            "provenance = { by = \"cern\", builder = \"https://x.example/\" }",
        ),
        (
            "provenance:https://x.example/",
            "provenance = \"cern\"",
            "provenance = { by = \"cern\", builder = \"https://x.example/\" }",
        ),
        ("rebuilt-by:1", "rebuilt-by = \"cern\"", "rebuilt-by = \"desy\""),
        ("rebuilt-by:1:reviewers", "endorsed-by = \"desy\"", "rebuilt-by = \"desy\""),
        ("no-advisory:high", "", "sbom = \"known\""),
        ("no-advisory:high", "sbom = \"named\"", "sbom = \"known\""),
        (
            "no-advisory:high",
            "sbom = \"known\"\nadvisories = { by = \"desy\", severity = \"critical\" }",
            "sbom = \"known\"\nadvisories = { by = \"desy\", severity = \"medium\" }",
        ),
        ("licence:MIT", "", "licence = \"MIT\""),
    ];
    for (requirement, without, with) in cases {
        let policy = scene.policy(&format!("require = \"{requirement}\"\nthen = \"accept\""));
        let publisher = if without.contains("publisher") { "" } else { "publisher = \"cern\"\n" };
        let tried = one(&format!("{publisher}{without}"), &policy);
        assert_eq!(tried.verdict, Hold, "{requirement} without it: {}", tried.because);
        assert_eq!(tried.missing().into_iter().collect::<Vec<_>>(), [*requirement]);
        let with = match *with {
            TESTED => "endorsed-by = { by = \"cern\", type = \"https://rialto.example/predicate/tested/v1\" }",
            with => with,
        };
        let tried = one(&format!("publisher = \"cern\"\n{with}"), &policy);
        assert_eq!(tried.verdict, Accept, "{requirement} with {with}: {}", tried.because);
    }
}

#[test]
fn every_state_of_a_channel_but_fresh_is_told_apart() {
    let policy = Scene::default().policy("require = \"channel-fresh\"\nthen = \"accept\"");
    for (state, says) in [
        ("frozen", "it is frozen"),
        ("elsewhere", "points at release another one"),
        ("rolled-back", "it was rolled back"),
        ("contradicted", "it contradicts itself"),
    ] {
        let tried = one(&format!("publisher = \"cern\"\nchannel = \"{state}\""), &policy);
        assert!(tried.verdict == Hold && tried.because.contains(says), "{state}: {}", tried.because);
    }
}

#[test]
fn what_is_given_holds_until_a_case_says_otherwise_or_takes_it_back() {
    let policy = Scene::default().policy(
        "match = { publisher = \"cern\", tags = \"stable\" }\nrequire = [\"endorsed-by:reviewers\", \"sbom\"]\nthen = \"accept\"",
    );
    let given =
        "[given]\npublisher = \"cern\"\ntags = \"stable\"\nendorsed-by = [\"desy\", \"kek\"]\nsbom = \"named\"\n";
    let cases = [
        ("", Accept),
        ("endorsed-by = \"desy\"", Hold),
        ("endorsed-by = []", Hold),
        ("endorsed-by = false", Hold),
        ("sbom = false", Hold),
        ("tags = [\"new\"]\nrule = \"default\"", Hold),
        ("publisher = false\nrule = \"default\"", Hold),
    ];
    let text: String = cases
        .iter()
        .map(|(lines, verdict)| format!("[[case]]\nexpect = \"{}\"\n{lines}\n", verdict.as_str()))
        .collect();
    for tried in run(&format!("{given}{text}"), &policy) {
        assert!(tried.is_as_expected, "{tried:?}");
    }
}

#[test]
fn rules_that_no_case_reached_are_named() {
    let scene = Scene::default();
    let rules = "\n[[rule]]\nname = \"a\"\nmatch = { publisher = \"cern\" }\nthen = \"accept\"\n[[rule]]\nname = \"b\"\nthen = \"hold\"\n";
    let policy = Policy::parse(&(scene.preamble() + rules)).unwrap();
    let expectations = parsed("[[case]]\nexpect = \"accept\"\npublisher = \"cern\"", &policy);
    let tried = expectations.run(NOW).unwrap();
    assert_eq!(expectations.idle_rules(&tried).collect::<Vec<_>>(), ["b"]);
}

/// Each line, in a case; what must be said of it; what is suggested.
#[test]
fn mistakes_are_explained_where_they_stand() {
    let policy = reviewed(&Scene::default());
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("publishr = \"cern\"", "there is no word `publishr` in [[case]]", Some("publisher")),
        ("endorsed_by = \"desy\"", "in [[case]]", Some("endorsed-by")),
        ("then = \"accept\"", "there is no word `then` in [[case]]", None),
        ("publisher = \"cren\"", "there is no signer `cren` in [signers] of the policy", Some("cern")),
        ("publisher = \"mallory\"", "is written with a tilde, as in \"~mallory\"", None),
        ("publisher = \"reviewers\"", "`reviewers` is a role", None),
        ("publisher = \"~\"", "", None),
        ("publisher = \"ssh-ed25519 AAAA\"", "not an OpenSSH key", None),
        ("publisher = \"-----BEGIN OPENSSH PRIVATE KEY-----\"", "this is a private key", None),
        ("publisher = 7", "expected a text in quotes as somebody, and found a number", None),
        ("name = \"Batch\"", "is not a name", None),
        ("version = \"\"", "", None),
        ("arch = \"amd64\"", "as `arch`", Some("x86_64")),
        ("tags = [\"Not A Tag\"]", "is not a name", None),
        ("size = \"much\"", "is not a size", None),
        ("memory = 7", "expected a text in quotes as `memory`", None),
        ("vcpus = \"2\"", "expected a whole number as `vcpus`, and found a text", None),
        ("vcpus = 0", "no number of processors", None),
        ("age = \"3\"", "is not a length of time", None),
        ("expired = true", "expected a text in quotes as `expired`", None),
        ("signed-by = []", "what nobody has signed is no record", None),
        ("endorsed-by = { by = \"desy\", predicate = \"x:y\" }", "in `endorsed-by`", None),
        ("endorsed-by = { by = \"desy\", tpye = \"x:y\" }", "in `endorsed-by`", Some("type")),
        ("endorsed-by = { by = \"desy\", type = \"tested\" }", "this is no URI", None),
        ("endorsed-by = { by = \"desy\", revoked = \"yes\" }", "expected true or false as `revoked`", None),
        ("endorsed-by = { type = \"x:y\" }", "`by` is missing in `endorsed-by`", None),
        ("rebuilt-by = { by = \"desy\", type = \"x:y\" }", "in `rebuilt-by`", None),
        ("provenance = { by = \"desy\", bilder = \"x:y\" }", "in `provenance`", Some("builder")),
        ("sbom = true", "expected a text in quotes as `sbom`", None),
        ("sbom = \"knwon\"", "as `sbom`", Some("known")),
        ("advisories = \"desy\"", "expected a table in `advisories`", None),
        ("advisories = { by = \"desy\" }", "an advisory has a `severity`", None),
        ("advisories = { by = \"desy\", severity = \"moderate\" }", "", Some("medium")),
        ("channel = \"frsh\"", "as the state of a channel", Some("fresh")),
        ("channel = { age = \"1d\" }", "a channel has a `state`", None),
        ("revoked-by = { by = \"desy\", subject = \"kye\" }", "as `subject`", Some("key")),
        ("expect = \"acept\"", "as `expect`", Some("accept")),
        ("rule = \"workrs\"", "there is no rule `workrs` in the policy", Some("workers")),
        ("missing = \"endorsed-by:reviewrs\"", "there is no requirement", Some("endorsed-by:reviewers")),
        ("title = \"\"", "one line of 1 to 100", None),
        ("title = \"a\\u202eb\"", "one line of 1 to 100", None),
    ];
    for (mistake, message, suggestion) in cases {
        let expect = if mistake.starts_with("expect =") { "" } else { "expect = \"hold\"" };
        let error = error(&format!("[[case]]\n{expect}\n# here:\n{mistake}\n"), &policy);
        assert!(error.message.contains(message), "{mistake}: {error}");
        assert_eq!(error.suggestion.as_deref(), *suggestion, "{mistake}: {error}");
        assert_eq!(error.line, 4, "{mistake}: {error}");
    }
}

#[test]
fn mistakes_of_the_file_are_explained_too() {
    let scene = Scene::default();
    let strict = scene.policy(
        "match = { name = \"batch-*\", arch = \"x86_64\", size = \"<= 1 GiB\" }\nrequire = [\"max-memory:1 GiB\", \"max-vcpus:2\"]\nthen = \"accept\"",
    );
    let cases: Vec<(String, usize, &str)> = vec![
        (String::new(), 1, "there is no [[case]]"),
        ("[given]\n".into(), 1, "there is no [[case]]"),
        ("case = []".into(), 1, "tries nothing"),
        ("[case]\nexpect = \"hold\"".into(), 1, "[[case]], with two brackets"),
        ("[[cases]]\n".into(), 1, "at the top of the file"),
        ("[given]\nexpect = \"hold\"\n".into(), 2, "in [given]"),
        ("[given]\nage = 3\n[[case]]\nexpect = \"hold\"\nage = \"3d\"\n".into(), 2, "as `age`"),
        ("\n[[case]]\ntitle = \"x\"".into(), 2, "'x' has no `expect`"),
        (
            "[[case]]\nexpect = \"hold\"\nname = \"a\"\narch = \"x86_64\"\nmemory = \"1 B\"\nvcpus = 1".into(),
            1,
            "does not say `size`",
        ),
        (
            "[[case]]\nexpect = \"hold\"\nname = \"a\"\narch = \"x86_64\"\nsize = \"1 B\"\nvcpus = 1".into(),
            1,
            "does not say `memory`",
        ),
        (
            "[[case]]\nexpect = \"hold\"\nname = \"a\"\narch = \"x86_64\"\nsize = \"1 B\"\nmemory = \"1 B\"".into(),
            1,
            "does not say `vcpus`",
        ),
        ("[[case]]\nexpect = \"hold\"\nname = \"a\"".into(), 1, "does not say `arch`"),
        ("[[case]]\nexpect = \"hold\"".into(), 1, "does not say `name`"),
        ("x".repeat(MAX_EXPECTATIONS_BYTES + 1), 1, "at most 262144 are read"),
        ("[[case".into(), 1, "this is not TOML"),
    ];
    for (text, line, message) in cases {
        let error = error(&text, &strict);
        assert!(error.message.contains(message), "{text:.200}: {error}");
        assert_eq!(error.line, line, "{text:.200}: {error}");
    }
    let policy = reviewed(&scene);
    let case = "[[case]]\nexpect = \"hold\"\n";
    let twice = error(&format!("{case}title = \"x\"\n{case}title = \"x\"\n"), &policy);
    assert!(twice.line == 6 && twice.message.contains("two cases are called 'x'"), "{twice}");
    parsed(&case.repeat(1_000), &policy);
    let many = error(&case.repeat(1_001), &policy);
    assert!(many.line == 2_001 && many.message.contains("at most 1000 cases"), "{many}");
    let listed = |count: usize| format!("{case}endorsed-by = {:?}", vec!["desy"; count]);
    parsed(&listed(15), &policy);
    assert!(error(&listed(16), &policy).message.contains("at most 15 are read in `endorsed-by`"));
    let signers: Vec<String> = (0..15).map(|number| format!("~s{number}")).collect();
    let tried = run(&format!("{case}publisher = \"cern\"\nsigned-by = {signers:?}"), &policy);
    assert_eq!(tried[0].rule, "default", "as many as can sign one record, its publisher not among them");
}

#[test]
fn a_case_may_say_all_that_can_be_given() {
    let said = words::CASE.known.iter().filter(|word| !["title", "expect", "rule", "missing"].contains(word));
    assert!(said.eq(words::FACTS.known));
}

/// Every word of the file, and every misspelling of it by a letter: an error, never nothing.
#[test]
fn no_misspelt_word_is_passed_over() {
    let policy = reviewed(&Scene::default());
    let text = include_str!("../../../policy/research-federation.expect.toml");
    let text = text.replace("lab", "desy").replace("observer", "kek").replace("rebuild\"", "security\"");
    let text = text
        .replace("\"uni\"", "\"cern\"")
        .lines()
        .filter(|line| !line.starts_with("missing") && !line.starts_with("rule"))
        .collect::<Vec<_>>()
        .join("\n");
    parsed(&text, &policy);
    let vocabularies: [&Words; 9] = [
        &words::TABLES,
        &words::CASE,
        &words::EXPECT,
        &words::ENDORSED,
        &words::REBUILT,
        &words::PROVENANCE,
        &words::SUBJECT,
        &words::CHANNEL,
        &words::STATE,
    ];
    let mut misspelt = 0;
    for word in vocabularies.iter().flat_map(|words| words.known) {
        for (at, _) in text.match_indices(word) {
            // Keys at the beginning of a line, keys of a table, and words in quotes; titles are free.
            let before = text[..at].chars().next_back();
            let after = text[at + word.len()..].trim_start_matches(' ').chars().next();
            let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let is_word = match (before, after) {
                (Some('\n' | '{' | '[' | ' '), Some('=' | ']')) => true,
                (Some('"'), Some('"')) => !text[line..].starts_with("title"),
                _ => false,
            };
            if !is_word || text[line..].starts_with('#') {
                continue;
            }
            for cut in 0..word.len() {
                let wrong = format!("{}{}{}{}", &text[..at], &word[..cut], &word[cut + 1..], &text[at + word.len()..]);
                assert!(
                    Expectations::parse(&wrong, &policy).is_err(),
                    "`{word}` without its letter {cut} at byte {at} is passed over"
                );
                misspelt += 1;
            }
        }
    }
    assert!(misspelt > 200, "only {misspelt} misspellings were tried");
}

/// What is imagined in a case, made of true keys instead.
#[derive(Debug, Clone)]
struct Imagined {
    /// Who: an index into the names below; days ago; expired; taken back.
    endorsements: Vec<(usize, u64, bool, bool)>,
    /// Who; the key rather than the release.
    revocations: Vec<(usize, bool)>,
    is_signed_by_publisher: bool,
    is_tagged: bool,
    days: u64,
}

fn imagined() -> impl Strategy<Value = Imagined> {
    (
        prop::collection::vec(
            (0usize..5, prop_oneof![Just(0u64), Just(89), Just(90), Just(91)], any::<bool>(), any::<bool>()),
            0..5,
        ),
        prop::collection::vec((0usize..5, any::<bool>()), 0..2),
        prop::bool::weighted(0.9),
        any::<bool>(),
        prop_oneof![Just(0u64), Just(30), Just(31)],
    )
        .prop_map(|(endorsements, revocations, is_signed_by_publisher, is_tagged, days)| Imagined {
            endorsements,
            revocations,
            is_signed_by_publisher,
            is_tagged,
            days,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A case comes to what the same records come to when those who are named have signed them with their own keys.
    #[test]
    fn stand_ins_are_judged_as_those_for_whom_they_stand(imagined in imagined()) {
        let scene = Scene::default();
        let policy = Policy::parse(&(scene.preamble() + r#"
[[rule]]
name = "broken"
match = { publisher = "cern", tags = "broken" }
then = "reject"
[[rule]]
name = "workers"
match = { publisher = "cern" }
require = ["endorsed-by:reviewers", "not-revoked-by:reviewers", "max-age:30d", "signed-by:builders"]
then = "accept"
"#)).unwrap();
        let people = [
            ("cern", &scene.cern), ("security", &scene.security_old), ("desy", &scene.desy), ("kek", &scene.kek), ("~mallory", &scene.mallory),
        ];

        let mut lines = format!("publisher = \"cern\"\ntags = [{}]\n", if imagined.is_tagged { "\"broken\"" } else { "" });
        if imagined.days > 0 {
            lines += &format!("age = \"{}d\"\n", imagined.days);
        }
        if !imagined.is_signed_by_publisher {
            lines += "signed-by = \"~mallory\"\n";
        }
        let endorsed_by: Vec<String> = imagined.endorsements.iter().map(|(who, days, has_expired, is_revoked)| {
            let age = if *days > 0 { format!(", age = \"{days}d\"") } else { String::new() };
            let expired = if *has_expired { ", expired = \"1d\"" } else { "" };
            format!("{{ by = \"{}\"{age}{expired}, revoked = {is_revoked} }}", people[*who].0)
        }).collect();
        lines += &format!("endorsed-by = [{}]\n", endorsed_by.join(", "));
        let revoked_by: Vec<String> = imagined.revocations.iter().map(|(who, is_of_key)| {
            format!("{{ by = \"{}\", subject = \"{}\" }}", people[*who].0, if *is_of_key { "key" } else { "release" })
        }).collect();
        lines += &format!("revoked-by = [{}]\n", revoked_by.join(", "));
        let tried = one(&lines, &policy);

        let body = scene.body(|release| {
            if imagined.is_tagged {
                release.tags = vec!["broken".try_into().unwrap()].try_into().unwrap();
            }
        });
        let keys = if imagined.is_signed_by_publisher { [&scene.cern] } else { [&scene.mallory] };
        let release = signed_by_some(&body, &[&scene.cern, &scene.mallory], &keys, NOW - imagined.days * DAY);
        let (mut endorsements, mut revocations) = (Vec::new(), Vec::new());
        for (who, days, has_expired, is_revoked) in &imagined.endorsements {
            let key = people[*who].1;
            let body = endorsement(release.id, |said| said.expires = has_expired.then_some(NOW - DAY));
            let record = signed(&body, &[key], NOW - days * DAY);
            if *is_revoked {
                revocations.push(revoked(RevocationSubject::Endorsement(record.id), key));
            }
            endorsements.push(record);
        }
        for (who, is_of_key) in &imagined.revocations {
            let subject = match is_of_key {
                true => RevocationSubject::Key(public(&scene.cern)),
                false => RevocationSubject::Release(release.id),
            };
            revocations.push(revoked(subject, people[*who].1));
        }
        let facts = Facts { endorsements: endorsements.iter().collect(), revocations: revocations.iter().collect(), ..Facts::default() };
        let verdict = evaluate(&policy, &release, &facts, NOW);

        prop_assert_eq!((tried.verdict, tried.rule.as_str()), (verdict.kind(), verdict.rule()), "{}\n{}", lines, verdict.because());
        let met = |outcomes: &[rialto_web::api::RequirementOutcome]| -> Vec<(String, bool)> {
            outcomes.iter().map(|outcome| (outcome.name.clone(), outcome.met)).collect()
        };
        prop_assert_eq!(met(&tried.requirements), met(verdict.requirements()));
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let policy = reviewed(&Scene::default());
        let _ = Expectations::parse(&text, &policy);
    }

    #[test]
    fn no_toml_like_text_panics(
        text in r#"(\[\[?(case|given|x)\]\]?\n|(publisher|name|expect|endorsed-by|channel|vcpus|missing|age|é) = (["'a-z0-9:,. \[\]{}=~-]{0,20}|\{ (by|age|state) = ["a-z~]{0,9} \}|\["?[a-z~]{0,5}"?\]|-?[0-9_]{1,30}|"(cern|desy|hold|fresh|1d)")\n){0,12}"#,
    ) {
        let policy = reviewed(&Scene::default());
        match Expectations::parse(&text, &policy) {
            Ok(read) => prop_assert!(read.run(NOW).is_ok()),
            Err(error) => prop_assert!(error.line >= 1 && error.column >= 1 && error.line <= text.matches('\n').count() + 1),
        }
    }
}

/// What has no other test here: severities are as they are written.
#[test]
fn severities_are_as_they_are_written() {
    let scene = Scene::default();
    let all = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    for least in all {
        let policy = scene.policy(&format!("require = \"no-advisory:{}\"\nthen = \"accept\"", least.as_str()));
        for said in all {
            let lines = format!(
                "publisher = \"cern\"\nsbom = \"known\"\nadvisories = {{ by = \"desy\", severity = \"{}\" }}",
                said.as_str()
            );
            let expected: VerdictKind = if said >= least { Hold } else { Accept };
            assert_eq!(one(&lines, &policy).verdict, expected, "{lines}");
        }
    }
}

/// A key of the policy can be named by itself, which tells two keys of one signer apart.
#[test]
fn a_signer_is_called_by_name_or_by_a_key() {
    let scene = Scene::default();
    let policy = scene.policy("match = { publisher = \"security\" }\nthen = \"accept\"");
    for key in [&scene.security, &scene.security_old] {
        let lines = format!("publisher = {:?}", openssh(&public(key)));
        assert_eq!(one(&lines, &policy).verdict, Accept);
        let lines = format!("{lines}\nrevoked-by = {{ by = \"security\", subject = \"key\" }}");
        assert_eq!(one(&lines, &policy).verdict, Reject, "by another key of the same signer");
    }
    let stranger = format!("publisher = {:?}", openssh(&public(&scene.mallory)));
    assert_eq!(one(&stranger, &policy).verdict, Hold);
    // The true records of these people do not count where stand-ins are judged, nor the other way round.
    let release = scene.release(|_| {});
    assert_eq!(evaluate(&policy, &endorsed(release.id, &scene.desy), &Facts::default(), NOW).kind(), Hold);
}
