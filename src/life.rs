//! The life of a connection: one type, and one method for each transition.
//!
//! ```text
//!   accepted ──► opening ──► open ──► closing ──► lingering ──► gone
//!                  │                     │                       ▲
//!                  │                     └─ no need to linger ───┤
//!                  └─ it never opened ───────────────────────────┘
//! ```
//!
//! | stage | the handler | what has a meaning in it |
//! |---|---|---|
//! | opening | does not exist yet | the socket only; nothing is delivered. What is read before, a PROXY header, is read before there is a slot: see `opening` |
//! | open | is called | both halves, the clocks, input, output, the flags of delivery |
//! | closing | waits only for `terminate` | the reason; output, until the stage's deadline |
//! | lingering | is terminated | the input half: bytes are read and dropped, until the deadline |
//! | gone | is terminated, if one was made | nothing; the slot is freed by the next sweep |
//!
//! While a connection is open, it has two halves. The *input* half ends when the peer sends no
//! more. The *output* half ends when the handler asks for that: the queue is sent, then the
//! stream's end. The connection ends with the second half.
//!
//! When the input has ended and all of it is delivered, the handler is told. If it goes on, the
//! connection is *half-closed*: only output is left.
//!
//! The first close reason stays. A stage of closing can be *cut*: by its deadline, because the
//! stream is broken, or by force.
//!
//! All of this is packed into the upper half of a word whose lower half has the flags of delivery.
//! So one look at the word tells the delivery loop whether to go on. A slot has no space for more.

use std::fmt;

use crate::reason::CloseReason;

/// The stages of a connection's life, in order.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Opening,
    Open,
    Closing,
    Lingering,
    Gone,
}

/// The state of the output half.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum OutputHalf {
    Running,
    /// The queue is still sent, then the stream's end.
    Ending,
    /// The stream is shut down for writing: the peer sees that nothing more comes.
    Ended,
}

/// Why a stage of closing is cut.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its deadline has passed.
    Late,
    /// Nothing can be read or written any more.
    Broken,
}

/// The close reason in two bits: one of the three most common, or `Other` for a reason that is
/// stored elsewhere. So many connections can end at once and most need no memory for it.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Normal,
    PeerClosed,
    Reset,
    /// In [`Connection`](crate::connection::Connection), out of line.
    Other,
}

impl From<CloseReason> for Ending {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Normal => Self::Normal,
            CloseReason::PeerClosed => Self::PeerClosed,
            CloseReason::Reset => Self::Reset,
            _ => Self::Other,
        }
    }
}

/// See the module's documentation.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct Life(u32);

impl Life {
    /// All zeros, so that one test against a mask finds every other state.
    const OPEN: u32 = 0;
    const OPENING: u32 = 1 << 16;
    const CLOSING: u32 = 2 << 16;
    const LINGERING: u32 = 3 << 16;
    const GONE: u32 = 4 << 16;
    const STAGE: u32 = 0b111 << 16;
    const INPUT_ENDED: u32 = 1 << 19;
    const OUTPUT_ENDING: u32 = 1 << 20;
    const OUTPUT_ENDED: u32 = 1 << 21;
    const REASON_SHIFT: u32 = 22;
    const REASON: u32 = 0b11 << Self::REASON_SHIFT;
    const LATE: u32 = 1 << 24;
    const BROKEN: u32 = 1 << 25;
    const FORCED: u32 = 1 << 26;
    const INPUT_TOLD: u32 = 1 << 27;

    /// The half of a connection's word that holds a `Life`.
    /// The highest bits are flags as well.
    pub(crate) const HALF: u32 = 0x0fff_0000;

    /// Any of these bits means that the connection is not open.
    pub(crate) const NOT_OPEN: u32 = Self::STAGE;
    /// Any of these bits means that the handler sends no more.
    pub(crate) const NO_OUTPUT: u32 = Self::STAGE | Self::OUTPUT_ENDING | Self::OUTPUT_ENDED;
    /// If this bit is set, output that leaves restarts the clock of a half-closed connection.
    pub(crate) const TIMES_OUTPUT: u32 = Self::INPUT_TOLD;
    /// If no other bit is set, there is nothing to do and nothing to wait for.
    pub(crate) const AT_REST: u32 = Self::OUTPUT_ENDED;

