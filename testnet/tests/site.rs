//! The harness that runs sites, against a program that stands in for `rialto`.

use std::path::Path;
use std::time::Duration;

use rialto_testnet::site::{Plan, Rialto, Site, SiteError};

fn site(base: &Path) -> Site {
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-in");
    Site::init(&Rialto::at(&stand_in).unwrap(), base, &Plan::new("uni", "demo")).unwrap()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_node_runs_from_start_to_stop_and_no_longer() {
    let base = tempfile::tempdir().unwrap();
    let mut uni = site(base.path());
    assert!(!uni.is_running());

    uni.start().unwrap();
    let first = uni.node_pid().unwrap();
    assert!(uni.is_running() && is_alive(first));
    uni.stop().unwrap();
    assert!(!uni.is_running() && !is_alive(first));

    uni.start().unwrap();
    let second = uni.node_pid().unwrap();
    uni.kill();
    assert!(!is_alive(second));

    uni.start().unwrap();
    let third = uni.node_pid().unwrap();
    drop(uni);
    assert!(!is_alive(third));
}

#[test]
fn a_site_is_set_up_to_listen_on_loopback() {
    let base = tempfile::tempdir().unwrap();
    let uni = site(base.path());
    let arguments = std::fs::read_to_string(uni.directory().join("arguments")).unwrap();
    assert_eq!(arguments.trim(), "init --name uni --federation demo --listen /ip4/127.0.0.1/tcp/0 --web 127.0.0.1:0");
    assert_eq!(uni.address().unwrap(), "/ip4/127.0.0.1/tcp/2/p2p/12D3");
    assert_eq!(uni.web().unwrap().port(), 5);
}

#[test]
fn a_node_that_does_not_come_up_is_an_error_with_its_log() {
    let base = tempfile::tempdir().unwrap();
    let mut uni = site(base.path());
    uni.set_environment("CASE", "dies");
    let error = uni.start().unwrap_err().to_string();
    assert!(error.contains("uni ended before it was ready") && error.contains("no port is free"), "{error}");
    assert!(!uni.is_running());
}

#[test]
fn a_node_that_does_not_listen_to_sigterm_is_killed_and_reported() {
    let base = tempfile::tempdir().unwrap();
    let mut uni = site(base.path());
    uni.set_environment("CASE", "stubborn");
    uni.start().unwrap();
    let pid = uni.node_pid().unwrap();
    let error = uni.stop_within(Duration::from_millis(300)).unwrap_err().to_string();
    assert!(error.contains("was killed"), "{error}");
    assert!(!is_alive(pid));
}

#[test]
fn commands_are_held_to_their_exit_codes() {
    let base = tempfile::tempdir().unwrap();
    let uni = site(base.path());
    assert_eq!(uni.json(&["status"]).unwrap()["peer_id"], "12D3");
    assert_eq!(uni.refused(&["fetch", "held"], 4).unwrap()["message"], "held");

    let error = uni.json(&["fetch", "held"]).unwrap_err();
    assert!(matches!(error, SiteError::Exit { expected: 0, .. }), "{error}");
    let error = uni.refused(&["status"], 4).unwrap_err();
    assert!(matches!(error, SiteError::Exit { expected: 4, .. }), "{error}");
    let error = uni.refused(&["dance"], 2).unwrap_err();
    assert!(matches!(error, SiteError::Output { .. }), "{error}");
    let error = uni.until(Duration::ZERO, "a dance", &["status"], |status| status["dances"] == true).unwrap_err();
    assert!(error.to_string().contains("uni: a dance") && error.to_string().contains("12D3"), "{error}");
}
