//! The faces from outside: real listeners, a plain HTTP client, and a node that exists in memory only.

mod fake;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fake::{Fake, image, record};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rialto_web::api::*;
use rialto_web::{MAX_BODY_BYTES, Sessions, serve_tcp, serve_unix};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Nothing here takes this long; a test that waits for an event gives up after it.
const DEADLINE: Duration = Duration::from_secs(20);

/// One node with both listeners.
struct Site {
    node: Arc<Fake>,
    port: u16,
    sessions: Sessions,
    directory: tempfile::TempDir,
    shutdown: CancellationToken,
    _end: DropGuard,
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn error(&self) -> ApiError {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} is no ApiError: {error}: {}", self.status, self.text()))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl Site {
    async fn start(mut node: Fake) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("s")).unwrap();
        let sessions = Sessions::new().unwrap();
        node.sessions = Some((sessions.clone(), port));
        let node = Arc::new(node);
        let shutdown = CancellationToken::new();
        tokio::spawn(serve_tcp(tcp, node.clone(), sessions.clone(), shutdown.clone()));
        tokio::spawn(serve_unix(unix, node.clone(), shutdown.clone()));
        Self { node, port, sessions, directory, _end: shutdown.clone().drop_guard(), shutdown }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Opens a one-time link and returns the cookie.
    async fn login(&self) -> String {
        let link = self.sessions.mint_link(self.port).unwrap();
        let answer = self.tcp(Request::get(link.split_once(&self.host()).unwrap().1)).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/"));
        answer.header("set-cookie").split(';').next().unwrap().to_owned()
    }

    async fn tcp(&self, request: hyper::http::request::Builder) -> Answer {
        self.tcp_with(request, "").await
    }

    /// A request on the loopback listener; the Host header is right unless given.
    async fn tcp_with(&self, request: hyper::http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let mut request = request.body(Full::new(body.into())).unwrap();
        let host = self.host().parse().unwrap();
        request.headers_mut().entry(header::HOST).or_insert(host);
        ask(TokioIo::new(stream), request).await
    }

    /// A change from one of our own pages, with a session.
    async fn change(&self, cookie: &str, method: &str, path: &str, body: &str) -> Answer {
        let content_type =
            if path.starts_with("/api") { "application/json" } else { "application/x-www-form-urlencoded" };
        let request =
            Request::builder().method(method).uri(path).header("cookie", cookie).header("content-type", content_type);
        self.tcp_with(request.header("origin", format!("http://{}", self.host())), body.to_owned()).await
    }

    async fn page(&self, cookie: &str, path: &str) -> Answer {
        self.tcp(Request::get(path).header("cookie", cookie)).await
    }

    async fn unix(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(self.directory.path().join("s")).await.unwrap();
        let mut request = Request::builder().method(method).uri(path).header("host", "rialto");
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        ask(TokioIo::new(stream), request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.node.asked.lock().unwrap())
    }
}

async fn ask<S>(io: TokioIo<S>, request: Request<Full<Bytes>>) -> Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let exchange = async {
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    };
    let answer = tokio::time::timeout(DEADLINE, exchange).await.expect("an answer");
    connection.abort();
    answer
}

// ---- the gate ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_page_from_a_rebound_name_learns_nothing() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.2.2:7070"] {
        for path in ["/", "/api/v1/status", "/metrics", "/login?token=x", "/static/x/rialto.js"] {
            let answer = site.tcp(Request::get(path).header("host", host).header("cookie", &cookie)).await;
            assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{host} {path}");
            assert!(!answer.text().contains("hello"));
        }
    }
    for host in ["localhost:9999", "[::1]:1", "127.0.0.1"] {
        let answer = site.tcp(Request::get("/api/v1/status").header("host", host).header("cookie", &cookie)).await;
        assert_eq!(answer.status, StatusCode::OK, "{host}, as through ssh -L");
    }
}

#[tokio::test]
async fn without_a_session_there_is_nothing_but_the_way_in() {
    let site = Site::start(Fake::rich()).await;
    for path in ["/", "/node", "/instances", "/releases/x", "/jobs/job-1", "/nowhere"] {
        for cookie in ["", "rialto=x", "rialto-00000000=abc"] {
            let answer = site.page(cookie, path).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
            assert!(answer.text().contains("<code>rialto web</code>") && !answer.text().contains("batch-worker"));
        }
    }
    for path in ["/api/v1/status", "/api/v1/openapi.json", "/api/v1/changes", "/api/v1/nowhere"] {
        let answer = site.page("", path).await;
        assert_eq!((answer.status, answer.error().code), (StatusCode::UNAUTHORIZED, ErrorCode::Refused), "{path}");
        assert!(answer.error().hint.unwrap().contains("rialto web"));
    }
    let answer = site.change("", "POST", "/api/v1/deploy", "{}").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(site.page("", "/metrics").await.text().ends_with("# EOF\n"), "a scraper has no session");
    assert_eq!(site.asked(), [""; 0]);
}

