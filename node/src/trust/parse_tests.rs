//! What the policy file may say, and what each mistake in it is told.

use proptest::prelude::*;

use super::policy::{MAX_POLICY_BYTES, OnRevoke, Policy, PolicyError, Requirement, Update};
use super::testing::{Scene, openssh, public};
use super::words;

/// A policy with every word that there is.
pub(super) fn every_word() -> String {
    let rules = r#"
[[rule]]
name = "nothing experimental"
match = { tags = ["experimental", "broken"] }
then = "reject"

[[rule]]
name = "production workers"
match = { publisher = ["cern"], name = "batch-*", arch = ["x86_64", "aarch64"] }
require = ["signed-by:builders", "endorsed-by:reviewers", "endorsed-by:reviewers:https://x.example/scanned/v1", "max-age:30d", "sbom"]
then = "accept"
otherwise = "reject"
on-revoke = "warn"
update = "never"

[[rule]]
match = { publisher = "desy" }
then = "hold"

[default]
then = "hold"
"#;
    Scene::default().preamble() + rules
}

fn error(text: &str) -> PolicyError {
    Policy::parse(text).map(|policy| policy.summary()).expect_err(text)
}

#[test]
fn every_word_is_read() {
    let policy = Policy::parse(&every_word()).unwrap();
    let rule = &policy.rules[1];
    assert_eq!(rule.require.len(), 5);
    assert_eq!((rule.on_revoke, rule.update), (OnRevoke::Warn, Update::Never));
    assert_eq!(policy.rules[2].name, "rule 3");
    assert_eq!((policy.rules[2].on_revoke, policy.rules[2].update), (OnRevoke::BlockNew, Update::Propose));
    let Requirement::EndorsedBy { role, predicate } = &rule.require[2] else { panic!("{:?}", rule.require) };
    assert_eq!((role.threshold, predicate.as_deref()), (2, Some("https://x.example/scanned/v1")));
    assert_eq!(policy.hash(), blake3::hash(every_word().as_bytes()).to_hex().as_str());

    let scene = Scene::default();
    let old = public(&scene.security_old);
    assert_eq!(policy.petname(&old).map(|name| &**name), Some("security"));
    assert_eq!(policy.keys("security"), Some([old, public(&scene.security)].as_slice()));
    assert_eq!(policy.keys("mallory"), None);
    assert!(policy.names(&old) && !policy.names(&public(&scene.mallory)));
    assert_eq!(policy.named_keys().len(), 5);
}

#[test]
fn it_reads_aloud() {
    let summary = Policy::parse(&every_word()).unwrap().summary();
    let expected = "\
Signers: cern, desy, kek, security (2 keys).
Role builders: cern.
Role reviewers: 2 of security, desy, kek; what they say counts for 90d.
1. nothing experimental: releases by anybody, tagged experimental or broken are rejected.
2. production workers: releases by cern, named batch-*, for x86_64 or aarch64 are accepted if they are signed by builders, \
and they are endorsed by reviewers, and they are endorsed by reviewers as https://x.example/scanned/v1, and they are at \
most 30d old, and they name an SBOM; otherwise rejected. On revocation: warn of running instances. Updates: never.
3. rule 3: releases by desy are held.
Everything else is held.";
    assert_eq!(summary, expected);
}

#[test]
fn what_lets_in_anybody_is_warned_of() {
    let summary = Policy::parse(
        "[[rule]]\nname = \"all\"\nrequire = \"sbom\"\nthen = \"accept\"\n[[rule]]\nthen = \"reject\"\n[default]\nthen = \"accept\"",
    )
    .unwrap()
    .summary();
    assert_eq!(summary.matches("Warning: ").count(), 3, "{summary}");
    assert!(summary.contains("'all' accepts releases of anybody"), "{summary}");
    assert!(summary.contains("'all' fits every release, so the rule after it never decide"), "{summary}");
}

#[test]
fn an_empty_policy_holds_everything() {
    for text in ["", "\n# nothing\n", "[signers]\n[roles]\n[default]\n"] {
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.summary(), "It names no signers.\nEverything is held.");
    }
}

