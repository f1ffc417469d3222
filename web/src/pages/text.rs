//! How words and numbers that came from others are shown: nothing hidden, nothing turned around, nothing endless.

use jiff::Timestamp;

/// Marks that may sit on one letter before the rest is dropped: real orthographies need two or three.
const MAX_MARKS: usize = 3;

/// One line of somebody's text. Characters that do not show, or that turn the direction of what follows, are written
/// out as `⟨U+202E⟩`; line breaks become spaces. Escaping for HTML comes after this, in the template.
pub(crate) fn line(text: &str) -> String {
    shown(text, |c| if matches!(c, '\n' | '\t') { Some(' ') } else { None })
}

/// Like [`line`], for text of several lines: line feeds and tabs stay.
pub(crate) fn block(text: &str) -> String {
    shown(text, |c| matches!(c, '\n' | '\t').then_some(c))
}

/// A guest's console: terminal escape sequences go, other control characters are dropped, the rest is as in [`block`].
pub(crate) fn console(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next_if(|c| matches!(c, '[' | ']')) {
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(_) => while chars.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
                None => drop(chars.next()),
            },
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => plain.push(c),
        }
    }
    block(&plain)
}

fn shown(text: &str, keep: impl Fn(char) -> Option<char>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        if let Some(kept) = keep(c) {
            out.push(kept);
            marks = 0;
        } else if is_mark(c) {
            marks += 1;
            if marks <= MAX_MARKS {
                out.push(c);
            }
        } else if c.is_control() || is_invisible(c) {
            out.push_str(&format!("⟨U+{:04X}⟩", u32::from(c)));
            marks = 0;
        } else {
            out.push(c);
            marks = 0;
        }
    }
    out
}

/// Characters that show nothing or reorder what is around them: format controls, blanks that pass for letters, tags.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0x00AD | 0x034F | 0x061C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E
        | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

/// Combining marks of the blocks that are used to smear text over its neighbours.
fn is_mark(c: char) -> bool {
    matches!(u32::from(c), 0x0300..=0x034E | 0x0350..=0x036F | 0x0483..=0x0489 | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF | 0xFE20..=0xFE2F)
}

/// A length of time for people, in one unit, rounded down.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A count of bytes for people: binary units, three digits at most.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// An age in days for people.
pub(crate) fn age(days: i64) -> String {
    match days {
        ..0 => "dated in the future".into(),
        0 => "today".into(),
        1 => "yesterday".into(),
        2..=59 => format!("{days} days ago"),
        60..=729 => format!("{} months ago", days / 30),
        _ => format!("{} years ago", days / 365),
    }
}

/// A length of time for people.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} {} h", count(seconds / 86_400, "day", "days"), seconds / 3600 % 24),
    }
}

/// A time as people read it, to the minute; what is not a time is shown as it is.
pub(crate) fn time(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => line(text),
    }
}

/// A count and its noun.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_text_is_written_out() {
        assert_eq!(line("safe\u{202e}exe.gpj"), "safe⟨U+202E⟩exe.gpj");
        assert_eq!(line("ce\u{200b}rn"), "ce⟨U+200B⟩rn");
        assert_eq!(line("a\u{1b}[31mb\0"), "a⟨U+001B⟩[31mb⟨U+0000⟩");
        assert_eq!(line("two\nlines\tand a tab"), "two lines and a tab");
        assert_eq!(block("two\nlines\r"), "two\nlines⟨U+000D⟩");
        assert_eq!(line("Zürich 東京 שלום 🚀"), "Zürich 東京 שלום 🚀");
        assert_eq!(line(&format!("z{}", "\u{0335}".repeat(400))).chars().count(), 1 + MAX_MARKS);
        assert_eq!(line("\u{e0041}\u{2066}\u{feff}\u{3164}"), "⟨U+E0041⟩⟨U+2066⟩⟨U+FEFF⟩⟨U+3164⟩");
    }

    #[test]
    fn a_console_is_read_without_its_escape_sequences() {
        assert_eq!(console(b"\x1b[1;32mok\x1b[0m boot\r\n\x1b]0;title\x07done\x07\xff"), "ok boot\ndone\u{fffd}");
        assert_eq!(console(b"cut off \x1b["), "cut off ");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            [0, 1023, 1024, 10_240, 1_048_575, 477 << 20, u64::MAX].map(size),
            ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1.0 MiB", "477 MiB", "16 EiB"]
        );
        assert_eq!(
            [-1, 0, 1, 45, 100, 1000].map(age),
            ["dated in the future", "today", "yesterday", "45 days ago", "3 months ago", "2 years ago"]
        );
        assert_eq!(duration(93_784.5), "1 day 2 h");
        assert_eq!(time("2026-03-01T10:20:30Z"), "2026-03-01 10:20 UTC");
        assert_eq!(time("<b>"), "<b>");
    }
}