#[tokio::test]
async fn a_link_works_once_and_its_cookie_is_strict() {
    let site = Site::start(Fake::rich()).await;
    let link = site.unix("POST", "/api/v1/web/link", "").await.json()["url"].as_str().unwrap().to_owned();
    let path = link.strip_prefix(&format!("http://127.0.0.1:{}", site.port)).unwrap();
    let first = site.tcp(Request::get(path)).await;
    assert_eq!((first.status, first.header("location")), (StatusCode::SEE_OTHER, "/"));
    let cookie = first.header("set-cookie").to_owned();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"));
    let second = site.tcp(Request::get(path)).await;
    assert_eq!(second.status, StatusCode::UNAUTHORIZED);
    assert!(second.header("set-cookie").is_empty() && second.text().contains("used already"));
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(
        site.tcp(Request::get(path).header("cookie", cookie)).await.status,
        StatusCode::SEE_OTHER,
        "a second click does no harm"
    );
    assert_eq!(site.page(cookie, "/").await.status, StatusCode::OK);
    assert_eq!(site.page(cookie, "/login?token=").await.status, StatusCode::SEE_OTHER);
    assert_eq!(site.tcp(Request::post(path)).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn another_page_in_the_browser_changes_nothing() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    let stranger = [
        ("origin", "http://127.0.0.1:18080"),
        ("origin", "null"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "cross-site"),
    ];
    for (name, value) in stranger {
        for (method, path) in [
            ("POST", "/instances/hello-7f3a/stop"),
            ("POST", "/api/v1/instances/hello-7f3a/stop"),
            ("DELETE", "/api/v1/jobs/job-1"),
            ("GET", "/api/v1/changes"),
            ("GET", "/api/v1/instances/hello-7f3a/logs"),
        ] {
            let request = Request::builder().method(method).uri(path).header("cookie", &cookie).header(name, value);
            assert_eq!(site.tcp(request).await.status, StatusCode::FORBIDDEN, "{method} {path} {name}: {value}");
        }
    }
    assert_eq!(
        site.tcp(Request::post("/api/v1/instances/hello-7f3a/stop").header("cookie", &cookie)).await.status,
        StatusCode::FORBIDDEN,
        "no origin at all"
    );
    assert_eq!(site.asked(), [""; 0]);
    let own = Request::post("/instances/hello-7f3a/stop")
        .header("cookie", &cookie)
        .header("origin", "null")
        .header("sec-fetch-site", "same-origin");
    assert_eq!(site.tcp(own).await.status, StatusCode::SEE_OTHER, "our own form under no-referrer");
    assert_eq!(site.asked(), ["stop hello-7f3a force=false"]);
}

#[tokio::test]
async fn every_answer_carries_the_protective_headers() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    for (cookie, path) in [
        (&*cookie, "/"),
        ("", "/"),
        (&*cookie, "/nowhere"),
        (&*cookie, "/api/v1/status"),
        ("", "/metrics"),
        (&*cookie, "/api/v1/nowhere"),
    ] {
        let answer = site.page(cookie, path).await;
        let policy = answer.header("content-security-policy");
        for directive in [
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(directive), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'));
        assert_eq!(
            [answer.header("x-content-type-options"), answer.header("referrer-policy"), answer.header("cache-control")],
            ["nosniff", "no-referrer", "no-store"],
            "{path}"
        );
        assert!(answer.header("access-control-allow-origin").is_empty());
    }
}

#[tokio::test]
async fn files_and_keys_are_for_the_command_line_only() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    let image = image("kernel");
    let document = site.unix("GET", "/api/v1/openapi.json", "").await.json();
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if operation["x-rialto-reach"] != "socket" {
                continue;
            }
            seen += 1;
            let path = path.replace("{image}", &image.to_string());
            let answer = site.change(&cookie, &method.to_uppercase(), &path, "{}").await;
            assert_eq!(
                (answer.status, answer.error().code),
                (StatusCode::FORBIDDEN, ErrorCode::Refused),
                "{method} {path}"
            );
            assert!(answer.error().hint.unwrap().contains("`rialto` command"));
        }
    }
    assert!(seen >= 6, "publish, endorse, revoke, add, export and link at least");
    assert_eq!(site.asked(), [""; 0]);
}