    /// Reads the life from a connection's word.
    #[inline(always)]
    pub(crate) const fn of(word: u32) -> Self {
        Self(word & Self::HALF)
    }

    /// The socket exists, the handler does not.
    pub(crate) const fn opening() -> Self {
        Self(Self::OPENING)
    }

    // ---- transitions ----

    /// Ends the opening stage: the handler exists.
    pub(crate) fn open(&mut self) {
        debug_assert_eq!(self.stage(), Stage::Opening);
        self.set_stage(Self::OPEN);
    }

    /// The peer sends no more.
    #[inline]
    pub(crate) fn end_input(&mut self) {
        self.0 |= Self::INPUT_ENDED;
    }

    /// The handler is told that the input has ended. If it does not close, only output is left.
    pub(crate) fn half_close(&mut self) {
        debug_assert!(self.is_open() && self.is_input_ended());
        self.0 |= Self::INPUT_TOLD;
    }

    /// The handler sends no more: the output half ends once the queue is sent.
    pub(crate) fn end_output(&mut self) {
        if self.is_open() && self.output() == OutputHalf::Running {
            self.0 |= Self::OUTPUT_ENDING;
        }
    }

    /// Ends the output half: the stream is shut down for writing.
    pub(crate) fn output_ended(&mut self) {
        debug_assert_eq!(self.output(), OutputHalf::Ending);
        self.0 = self.0 & !Self::OUTPUT_ENDING | Self::OUTPUT_ENDED;
    }

    /// Decides the end. Returns false if it was decided before: the first reason stays.
    pub(crate) fn close(&mut self, ending: Ending) -> bool {
        if self.stage() > Stage::Open {
            return false;
        }
        self.set_stage(Self::CLOSING);
        self.0 |= (ending as u32) << Self::REASON_SHIFT;
        true
    }

    /// Cuts the stage of closing.
    pub(crate) fn cut(&mut self, cut: Cut) {
        debug_assert!(!self.is_open(), "an open connection is closed first");
        self.0 |= match cut {
            Cut::Late => Self::LATE,
            Cut::Broken => Self::BROKEN,
        };
    }

    /// The drain deadline, or a second shutdown, cuts the stage: nothing is waited for. The
    /// connection counts as forced unless its handler has been terminated already.
    pub(crate) fn force(&mut self) {
        if self.has_handler() {
            self.0 |= Self::FORCED;
        }
        self.cut(Cut::Late);
    }

    /// The handler was terminated, and the stream is shut down for writing.
    pub(crate) fn linger(&mut self) {
        debug_assert_eq!(self.stage(), Stage::Closing);
        self.set_stage(Self::LINGERING);
    }

    /// Only the slot is left to free.
    pub(crate) fn go(&mut self) {
        debug_assert_ne!(self.stage(), Stage::Open, "an open connection is closed first");
        self.set_stage(Self::GONE);
    }

    fn set_stage(&mut self, stage: u32) {
        self.0 = self.0 & !Self::STAGE | stage;
    }

    // ---- questions ----

    pub(crate) fn stage(self) -> Stage {
        match self.0 & Self::STAGE {
            Self::OPEN => Stage::Open,
            Self::OPENING => Stage::Opening,
            Self::CLOSING => Stage::Closing,
            Self::LINGERING => Stage::Lingering,
            _ => Stage::Gone,
        }
    }

    /// Packets, messages and timers reach the handler.
    #[inline(always)]
    pub(crate) fn is_open(self) -> bool {
        self.0 & Self::STAGE == Self::OPEN
    }

