//! The two listeners: the UNIX socket, where whoever may open it has full control, and loopback TCP, which browsers use.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method, StatusCode, header};

use crate::api::{ApiError, Backend};
use crate::reply::{self, Refusal, Response};
use crate::rest::Question;
use crate::routes::{self, Answer, Reach, Target};
use crate::sessions::Sessions;
use crate::{assets, gate, pages, rest};

/// The largest request body: the values of a deployment fit many times over.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Connections served at once by each listener; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection may take to send a request's head, or stay silent between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Room for a request's head, and for what waits to be written.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;
/// How long open requests may take to finish after a shutdown begins; event streams end at once.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (out of file descriptors, for one): it will not get better at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves the API and the pages on a UNIX socket until `shutdown`. Whoever may open the socket has full control: no
/// session is asked for, and every operation is there.
pub async fn serve_unix(listener: UnixListener, backend: Arc<dyn Backend>, shutdown: CancellationToken) {
    let door = Door { backend, sessions: None, shutdown: shutdown.clone() };
    serve(listener, door, shutdown).await;
}

/// Serves the API and the pages to browsers on a loopback listener until `shutdown`: behind a Host check, a session and
/// an Origin check, and without the operations that name files or sign.
pub async fn serve_tcp(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    sessions: Sessions,
    shutdown: CancellationToken,
) {
    let door = Door { backend, sessions: Some(sessions), shutdown: shutdown.clone() };
    serve(listener, door, shutdown).await;
}

/// What a request goes through: everything is decided here or handed on.
#[derive(Clone)]
struct Door {
    backend: Arc<dyn Backend>,
    /// Present on the loopback listener only.
    sessions: Option<Sessions>,
    shutdown: CancellationToken,
}

/// What a listener gives: a stream for each connection.
trait Incoming: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Incoming for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        let (stream, _) = self.accept().await?;
        // Events are small and must not wait for each other.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Incoming for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// `warp::serve` sets no time limit for a request's head and no limit of connections, so this is its loop with both.
