//! What people and scripts see: one JSON value, or aligned text in which nothing from gossip can move the cursor.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use rialto_web::api::{ApiError, VerdictKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::units::ByteSize;

/// Widest column of a table, in characters: an address with a peer id fits. `--json` and `show` have the whole text.
const MAX_COLUMN: usize = 120;

/// How a command ends.
pub(super) type Outcome<T = ()> = Result<T, ApiError>;

/// Where output goes and in which form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Face {
    /// One JSON value on stdout, and errors in JSON.
    pub(super) is_json: bool,
    has_colour: bool,
    has_error_colour: bool,
}

impl Face {
    /// Colours only on a terminal, and not where NO_COLOR is set (no-color.org).
    pub(super) fn new(is_json: bool) -> Self {
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            is_json,
            has_colour: is_wanted && io::stdout().is_terminal(),
            has_error_colour: is_wanted && io::stderr().is_terminal(),
        }
    }

    /// Prints a value: itself with `--json`, else what `human` makes of it.
    pub(super) fn print<T: Serialize>(&self, value: &T, human: impl FnOnce(&mut Page)) -> Outcome {
        if self.is_json {
            let text = serde_json::to_string(value)
                .map_err(|error| ApiError::failed(format!("cannot write JSON: {error}")))?;
            return self.write(&(text + "\n"));
        }
        let mut page = Page { text: String::new(), has_colour: self.has_colour };
        human(&mut page);
        self.write(&page.text)
    }

    /// Prints the result of a job: as it came with `--json`, so that no field of a newer node is lost.
    pub(super) fn print_result<T: DeserializeOwned>(
        &self,
        result: &Value,
        human: impl FnOnce(&mut Page, T),
    ) -> Outcome {
        if self.is_json {
            return self.print(result, |_| {});
        }
        let typed = T::deserialize(result)
            .map_err(|error| ApiError::failed(format!("the node's result cannot be read: {error}")))?;
        self.print(result, |page| human(page, typed))
    }

    /// Writes text to stdout, at once. Whoever closed the other end has seen enough: that is no error.
    pub(super) fn write(&self, text: &str) -> Outcome {
        self.write_bytes(text.as_bytes())
    }

    /// Writes bytes to stdout, at once.
    pub(super) fn write_bytes(&self, bytes: &[u8]) -> Outcome {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(ApiError::failed(format!("cannot write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// A remark on stderr, for people.
    pub(super) fn note(&self, text: impl Display) {
        // Nothing can be done about a stderr that is gone.
        let _ = writeln!(io::stderr().lock(), "{}", plain_lines(&text.to_string()));
    }

    /// As [`Face::note`], where a person watches: scripts need not know that something takes a while.
    pub(super) fn note_on_terminal(&self, text: impl Display) {
        if !self.is_json && io::stderr().is_terminal() {
            self.note(text);
        }
    }

    /// The error that ends the command.
    pub(super) fn complain(&self, error: &ApiError) {
        let mut stderr = io::stderr().lock();
        let _ = if self.is_json {
            writeln!(stderr, "{}", error_json(error))
        } else {
            let paint = |tone: Tone, word: &str| painted(word, tone, self.has_error_colour);
            let hint = error
                .hint
                .as_ref()
                .map_or(String::new(), |hint| format!("{} {}\n", paint(Tone::Faint, "hint:"), plain_lines(hint)));
            write!(stderr, "{} {}\n{hint}", paint(Tone::Bad, "error:"), plain_lines(&error.message))
        };
    }
}

/// The last line of stderr with `--json`.
pub(super) fn error_json(error: &ApiError) -> Value {
    json!({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
}

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Strong,
    Faint,
    Good,
    Warn,
    Bad,
}

impl From<VerdictKind> for Tone {
    fn from(verdict: VerdictKind) -> Self {
        match verdict {
            VerdictKind::Accept => Self::Good,
            VerdictKind::Hold => Self::Warn,
            VerdictKind::Reject => Self::Bad,
        }
    }
}

/// One piece of text of a table or list.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
    is_number: bool,
}

impl Cell {
    pub(super) fn new(text: impl Display, tone: Tone) -> Self {
        Self { text: plain(&text.to_string()).into_owned(), tone, is_number: false }
    }

    pub(super) fn size(bytes: u64) -> Self {
        Self { is_number: true, ..Self::new(ByteSize(bytes), Tone::Plain) }
    }

    pub(super) fn number(number: impl Display) -> Self {
        Self { is_number: true, ..Self::new(number, Tone::Plain) }
    }

    pub(super) fn verdict(verdict: VerdictKind) -> Self {
        Self::new(verdict.as_str(), verdict.into())
    }

    /// Cut to what a column may take, so that one long name cannot push a whole table off the screen.
    fn cut(mut self) -> Self {
        if let Some((at, _)) = self.text.char_indices().nth(MAX_COLUMN) {
            self.text.truncate(at);
            self.text.push('…');
        }
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Text for people under construction. Whatever comes in is made harmless for terminals first.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    has_colour: bool,
}

impl Page {
    /// One line.
    pub(super) fn line(&mut self, text: impl Into<Cell>) {
        let cell = text.into();
        self.text.push_str(&painted(&cell.text, cell.tone, self.has_colour));
        self.text.push('\n');
    }

    /// A line that begins a part.
    pub(super) fn heading(&mut self, text: impl Display) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(Cell::new(text, Tone::Strong));
    }

    /// Text of several lines, indented.
    pub(super) fn paragraph(&mut self, text: &str) {
        for line in plain_lines(text).lines() {
            self.text.push_str("  ");
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    /// Names and values, aligned; those with an empty value are left out.
    pub(super) fn fields<const N: usize>(&mut self, fields: [(&str, Cell); N]) {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.text.is_empty()) {
            self.text.push_str(&painted(&format!("{name:width$}"), Tone::Faint, self.has_colour));
            self.text.push_str("  ");
            self.line(value);
        }
    }

    /// One line of texts, each padded to a width in characters.
    pub(super) fn columns<const N: usize>(&mut self, columns: [(Cell, usize); N]) {
        let mut line = String::new();
        for (cell, width) in columns {
            line.push_str(&painted(&cell.text, cell.tone, self.has_colour));
            line.push_str(&" ".repeat(width.saturating_sub(cell.width()) + 2));
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A table; numbers stand right, what is longer than a column may be ends in `…`.
    pub(super) fn table<const N: usize>(&mut self, head: [&str; N], rows: Vec<[Cell; N]>) {
        let mut all = vec![head.map(|title| Cell::new(title, Tone::Faint))];
        if let Some(first) = rows.first() {
            for (title, cell) in all[0].iter_mut().zip(first) {
                title.is_number = cell.is_number;
            }
        }
        all.extend(rows.into_iter().map(|row| row.map(Cell::cut)));
        let widths: Vec<usize> =
            (0..N).map(|column| all.iter().map(|row| row[column].width()).max().unwrap_or(0)).collect();
        for row in &all {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.width());
                let text = painted(&cell.text, cell.tone, self.has_colour);
                if column > 0 {
                    line.push_str("  ");
                }
                match cell.is_number {
                    true => line.extend([padding, text]),
                    false => line.extend([text, padding]),
                }
            }
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }
}

fn painted(text: &str, tone: Tone, has_colour: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Strong => "1",
        Tone::Faint => "2",
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
    };
    if !has_colour || text.is_empty() {
        return text.to_owned();
    }
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Text on one line that does nothing to a terminal: control, direction and invisible characters show as `\u{…}`.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    harmless(text, |c| is_harmful(c) || matches!(c, '\n' | '\t'))
}

/// As [`plain`], but line feeds and tabs stay.
pub(super) fn plain_lines(text: &str) -> Cow<'_, str> {
    harmless(text, is_harmful)
}

fn harmless(text: &str, is_harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !is_harmful(c) => shown.push(c),
            '\n' | '\t' => shown.push(' '),
            c => shown.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// Characters that move the cursor, change colours, turn the direction of text (UAX 9), or cannot be seen at all.
fn is_harmful(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// How long ago a time was, in one unit: `12 s`, `5 min`, `3 h`, `2 d`, `7 wk`, `3 y`.
pub(super) fn age(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => span(Timestamp::now().as_second() - then.as_second()),
        Err(_) => time.to_owned(),
    }
}

/// A time in one unit, rounded down.
pub(super) fn span(seconds: i64) -> String {
    match seconds {
        ..0 => "in the future".into(),
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        86_400..1_209_600 => format!("{} d", seconds / 86_400),
        1_209_600..63_072_000 => format!("{} wk", seconds / 604_800),
        _ => format!("{} y", seconds / 31_536_000),
    }
}

/// Bytes over seconds, for people.
pub(super) fn rate(bytes: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return String::new();
    }
    format!("{}/s", ByteSize((bytes as f64 / seconds) as u64))
}

/// `1 chunk`, `2 chunks`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page() -> Page {
        Page { text: String::new(), has_colour: false }
    }

    #[test]
    fn tables_are_aligned_and_numbers_stand_right() {
        let mut page = page();
        page.table(
            ["NAME", "SIZE", "SUMMARY"],
            vec![["a".into(), Cell::size(1024), "one".into()], ["longer".into(), Cell::size(3 << 29), "".into()]],
        );
        assert_eq!(page.text, "NAME       SIZE  SUMMARY\na         1 KiB  one\nlonger  1.5 GiB\n");
    }

    #[test]
    fn one_long_name_does_not_push_a_table_off_the_screen() {
        let mut page = page();
        page.table(["A", "B"], vec![["ü".repeat(5000).into(), "b".into()]]);
        assert!(page.text.lines().all(|line| line.chars().count() <= MAX_COLUMN + 4), "{}", page.text);
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let mut page = page();
        page.fields([("name", "uni".into()), ("federation", "demo".into()), ("web", "".into())]);
        assert_eq!(page.text, "name        uni\nfederation  demo\n");
    }

    #[test]
    fn gossip_cannot_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb c");
        assert_eq!(plain("\u{202e}cod.exe \u{9b}31m"), "\\u{202e}cod.exe \\u{9b}31m");
        assert_eq!(plain_lines("ü\n\tok\r"), "ü\n\tok\\u{d}");
        let mut page = page();
        page.table(["X"], vec![["\u{1b}]0;title\u{7}".into()]]);
        page.line("\u{1b}c");
        page.paragraph("\u{1b}[A\nx");
        assert!(!page.text.contains(|c: char| c.is_control() && c != '\n'), "{:?}", page.text);
    }

    #[test]
    fn ages_are_in_one_unit() {
        for (seconds, text) in [
            (-5, "in the future"),
            (59, "59 s"),
            (60, "1 min"),
            (7_199, "1 h"),
            (172_800, "2 d"),
            (1_209_600, "2 wk"),
            (94_608_000, "3 y"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(age("yesterday"), "yesterday");
    }

    #[test]
    fn errors_in_json_have_all_three_fields() {
        let error = ApiError::not_found("no such thing");
        assert_eq!(
            error_json(&error).to_string(),
            r#"{"error":{"code":"not-found","hint":null,"message":"no such thing"}}"#
        );
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text in any::<String>()) {
            prop_assert!(!plain(&text).contains(|c: char| is_harmful(c) || c == '\n'));
            prop_assert!(!plain_lines(&text).contains(is_harmful));
        }
    }
}
