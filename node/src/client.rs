//! The API's client: HTTP over the node's UNIX socket, typed by `rialto_web::api`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rialto_web::api::{ApiError, ErrorCode, JobEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::dir::{DirError, NodeDir};

/// Where the API begins.
const API: &str = "/api/v1";
/// Longest answer that is read whole, in bytes: a search page of 200 releases takes a small part of it.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// Longest line of an event stream, in bytes; a job's result is the largest.
const MAX_EVENT_LINE_BYTES: usize = 4 * 1024 * 1024;
/// Time for the node to take a connection: it is on this machine, and does nothing else for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the node to begin an answer. Stopping a guest is the slowest, with its grace.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// A node's API. Each request is its own connection, so a client can be shared and costs nothing while idle.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    dir: PathBuf,
}

impl Client {
    /// The API of the node in this directory, whether or not it runs.
    ///
    /// # Errors
    /// There is no node in the directory, or its socket is not where its owner alone could have put it.
    pub fn new(dir: &NodeDir) -> Result<Self, ApiError> {
        dir.check_format().map_err(|error| match error {
            // Where there is no node, none runs.
            DirError::NotInitialised(_) => ApiError { code: ErrorCode::NotRunning, ..error.into() },
            error => error.into(),
        })?;
        Ok(Self { socket: dir.socket()?, dir: dir.path().to_owned() })
    }

    /// Asks for a value. `path` comes after `/api/v1/`, its segments encoded with [`segment`].
    ///
    /// # Errors
    /// The node's own error; `not-running` when there is no node to ask.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.request(Method::GET, path, None).await
    }

    /// Sends a request with a body, for a value.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ApiError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ApiError::failed(format!("cannot write the request: {error}")))?;
        self.request(Method::POST, path, Some(body.into())).await
    }

    /// Sends a request without a body, for a value.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.request(Method::POST, path, None).await
    }

    /// Removes a thing. An answer without a body reads as `()` or `null`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.request(Method::DELETE, path, None).await
    }

    /// What a job says of itself, until its end.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn job_events(&self, job: &str) -> Result<JobEvents, ApiError> {
        let bytes = self.stream(&format!("jobs/{}/events", segment(job)), "text/event-stream").await?;
        Ok(JobEvents { bytes, lines: EventLines::default() })
    }

    /// Bytes as the node sends them, for as long as it does.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn stream(&self, path: &str, accept: &'static str) -> Result<ByteStream, ApiError> {
        let (response, connection) = self.send(Method::GET, path, None, accept).await?;
        if response.status().is_success() {
            return Ok(ByteStream { body: response.into_body(), _connection: connection, dir: self.dir.clone() });
        }
        Err(self.refusal(response).await)
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T, ApiError> {
        let (response, _connection) = self.send(method, path, body, "application/json").await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let bytes = self.whole(response.into_body()).await?;
        let json: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(json).map_err(|error| {
            ApiError::failed(format!("the node's answer to {path} cannot be read: {error}")).with_hint(
                "use the same version of rialto for the node and the command line; rialto --version shows this one's",
            )
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        accept: &'static str,
    ) -> Result<(Response<Incoming>, Connection), ApiError> {
        let stream = match timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.not_connected(&error)),
            Err(_) => return Err(self.silent()),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| self.gone())?;
        let connection = Connection(tokio::spawn(async move {
            // What goes wrong here also ends the request or its body, which report it.
            let _ = connection.await;
        }));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{API}/{path}"))
            .header(HOST, "localhost")
            .header(ACCEPT, accept);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| ApiError::usage(format!("this cannot be asked of a node: {error}")))?;
        match timeout(ANSWER_TIMEOUT, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok((response, connection)),
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => Err(self.silent()),
        }
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, ApiError> {
        match timeout(ANSWER_TIMEOUT, Limited::new(body, MAX_ANSWER_BYTES).collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::failed(format!(
                "the node's answer is longer than {MAX_ANSWER_BYTES} bytes; ask for less at a time"
            ))),
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => Err(self.silent()),
        }
    }

    /// The node's own error, or the best that can be said of an answer that has none.
    async fn refusal(&self, response: Response<Incoming>) -> ApiError {
        let status = response.status();
        let body = match self.whole(response.into_body()).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        serde_json::from_slice(&body).unwrap_or_else(|_| {
            let code = match status.as_u16() {
                400 => ErrorCode::Usage,
                403 => ErrorCode::Refused,
                404 => ErrorCode::NotFound,
                503 => ErrorCode::NotRunning,
                _ => ErrorCode::Failed,
            };
            ApiError::new(code, format!("the node answered {status} and did not say why"))
                .with_hint("the node's log says more")
        })
    }

    fn not_connected(&self, error: &io::Error) -> ApiError {
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                ApiError::failed(format!("{} may not be used by this user", self.socket.display()))
                    .with_hint(format!("run as the user who owns {}", self.dir.display()))
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                not_running(&self.dir)
            }
            _ => ApiError::failed(format!("cannot connect to {}: {error}", self.socket.display())),
        }
    }

    fn gone(&self) -> ApiError {
        gone(&self.dir)
    }

    fn silent(&self) -> ApiError {
        ApiError::failed("the node does not answer")
            .with_hint(format!("see what it does: rialto --dir {} doctor, and the node's log", self.dir.display()))
    }
}

