//! Splits a zone file into entries, and finds parentheses and quotes that are not closed.
//!
//! An entry is a line. In parentheses it may have several lines (RFC 1035 §5.1). So a line feed ends
//! an entry, or is white space in parentheses, or is a mistake.

/// What is unbalanced in a zone file.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unbalanced {
    #[error("a quote that is not closed on its line")]
    Quote,
    #[error("a parenthesis that is never closed")]
    Open,
    #[error("a parenthesis that was never opened")]
    Closed,
    #[error("a backslash with nothing after it")]
    Backslash,
}

/// Iterates over the entries of a text, each with the number of its first line. A mistake comes with
/// the number of the line where it is.
pub(crate) struct Entries<'t> {
    rest: &'t [u8],
    line: usize,
}

impl<'t> Entries<'t> {
    pub(crate) fn new(text: &'t [u8]) -> Self {
        Self { rest: text, line: 1 }
    }

    /// Returns the length of the next entry in bytes, and its number of lines.
    fn measure(&self) -> Result<(usize, usize), (usize, Unbalanced)> {
        let mut line = self.line;
        let mut open = Vec::new(); // the line of each open parenthesis
        let (mut in_quotes, mut in_comment) = (false, false);
        let mut bytes = self.rest.iter().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\n' if in_quotes => return Err((line, Unbalanced::Quote)),
                b'\n' => {
                    line += 1;
                    in_comment = false;
                    if open.is_empty() {
                        return Ok((at + 1, line - self.line));
                    }
                }
                _ if in_comment => {}
                b'\\' if matches!(bytes.next(), None | Some((_, b'\n'))) => {
                    return Err((line, Unbalanced::Backslash));
                }
                b'"' => in_quotes = !in_quotes,
                _ if in_quotes => {}
                b';' => in_comment = true,
                b'(' => open.push(line),
                b')' => drop(open.pop().ok_or((line, Unbalanced::Closed))?),
                _ => {}
            }
        }
        match open.first() {
            _ if in_quotes => Err((line, Unbalanced::Quote)),
            Some(first) => Err((*first, Unbalanced::Open)),
            None => Ok((self.rest.len(), 1)),
        }
    }
}

impl<'t> Iterator for Entries<'t> {
    type Item = (usize, Result<&'t [u8], Unbalanced>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        Some(match self.measure() {
            Ok((len, lines)) => {
                let (entry, rest) = self.rest.split_at(len);
                (self.rest, self.line) = (rest, line + lines);
                (line, Ok(entry))
            }
            Err((line, mistake)) => {
                self.rest = &[];
                (line, Err(mistake))
            }
        })
    }
}
