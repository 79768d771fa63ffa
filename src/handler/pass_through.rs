//! Answers that are the packets themselves, and are not copied.

use std::ops::Range;

/// A run of input that is to be sent back as it is, header and all.
///
/// A handler that answers with the very packet it was given, behind the same prefix, asks for bytes
/// that stand in the input already. They are not copied: the run is written straight from there, or
/// copied in one piece once something else has to go behind it.
#[derive(Debug, Default)]
pub(crate) struct PassThrough<'a> {
    input: &'a [u8],
    /// Bytes of input from the run on, and bytes of it behind the run.
    from: usize,
    behind: usize,
    /// Packets of the batch before the run, and with it.
    first: u32,
    last: u32,
}

impl<'a> PassThrough<'a> {
    /// Nothing yet, and the first packet may begin it.
    pub(crate) fn of(input: &'a [u8]) -> Self {
        Self { input, from: input.len(), behind: input.len(), first: 0, last: 0 }
    }

    pub(crate) fn input(&self) -> &'a [u8] {
        self.input
    }

    /// The run begins with the packet at `place`.
    #[inline(always)]
    pub(crate) fn begin(&mut self, place: &Place) {
        (self.from, self.behind) = (place.from, place.behind);
        (self.first, self.last) = (place.number - 1, place.number);
    }

    /// The run goes on with the packet at `place`, and with those between.
    #[inline(always)]
    pub(crate) fn grow(&mut self, place: &Place) {
        (self.behind, self.last) = (place.behind, place.number);
    }

    /// Appends the run to `out`, and forgets it. Returns how many packets it had.
    pub(crate) fn copy_to(&mut self, out: &mut Vec<u8>) -> u64 {
        let packets = self.packets();
        out.extend_from_slice(&self.input[self.range()]);
        *self = Self { input: self.input, ..Self::default() };
        packets
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

/// Where a packet stands: bytes of input from it on, bytes behind it, and its number in the batch.
pub(crate) struct Place {
    pub(crate) from: usize,
    pub(crate) behind: usize,
    pub(crate) number: u32,
}
