//! What a person sees of the demo: numbered steps, the commands as typed, and what came of them.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::Site;

/// Longest part of a word shown whole: ids and paths are cut to their telling end or beginning.
const WORD_SHOWN: usize = 40;

/// Writes to standard output; in colour where that is a terminal and `NO_COLOR` is not set.
pub(super) struct Narrator {
    started: Instant,
    step: u32,
    has_colour: bool,
}

impl Narrator {
    pub(super) fn new(started: Instant) -> Self {
        let has_colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { started, step: 0, has_colour }
    }

    /// A new chapter.
    pub(super) fn step(&mut self, title: &str) -> io::Result<()> {
        self.step += 1;
        let seconds = self.started.elapsed().as_secs_f64();
        let title = self.bold(&format!("{:>2}. {title}", self.step));
        print(&format!("\n{title} {}", self.dim(&format!("[{seconds:.1} s]"))))
    }

    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        print(&format!("    {line}"))
    }

    /// A file, indented.
    pub(super) fn quote(&mut self, text: &str) -> io::Result<()> {
        for line in text.lines() {
            print(&self.dim(&format!("      {line}")))?;
        }
        Ok(())
    }

    /// A command as it could be typed at a site.
    pub(super) fn command(&mut self, site: &Site, arguments: &[&str]) -> io::Result<()> {
        let words = arguments.iter().map(|word| shown_word(word)).collect::<Vec<_>>().join(" ");
        print(&format!("    {} rialto {words}", self.dim(&format!("{}$", site.name()))))
    }

    /// What policy says, and what met the requirements of the rule; what did not is part of the reason.
    pub(super) fn verdict(&mut self, explanation: &Value) -> io::Result<()> {
        let word = self.coloured(explanation["verdict"].as_str().unwrap_or_default());
        self.say(&format!("{word}: {}", shortened(&explanation["because"])))?;
        for requirement in explanation["requirements"].as_array().into_iter().flatten() {
            if requirement["met"] == true {
                let name = requirement["name"].as_str().unwrap_or_default();
                self.say(&format!("{name}: {}", shortened(&requirement["because"])))?;
            }
        }
        Ok(())
    }

    /// How much came from whom.
    pub(super) fn fetched(&mut self, fetched: &Value, holders: &[&Site]) -> io::Result<()> {
        let from = holders.iter().filter_map(|site| {
            let bytes = fetched["peers"][site.peer_id().ok()?].as_u64()?;
            Some(format!("{} from {}", mebibytes(bytes), site.name()))
        });
        let from = from.collect::<Vec<_>>().join(", ");
        let (bytes, wire) = (fetched["bytes"].as_u64().unwrap_or(0), fetched["wire_bytes"].as_u64().unwrap_or(0));
        let seconds = fetched["seconds"].as_f64().unwrap_or(0.0);
        let (bytes, wire) = (mebibytes(bytes), mebibytes(wire));
        self.say(&format!("{bytes} of images in {seconds:.1} s, {wire} over the wire: {from}"))
    }

    /// An error that was to be expected.
    pub(super) fn refusal(&mut self, error: &Value) -> io::Result<()> {
        let word = self.coloured("refused");
        self.say(&format!("{word} (exit 4): {}", shortened(&error["message"])))
    }

    pub(super) fn page(&mut self, greeting: &str, port: u16) -> io::Result<()> {
        self.say(&format!("http://127.0.0.1:{port}/ says: {}", self.bold(greeting)))
    }

    pub(super) fn address(&mut self, site: &Site, link: &str) -> io::Result<()> {
        self.say(&format!("{:5} {link}", site.name()))
    }

    /// The line that scripts wait for.
    pub(super) fn ready(&mut self, took: Duration) -> io::Result<()> {
        print(&format!("\ndemo: ready in {:.1} s", took.as_secs_f64()))
    }

    pub(super) fn stays(&mut self) -> io::Result<()> {
        print("The links above work once each. Ctrl-C ends the demo and removes everything that it made.")
    }

    pub(super) fn ends(&mut self) -> io::Result<()> {
        print("\ndemo: ending the nodes and their guests")
    }

    fn coloured(&self, word: &str) -> String {
        let code = match word {
            "accept" => "32",
            "hold" => "33",
            _ => "31",
        };
        self.paint(code, word)
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.has_colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The first characters of an id.
pub(super) fn short(id: &str) -> String {
    match id.char_indices().nth(16) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

/// A sentence with its ids cut short.
fn shortened(sentence: &Value) -> String {
    let is_id_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut words = String::new();
    for piece in sentence.as_str().unwrap_or_default().split_inclusive(|c| !is_id_char(c)) {
        let id = piece.trim_end_matches(|c| !is_id_char(c));
        let is_id = id.len() > WORD_SHOWN;
        words.push_str(&if is_id { short(id) } else { id.to_owned() });
        words.push_str(&piece[id.len()..]);
    }
    words
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn shown_word(word: &str) -> String {
    if word.starts_with('/') {
        return word.rsplit('/').next().unwrap_or(word).to_owned();
    }
    if word.contains(' ') {
        return format!("'{word}'");
    }
    if word.len() > WORD_SHOWN && !word.contains('/') { short(word) } else { word.to_owned() }
}

fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_sentences_are_cut_short() {
        let sentence = format!("endorsed by lab (record baf{}): \"ok\"", "x".repeat(56));
        assert_eq!(shortened(&sentence.into()), "endorsed by lab (record bafxxxxxxxxxxxxx…): \"ok\"");
    }

    #[test]
    fn commands_are_shown_as_a_person_would_type_them() {
        assert_eq!(shown_word("/tmp/x/appliance.toml"), "appliance.toml");
        assert_eq!(shown_word("greeting=a b"), "'greeting=a b'");
        assert_eq!(shown_word(&"b".repeat(59)), format!("{}…", "b".repeat(16)));
        assert_eq!(
            shown_word("https://rialto.example/predicate/tested/v1"),
            "https://rialto.example/predicate/tested/v1"
        );
    }
}
