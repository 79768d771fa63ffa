//! Answers that are the packets themselves, and are not copied.

use std::ops::Range;

/// A run of input that is to be sent back as it is, header and all.
///
/// A handler that answers with the very packet it was given, behind the same prefix, asks for bytes
/// that stand in the input already. They are not copied: the run is written straight from there, or
/// copied in one piece once something else has to go behind it.
#[derive(Debug, Default)]
pub(crate) struct Echo<'a> {
    pub(crate) input: &'a [u8],
    /// Bytes of input from the run on, and bytes of it behind the run.
    pub(crate) from: usize,
    pub(crate) behind: usize,
    /// Packets of the batch before the run, and with it.
    pub(crate) first: u32,
    pub(crate) last: u32,
}

impl<'a> Echo<'a> {
    /// Nothing yet, and the first packet may begin it.
    pub(crate) fn of(input: &'a [u8]) -> Self {
        Self { input, from: input.len(), behind: input.len(), first: 0, last: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.from - self.behind
    }

    pub(crate) fn packets(&self) -> u64 {
        (self.last - self.first).into()
    }

    /// Where in the input the run is.
    pub(crate) fn range(&self) -> Range<usize> {
        self.input.len() - self.from..self.input.len() - self.behind
    }
}
