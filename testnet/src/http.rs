//! A small blocking HTTP client: enough to read a guest's page, and to poke at a node's web face in tests.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wait::{WaitError, eventually};

/// A request may take this long to connect and between two reads.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for something that starts: QEMU accepts connections before its guest listens, and never answers those.
const PATIENCE_WITH_STARTERS: Duration = Duration::from_secs(1);
/// An answer is cut off here; no page of ours is near it.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers in the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text; bytes that are not UTF-8 show as `U+FFFD`.
    pub body: String,
}

impl Answer {
    /// The first header of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Reads `path` from `127.0.0.1:port` as soon as something there answers with status 200: a guest that boots, a node
/// that starts.
///
/// # Errors
/// Nothing has answered so within the time given; what the last attempt said is part of the error.
pub fn http_get(port: u16, path: &str, within: Duration) -> Result<Answer, WaitError> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(within, &format!("an answer from http://{address}{path}"), || {
        let answer =
            exchange(address, "GET", path, &[], "", PATIENCE_WITH_STARTERS).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(format!("status {}", answer.status)) }
    })
}

/// One request, one answer, one connection. `Host` is the address unless `headers` has one.
///
/// # Errors
/// No connection, or an answer that is not HTTP.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    exchange(address, method, path, headers, body, PATIENCE)
}

fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    patience: Duration,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;

    // HTTP/1.0, so that the answer ends with the connection and is never chunked.
    let mut text = format!("{method} {path} HTTP/1.0\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes())?;

    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let (first, rest) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let headers = rest
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Answer { status, headers, body: String::from_utf8_lossy(&bytes[end + 4..]).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = parse(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (403, "no"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
    }
}