// ---- the API ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn each_request_reaches_its_method() {
    let site = Site::start(Fake::rich()).await;
    let (kernel, release) = (image("kernel"), record("uni/hello@1.0.0"));
    let cases = [
        ("POST", "/api/v1/images".into(), json!({"file": "/d"}), 202, "add /d".into()),
        ("POST", "/api/v1/images/gc".into(), Value::Null, 202, "gc".into()),
        ("POST", format!("/api/v1/images/{kernel}/verify"), Value::Null, 202, format!("verify {kernel}")),
        ("POST", format!("/api/v1/images/{kernel}/export"), json!({"file": "/e"}), 202, format!("export {kernel} /e")),
        ("POST", format!("/api/v1/images/{kernel}/pin"), Value::Null, 204, format!("pin {kernel} true")),
        ("POST", format!("/api/v1/images/{kernel}/unpin"), Value::Null, 204, format!("pin {kernel} false")),
        ("DELETE", format!("/api/v1/images/{kernel}"), Value::Null, 204, format!("remove {kernel}")),
        ("POST", "/api/v1/publish".into(), json!({"file": "/p.toml", "key": "k"}), 202, "publish /p.toml k".into()),
        (
            "POST",
            "/api/v1/endorsements".into(),
            json!({"release": "r", "key": "k", "predicate": "https://x"}),
            200,
            "endorse r".into(),
        ),
        (
            "POST",
            "/api/v1/revocations".into(),
            json!({"subject": "s", "key": "k", "reason": "why"}),
            200,
            "revoke s".into(),
        ),
        (
            "POST",
            "/api/v1/channels".into(),
            json!({"appliance": "uni/hello", "channel": "stable", "release": "r", "keys": ["k"]}),
            200,
            "channel set uni/hello stable r".into(),
        ),
        (
            "POST",
            "/api/v1/delegations".into(),
            json!({"key": "k", "to": ["online"], "names": ["*"], "threshold": 1}),
            200,
            "delegate online".into(),
        ),
        (
            "POST",
            "/api/v1/delegations/rotate".into(),
            json!({"old": "online", "new": "next", "key": "k"}),
            200,
            "rotate online next".into(),
        ),
        ("POST", "/api/v1/clock".into(), json!({"reset": true}), 200, "clock true".into()),
        ("GET", "/api/v1/channels?appliance=uni%2Fhello".into(), Value::Null, 200, "channels of uni/hello".into()),
        ("GET", "/api/v1/channels/uni%2Fhello:stable".into(), Value::Null, 200, "channel uni/hello:stable".into()),
        ("POST", "/api/v1/fetch".into(), json!({"target": release}), 202, format!("fetch {release} held=false")),
        (
            "POST",
            "/api/v1/deploy".into(),
            json!({"release": "r", "set": {"a": "b"}, "publish": [{"host": 0, "guest": 80}]}),
            202,
            "deploy r {\"a\": \"b\"} [PortForward { host: 0, guest: 80 }]".into(),
        ),
        (
            "POST",
            "/api/v1/instances/hello-7f3a/stop".into(),
            json!({"force": true}),
            200,
            "stop hello-7f3a force=true".into(),
        ),
        ("POST", "/api/v1/instances/hello-02be/stop".into(), Value::Null, 200, "stop hello-02be force=false".into()),
        ("POST", "/api/v1/instances/hello-02be/suspend".into(), Value::Null, 200, "suspend hello-02be".into()),
        ("POST", "/api/v1/instances/hello-02be/resume".into(), Value::Null, 200, "resume hello-02be".into()),
        ("DELETE", "/api/v1/instances/hello-02be".into(), Value::Null, 200, "rm hello-02be".into()),
        ("POST", "/api/v1/peers/12D3KooWLiar/lift".into(), Value::Null, 200, "lift 12D3KooWLiar".into()),
        ("DELETE", "/api/v1/jobs/job-1".into(), Value::Null, 204, "cancel job-1".into()),
    ];
    for (method, path, body, status, asked) in cases {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = site.unix(method, &path, &body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_eq!(site.asked(), [asked]);
        assert!(status != 202 || answer.json()["job"].is_string());
    }
    let named = site.unix("GET", "/api/v1/releases/uni%2Fhello%401.0.0", "").await;
    assert_eq!(named.json()["release"], release.to_string());
    let explained = site.unix("GET", "/api/v1/releases/uni%2Fhello%401.0.0/explain", "").await;
    assert_eq!(explained.json()["verdict"], "accept");
    let found = site.unix("GET", "/api/v1/releases?q=condor&verdict=reject&limit=1", "").await.json();
    assert_eq!((found["total"].as_u64(), found["releases"][0]["version"].as_str()), (Some(1), Some("4.1.0")));
    let log = site.unix("GET", "/api/v1/instances/hello-7f3a/logs", "").await;
    assert_eq!(log.header("content-type"), "text/plain; charset=utf-8");
    assert!(log.text().ends_with("login: "));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_as_json() {
    let site = Site::start(Fake::rich()).await;
    let cases = [
        ("POST", "/api/v1/fetch", r#"{"target": "x", "hold": true}"#, 400),
        ("POST", "/api/v1/fetch", "{", 400),
        ("POST", "/api/v1/fetch", "", 415),
        ("POST", "/api/v1/images/gc", "{}", 400),
        ("POST", "/api/v1/images/not-an-id/verify", "", 400),
        ("GET", "/api/v1/releases?verdict=perhaps", "", 400),
        ("GET", "/api/v1/releases?p=x", "", 400),
        ("GET", "/api/v1/status?x", "", 400),
        ("GET", "/api/v1/instances/hello-7f3a/logs?follow=yes", "", 400),
        ("GET", "/api/v1/releases/nobody", "", 404),
        ("GET", "/api/v1/releases/uni/hello@1.0.0", "", 404),
        ("GET", "/api/v1/jobs/unknown/events", "", 404),
        ("GET", "/api/v1/nowhere", "", 404),
        ("PUT", "/api/v1/status", "", 405),
        ("DELETE", "/api/v1/images", "", 405),
        ("GET", "/api/v1/releases/%ff", "", 400),
    ];
    for (method, path, body, status) in cases {
        let answer = site.unix(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(!answer.error().message.is_empty());
    }
    assert_eq!(site.unix("DELETE", "/api/v1/images", "").await.header("allow"), "GET, POST");
    let held = site.unix("POST", "/api/v1/fetch", &json!({"target": "desy/notebook@2026.02"}).to_string()).await;
    assert_eq!(
        (held.status, held.error().code),
        (StatusCode::FORBIDDEN, ErrorCode::Refused),
        "the backend's own refusals pass through"
    );
    assert_eq!(site.asked(), [""; 0]);
}

#[tokio::test]
async fn bodies_are_bounded_whether_or_not_they_state_their_length() {
    let site = Site::start(Fake::rich()).await;
    let fits = json!({"release": "r", "set": {"a": "x".repeat(MAX_BODY_BYTES - 64)}}).to_string();
    assert_eq!(site.unix("POST", "/api/v1/deploy", &fits).await.status, StatusCode::ACCEPTED);
    let stated = format!(
        "POST /api/v1/deploy HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        MAX_BODY_BYTES + 1
    );
    // The refusal comes before a single byte of the body.
    assert!(exchange(&site, stated.as_bytes()).await.starts_with("HTTP/1.1 413"));
    let mut chunked = b"POST /api/v1/deploy HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    chunked.extend_from_slice(format!("{:x}\r\n{}\r\n", MAX_BODY_BYTES + 1, " ".repeat(MAX_BODY_BYTES + 1)).as_bytes());
    assert!(exchange(&site, &chunked).await.starts_with("HTTP/1.1 413"));
}

/// Sends bytes over the UNIX socket and reads the beginning of the answer.
async fn exchange(site: &Site, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(site.directory.path().join("s")).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 1024];
    let length = tokio::time::timeout(DEADLINE, stream.read(&mut answer)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn a_jobs_events_are_one_json_value_in_each_data_line_up_to_its_end() {
    let site = Site::start(Fake::rich()).await;
    let answer = site.unix("GET", "/api/v1/jobs/job-1/events", "").await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let events: Vec<JobEvent> = answer
        .text()
        .split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'))
        .map(|event| serde_json::from_str(event.strip_prefix("data:").expect("only data")).unwrap())
        .collect();
    assert_eq!(events.len(), 42);
    assert!(matches!(&events[0], JobEvent::Progress { done: 0, .. }));
    assert!(matches!(&events[41], JobEvent::Done { result } if result["bytes"].is_u64()));
}

#[tokio::test]
async fn changes_arrive_as_they_happen_and_end_with_the_node() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).await.unwrap();
    let request = format!(
        "GET /api/v1/changes HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\nsec-fetch-site: same-origin\r\n\r\n",
        site.host()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut heard = String::new();
    let mut buffer = [0; 1024];
    let listening = async {
        let mut has_changed = false;
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            if length == 0 {
                break;
            }
            // The head of the answer is sent once the node's changes are being listened to.
            if !has_changed && heard.contains("\r\n\r\n") {
                site.node.changes.send(Change::Instances).unwrap();
                has_changed = true;
            }
            if heard.contains("data:{\"changed\":\"instances\"}\n\n") {
                site.shutdown.cancel();
            }
        }
    };
    tokio::time::timeout(DEADLINE, listening).await.expect("the event, and the end of the stream");
    assert!(heard.contains("data:{\"changed\":\"instances\"}\n\n"), "{heard}");
}

#[tokio::test]
async fn the_openapi_document_names_what_is_there() {
    let site = Site::start(Fake::rich()).await;
    let document = site.unix("GET", "/api/v1/openapi.json", "").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        assert!(schemas.contains_key(reference.strip_prefix("#/components/schemas/").unwrap()), "{reference}");
    }
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let address = path
            .replace("{release}", "uni%2Fhello%401.0.0")
            .replace("{instance}", "hello-7f3a")
            .replace("{job}", "job-1")
            .replace("{decision}", "1")
            .replace("{channel}", "uni%2Fhello:stable")
            .replace("{peer}", "12D3KooWLiar")
            .replace("{session}", "0123456789abcdef0123456789abcdef")
            .replace("{image}", &image("kernel").to_string());
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            if method != "get" || path.ends_with("/changes") {
                continue;
            }
            let answer = site.unix("GET", &address, "").await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            let content = operation["responses"]["200"]["content"].as_object().unwrap();
            let (kind, described) = content.iter().next().unwrap();
            assert_eq!(answer.header("content-type"), kind, "{path}");
            if kind == "application/json" {
                check(&document, &described["schema"], &answer.json(), path);
            }
        }
        let other = site.unix("PATCH", &address, "").await;
        let mut allowed: Vec<_> = other.header("allow").to_lowercase().split(", ").map(str::to_owned).collect();
        allowed.sort();
        assert_eq!(
            (other.status, allowed),
            (StatusCode::METHOD_NOT_ALLOWED, methods.as_object().unwrap().keys().cloned().collect::<Vec<_>>()),
            "{path}"
        );
    }
    assert_eq!(operations, 51, "one for each method of the backend, pin and unpin apart, and this document");
    for (schema, value) in [
        ("JobStarted", json!({"job": "j"})),
        ("ApiError", serde_json::to_value(ApiError::refused("no").with_hint("ask")).unwrap()),
        (
            "DeployRequest",
            serde_json::to_value(DeployRequest {
                release: "r".into(),
                set: [("a".into(), "b".into())].into(),
                publish: vec![PortForward { host: 1, guest: 2 }],
            })
            .unwrap(),
        ),
        (
            "EndorseRequest",
            serde_json::to_value(EndorseRequest {
                release: "r".into(),
                key: "k".into(),
                predicate: "p".into(),
                note: None,
                dsse: None,
                expires_after_seconds: Some(1),
            })
            .unwrap(),
        ),
        (
            "Delegated",
            serde_json::to_value(Delegated { record: record("d"), records: vec![record("d")], channels: vec![] })
                .unwrap(),
        ),
        (
            "SetChannelRequest",
            serde_json::to_value(SetChannelRequest {
                appliance: "uni/hello".into(),
                channel: "stable".into(),
                release: "r".into(),
                keys: vec!["k".into()],
                expires_after_seconds: None,
                propose: true,
            })
            .unwrap(),
        ),
        (
            "CosignRequest",
            serde_json::to_value(CosignRequest {
                channel: "uni/hello:stable".into(),
                record: Some(record("h")),
                keys: vec!["k".into()],
                renewals: true,
            })
            .unwrap(),
        ),
        ("Cosigned", serde_json::to_value(Cosigned { record: None, signed: 1, threshold: 2 }).unwrap()),
        (
            "PublishRequest",
            serde_json::to_value(PublishRequest {
                file: "/hello.toml".into(),
                key: "k".into(),
                with_keys: vec!["other".into()],
                publisher: Some("uni".into()),
            })
            .unwrap(),
        ),
        (
            "DelegateRequest",
            serde_json::to_value(DelegateRequest {
                key: "k".into(),
                role: rialto_protocol::record::DelegatedRole::Release,
                to: vec!["online".into()],
                names: vec!["*".into()],
                threshold: Some(1),
                expires_after_seconds: Some(9),
            })
            .unwrap(),
        ),
        (
            "SigningAnswer",
            serde_json::to_value(SigningAnswer { number: 1, signature: Some("00".into()), refusal: None }).unwrap(),
        ),
        (
            "PublishAdvisoryRequest",
            serde_json::to_value(PublishAdvisoryRequest {
                key: "k".into(),
                id: "DSA-1".into(),
                severity: rialto_protocol::record::Severity::High,
                summary: None,
                packages: vec![AdvisedPackage { ecosystem: "debian-12".into(), name: "openssl".into(), fixed: None }],
            })
            .unwrap(),
        ),
        ("AdvisoriesPublished", serde_json::to_value(AdvisoriesPublished { records: vec![record("a")] }).unwrap()),
        ("BansLifted", serde_json::to_value(BansLifted { peer_id: "p".into(), lifted: 1 }).unwrap()),
        (
            "ReplayAtRequest",
            serde_json::to_value(ReplayAtRequest {
                at: "2026-01-01T00:00:00Z".into(),
                releases: vec!["uni/hello@1.0.0".into()],
                policy: Some("/then.toml".into()),
            })
            .unwrap(),
        ),
        (
            "ReplayAt",
            serde_json::to_value(ReplayAt {
                at: "2026-01-01T00:00:00Z".into(),
                policy: "0".into(),
                policy_because: "in force since 2025-12-01T00:00:00Z".into(),
                is_policy_certain: true,
                notes: vec!["releases that have left the catalog are not among these".into()],
                releases: 1,
                changed: 1,
                verdicts: vec![ReleaseAt {
                    release: record("r"),
                    title: "uni/hello@1.0.0".into(),
                    then: Explanation {
                        release: record("r"),
                        verdict: VerdictKind::Reject,
                        rule: "default".into(),
                        because: "no rule fits it".into(),
                        requirements: vec![RequirementOutcome {
                            name: "sbom".into(),
                            met: false,
                            because: "there is none".into(),
                        }],
                        images: vec![],
                        policy: None,
                    },
                    now: VerdictKind::Hold,
                    now_because: "no rule fits it".into(),
                    is_same: false,
                    doubts: vec!["what channel stable said then is not known".into()],
                }],
            })
            .unwrap(),
        ),
        ("PolicyDiffRequest", serde_json::to_value(PolicyDiffRequest { old: None, new: "/new.toml".into() }).unwrap()),
        (
            "PolicyDiff",
            serde_json::to_value(PolicyDiff {
                old: "0".into(),
                new: "1".into(),
                releases: 1,
                changed: 1,
                changes: vec![PolicyChange {
                    release: record("r"),
                    title: "uni/hello@1.0.0".into(),
                    old: VerdictKind::Accept,
                    new: VerdictKind::Hold,
                    because: "no rule fits it".into(),
                    instances: vec!["hello-7f3a".into()],
                }],
            })
            .unwrap(),
        ),
        (
            "RotateRequest",
            serde_json::to_value(RotateRequest {
                old: "online".into(),
                new: "next".into(),
                key: None,
                expires_after_seconds: None,
            })
            .unwrap(),
        ),
        (
            "ImageAdded",
            serde_json::to_value(ImageAdded {
                image: image("x"),
                bytes: 1,
                chunks: 1,
                new_chunks: 1,
                stored_bytes: 1,
                seconds: 0.5,
            })
            .unwrap(),
        ),
        (
            "Fetched",
            serde_json::to_value(Fetched {
                images: vec![image("x")],
                image: Some(image("x")),
                bytes: 1,
                wire_bytes: 1,
                duplicate_bytes: 0,
                seconds: 0.5,
                peers: [("p".into(), 1)].into(),
            })
            .unwrap(),
        ),
        (
            "Deployed",
            serde_json::to_value(Deployed { instance: "i".into(), state: "running".into(), ports: vec![] }).unwrap(),
        ),
    ] {
        check(&document, &schemas[schema], &value, schema);
    }
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
            Value::String(reference) if name == "$ref" => found.push(reference),
            other => collect_references(other, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// Holds a value against a schema: as much of JSON Schema as `schemas.json` uses, and every field must be described.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(document, document.pointer(&reference[1..]).unwrap(), value, at);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let chosen = choices.iter().find(|choice| (choice["type"] == "null") == value.is_null()).unwrap();
        return check(document, chosen, value, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed: Vec<_> = schema["type"]
        .as_str()
        .into_iter()
        .chain(schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str))
        .collect();
    assert!(
        allowed.contains(&kind) || (kind == "integer" && allowed.contains(&"number")),
        "{at}: {value} is not of {schema}"
    );
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value}");
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{at}[{index}]"));
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required {
        assert!(value.get(name).is_some(), "{at}: {name} is missing");
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, field) in value.as_object().into_iter().flatten() {
        let described = properties.get(name).unwrap_or_else(|| panic!("{at}.{name} is not described"));
        check(document, described, field, &format!("{at}.{name}"));
    }
}