    /// The end is decided: the connection is closing, lingering or gone.
    #[inline(always)]
    pub(crate) fn is_ending(self) -> bool {
        self.0 & Self::STAGE > Self::OPENING
    }

    /// The handler exists: it was made, and not terminated.
    #[inline(always)]
    pub(crate) fn has_handler(self) -> bool {
        matches!(self.0 & Self::STAGE, Self::OPEN | Self::CLOSING)
    }

    /// The handler may still send packets.
    #[inline(always)]
    pub(crate) fn may_send(self) -> bool {
        self.0 & Self::NO_OUTPUT == 0
    }

    pub(crate) fn is_lingering(self) -> bool {
        self.0 & Self::STAGE == Self::LINGERING
    }

    #[inline(always)]
    pub(crate) fn is_input_ended(self) -> bool {
        self.0 & Self::INPUT_ENDED != 0
    }

    /// The handler was told that the input has ended. It may have closed since.
    #[inline(always)]
    pub(crate) fn is_half_closed(self) -> bool {
        self.0 & Self::INPUT_TOLD != 0
    }

    /// The input has ended, and the handler does not know.
    #[inline(always)]
    pub(crate) fn owes_end_of_input(self) -> bool {
        self.0 & (Self::INPUT_ENDED | Self::INPUT_TOLD) == Self::INPUT_ENDED
    }

    pub(crate) fn output(self) -> OutputHalf {
        if self.0 & Self::OUTPUT_ENDED != 0 {
            OutputHalf::Ended
        } else if self.0 & Self::OUTPUT_ENDING != 0 {
            OutputHalf::Ending
        } else {
            OutputHalf::Running
        }
    }

    /// Nothing can be read or written any more.
    #[inline(always)]
    pub(crate) fn is_broken(self) -> bool {
        self.0 & Self::BROKEN != 0
    }

    /// The current stage of closing waits for nothing.
    pub(crate) fn is_cut(self) -> bool {
        self.0 & (Self::LATE | Self::BROKEN) != 0
    }

    pub(crate) fn is_forced(self) -> bool {
        self.0 & Self::FORCED != 0
    }

    /// The close reason, once the end is decided.
    pub(crate) fn ending(self) -> Option<Ending> {
        self.is_ending().then_some(match (self.0 & Self::REASON) >> Self::REASON_SHIFT {
            0 => Ending::Normal,
            1 => Ending::PeerClosed,
            2 => Ending::Reset,
            _ => Ending::Other,
        })
    }

