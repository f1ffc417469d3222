//! What the command line says, word for word: transcripts in `tests/cli`, where `[..]` stands for what differs.
//!
//! `TRYCMD=overwrite` writes them anew; what then differs from run to run is to be replaced by `[..]` by hand.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rialto_testnet::site::Rialto;

fn rialto() -> Rialto {
    Rialto::find().expect("the rialto binary")
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(rialto().path());
    command.args(arguments).env("NO_COLOR", "1").output().expect("rialto runs")
}

#[test]
fn commands_say_what_their_transcripts_say() {
    trycmd::TestCases::new()
        .register_bin("rialto", rialto().path())
        .env("NO_COLOR", "1")
        .env("RIALTO_DIR", "")
        .env("XDG_STATE_HOME", "/nonexistent")
        .case("cli/*.md");
}

/// Words of DESIGN §7 that are not built yet: an error that says so, with the line, and never silence.
#[test]
fn each_planned_word_of_a_policy_is_refused_with_its_line() {
    let accept = "[[rule]]\nthen = \"accept\"\n";
    let rule = |line: &str| format!("{accept}{line}\n");
    let mut cases: Vec<(String, &str, usize)> = Vec::new();
    for word in ["lease", "class"] {
        cases.push((rule(&format!("{word} = \"x\"")), word, 3));
    }
    for word in ["channel", "component", "licence", "recipe", "requirements", "summary", "version"] {
        cases.push((rule(&format!("match = {{ {word} = \"x\" }}")), word, 3));
    }
    for word in ["on-revoke", "update"] {
        cases.push((format!("[default]\n{word} = \"x\"\n"), word, 2));
    }

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("policy.toml");
    for (policy, word, line) in cases {
        fs::write(&file, &policy).expect("the policy is written");
        let checked = run(&["policy", "check", file.to_str().expect("a path in UTF-8")]);
        let said = String::from_utf8_lossy(&checked.stderr);
        assert_eq!(checked.status.code(), Some(1), "{word}: {said}");
        assert!(said.contains("not supported yet") && said.contains(word), "{word}: {said}");
        assert!(said.contains(&format!("line {line}, ")), "{word}: {said}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let printed = run(&["completions", shell]);
        let script = String::from_utf8_lossy(&printed.stdout);
        assert!(printed.status.success() && printed.stderr.is_empty(), "{shell}");
        for word in ["deploy", "endorse", "completions", "held", "verify"] {
            assert!(script.contains(word), "{shell} completions do not know {word}");
        }
    }
}

/// What a shell makes of the script is what counts.
#[test]
fn bash_completes_a_command_and_its_options() {
    let script = run(&["completions", "bash"]).stdout;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rialto.bash");
    fs::write(&file, script).expect("the script is written");
    let complete = |words: &str, position: usize| {
        let program = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={position}; _rialto rialto \"${{COMP_WORDS[{position}]}}\" ''; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            Path::new(&file).display()
        );
        let ended = Command::new("bash").args(["--norc", "-c", &program]).output().expect("bash runs");
        String::from_utf8_lossy(&ended.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("rialto depl", 1), ["deploy"]);
    assert!(complete("rialto fetch --he", 2).contains(&"--held".to_owned()));
}
