//! The gate of the loopback listener: which host name was asked for, who asks, and from which page.
//!
//! Three different attackers stand behind the three checks. *Host*: a web page whose name was rebound to 127.0.0.1.
//! *Session*: another user of this machine, or a guest that reaches the host's loopback. *Origin*: a page in the same
//! browser, which includes a guest's own page on another port, because cookies and `SameSite` know no ports.

use warp::http::{HeaderMap, HeaderName, Method, StatusCode, header};

use crate::api::{ApiError, ErrorCode};
use crate::reply::Refusal;
use crate::sessions::Sessions;

/// Fetch metadata (W3C): how the page that asks relates to us. Pages cannot set it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks that the request names this host by a loopback name, on any port so that `ssh -L` works.
pub(crate) fn check_host(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    match host {
        Some(host) if hosts.next().is_none() && is_loopback_name(host) => Ok(()),
        _ => Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            ApiError::refused("this node answers only as localhost, 127.0.0.1 or [::1]")
                .with_hint("open the link that `rialto web` prints; from another machine, through `ssh -L`"),
        )),
    }
}

/// Checks that the request belongs to an open session.
pub(crate) fn check_session(headers: &HeaderMap, sessions: &Sessions) -> Result<(), Refusal> {
    if session_secrets(headers, sessions).any(|secret| sessions.is_open(secret)) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNAUTHORIZED,
        ApiError::refused("no session: this browser has not been let in, or the node was restarted since")
            .with_hint("run `rialto web` on the node's machine and open the link that it prints"),
    ))
}

/// Checks that a request which changes something, or which streams, comes from one of our own pages.
pub(crate) fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    let is_ours = match (text(header::ORIGIN), text(SEC_FETCH_SITE)) {
        (_, Some(site)) if site != "same-origin" && site != "none" => false,
        // Under `Referrer-Policy: no-referrer` a browser sends `Origin: null` with our own forms: its fetch metadata decides.
        (None | Some("null"), Some("same-origin")) => true,
        (Some(origin), _) => origin.strip_prefix("http://").is_some_and(|named| named.eq_ignore_ascii_case(host)),
        // No page at all: a script that holds the cookie, or somebody who typed the address of a stream.
        (None, _) => method == Method::GET || method == Method::HEAD,
    };
    if is_ours {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        ApiError::new(ErrorCode::Refused, "the request does not come from one of this node's own pages")
            .with_hint("reload the page and try again; scripts use the node's UNIX socket instead"),
    ))
}

/// The values of our cookie. A browser can send several; whichever is open counts.
pub(crate) fn session_secrets<'a>(headers: &'a HeaderMap, sessions: &'a Sessions) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(name, value)| (name == sessions.cookie()).then_some(value))
}

fn is_loopback_name(host: &str) -> bool {
    let port_of = |name: &str| {
        host.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(name)).map(|_| &host[name.len()..])
    };
    ["localhost", "127.0.0.1", "[::1]"].into_iter().filter_map(port_of).any(|rest| match rest.strip_prefix(':') {
        Some(port) => port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => rest.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass_on_any_port() {
        for good in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:7070", "[::1]", "[::1]:65535"] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:",
            "127.0.0.1:+1",
            "127.0.0.1:65536",
            "127.0.0.1:80:80",
            "127.0.0.2",
            "0.0.0.0",
            "[::]",
            "::1",
            "user@localhost",
            "localhost/",
            "lócalhost",
        ] {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }

    fn origin(method: Method, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        map.insert(header::HOST, "127.0.0.1:7070".parse().unwrap());
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        check_origin(&method, &map).is_ok()
    }

    #[test]
    fn a_change_comes_from_our_own_page() {
        let ours = ("origin", "http://127.0.0.1:7070");
        assert!(origin(Method::POST, &[ours]));
        assert!(origin(Method::POST, &[ours, ("sec-fetch-site", "same-origin")]));
        assert!(origin(Method::POST, &[("origin", "null"), ("sec-fetch-site", "same-origin")]));
        assert!(origin(Method::GET, &[("sec-fetch-site", "same-origin")]));
        assert!(origin(Method::GET, &[]));
        for refused in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "http://evil.example")],
            &[("origin", "http://127.0.0.1:8081")],
            &[("origin", "https://127.0.0.1:7070")],
            &[("sec-fetch-site", "none")],
            &[("origin", "null"), ("sec-fetch-site", "same-site")],
            &[ours, ("sec-fetch-site", "same-site")],
            &[ours, ("sec-fetch-site", "cross-site")],
        ] {
            assert!(!origin(Method::POST, refused), "{refused:?}");
        }
        assert!(!origin(Method::GET, &[("sec-fetch-site", "same-site")]), "a guest's page must not read our streams");
        assert!(!origin(Method::GET, &[("origin", "http://127.0.0.1:8081")]));
    }
}
