//! Pass-through: answers that are received packets, unchanged, and that are not copied.

use std::ops::Range;

/// A pass-through run: a range of the input that is sent back as it is, headers included.
///
/// A handler may answer with the packet that it was given. If the answer has the same length prefix,
/// the input already holds its bytes. The run is then written to the socket from the input. It is
/// copied, in one piece, in two cases: it has to wait for earlier output or for the kernel, or other
/// output follows that one write can send with it. What the kernel refuses is queued.
#[derive(Debug, Default)]
pub(crate) struct PassThrough<'a> {
    input: &'a [u8],
    /// Bytes of input from the start of the run, and bytes of input after its end.
    from: usize,
    behind: usize,
    /// Packets of the batch before the run, and packets of the batch up to its end.
    first: u32,
    last: u32,
}

impl<'a> PassThrough<'a> {
    /// An empty run. The first packet may begin it.
    pub(crate) fn of(input: &'a [u8]) -> Self {
        Self { input, from: input.len(), behind: input.len(), first: 0, last: 0 }
    }

    pub(crate) fn input(&self) -> &'a [u8] {
        self.input
    }

    /// Begins the run with the packet at `place`.
    #[inline(always)]
    pub(crate) fn begin(&mut self, place: &Place) {
        (self.from, self.behind) = (place.from, place.behind);
        (self.first, self.last) = (place.number - 1, place.number);
    }

    /// Extends the run to the packet at `place`, packets between included.
    #[inline(always)]
    pub(crate) fn grow(&mut self, place: &Place) {
        (self.behind, self.last) = (place.behind, place.number);
    }

    /// Appends the run to `out` and makes it empty. Returns how many packets it had.
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

    /// The range of the input that the run covers.
    pub(crate) fn range(&self) -> Range<usize> {
        self.input.len() - self.from..self.input.len() - self.behind
    }
}

/// The place of a packet: bytes of input from its start, bytes of input after its end, and its
/// number in the batch.
pub(crate) struct Place {
    pub(crate) from: usize,
    pub(crate) behind: usize,
    pub(crate) number: u32,
}
