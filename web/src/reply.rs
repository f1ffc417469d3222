//! How answers look on the wire: JSON, pages, streams, refusals, and the headers that every one of them carries.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::http::{HeaderName, HeaderValue, StatusCode, header};

use crate::api::{ApiError, BoxStream};

/// What a handler answers.
pub(crate) type Response = warp::reply::Response;

/// Items of a stream that wait for a slow reader; then the backend's stream waits too.
const STREAM_QUEUE: usize = 32;
/// A silent event stream says that it lives this often, so that proxies and tunnels keep it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Nothing but our own files, no inline code, no frames: what gossip says cannot become a program even if an escape failed.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// An error and its HTTP status, where that says more than the error's code.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: ApiError,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: ApiError) -> Self {
        Self { status, error }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        ApiError::usage(message).into()
    }

    pub(crate) fn into_json(self) -> Response {
        json(self.status, &self.error)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, error }
    }
}

/// A JSON answer.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => with_type(status, "application/json", body),
        // Only a map with keys that are not text fails, and the API has none.
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// An answer of one content type.
pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    status.into_response()
}

/// Sends the browser on with a GET. `location` is one of our own paths.
pub(crate) fn see_other(location: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    match HeaderValue::from_str(location) {
        Ok(location) => response.headers_mut().insert(header::LOCATION, location),
        Err(_) => response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/")),
    };
    response
}

/// Server-sent events, one JSON value per `data:`. The stream ends with its source, its reader or the listener.
pub(crate) fn events<T: Serialize + Send + 'static>(source: BoxStream<T>, shutdown: &CancellationToken) -> Response {
    let events = forward(source, shutdown).map(|item| {
        let event = warp::sse::Event::default();
        // The API's values can all be written; a comment keeps the stream alive if one ever cannot.
        Ok::<_, Infallible>(
            event.json_data(&item).unwrap_or_else(|_| warp::sse::Event::default().comment("unwritable")),
        )
    });
    warp::sse::reply(warp::sse::keep_alive().interval(KEEP_ALIVE).stream(events)).into_response()
}

/// Plain text as it comes.
pub(crate) fn text_stream(source: BoxStream<Bytes>, shutdown: &CancellationToken) -> Response {
    let body = forward(source, shutdown).map(Ok::<_, Infallible>);
    let mut response = warp::reply::stream(body).into_response();
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// Puts the headers on that every answer carries. What has not said how it may be kept is not kept.
pub(crate) fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Moves items into a bounded queue, which makes the stream `Sync` (warp asks for it) and ends it at shutdown.
fn forward<T: Send + 'static>(
    mut source: BoxStream<T>,
    shutdown: &CancellationToken,
) -> impl Stream<Item = T> + Send + Sync + use<T> {
    let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let pump = async {
            while let Some(item) = source.next().await {
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = pump => {}
            () = sender.closed() => {}
            () = shutdown.cancelled() => {}
        }
    });
    ReceiverStream::new(receiver)
}