fn not_running(dir: &Path) -> ApiError {
    ApiError::new(ErrorCode::NotRunning, format!("the node in {} is not running", dir.display()))
        .with_hint(start_hint(dir))
}

fn gone(dir: &Path) -> ApiError {
    ApiError::new(ErrorCode::NotRunning, "the node stopped before it had answered").with_hint(start_hint(dir))
}

fn start_hint(dir: &Path) -> String {
    format!("start it: rialto --dir {} node", dir.display())
}

/// A text as one segment of a path: everything but letters, digits and `-._~` is percent-encoded.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    // A segment of dots would be taken for a way up the path.
    if encoded.bytes().all(|byte| byte == b'.') { encoded.replace('.', "%2E") } else { encoded }
}

/// The task that drives one connection; it ends with this value.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer, as it comes.
#[derive(Debug)]
pub struct ByteStream {
    body: Incoming,
    _connection: Connection,
    dir: PathBuf,
}

impl ByteStream {
    /// The next bytes, at most a few hundred KiB; `None` at the end.
    ///
    /// # Errors
    /// The node went away.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        while let Some(frame) = self.body.frame().await {
            match frame.map_err(|_| gone(&self.dir))?.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// What a job says of itself.
#[derive(Debug)]
pub struct JobEvents {
    bytes: ByteStream,
    lines: EventLines,
}

impl JobEvents {
    /// The next event. `Done` and `Failed` are the last.
    ///
    /// # Errors
    /// The node went away before the job had ended, or sent something that is not an event.
    pub async fn next(&mut self) -> Result<JobEvent, ApiError> {
        loop {
            if let Some(event) = self.lines.next_event()? {
                return Ok(event);
            }
            match self.bytes.next().await? {
                Some(bytes) => self.lines.push(&bytes),
                None => return Err(gone(&self.bytes.dir)),
            }
        }
    }
}

/// The lines of an event stream, cut from bytes that come in any portions. Each `data:` line is one event in JSON; the
/// rest (comments that keep the connection alive, event names) says nothing here.
#[derive(Debug, Default)]
struct EventLines {
    buffer: BytesMut,
    /// Bytes at the start of the buffer that are known to have no line feed.
    searched: usize,
}

impl EventLines {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn next_event(&mut self) -> Result<Option<JobEvent>, ApiError> {
        while let Some(line) = self.next_line()? {
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            return serde_json::from_slice(data)
                .map(Some)
                .map_err(|error| ApiError::failed(format!("the node sent an event that cannot be read: {error}")));
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, ApiError> {
        let found = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n');
        let length = found.map_or(self.buffer.len(), |offset| self.searched + offset);
        if length > MAX_EVENT_LINE_BYTES {
            return Err(ApiError::failed(format!("the node sent an event longer than {MAX_EVENT_LINE_BYTES} bytes")));
        }
        if found.is_none() {
            self.searched = length;
            return Ok(None);
        }
        self.searched = 0;
        let line = self.buffer.split_to(length).freeze();
        self.buffer.advance(1);
        Ok(Some(line.strip_suffix(b"\r").map_or_else(|| line.clone(), |cut| line.slice_ref(cut))))
    }
}

/// A fake node, for the tests of this room and of the command line.
#[cfg(test)]
pub(crate) mod fake {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// A node that gives each connection in turn one of these answers, and says what it was asked.
    pub(crate) struct FakeNode {
        _temp: tempfile::TempDir,
        pub(crate) client: Client,
        serving: JoinHandle<Vec<String>>,
    }

    impl FakeNode {
        pub(crate) fn answering(answers: &[&str]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let dir = NodeDir::new(temp.path()).unwrap();
            dir.write_format().unwrap();
            let listener = UnixListener::bind(dir.path().join("rialto.sock")).unwrap();
            let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
            let serving = tokio::spawn(async move {
                let mut asked = Vec::new();
                for answer in answers {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    asked.push(read_request(&mut stream).await);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                asked
            });
            Self { client: Client::new(&dir).unwrap(), _temp: temp, serving }
        }

        pub(crate) async fn asked(self) -> Vec<String> {
            self.serving.await.unwrap()
        }
    }

    /// Reads a head and, where it announces one, a body.
    async fn read_request(stream: &mut UnixStream) -> String {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let announced = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse::<usize>().unwrap());
            if body.len() >= announced {
                return text;
            }
        }
    }

    /// An answer with a body.
    pub(crate) fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rialto_web::api::JobStarted;
    use tokio::net::UnixListener;

    use super::fake::{FakeNode, answer};
    use super::*;

