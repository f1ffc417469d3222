//! Static files, built into the program and cached by browsers for good, because their address holds their hash.

use std::sync::LazyLock;

use bytes::Bytes;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::reply::{self, Response};

/// One file.
pub(crate) struct Asset {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const ASSETS: &[Asset] = &[
    Asset { name: "rialto.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("static/rialto.css") },
    Asset {
        name: "rialto.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("static/rialto.js"),
    },
    Asset { name: "bridge.svg", content_type: "image/svg+xml", bytes: include_bytes!("static/bridge.svg") },
    Asset { name: "arcade.svg", content_type: "image/svg+xml", bytes: include_bytes!("static/arcade.svg") },
];

/// The hash of all files together, so that a file may refer to its neighbours by name alone.
static EDITION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    for asset in ASSETS {
        hasher.update(blake3::hash(asset.bytes).as_bytes());
    }
    hasher.finalize().to_hex().chars().take(16).collect()
});

/// Where a file is: `/static/<edition>/<name>`.
pub(crate) fn address(name: &str) -> String {
    format!("/static/{}/{name}", *EDITION)
}

/// The file at this path, under whatever edition: a page that was open across an upgrade still finds its style.
/// The flag says whether the address holds the hash of what it leads to.
pub(crate) fn find(segments: &[String]) -> Option<(&'static Asset, bool)> {
    let named = |name: &str| ASSETS.iter().find(|asset| asset.name == name);
    match segments {
        [first, edition, name] if first == "static" => named(name).map(|asset| (asset, *edition == *EDITION)),
        [name] if name == "favicon.ico" => named("bridge.svg").map(|asset| (asset, false)),
        _ => None,
    }
}

/// The file, or 304 where the browser has it.
pub(crate) fn answer((asset, is_current): (&'static Asset, bool), headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", *EDITION);
    let has_it =
        headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).is_some_and(|tags| tags.contains(&tag));
    let mut response = match has_it {
        true => reply::empty(StatusCode::NOT_MODIFIED),
        false => reply::with_type(StatusCode::OK, asset.content_type, Bytes::from_static(asset.bytes)),
    };
    let keep = if is_current { "public, max-age=31536000, immutable" } else { "no-cache" };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
