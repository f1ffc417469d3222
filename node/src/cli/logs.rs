//! `rialto logs INSTANCE [-f]`: what the guest wrote to its console.

use std::io::{self, IsTerminal as _};

use clap::Args;
use rialto_web::api::ApiError;
use serde_json::json;

use super::output::{Face, Outcome, plain};
use crate::client::{Client, segment};

/// Most of a console that becomes one JSON value, in bytes.
const MAX_JSON_BYTES: usize = 16 * 1024 * 1024;

/// Which instance.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Its id
    instance: String,
    /// Go on with what it writes from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Let the guest's own control sequences reach the terminal
    #[arg(long)]
    raw: bool,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    if face.is_json && arguments.follow {
        return Err(ApiError::usage("--json prints one value, and --follow has no end; use one of them"));
    }
    let path = format!("instances/{}/logs?follow={}", segment(&arguments.instance), arguments.follow);
    let mut stream = client.stream(&path, "*/*").await?;
    let mut whole = Vec::new();
    let mut filter = (io::stdout().is_terminal() && !arguments.raw).then(Filter::default);
    loop {
        let bytes = tokio::select! {
            bytes = stream.next() => bytes?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        match (bytes, &mut filter) {
            (None, _) => break,
            (Some(bytes), _) if face.is_json => {
                if whole.len() + bytes.len() > MAX_JSON_BYTES {
                    return Err(ApiError::failed(format!("the log is longer than {MAX_JSON_BYTES} bytes"))
                        .with_hint("read it without --json"));
                }
                whole.extend_from_slice(&bytes);
            }
            (Some(bytes), None) => face.write_bytes(&bytes)?,
            (Some(bytes), Some(filter)) => face.write(&filter.pass(&bytes))?,
        }
    }
    if face.is_json {
        return face.print(&json!({"instance": arguments.instance, "text": String::from_utf8_lossy(&whole)}), |_| {});
    }
    Ok(())
}

/// Takes control sequences (ECMA-48) out of a console's output, which comes in any portions, and makes the rest harmless.
#[derive(Debug, Default)]
struct Filter {
    state: State,
    /// Bytes of a character that is not complete yet.
    partial: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC [ or ESC with an intermediate byte: until a final byte.
    Sequence,
    /// After ESC ] and its like: until BEL or ESC \.
    Command,
}

impl Filter {
    fn pass(&mut self, bytes: &[u8]) -> String {
        let mut text = Vec::new();
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (_, 0x1b) => State::Escape,
                (State::Text, b'\r') => State::Text,
                (State::Text, byte) => {
                    self.partial.push(byte);
                    State::Text
                }
                (State::Escape, b'[' | 0x20..=0x2f) => State::Sequence,
                (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Command,
                (State::Escape, _) => State::Text,
                (State::Sequence, 0x40..=0x7e) => State::Text,
                (State::Sequence, b'\n') | (State::Command, 0x07) => State::Text,
                (state, _) => state,
            };
        }
        text.append(&mut self.partial);
        self.partial = text.split_off(complete(&text));
        let lines: Vec<_> = String::from_utf8_lossy(&text).split('\n').map(|line| plain(line).into_owned()).collect();
        lines.join("\n")
    }
}

/// Length of the part of the bytes that does not end within a character.
fn complete(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        // What is wrong further in shows as U+FFFD; at most three bytes at the end may still become a character.
        Err(_) => (bytes.len().saturating_sub(3)..bytes.len())
            .find(|&at| {
                std::str::from_utf8(&bytes[at..])
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
            })
            .unwrap_or(bytes.len()),
        Ok(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_sequences_of_a_guest_do_not_reach_the_terminal() {
        let mut filter = Filter::default();
        assert_eq!(filter.pass(b"\x1b[1;32mlogin:\x1b[0m \x1b]0;title\x07root\r\n\x1b(B\x08x"), "login: root\n\\u{8}x");
        assert_eq!(filter.pass("ü".as_bytes().split_at(1).0), "");
        assert_eq!(filter.pass("ü".as_bytes().split_at(1).1), "ü");
        assert_eq!(filter.pass(b"a\xff\xc3"), "a\u{fffd}");
    }

    proptest! {
        #[test]
        fn portions_do_not_matter(text in proptest::collection::vec(prop_oneof![Just(0x1bu8), Just(b'['), Just(b']'), Just(7), Just(b'\n'), any::<u8>()], 0..60), cut in 0usize..60) {
            let (first, second) = text.split_at(cut.min(text.len()));
            let mut whole = Filter::default();
            let mut parts = Filter::default();
            let at_once = whole.pass(&text);
            let in_parts = parts.pass(first) + &parts.pass(second);
            prop_assert_eq!(&at_once, &in_parts);
            prop_assert!(!at_once.contains(|c: char| c.is_control() && c != '\n'));
        }
    }
}
