//! Passphrases: asked for on the terminal, where nobody reads along, or taken from a file that is named for scripts.
//!
//! Never from the command line, which every process of the machine can read.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write as _};

use rialto_web::api::ApiError;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::super::output::Outcome;

/// Names a file whose first line is the passphrase.
pub(in super::super) const FILE_VARIABLE: &str = "RIALTO_PASSPHRASE_FILE";
/// Longest passphrase, in bytes.
const MAX_BYTES: usize = 1024;
/// What Ctrl-C, Ctrl-D, Ctrl-U, backspace and delete send.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const ERASE_LINE: u8 = 21;
const BACKSPACE: u8 = 8;
const DELETE: u8 = 127;

/// Where passphrases come from.
#[derive(Debug)]
pub(in super::super) enum Source {
    /// The file of [`FILE_VARIABLE`]: it has one passphrase, and asking again gives the same one.
    Given(String),
    /// Whoever sits at the terminal.
    Terminal(File),
}

impl Source {
    /// The file that is named, else the terminal of this session, whatever stdin and stdout are.
    ///
    /// # Errors
    /// The file cannot be read; or there is no terminal.
    pub(in super::super) fn open() -> Outcome<Self> {
        if let Some(path) = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()) {
            let shown = path.to_string_lossy().into_owned();
            let refused = |why: String| ApiError::failed(format!("no passphrase can be read from {shown}: {why}"));
            let file = File::open(&path).map_err(|error| refused(error.to_string()))?;
            let mut bytes = Vec::new();
            file.take(MAX_BYTES as u64 + 2).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            if line.len() > MAX_BYTES {
                return Err(refused(format!("its first line has more than {MAX_BYTES} bytes")));
            }
            let line = String::from_utf8(line.to_vec()).map_err(|_| refused("it is not UTF-8".into()))?;
            return Ok(Self::Given(line.strip_suffix('\r').map(str::to_owned).unwrap_or(line)));
        }
        match OpenOptions::new().read(true).write(true).open("/dev/tty") {
            Ok(terminal) if terminal.is_terminal() => Ok(Self::Terminal(terminal)),
            _ => Err(ApiError::failed("a passphrase is needed, and there is no terminal to ask for it on").with_hint(
                format!("name a file whose first line it is in {FILE_VARIABLE}, or load the key into an ssh-agent"),
            )),
        }
    }

    /// Whether it makes sense to ask again after a wrong one.
    pub(in super::super) fn can_be_asked_again(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// A passphrase.
    ///
    /// # Errors
    /// The terminal is gone, or whoever sits there pressed Ctrl-C.
    pub(in super::super) fn ask(&mut self, prompt: &str) -> Outcome<String> {
        match self {
            Self::Given(passphrase) => Ok(passphrase.clone()),
            Self::Terminal(terminal) => {
                let failed = |error: io::Error| ApiError::failed(format!("no passphrase was read: {error}"));
                ask_terminal(terminal, prompt).map_err(failed)
            }
        }
    }

    /// A new passphrase: on a terminal it is asked for twice.
    ///
    /// # Errors
    /// As [`Source::ask`]; it is empty; the two differ.
    pub(in super::super) fn ask_new(&mut self, what: &str) -> Outcome<String> {
        let passphrase = self.ask(&format!("Passphrase for {what}: "))?;
        if passphrase.is_empty() {
            return Err(ApiError::usage(
                "an empty passphrase protects nothing; leave --passphrase out for a key without",
            ));
        }
        if self.can_be_asked_again() && self.ask("The same again: ")? != passphrase {
            return Err(ApiError::usage("the two passphrases differ; no key was made"));
        }
        Ok(passphrase)
    }
}

/// Gives the terminal its ways back, however this ends.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        // Ctrl-C comes as a byte: were it to kill us, the terminal would stay silent afterwards.
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

fn ask_terminal(mut terminal: &File, prompt: &str) -> io::Result<String> {
    let hidden = Hidden::new(terminal)?;
    terminal.write_all(prompt.as_bytes())?;
    let line = read_line(terminal);
    drop(hidden);
    terminal.write_all(b"\n")?;
    line
}

/// One line as it is typed, with the keys that erase.
fn read_line(mut from: impl Read) -> io::Result<String> {
    let mut line: Vec<u8> = Vec::new();
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match byte[0] {
            b'\n' | b'\r' => break,
            INTERRUPT => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            END if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            ERASE_LINE => line.clear(),
            BACKSPACE | DELETE => {
                // A character may be several bytes, of which only the first is not 10xxxxxx.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            other if line.len() < MAX_BYTES => line.push(other),
            _ => return Err(io::Error::other(format!("it is longer than {MAX_BYTES} bytes"))),
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_can_be_corrected() {
        for (typed, read) in [
            ("secret\n", "secret"),
            ("secrex\u{7f}t\r", "secret"),
            ("wrong\u{15}secret\n", "secret"),
            ("pä\u{8}aß\n", "paß"),
            ("\u{7f}\u{7f}a\n", "a"),
            ("\n", ""),
        ] {
            assert_eq!(read_line(typed.as_bytes()).unwrap(), read, "{typed:?}");
        }
        for abandoned in ["secret", "sec\u{3}ret\n", "\u{4}", &"x".repeat(MAX_BYTES + 1)] {
            assert!(read_line(abandoned.as_bytes()).is_err());
        }
    }
}
