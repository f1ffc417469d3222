//! The demo is a test: everything that it shows, it checks.

use std::process::Command;
use std::time::Duration;

use rialto_testnet::site::Rialto;
use rialto_testnet::wait::run_within;

/// Two guests under emulation and a debug build, on a machine that runs other tests as well.
const WITHIN: Duration = Duration::from_secs(280);

#[test]
fn the_demo_shows_what_it_promises_and_leaves_nothing_behind() {
    let rialto = Rialto::find().expect("the rialto binary");
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(rialto.path().with_file_name("rialto-testnet"));
    command.args(["demo", "--once"]).env("RIALTO_BIN", rialto.path()).env("TMPDIR", directory.path());

    let ended = run_within(&mut command, WITHIN).expect("the demo ends");

    let (stdout, stderr) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{}\n{stdout}\n{stderr}", ended.status);
    let last = stdout.lines().last().unwrap_or_default();
    let seconds = last.strip_prefix("demo: ready in ").and_then(|rest| rest.strip_suffix(" s"));
    assert!(seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok()), "the last line is {last:?}");
    let left: Vec<_> = directory.path().read_dir().expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
}