// ---- the pages --------------------------------------------------------------------------------------------------------

/// Every page of a node.
async fn pages(site: &Site, cookie: &str) -> Vec<(String, String)> {
    let mut paths: Vec<String> = [
        "/",
        "/?q=%3Cscript%3E%22%27&verdict=hold",
        "/?offset=2",
        "/node",
        "/instances",
        "/jobs/job-1",
        "/nowhere%3Cscript%3E",
        "/releases/%3Cscript%3E",
    ]
    .map(Into::into)
    .into();
    paths.extend(site.node.releases.iter().map(|details| format!("/releases/{}", details.summary.release)));
    paths.push(format!(
        "/instances/{}",
        site.node.instances.lock().unwrap()[0]
            .instance
            .replace('/', "%2F")
            .replace('"', "%22")
            .replace('<', "%3C")
            .replace('>', "%3E")
    ));
    let mut pages = Vec::new();
    for path in paths {
        let answer = site.page(cookie, &path).await;
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8", "{path}");
        pages.push((path, answer.text().to_owned()));
    }
    pages
}

#[tokio::test]
async fn nothing_that_came_by_gossip_leaks_into_the_markup() {
    let site = Site::start(Fake::hostile()).await;
    let cookie = site.login().await;
    let pages = pages(&site, &cookie).await;
    let whole: String = pages.iter().map(|(_, page)| page.as_str()).collect();
    for (path, page) in &pages {
        assert_eq!(page.matches("<script").count(), 1, "{path}: only our own script");
        assert!(!page.contains("<img src=x") && !page.contains("onerror=alert(2)>"), "{path}");
        assert!(!page.contains("href=\"javascript:"), "{path}");
        assert!(!page.contains("style="), "{path}: no inline style");
        for hidden in ['\u{202e}', '\u{200b}', '\u{2066}', '\u{feff}', '\u{1b}', '\0', '\r'] {
            assert!(!page.contains(hidden), "{path} holds U+{:04X}", u32::from(hidden));
        }
        attributes_are_ours(path, page);
    }
    assert!(!whole.contains("hunter2-the-default"), "the default of a secret is not shown");
    // Each hostile field was really on some page, escaped.
    for field in [
        "site",
        "federation",
        "policy error",
        "warning",
        "listen",
        "peer id",
        "version",
        "publisher",
        "name",
        "summary",
        "arch",
        "tag",
        "issued",
        "description",
        "licence",
        "homepage",
        "expires",
        "key",
        "boot",
        "signer",
        "predicate",
        "note",
        "reason",
        "rule",
        "because",
        "policy",
        "requirement",
        "role",
        "input",
        "default",
        "help",
        "address",
        "agent",
        "used by",
        "title",
        "state",
        "class",
        "accelerator",
        "created",
        "console",
    ] {
        assert!(
            whole.contains(&format!("{field}&lt;script&gt;alert(1)&lt;/script&gt;"))
                || whole.to_lowercase().contains(&format!("{field}&lt;script&gt;alert(1)&lt;/script&gt;")),
            "{field} is on no page"
        );
    }
}