/// Planned words must say so, in every place, with their line.
#[test]
fn words_to_come_say_that_they_are_not_supported_yet() {
    let rule = |line: &str| format!("{}\n[[rule]]\n{line}\nthen = \"accept\"\n", Scene::default().preamble());
    let at = rule("").lines().position(|line| line == "[[rule]]").unwrap() + 2;
    let mut lines = vec!["update = \"auto\"".to_owned()];
    lines.extend(["channel", "licence", "version", "recipe"].map(|word| format!("match = {{ {word} = \"x\" }}")));
    for line in lines {
        let error = error(&rule(&line));
        assert!(error.message.contains("is not supported yet"), "{line}: {error}");
        assert_eq!(error.line, at, "{line}: {error}");
    }
    let error = error("[default]\nthen = \"hold\"\nupdate = \"never\"");
    assert!(error.message.contains("not supported yet") && error.line == 3, "{error}");
}

/// Each line, in a rule; what must be said of it; what is suggested.
#[test]
fn mistakes_are_explained_where_they_stand() {
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("otherwse = \"hold\"", "there is no word `otherwse` in [[rule]]", Some("otherwise")),
        ("on_revoke = \"warn\"", "there is no word `on_revoke` in [[rule]]", Some("on-revoke")),
        ("colour = \"red\"", "there is `name`, `match`", None),
        ("otherwise = \"accept\"", "there is no word `accept` as `otherwise`", None),
        ("otherwise = \"rejct\"", "as `otherwise`", Some("reject")),
        ("on-revoke = \"block\"", "as `on-revoke`", Some("block-new")),
        ("update = true", "as `update`", None),
        ("match = { publishr = \"cern\" }", "in `match`", Some("publisher")),
        ("match = { publisher = \"cren\" }", "there is no signer `cren` in [signers]", Some("cern")),
        ("match = { publisher = \"reviewers\" }", "`reviewers` is a role, and `publisher` takes signers", None),
        ("match = { publisher = [] }", "is empty, and would fit nothing", None),
        ("match = { publisher = [\"cern\", 7] }", "expected a text in quotes as `publisher`, and found a number", None),
        ("match = { name = \"Batch-*\" }", "no name has the character 'B'", None),
        ("match = { arch = \"amd64\" }", "there is no word `amd64` as `arch`", Some("x86_64")),
        ("match = { tags = \"Not A Tag\" }", "is not a name", None),
        ("match = \"cern\"", "expected a table in `match`, and found a text", None),
        ("require = \"endorsed-by\"", "`endorsed-by` needs a role", None),
        ("require = \"endorsed-by:\"", "`endorsed-by` needs a role", None),
        ("require = \"endorsed-by:reviewrs\"", "there is no role `reviewrs` in [roles]", Some("reviewers")),
        ("require = \"endorsed-by:cern\"", "`cern` is a signer, not a role", None),
        ("require = \"endorsed-by:reviewers:\"", "the URI of a predicate", None),
        ("require = \"endorsed-by:reviewers:a b\"", "the URI of a predicate", None),
        ("require = \"signed-by:builders:x\"", "there is no role `builders:x`", Some("builders")),
        ("require = \"endorsd-by:reviewers\"", "there is no word `endorsd-by` in `require`", Some("endorsed-by")),
        ("require = \"sbom:spdx\"", "`sbom` stands alone", None),
        ("require = \"max-age\"", "`max-age` needs a length of time", None),
        ("require = \"max-age:90\"", "'90' is not a length of time", None),
        ("require = [\"sbom\", \"sbom\"]", "`sbom` is required twice", None),
        (
            "require = { endorsed-by = \"reviewers\" }",
            "expected a text in quotes, or a list of them in `require`, and found a table",
            None,
        ),
        ("name = \"default\"", "choose another", None),
        ("name = \"revocation\"", "choose another", None),
        ("name = \"none\"", "choose another", None),
        ("name = \" \"", "one line of 1 to 100", None),
        ("name = \"a\\nb\"", "one line of 1 to 100", None),
        ("name = \"a\\u202eb\"", "one line of 1 to 100", None),
        ("then = \"accept\"", "not TOML", None),
    ];
    let preamble = Scene::default().preamble();
    let line = preamble.lines().count() + 3;
    for (mistake, message, suggestion) in cases {
        let error = error(&format!("{preamble}\n[[rule]]\n{mistake}\nthen = \"accept\"\n"));
        assert!(error.message.contains(message), "{mistake}: {error}");
        assert_eq!(error.suggestion.as_deref(), *suggestion, "{mistake}: {error}");
        let is_at_repeated_key = message == &"not TOML";
        assert_eq!(error.line, line + usize::from(is_at_repeated_key), "{mistake}: {error}");
    }
}