async fn serve(listener: impl Incoming, door: Door, shutdown: CancellationToken) {
    let filter = filter(door);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await;
            (listener.next().await, permit)
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = next => accepted,
        };
        match accepted {
            (Ok(stream), Ok(permit)) => {
                connections.spawn(converse(stream, filter.clone(), shutdown.clone(), permit));
            }
            (Ok(_), Err(_closed)) => break,
            (Err(error), _) => {
                tracing::warn!(%error, "a connection to the API could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
        tracing::info!(open = connections.len(), "requests to the API were cut off at shutdown");
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    filter: BoxedFilter<(Response,)>,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    let service = TowerToHyperService::new(warp::service(filter));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(SHUTDOWN_GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}

fn filter(door: Door) -> BoxedFilter<(Response,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |method: Method, path: warp::path::FullPath, query: String, headers: HeaderMap, body| {
            let door = door.clone();
            async move {
                let is_api = path.as_str().starts_with("/api/") || path.as_str() == "/metrics";
                let outcome = door.pass(&method, path.as_str(), &query, &headers, body).await;
                reply::harden(
                    outcome
                        .unwrap_or_else(|refusal| if is_api { refusal.into_json() } else { pages::refusal(refusal) }),
                )
            }
        })
        .boxed()
}

impl Door {
    async fn pass(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    ) -> Result<Response, Refusal> {
        if self.sessions.is_some() {
            gate::check_host(headers)?;
        }
        let segments = routes::segments(path).ok_or_else(|| Refusal::usage("the address is not valid UTF-8"))?;
        let is_reading = method == Method::GET || method == Method::HEAD;
        if is_reading && let Some(asset) = assets::find(&segments) {
            return Ok(assets::answer(asset, headers));
        }
        if path == "/metrics" || path.starts_with("/api/") {
            return self.operation(method, &segments, query, headers, body).await;
        }
        if path == "/login" {
            return self.login(method, query, headers);
        }
        if let Some(sessions) = &self.sessions {
            gate::check_session(headers, sessions)?;
            if !is_reading {
                gate::check_origin(method, headers)?;
            }
        }
        let body = if is_reading { Bytes::new() } else { read(headers, body).await? };
        let own_host = self.sessions.as_ref().and(headers.get(header::HOST)).and_then(|host| host.to_str().ok());
        let visit = pages::Visit { method, segments: &segments, query, headers, body, own_host };
        pages::answer(visit, &*self.backend).await
    }

    async fn operation(
        &self,
        method: &Method,
        segments: &[String],
        query: &str,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    ) -> Result<Response, Refusal> {
        let target = routes::find(method, segments);
        if let Some(sessions) = &self.sessions {
            let reach = if let Target::Found(route, _) = &target { route.reach } else { Reach::Session };
            if reach != Reach::Anyone {
                gate::check_session(headers, sessions)?;
            }
            let is_stream = matches!(&target, Target::Found(route, _) if matches!(route.answer, Answer::Events(_) | Answer::Text(_)));
            if is_stream || !(method == Method::GET || method == Method::HEAD) {
                gate::check_origin(method, headers)?;
            }
            if reach == Reach::Socket {
                return Err(ApiError::refused("this is not done from a browser: it names files of the node's machine, signs, or changes the store")
                    .with_hint("use the `rialto` command on the node's machine")
                    .into());
            }
        }
        match target {
            Target::Found(route, values) => {
                let body = if route.method == Method::GET { Bytes::new() } else { read(headers, body).await? };
                rest::answer(route.op, Question { values, query, headers, body }, &*self.backend, &self.shutdown).await
            }
            Target::OtherMethod(methods) => Ok(other_method(&methods)),
            Target::Nowhere => Err(ApiError::not_found("no operation is at this address")
                .with_hint("GET /api/v1/openapi.json lists all of them")
                .into()),
        }
    }

    /// Exchanges a one-time token for a session.
    fn login(&self, method: &Method, query: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
        let Some(sessions) = &self.sessions else { return Ok(reply::see_other("/")) };
        if method != Method::GET {
            return Ok(other_method(&[&Method::GET]));
        }
        let token =
            form_urlencoded::parse(query.as_bytes()).find_map(|(name, value)| (name == "token").then_some(value));
        let secret = match token {
            Some(token) => sessions.redeem(&token).map_err(|error| ApiError::failed(error.to_string()))?,
            None => None,
        };
        let Some(secret) = secret else {
            // A second click on a link that this browser has already used.
            if gate::check_session(headers, sessions).is_ok() {
                return Ok(reply::see_other("/"));
            }
            let error = ApiError::refused("this link has been used already, or is older than ten minutes")
                .with_hint("run `rialto web` again for a fresh one");
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, error));
        };
        // A new session replaces the one that this browser had.
        gate::session_secrets(headers, sessions).for_each(|old| sessions.close(old));
        let cookie = format!("{}={secret}; Path=/; HttpOnly; SameSite=Strict", sessions.cookie());
        let mut response = reply::see_other("/");
        let cookie = cookie.parse().map_err(|_| ApiError::failed("the session's cookie could not be written"))?;
        response.headers_mut().insert(header::SET_COOKIE, cookie);
        Ok(response)
    }
}

fn other_method(methods: &[&Method]) -> Response {
    let allowed = methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ");
    let error = ApiError::usage(format!("this address takes {allowed} only"));
    let mut response = reply::json(StatusCode::METHOD_NOT_ALLOWED, &error);
    if let Ok(allowed) = allowed.parse() {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// Reads a body of at most [`MAX_BODY_BYTES`], within [`BODY_TIMEOUT`]. What is too long by its own word is not read.
async fn read(headers: &HeaderMap, body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<Bytes, Refusal> {
    let too_large = || {
        let error = ApiError::usage(format!("the body is too long; at most {MAX_BODY_BYTES} bytes are read"));
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    };
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let whole = async {
        let mut body = std::pin::pin!(body);
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| Refusal::usage("the body broke off"))?;
            if bytes.len() + piece.remaining() > MAX_BODY_BYTES {
                return Err(too_large());
            }
            bytes.extend_from_slice(&copy(piece));
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, whole).await.unwrap_or_else(|_| {
        let error = ApiError::usage("the body took too long to arrive");
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, error))
    })
}

fn copy(mut piece: impl Buf) -> Bytes {
    piece.copy_to_bytes(piece.remaining())
}