/// Walks the tags of a page: each attribute must be one that the templates write.
fn attributes_are_ours(path: &str, page: &str) {
    const OURS: &[&str] = &[
        "accept",
        "action",
        "alt",
        "aria-busy",
        "aria-current",
        "aria-describedby",
        "aria-hidden",
        "aria-label",
        "aria-labelledby",
        "aria-live",
        "autocomplete",
        "charset",
        "checked",
        "class",
        "content",
        "data-add-port",
        "data-cancel",
        "data-follow",
        "data-job",
        "data-jobs",
        "data-label",
        "data-live",
        "data-log",
        "data-once",
        "data-search",
        "datetime",
        "for",
        "height",
        "hidden",
        "href",
        "id",
        "inputmode",
        "lang",
        "max",
        "maxlength",
        "method",
        "min",
        "name",
        "data-when",
        "pattern",
        "placeholder",
        "rel",
        "required",
        "role",
        "rows",
        "scope",
        "spellcheck",
        "src",
        "tabindex",
        "title",
        "type",
        "value",
        "width",
    ];
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if rest.starts_with('!') {
            continue; // the document type
        }
        let mut name = String::new();
        let mut is_quoted = false;
        let mut is_name = false;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match c {
                '"' => is_quoted = !is_quoted,
                _ if is_quoted => {}
                '>' | ' ' | '=' => {
                    assert!(!is_name || name.is_empty() || OURS.contains(&name.as_str()), "{path}: attribute {name:?}");
                    name.clear();
                    is_name = c == ' ';
                    if c == '>' {
                        end = at;
                        break;
                    }
                }
                c if is_name => name.push(c),
                _ => {}
            }
        }
        rest = &rest[end..];
    }
}