#[test]
fn mistakes_outside_rules_are_explained_too() {
    let scene = Scene::default();
    let [cern, desy] = [&scene.cern, &scene.desy].map(|key| openssh(&public(key)));
    let role = |line: &str| format!("[signers]\ncern = \"{cern}\"\ndesy = \"{desy}\"\n[roles]\n{line}");
    let cases: Vec<(String, usize, &str, Option<&str>)> = vec![
        ("[signer]".into(), 1, "there is no word `signer` at the top of the file", Some("signers")),
        ("[[rules]]".into(), 1, "at the top of the file", Some("rule")),
        ("[rule]\nthen = \"hold\"".into(), 1, "[[rule]], with two brackets", None),
        ("[[rule]]\nname = \"x\"".into(), 1, "'x' has no `then`", None),
        (
            "[[rule]]\nthen = \"hold\"\nrequire = [\"sbom\"]".into(),
            3,
            "`require` goes with then = \"accept\" only",
            None,
        ),
        ("[[rule]]\nthen = \"reject\"\notherwise = \"hold\"".into(), 3, "`otherwise` goes with", None),
        (
            "[[rule]]\nthen = \"hold\"\nname = \"rule 2\"\n[[rule]]\nthen = \"hold\"".into(),
            4,
            "two rules are called",
            None,
        ),
        ("[[rule]]\nthen = \"allow\"".into(), 2, "as `then`", Some("accept")),
        ("[default]\nthen = \"acept\"".into(), 2, "as `then`", Some("accept")),
        ("[default]\nthan = \"hold\"".into(), 2, "in [default]", Some("then")),
        ("default = \"hold\"".into(), 1, "expected a table in [default], and found a text", None),
        ("signers = []".into(), 1, "expected a table in [signers], and found a list", None),
        ("[signers]\nCERN = \"x\"".into(), 2, "'CERN' is not a name", None),
        ("[signers]\ncern = \"x\"".into(), 2, "not an OpenSSH key", None),
        ("[signers]\ncern = []".into(), 2, "is empty", None),
        ("[signers]\ncern = 7".into(), 2, "found a number", None),
        ("[signers]\ncern = \"-----BEGIN OPENSSH PRIVATE KEY-----\"".into(), 2, "this is a private key", None),
        (format!("[signers]\ncern = \"\"\"{cern}\n{desy}\"\"\""), 2, "a key is one line", None),
        (format!("[signers]\ncern = \"{cern}\"\ndesy = [\"{cern}\"]"), 3, "this key is also `cern`", None),
        (format!("[signers]\ncern = [\n\"{cern}\",\n\"{cern} again\"]"), 4, "stands under `cern` twice", None),
        (role("r = { signers = [\"cern\", \"dsy\"] }"), 5, "there is no signer `dsy`", Some("desy")),
        (role("r = { signers = [\"cern\", \"cern\"] }"), 5, "listed twice", None),
        (role("r = { signers = [] }"), 5, "is empty", None),
        (role("r = { threshold = 1 }"), 5, "has no `signers`", None),
        (role("r = { signers = \"cern\", threshold = 0 }"), 5, "must be from 1 to 1", None),
        (role("r = { signers = [\"cern\", \"desy\"], threshold = 3 }"), 5, "must be from 1 to 2", None),
        (role("r = { signers = \"cern\", threshold = -1 }"), 5, "must be from 1 to 1", None),
        (
            role("r = { signers = \"cern\", threshold = \"1\" }"),
            5,
            "expected a whole number as `threshold`, and found a text",
            None,
        ),
        (role("r = { signers = \"cern\", threshold = 99999999999999999999999 }"), 5, "must be from 1 to 1", None),
        (role("r = { signers = \"cern\", treshold = 1 }"), 5, "in a role", Some("threshold")),
        (role("r = { signers = \"cern\", max-age = \"0d\" }"), 5, "no time at all", None),
        (
            role("r = { signers = \"cern\", max-age = 90 }"),
            5,
            "expected a text in quotes as `max-age`, and found a number",
            None,
        ),
        ("[roles]\nr = { signers = \"cern\" }".into(), 2, "and there is none", None),
        ("[signers\n".into(), 1, "this is not TOML", None),
        ("x".repeat(MAX_POLICY_BYTES + 1), 1, "at most 1048576 are read", None),
    ];
    for (text, line, message, suggestion) in cases {
        let error = error(&text);
        assert!(error.message.contains(message), "{text:.200}: {error}");
        assert_eq!(error.suggestion.as_deref(), suggestion, "{text:.200}: {error}");
        assert_eq!(error.line, line, "{text:.200}: {error}");
    }
}

