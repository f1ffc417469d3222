//! Keys that the node cannot use by itself: with a passphrase, or in a real ssh-agent. The real `ssh-keygen`, `ssh-agent`
//! and `ssh-add` make them and hold them.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rialto_testnet::site::{SOON, Site, text};
use rialto_testnet::wait::{eventually, run_within};
use rialto_tests::stage::{Outcome, Stage, accepting, shown};

const PASSPHRASE: &str = "what news on the Rialto";

fn ssh_keygen(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new("ssh-keygen").args(arguments).stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => panic!("ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// A new key by `ssh-keygen`; its public half.
fn made_by_openssh(path: &Path, passphrase: &str, comment: &str) -> Outcome<String> {
    ssh_keygen(&["-q", "-t", "ed25519", "-N", passphrase, "-C", comment, "-f", &shown(path)])?;
    Ok(fs::read_to_string(path.with_extension("pub"))?.trim().to_owned())
}

/// Type and key of a public key's line, without its comment.
fn without_comment(line: &str) -> String {
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// The command in a session of its own, without the terminal that whoever runs the tests may sit at.
fn without_terminal(site: &Site, arguments: &[&str]) -> Command {
    let command = site.command(arguments);
    let mut alone = Command::new("setsid");
    alone.arg("--wait").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    alone
}

/// An ssh-agent that ends with the test.
struct RealAgent {
    child: Child,
    socket: PathBuf,
}

impl RealAgent {
    fn start(directory: &Path) -> Outcome<Self> {
        let socket = directory.join("agent.sock");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let agent = Self { child, socket };
        eventually(SOON, "the agent's socket", || if agent.socket.exists() { Ok(()) } else { Err("there is none") })?;
        Ok(agent)
    }

    fn ssh_add(&self, arguments: &[&str]) -> Outcome<String> {
        let output =
            Command::new("ssh-add").args(arguments).env("SSH_AUTH_SOCK", &self.socket).stdin(Stdio::null()).output()?;
        assert!(output.status.success(), "ssh-add {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pseudo-terminal with a command in it, through script(1).
struct Terminal {
    script: Child,
    seen: Vec<u8>,
}

impl Terminal {
    fn start(command: &Command) -> Outcome<Self> {
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
        let line: Vec<String> = [command.get_program()].into_iter().chain(command.get_args()).map(quoted).collect();
        let script = Command::new("script")
            .args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { script, seen: Vec::new() })
    }

    /// Types a line, once the terminal shows these words after what it showed before.
    fn answer(&mut self, words: &str, line: &str) -> Outcome {
        let from = self.seen.len();
        let mut byte = [0];
        let output = self.script.stdout.as_mut().expect("its output");
        while !String::from_utf8_lossy(&self.seen[from..]).contains(words) {
            match output.read(&mut byte)? {
                0 => panic!("no '{words}' in {}", String::from_utf8_lossy(&self.seen)),
                _ => self.seen.push(byte[0]),
            }
        }
        Ok(self.script.stdin.as_mut().expect("its input").write_all(format!("{line}\n").as_bytes())?)
    }

    /// All that it showed, and whether the command did what it should.
    fn end(mut self) -> Outcome<(String, bool)> {
        self.script.stdout.as_mut().expect("its output").read_to_end(&mut self.seen)?;
        let is_done = self.script.wait()?.success();
        Ok((String::from_utf8_lossy(&self.seen).into_owned(), is_done))
    }
}

#[test]
fn keys_with_a_passphrase_sign_for_who_knows_it() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let theirs = uni.directory().join("keys/theirs");
    let key = made_by_openssh(&theirs, PASSPHRASE, "made by openssh")?;
    uni.write_policy(&accepting(&key))?;
    let description = stage.description("hello", "1.0.0", b"a disk that boots nothing")?;
    let publish: &[&str] = &["publish", &description, "--key", "theirs", "--json"];

    // A script without the passphrase is told what to do, and so is one with the wrong passphrase.
    let alone = run_within(&mut without_terminal(&uni, publish), SOON)?;
    assert!(!alone.status.success());
    let complaint = String::from_utf8(alone.stderr)?;
    assert!(complaint.contains("RIALTO_PASSPHRASE_FILE") && complaint.contains("no terminal"), "{complaint}");
    let file = stage.file("passphrase", "something else\n")?;
    uni.set_environment("RIALTO_PASSPHRASE_FILE", &shown(&file));
    let refused = uni.refused(&["publish", &description, "--key", "theirs"], 1)?;
    assert!(text(&refused, "message")?.starts_with("that is not the passphrase of"), "{refused}");

    fs::write(&file, format!("{PASSPHRASE}\nand what else the file says\n"))?;
    let release = text(&uni.json(&["publish", &description, "--key", "theirs"])?, "release")?;
    uni.verdict(&release, "accept")?;
    uni.json(&["endorse", &release, "--key", &shown(&theirs), "--type", "https://example.org/seen/v1"])?;

    // A head is signed once; the node says that it cannot go on by itself, and an open key that acts for it can.
    let set: &[&str] = &["channel", "set", "theirs/hello", "stable", &release];
    let finished = uni.rialto(&[set, &["--key", "theirs"]].concat())?;
    assert!(finished.expect(0)?.stderr.contains("rialto delegate"), "{finished}");
    uni.new_key("online")?;
    uni.json(&["delegate", "online", "--key", "theirs"])?;
    let open = uni.rialto(&[set, &["--key", "online"]].concat())?;
    assert!(!open.expect(0)?.stderr.contains("rialto delegate"), "{open}");

    // What rialto makes, OpenSSH reads; and a key is never made twice.
    let made = text(&uni.json(&["key", "new", "ours", "--passphrase"])?, "public_key")?;
    let read = ssh_keygen(&["-y", "-P", PASSPHRASE, "-f", &shown(&uni.directory().join("keys/ours"))])?;
    assert_eq!(without_comment(&read), without_comment(&made));
    uni.refused(&["key", "new", "ours", "--passphrase"], 1)?;
    uni.refused(&["key", "new", "site", "--passphrase"], 2)?;
    uni.json(&["revoke", &release, "--key", "ours", "--reason", "an opinion"])?;
    let revoked = uni.json(&["revoke", &release, "--key", "theirs", "--reason", "a hole"])?;
    assert!(revoked["record"].is_string());
    uni.verdict(&release, "reject")?;
    Ok(())
}

#[test]
fn a_passphrase_is_asked_for_on_the_terminal_and_not_shown() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let mut making = Terminal::start(&uni.command(&["key", "new", "mine", "--passphrase"]))?;
    making.answer("Passphrase for key 'mine':", PASSPHRASE)?;
    making.answer("The same again:", PASSPHRASE)?;
    let (shown_there, is_done) = making.end()?;
    assert!(is_done && shown_there.contains("ssh-ed25519 ") && !shown_there.contains(PASSPHRASE), "{shown_there}");

    let mut differing = Terminal::start(&uni.command(&["key", "new", "other", "--passphrase"]))?;
    differing.answer("Passphrase for", PASSPHRASE)?;
    differing.answer("again:", "something else")?;
    let (shown_there, is_done) = differing.end()?;
    assert!(!is_done && shown_there.contains("differ"), "{shown_there}");
    assert!(!uni.directory().join("keys/other").exists());

    // A slip is forgiven.
    let description = stage.description("hello", "1.0.0", b"a disk that boots nothing")?;
    let mut publishing = Terminal::start(&uni.command(&["publish", &description, "--key", "mine"]))?;
    publishing.answer("Passphrase of keys/mine:", "a slip")?;
    publishing.answer("Passphrase of keys/mine:", PASSPHRASE)?;
    let (shown_there, is_done) = publishing.end()?;
    assert!(is_done && shown_there.contains("baf") && !shown_there.contains(PASSPHRASE), "{shown_there}");
    Ok(())
}

#[test]
fn an_ssh_agent_signs_and_the_private_key_never_comes_to_the_node() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let agent = RealAgent::start(stage.path())?;
    let file = stage.path().join("root-key");
    let key = made_by_openssh(&file, "", "root@offline")?;
    agent.ssh_add(&["-q", &shown(&file)])?;
    // The agent alone has it from here.
    fs::remove_file(&file)?;
    uni.write_policy(&accepting(&key))?;
    let description = stage.description("hello", "1.0.0", b"a disk that boots nothing")?;

    let none = uni.refused(&["publish", &description, "--key", "agent:root@offline"], 1)?;
    assert!(text(&none, "message")?.contains("SSH_AUTH_SOCK"), "{none}");
    uni.set_environment("SSH_AUTH_SOCK", &shown(&agent.socket));
    let unknown = uni.refused(&["publish", &description, "--key", "agent:nobody"], 3)?;
    assert!(text(&unknown, "hint")?.contains("root@offline"), "{unknown}");

    // By what ssh-add calls it, by its fingerprint, by its public half in a file and in keys/.
    let release = text(&uni.json(&["publish", &description, "--key", "agent:root@offline"])?, "release")?;
    uni.verdict(&release, "accept")?;
    let listed = agent.ssh_add(&["-l"])?;
    let fingerprint = listed.split_whitespace().nth(1).expect("a fingerprint");
    uni.json(&["endorse", &release, "--key", &format!("agent:{fingerprint}")])?;
    fs::write(uni.directory().join("keys/root.pub"), format!("{key}\n"))?;
    uni.json(&["channel", "set", "root/hello", "stable", &release, "--key", "root"])?;
    uni.new_key("online")?;
    uni.json(&["delegate", "online", "--key", &shown(&file.with_extension("pub"))])?;
    uni.json(&["channel", "set", "root/hello", "stable", &release, "--key", "online"])?;
    uni.new_key("next")?;
    let rotated = uni.json(&["key", "rotate", "online", "next", "--key", "agent:root"])?;
    assert_eq!(rotated["channels"].as_array().map(Vec::len), Some(1), "{rotated}");

    // A locked agent has no keys to show; one that is gone does not answer. The node has nothing to sign with.
    agent.ssh_add(&["-D", "-q"]).ok();
    let gone = uni.refused(&["revoke", &release, "--key", "root", "--reason", "x"], 1)?;
    assert!(text(&gone, "message")?.contains("does not have the private half"), "{gone}");
    drop(agent);
    let gone = uni.refused(&["revoke", &release, "--key", "root", "--reason", "x"], 1)?;
    assert!(text(&gone, "message")?.contains("does not answer"), "{gone}");
    uni.verdict(&release, "accept")?;
    let names: Vec<OsString> = fs::read_dir(uni.directory().join("keys"))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    assert!(!names.contains(&OsString::from("root")), "{names:?}");
    Ok(())
}