#[tokio::test]
async fn a_broken_policy_is_on_every_page() {
    let mut node = Fake::rich();
    node.status.policy.error = Some("policy.toml:3:1: 'reqire' is not a key".into());
    let site = Site::start(node).await;
    let cookie = site.login().await;
    for path in [
        "/",
        "/instances",
        "/node",
        &format!("/releases/{}", record("uni/hello@1.0.0")),
        "/instances/hello-7f3a",
        "/jobs/job-1",
    ] {
        let page = site.page(&cookie, path).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.text().contains("role=\"alert\"") && page.text().contains("policy.toml:3:1"), "{path}");
    }
}

#[tokio::test]
async fn pages_say_what_to_do_next() {
    let site = Site::start(Fake::empty()).await;
    let cookie = site.login().await;
    assert!(site.page(&cookie, "/").await.text().contains("rialto join ADDRESS"));
    assert!(site.page(&cookie, "/?q=nothing").await.text().contains("look at all releases"));
    assert!(site.page(&cookie, "/instances").await.text().contains("/?verdict=accept"));
}

#[tokio::test]
async fn what_policy_does_not_accept_cannot_be_deployed_from_its_page() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    let page = async |name: &str| site.page(&cookie, &format!("/releases/{}", record(name))).await.text().to_owned();
    assert!(page("cern/batch-worker@4.2.1").await.contains("/deploy\""));
    let held = page("desy/notebook@2026.02").await;
    assert!(!held.contains("/deploy\"") && held.contains("Fetch for review") && held.contains("name=\"held\""));
    let rejected = page("cern/batch-worker@4.1.0").await;
    assert!(!rejected.contains("/deploy\"") && !rejected.contains("/fetch\""));
    let secret = page("cern/batch-worker@4.2.1").await;
    assert!(secret.contains("name=\"set.pool-token\" type=\"password\""));
}