#[test]
fn other_kinds_of_key_and_damaged_ones_are_refused() {
    let keys = [
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQC7", "not an OpenSSH key"),
        ("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY=", "not an OpenSSH key"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "could sign anything"),
        ("ssh-ed25519", "not an OpenSSH key"),
    ];
    for (key, message) in keys {
        let error = error(&format!("[signers]\ncern = \"{key}\""));
        assert!(error.message.contains(message), "{key}: {error}");
        assert!(
            key.split(' ').nth(1).is_none_or(|bytes| !error.to_string().contains(bytes)),
            "no key text in a message: {error}"
        );
    }
}

#[test]
fn columns_count_characters_and_the_first_mistake_of_a_table_is_the_one_reported() {
    let error = error("# ü\n[default]\n\"thén\" = 1\nzzz = 2\naaa = 3\n");
    assert_eq!((error.line, error.column), (3, 1), "{error}");
    let found = self::error("[[rule]]\nthen = \"accept\"\nmatch = { tags = \"ü\", foo = 1 }");
    assert_eq!((found.line, found.column), (3, 23), "{found}");
    assert_eq!(
        Policy::parse("[defalt]").unwrap_err().to_string(),
        "line 1, column 2: there is no word `defalt` at the top of the file; did you mean `default`?"
    );
}

/// Every word of the file, and every misspelling of it by a letter: an error, never nothing.
#[test]
fn no_misspelt_word_is_passed_over() {
    let text = every_word();
    Policy::parse(&text).unwrap();
    let vocabularies = [
        &words::TABLES,
        &words::ROLE,
        &words::RULE,
        &words::MATCH,
        &words::REQUIREMENT,
        &words::THEN,
        &words::ON_REVOKE,
        &words::UPDATE,
        &words::ARCH,
    ];
    let start = text.find("[roles]").unwrap();
    let mut misspelt = 0;
    for word in vocabularies.iter().flat_map(|words| words.known) {
        for (at, _) in text.match_indices(word).filter(|(at, _)| *at >= start) {
            let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            let is_whole = !text[..at].ends_with(is_letter) && !text[at + word.len()..].starts_with(is_letter);
            if !is_whole {
                continue;
            }
            for cut in 0..word.len() {
                let wrong = format!("{}{}{}", &word[..cut], &word[cut + 1..], &text[at + word.len()..]);
                let wrong = format!("{}{wrong}", &text[..at]);
                assert!(
                    Policy::parse(&wrong).is_err(),
                    "`{word}` without its letter {cut} at byte {at} is passed over"
                );
                misspelt += 1;
            }
        }
    }
    assert!(misspelt > 200, "only {misspelt} misspellings were tried");
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn no_toml_like_text_panics(
        text in r#"(\[\[?(rule|signers|roles|default|x)\]\]?\n|(name|match|require|then|signers|threshold|é) = (["'a-z0-9:,. \[\]{}=-]{0,20}|\{ [a-z]{1,9} = \["?[a-z*]{0,5}"?\] \}|-?[0-9_]{1,30}|"[^"]{0,12}")\n){0,12}"#,
    ) {
        if let Err(error) = Policy::parse(&text) {
            prop_assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1);
            prop_assert!(error.column >= 1);
        }
    }

    /// What an editor, a merge or a bad disk makes of a valid file.
    #[test]
    fn no_damaged_policy_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), ".{0,3}"), 1..6)) {
        let mut text: Vec<char> = every_word().chars().collect();
        for (from, to, insert) in edits {
            let (a, b) = (from.index(text.len() + 1), to.index(text.len() + 1));
            text.splice(a.min(b)..a.max(b).min(a.min(b) + 40), insert.chars()).for_each(drop);
        }
        let _ = Policy::parse(&text.into_iter().collect::<String>());
    }
}
