//! The web face and `/metrics` of a node that runs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rialto_testnet::http::request;
use rialto_testnet::site::{Site, text};
use rialto_tests::stage::{Outcome, Stage};

/// One request over the node's own socket.
fn over_socket(site: &Site, path: &str) -> Outcome<String> {
    let mut stream = UnixStream::connect(site.directory().join("rialto.sock"))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: rialto\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn metrics_are_there_for_whoever_scrapes_them() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    uni.new_key("releases")?;
    stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let lab = stage.running("lab", &[&uni])?;
    uni.meets(&[&lab])?;

    let by_socket = over_socket(&uni, "/metrics")?;
    let by_tcp = request(uni.web()?, "GET", "/metrics", &[], "")?;
    assert_eq!(by_tcp.status, 200);
    assert!(by_tcp.header("content-type").is_some_and(|found| found.starts_with("application/openmetrics-text")));
    for text in [&by_socket, &by_tcp.body] {
        for line in ["rialto_peers 1", "rialto_records 1", "rialto_images 1", "rialto_policy_readable 1"] {
            assert!(text.lines().any(|found| found == line), "'{line}' is not in\n{text}");
        }
        for name in ["store_bytes", "store_free_bytes", "instances_running", "uptime_seconds", "uploaded_bytes_total"] {
            assert!(text.lines().any(|found| found.starts_with(&format!("rialto_{name} "))), "{name} in\n{text}");
        }
        assert!(text.trim_end().ends_with("# EOF"), "{text}");
    }
    uni.write_policy("nonsense")?;
    assert!(over_socket(&uni, "/metrics")?.lines().any(|line| line == "rialto_policy_readable 0"));
    Ok(())
}

#[test]
fn a_link_to_the_web_ui_works_once() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let web = uni.web()?;
    for path in ["/", "/api/v1/status", "/api/v1/releases"] {
        let answer = request(web, "GET", path, &[], "")?;
        assert!((300..500).contains(&answer.status), "{path} without a session: {}", answer.status);
        assert!(!answer.body.contains("peer_id"), "{}", answer.body);
    }

    let link = text(&uni.json(&["web"])?, "url")?;
    let path = link.strip_prefix(&format!("http://{web}")).unwrap_or_default();
    assert!(path.starts_with("/login?token="), "{link} is not at {web}");
    let entered = request(web, "GET", path, &[], "")?;
    assert!((300..400).contains(&entered.status), "{entered:?}");
    let cookie =
        entered.header("set-cookie").and_then(|cookie| cookie.split(';').next()).unwrap_or_default().to_owned();
    assert!(entered.header("set-cookie").is_some_and(|cookie| cookie.contains("HttpOnly")), "{entered:?}");

    let session = [("Cookie", cookie.as_str())];
    let status = request(web, "GET", "/api/v1/status", &session, "")?;
    assert_eq!(status.status, 200);
    let status: serde_json::Value = serde_json::from_str(&status.body)?;
    assert_eq!(status["peer_id"], uni.peer_id()?.as_str());
    let page = request(web, "GET", "/", &session, "")?;
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").is_some_and(|policy| !policy.contains("unsafe-inline")));

    let again = request(web, "GET", path, &[], "")?;
    assert!(again.status >= 400 && again.header("set-cookie").is_none(), "{again:?}");
    // A name that a stranger's page may have made to lead here.
    let rebound = [("Host", "evil.example:80"), ("Cookie", cookie.as_str())];
    assert!(request(web, "GET", "/api/v1/status", &rebound, "")?.status >= 400);
    // What changes something asks for more than a cookie.
    let crossing = [("Cookie", cookie.as_str()), ("Origin", "http://evil.example")];
    assert!(request(web, "POST", "/api/v1/fetch", &crossing, "{}")?.status >= 400);
    // And files of the node's machine are no business of a browser's.
    let origin = format!("http://{web}");
    let own = [("Cookie", cookie.as_str()), ("Origin", &origin), ("Content-Type", "application/json")];
    let adding = request(web, "POST", "/api/v1/images", &own, "{\"file\":\"/etc/passwd\"}")?;
    assert_eq!(adding.status, 403, "{adding:?}");
    assert_eq!(uni.status()?["images"], 0);
    Ok(())
}
