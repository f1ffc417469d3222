//! The policy file that a new site starts with.

/// The text of a first `policy.toml`: it holds everything, and shows in comments how to let something in.
pub fn starter_policy(federation: &str, site: &str) -> String {
    // The names stand in a comment, which a line feed would end.
    let one_line = |text: &str| super::words::shown(text);
    TEMPLATE.replace("{federation}", &one_line(federation)).replace("{site}", &one_line(site))
}

const TEMPLATE: &str = r#"# What {site} accepts of what is published in the federation {federation}.
#
# A change of this file is in force within two seconds; `rialto policy check` reads it aloud, and
# `rialto policy explain RELEASE` says what it makes of one release. A word that is misspelt is an error, and while the
# file cannot be read, nothing is accepted.
#
# As it stands, everything is held: it can be looked at, and fetched with --held, but not deployed.

# Who makes statements, by your own names for them. A key is the one line of a .pub file (`rialto key show NAME`, or
# ssh-keygen -t ed25519). A signer who changed keys has a list of them, and counts once.
[signers]
# uni      = "ssh-ed25519 AAAA… uni"
# lab      = "ssh-ed25519 AAAA… lab"
# security = ["ssh-ed25519 AAAA… old", "ssh-ed25519 AAAA… new"]

# Who is relied on together, and how many of them it takes. With max-age (s, m, h, d, w), what they say counts for so
# long.
[roles]
# reviewers = { signers = ["lab", "security"], threshold = 1, max-age = "90d" }

# Rules are asked in order, and the first whose match fits decides: accept if all that it requires is met, otherwise
# hold (or reject). Match takes publisher, name (with * and ?), arch, tags, size and federation; what is left out fits
# everything. Require takes signed-by:ROLE, endorsed-by:ROLE, endorsed-by:ROLE:URI (that kind of statement only),
# channel-fresh, max-age:90d (of the release), sbom and more: `rialto policy reference` has every word, and examples.
#
# [[rule]]
# name      = "tested batch workers"
# match     = { publisher = ["uni"], name = "batch-*", arch = ["x86_64"] }
# require   = ["endorsed-by:reviewers"]
# then      = "accept"
# otherwise = "hold"
# on-revoke = "block-new"      # or "warn", "suspend", "stop": what happens to running instances; nothing new starts in any case
# update    = "propose"        # or "never", or "auto": what a channel moves to replaces the instances that follow it
#
# [[rule]]
# name  = "nothing experimental"
# match = { tags = ["experimental"] }
# then  = "reject"

# What becomes of a release that no rule fits.
[default]
then = "hold"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Policy;
    use crate::trust::testing::{key, openssh, public};

    #[test]
    fn the_first_policy_is_valid_and_holds_everything() {
        let policy = Policy::parse(&starter_policy("science", "shop")).unwrap();
        assert!(policy.summary().ends_with("Everything is held."), "{}", policy.summary());
        assert_eq!(Policy::parse(&starter_policy("a\n[rule]", "b\r\nthen = 1")).unwrap().named_keys().len(), 0);
    }

    /// The examples are to be uncommented, so they must work.
    #[test]
    fn the_examples_in_it_are_valid_too() {
        let is_example = |line: &str| line.starts_with("# [[") || (line.starts_with("# ") && line.contains(" = "));
        let mut text = starter_policy("science", "shop");
        text = text.lines().map(|line| if is_example(line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n");
        for (seed, shown) in [(1, "AAAA… uni"), (2, "AAAA… lab"), (3, "AAAA… old"), (4, "AAAA… new")] {
            text = text.replace(&format!("ssh-ed25519 {shown}"), &openssh(&public(&key(seed))));
        }
        let policy = Policy::parse(&text).unwrap();
        assert!(policy.summary().contains("tested batch workers"), "{}", policy.summary());
        assert_eq!(policy.named_keys().len(), 4);
    }
}
