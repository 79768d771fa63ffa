//! Text that the library did not write, for the log and for errors.

use std::fmt::{self, Write};

/// A foreign text as a part of one line, for example the text of a panic. Characters that would
/// break the line, control a terminal or change the text's direction are escaped. A text that is
/// longer than [`Line::MAX`] is cut.
#[derive(Debug, Copy, Clone)]
pub(crate) struct Line<'a>(pub(crate) &'a str);

impl Line<'_> {
    /// The most bytes that are shown, escapes included. 512 bytes are enough for a failed
    /// `assert_eq!`. A peer that chooses the text cannot make lines longer.
    pub(crate) const MAX: usize = 512;

    /// Whether a character does more than show a glyph, and so has to be escaped.
    pub(crate) fn is_special(c: char) -> bool {
        // In addition to controls: line and paragraph separators, and marks that change the
        // direction.
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2066}'..='\u{2069}')
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = Self::MAX;
        for (at, c) in self.0.char_indices() {
            let special = Self::is_special(c);
            let len = if special { c.escape_default().len() } else { c.len_utf8() };
            if len > room {
                return write!(f, "... ({} bytes more)", self.0.len() - at);
            }
            room -= len;
            if special {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_on_one_line() {
        for (text, line) in [
            ("as it is: \"C:\\new\", 'grüße' 日本 🎉", "as it is: \"C:\\new\", 'grüße' 日本 🎉"),
            ("a\nb\r\n\tc\0", "a\\nb\\r\\n\\tc\\u{0}"),
            ("\x1b[2J\x07\x7f\u{9b}31m", "\\u{1b}[2J\\u{7}\\u{7f}\\u{9b}31m"),
            ("\u{85}\u{2028}\u{2029}", "\\u{85}\\u{2028}\\u{2029}"),
            ("\u{202e}abc\u{2066}", "\\u{202e}abc\\u{2066}"),
        ] {
            assert_eq!(Line(text).to_string(), line);
        }
    }

    #[test]
    fn text_of_others_is_cut() {
        let exact = "x".repeat(Line::MAX);
        assert_eq!(Line(&exact).to_string(), exact);
        let cut = Line(&"x".repeat(1_000_000)).to_string();
        assert_eq!(cut, format!("{exact}... (999488 bytes more)"));
        let escaped = Line(&"\n".repeat(1_000_000)).to_string();
        assert_eq!(escaped, format!("{}... (999744 bytes more)", "\\n".repeat(Line::MAX / 2)));
        let wide = Line(&"ü".repeat(Line::MAX)).to_string();
        assert_eq!(wide, format!("{}... (512 bytes more)", "ü".repeat(Line::MAX / 2)));
    }
}