#[tokio::test]
async fn a_release_shows_the_channels_that_point_at_it_and_how_long_they_are_frozen() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    let page = site.page(&cookie, &format!("/releases/{}", record("cern/batch-worker@4.2.1"))).await;
    let text = page.text();
    assert!(text.contains("Channels that point at it") && text.contains("✓ fresh"), "{text}");
    assert!(text.contains("frozen for 3 days") && text.contains("It is frozen: its head expired"), "{text}");
    let without = site.page(&cookie, &format!("/releases/{}", record("uni/hello@1.0.0"))).await;
    assert!(!without.text().contains("Channels that point at it"));
}

#[tokio::test]
async fn forms_work_without_scripts_and_answer_json_to_the_script() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    let hello = record("uni/hello@1.0.0");
    let deploy = site
        .change(
            &cookie,
            "POST",
            &format!("/releases/{hello}/deploy"),
            "set.greeting=Ciao&publish.guest=80&publish.host=",
        )
        .await;
    assert_eq!(
        (deploy.status, deploy.header("location")),
        (StatusCode::SEE_OTHER, &*format!("/jobs/job%2D1?release={hello}"))
    );
    assert_eq!(
        site.asked(),
        [format!("deploy {hello} {{\"greeting\": \"Ciao\"}} [PortForward {{ host: 0, guest: 80 }}]")]
    );
    let job = site.page(&cookie, deploy.header("location")).await;
    assert!(job.status == StatusCode::OK && job.header("refresh") == "2" && job.text().contains("<progress"));
    let script = Request::post(format!("/releases/{hello}/fetch"))
        .header("cookie", &cookie)
        .header("origin", format!("http://{}", site.host()))
        .header("accept", "application/json");
    let started = site.tcp(script).await;
    assert_eq!((started.status, started.json()["job"].as_str()), (StatusCode::ACCEPTED, Some("job-2")));
    let held = Request::post(format!("/releases/{}/fetch", record("desy/notebook@2026.02")))
        .header("cookie", &cookie)
        .header("accept", "application/json");
    let refused = site.tcp(held.header("origin", format!("http://{}", site.host()))).await;
    assert_eq!((refused.status, refused.error().code), (StatusCode::FORBIDDEN, ErrorCode::Refused));
    site.asked();
    for (path, body) in [
        (format!("/releases/{hello}/deploy"), "greeting=x"),
        (format!("/releases/{hello}/fetch"), "held=maybe"),
        ("/instances/hello-7f3a/stop".into(), "now=1"),
    ] {
        assert_eq!(site.change(&cookie, "POST", &path, body).await.status, StatusCode::BAD_REQUEST, "{path} {body}");
    }
    assert_eq!(site.asked(), [""; 0]);
    assert_eq!(
        site.change(&cookie, "POST", "/instances/hello-7f3a/stop", "force=true").await.header("location"),
        "/instances"
    );
    for change in ["suspend", "resume"] {
        let page = format!("/instances/hello-7f3a/{change}");
        assert_eq!(site.change(&cookie, "POST", &page, "force=true").await.status, StatusCode::BAD_REQUEST, "{change}");
        assert_eq!(site.change(&cookie, "POST", &page, "").await.header("location"), "/instances", "{change}");
    }
    assert_eq!(site.change(&cookie, "POST", "/instances/hello-7f3a/remove", "").await.header("location"), "/instances");
    assert_eq!(site.change(&cookie, "POST", "/jobs/job-2/cancel", "").await.header("location"), "/jobs/job%2D2");
    assert_eq!(
        site.asked(),
        ["stop hello-7f3a force=true", "suspend hello-7f3a", "resume hello-7f3a", "rm hello-7f3a", "cancel job-2"]
    );
}