    #[inline(always)]
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// Checks what must hold in every stage.
    pub(crate) fn invariants(self) {
        debug_assert!(!self.is_open() || !self.is_cut(), "{self:?}");
        debug_assert!(!self.is_forced() || self.is_cut(), "{self:?}");
        debug_assert!(self.0 & Self::OUTPUT_ENDING == 0 || self.0 & Self::OUTPUT_ENDED == 0);
        debug_assert!(!self.is_half_closed() || self.is_input_ended(), "{self:?}");
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life")
            .field("stage", &self.stage())
            .field("input_ended", &self.is_input_ended())
            .field("half_closed", &self.is_half_closed())
            .field("output", &self.output())
            .field("ending", &self.ending())
            .field("cut", &self.is_cut())
            .field("forced", &self.is_forced())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Life {
        let mut life = Life::opening();
        life.open();
        life
    }

    /// Goal: a connection that was just opened is all zeros; the delivery loop relies on that.
    #[test]
    fn open_is_zero_and_every_other_stage_is_not() {
        assert_eq!(opened().bits(), 0);
        let mut life = Life::opening();
        assert_ne!(life.bits() & Life::NOT_OPEN, 0);
        life.open();
        assert!(life.close(Ending::Normal));
        for step in [Life::linger, Life::go] {
            assert_ne!(life.bits() & Life::NOT_OPEN, 0, "{life:?}");
            step(&mut life);
        }
        assert_ne!(life.bits() & Life::NOT_OPEN, 0, "{life:?}");
    }

    /// Goal: the first reason stays, whatever follows. Method: each reason, then each other.
    #[test]
    fn the_first_reason_stands() {
        for first in [Ending::Normal, Ending::PeerClosed, Ending::Reset, Ending::Other] {
            let mut life = opened();
            assert_eq!(life.ending(), None);
            assert!(life.close(first));
            for later in [Ending::Normal, Ending::PeerClosed, Ending::Reset, Ending::Other] {
                assert!(!life.close(later));
                assert_eq!(life.ending(), Some(first));
            }
            life.linger();
            assert!(!life.close(Ending::Other));
            assert_eq!((life.stage(), life.ending()), (Stage::Lingering, Some(first)));
        }
    }

    /// Goal: the handler exists from `open` to `terminate`, and a forced end counts only in that
    /// time.
    #[test]
    fn a_handler_exists_from_open_to_the_end_of_closing() {
        let mut life = Life::opening();
        assert!(!life.has_handler());
        life.open();
        assert!(life.has_handler());
        life.close(Ending::Normal);
        assert!(life.has_handler());
        life.linger();
        assert!(!life.has_handler());
        life.force();
        assert!(life.is_cut() && !life.is_forced(), "it lingered only");

        let mut life = opened();
        life.close(Ending::Other);
        life.force();
        assert!(life.is_cut() && life.is_forced());
    }

    /// Goal: a handler is told once that the input has ended, and only after it has.
    #[test]
    fn the_end_of_input_is_owed_until_it_is_told() {
        let mut life = opened();
        assert!(!life.owes_end_of_input() && !life.is_half_closed());
        life.end_input();
        assert!(life.owes_end_of_input() && !life.is_half_closed());
        life.half_close();
        assert!(!life.owes_end_of_input() && life.is_half_closed() && life.may_send());
        life.end_input();
        assert!(!life.owes_end_of_input());
        life.invariants();
    }

    /// Goal: each half ends by itself, in either order, and the output half only once.
    #[test]
    fn the_halves_end_independently() {
        let mut life = opened();
        life.end_output();
        assert_eq!((life.output(), life.is_input_ended()), (OutputHalf::Ending, false));
        assert!(!life.may_send());
        life.output_ended();
        life.end_output();
        assert_eq!((life.output(), life.may_send()), (OutputHalf::Ended, false));
        life.end_input();
        assert!(life.is_input_ended() && life.is_open());
        life.invariants();
    }

    /// Goal: the three most common reasons are kept in the life, and no other one is taken for them.
    #[test]
    fn the_most_common_reasons_need_no_memory() {
        for (reason, ending) in [
            (CloseReason::Normal, Ending::Normal),
            (CloseReason::PeerClosed, Ending::PeerClosed),
            (CloseReason::Reset, Ending::Reset),
            (CloseReason::Shutdown, Ending::Other),
            (CloseReason::Panicked, Ending::Other),
        ] {
            assert_eq!(Ending::from(reason), ending);
        }
    }

    /// Goal: each question about the stage and about a cut is answered by its own bits. Method: all
    /// stages, and each cut.
    #[test]
    fn each_stage_is_told_from_the_others() {
        let mut life = Life::opening();
        assert!(!life.is_open() && !life.may_send() && !life.is_ending() && !life.is_lingering());
        life.open();
        assert!(life.is_open() && life.may_send() && !life.is_ending() && !life.is_lingering());
        life.close(Ending::Normal);
        assert!(!life.is_open() && !life.may_send() && life.is_ending() && !life.is_lingering());
        assert!(!life.is_cut() && !life.is_broken());
        for (cut, is_broken) in [(Cut::Late, false), (Cut::Broken, true)] {
            let mut life = life;
            life.cut(cut);
            assert!(life.is_cut() && life.is_broken() == is_broken);
        }
        life.linger();
        assert!(life.is_ending() && life.is_lingering());
        life.go();
        assert!(life.is_ending() && !life.is_lingering());
        assert_eq!(life.stage(), Stage::Gone);
    }
}