    #[tokio::test]
    async fn requests_and_answers_are_json() {
        let node = FakeNode::answering(&[&answer("202 Accepted", r#"{"job":"7"}"#), &answer("204 No Content", "")]);
        let body = rialto_web::api::AddImageRequest { file: "/tmp/disk.raw".into(), format: None, member: None };
        let started: JobStarted = node.client.post("images", &body).await.unwrap();
        assert_eq!(started.job, "7");
        node.client.delete::<()>("jobs/7").await.unwrap();
        let asked = node.asked().await;
        assert!(asked[0].starts_with("POST /api/v1/images HTTP/1.1\r\n"), "{}", asked[0]);
        assert!(asked[0].contains("host: localhost\r\n"));
        assert!(asked[0].ends_with(r#"{"file":"/tmp/disk.raw"}"#));
        assert!(asked[1].starts_with("DELETE /api/v1/jobs/7 HTTP/1.1\r\n"), "{}", asked[1]);
    }

    #[tokio::test]
    async fn errors_of_the_node_come_as_they_are() {
        let refused = r#"{"code":"refused","message":"held","hint":"endorse it"}"#;
        let node = FakeNode::answering(&[&answer("403 Forbidden", refused), &answer("404 Not Found", "<html>")]);
        let error = node.client.get::<()>("status").await.unwrap_err();
        assert_eq!(error, ApiError::refused("held").with_hint("endorse it"));
        let error = node.client.get::<()>("status").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_said_to_be_not_running() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path()).unwrap();
        assert!(Client::new(&dir).unwrap_err().message.contains("not a node's directory yet"));
        dir.write_format().unwrap();
        let client = Client::new(&dir).unwrap();
        let absent = client.get::<()>("status").await.unwrap_err();
        assert_eq!(absent.code, ErrorCode::NotRunning);
        assert_eq!(absent.hint.unwrap(), format!("start it: rialto --dir {} node", temp.path().display()));
        // A socket that nobody listens on any more.
        drop(UnixListener::bind(dir.path().join("rialto.sock")).unwrap());
        assert_eq!(client.get::<()>("status").await.unwrap_err().code, ErrorCode::NotRunning);
    }

    #[tokio::test]
    async fn a_node_that_dies_within_an_answer_is_noticed() {
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half\":";
        let node = FakeNode::answering(&["", cut]);
        assert_eq!(node.client.get::<()>("status").await.unwrap_err().code, ErrorCode::NotRunning);
        assert_eq!(node.client.get::<()>("status").await.unwrap_err().code, ErrorCode::NotRunning);
    }

    #[tokio::test]
    async fn answers_without_end_are_cut_off() {
        let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n\"", MAX_ANSWER_BYTES + 1);
        let node = FakeNode::answering(&[&(endless + &" ".repeat(MAX_ANSWER_BYTES))]);
        let error = node.client.get::<String>("status").await.unwrap_err();
        assert!(error.message.contains("longer than"), "{error}");
    }

    #[tokio::test]
    async fn a_job_is_followed_to_its_end() {
        let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
            :\n\nevent: progress\ndata: {\"event\":\"progress\",\"stage\":\"reading\",\"done\":1,\"total\":2}\n\n\
            data:{\"event\":\"done\",\"result\":{\"image\":\"x\"}}\r\n\r\n";
        let node = FakeNode::answering(&[events]);
        let mut events = node.client.job_events("a/b").await.unwrap();
        assert_eq!(events.next().await.unwrap(), JobEvent::Progress { stage: "reading".into(), done: 1, total: 2 });
        assert_eq!(events.next().await.unwrap(), JobEvent::Done { result: serde_json::json!({"image": "x"}) });
        assert_eq!(events.next().await.unwrap_err().code, ErrorCode::NotRunning);
        assert!(node.asked().await[0].starts_with("GET /api/v1/jobs/a%2Fb/events "));
    }

    #[test]
    fn a_reference_is_one_segment() {
        assert_eq!(segment("cern/batch@1.0+b"), "cern%2Fbatch%401.0%2Bb");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("~ü"), "~%C3%BC");
    }

    #[test]
    fn an_endless_event_line_is_refused() {
        let mut lines = EventLines::default();
        lines.push(&vec![b'x'; MAX_EVENT_LINE_BYTES]);
        assert_eq!(lines.next_event().unwrap(), None);
        lines.push(b"x");
        assert!(lines.next_event().is_err());
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_their_bytes_arrive(cuts in proptest::collection::vec(1usize..30, 0..40)) {
            let text = b": hello\ndata: {\"event\":\"progress\",\"stage\":\"a\",\"done\":1,\"total\":0}\r\n\r\ndata:{\"event\":\"done\",\"result\":null}\n\n";
            let (mut lines, mut rest, mut events) = (EventLines::default(), &text[..], Vec::new());
            for cut in cuts.into_iter().chain([text.len()]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                lines.push(now);
                rest = later;
                while let Some(event) = lines.next_event().unwrap() {
                    events.push(event);
                }
            }
            prop_assert_eq!(events, vec![
                JobEvent::Progress { stage: "a".into(), done: 1, total: 0 },
                JobEvent::Done { result: serde_json::Value::Null },
            ]);
        }
    }
}