#[tokio::test]
async fn a_guest_is_linked_under_the_name_that_our_cookie_does_not_go_to() {
    let site = Site::start(Fake::rich()).await;
    let cookie = site.login().await;
    let by_address = site.page(&cookie, "/instances").await;
    assert!(
        by_address.text().contains("href=\"http://localhost:18080/\"")
            && !by_address.text().contains("//127.0.0.1:18080")
    );
    let by_name = site.tcp(Request::get("/instances").header("cookie", &cookie).header("host", "localhost:7070")).await;
    assert!(
        by_name.text().contains("href=\"http://127.0.0.1:18080/\"") && !by_name.text().contains("//localhost:18080")
    );
}

#[tokio::test]
async fn static_files_are_kept_for_good_under_their_hash_only() {
    let site = Site::start(Fake::rich()).await;
    let locked = site.page("", "/").await;
    let start = locked.text().find("/static/").unwrap();
    let address = locked.text()[start..].split('"').next().unwrap();
    let (folder, _) = address.rsplit_once('/').unwrap();
    for (name, kind) in [
        ("rialto.css", "text/css; charset=utf-8"),
        ("rialto.js", "text/javascript; charset=utf-8"),
        ("bridge.svg", "image/svg+xml"),
        ("arcade.svg", "image/svg+xml"),
    ] {
        let answer = site.page("", &format!("{folder}/{name}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, kind));
        assert!(answer.header("cache-control").contains("immutable"));
        let again =
            site.tcp(Request::get(format!("{folder}/{name}")).header("if-none-match", answer.header("etag"))).await;
        assert!(again.status == StatusCode::NOT_MODIFIED && again.body.is_empty());
        assert_eq!(site.page("", &format!("/static/0000/{name}")).await.header("cache-control"), "no-cache");
    }
    for path in ["/static/x/none.css", "/static/rialto.css", "/static/x/..%2F..%2Fetc%2Fpasswd"] {
        assert_eq!(site.page("", path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}
