//! What a peer does as one end of a pair.

use super::Peer;
use crate::connection::{Crossing, Flags};
use crate::handler::{Handler, Info, Packet};
use crate::loop_state::FLUSH_AT;
use crate::pairs::{Run, What};
use crate::peer_cx::PeerCx;
use crate::reason::{CloseReason, SendError};
use crate::stream::Stream;
use crate::token;

impl<H: Handler, S: Stream> Peer<H, S> {
    fn token(&self, cx: &PeerCx<'_, H::Message>) -> mio::Token {
        token::peer(cx.profile.slot, self.identity.key, self.identity.generation)
    }

    /// Carries out what the partner has left for this connection, and writes its output.
    pub(crate) fn carry_out(&mut self, cx: &mut PeerCx<'_, H::Message>, mut run: Run<'_>) {
        loop {
            while self.conn.has(Flags::PAIRED) && run.is_packet() {
                self.take_forwarded(cx, &mut run);
            }
            match run.next() {
                None => break,
                Some(What::Paired { with }) => self.begin_pair(cx, with),
                Some(What::Ended { reason, finished }) => self.partner_ended(cx, reason, finished),
                // What is left of a pair that has ended.
                Some(_) if !self.conn.has(Flags::PAIRED) => {}
                Some(What::Full) => self.conn.insert(Flags::PARTNER_FULL),
                Some(What::Ready) => self.conn.remove(Flags::PARTNER_FULL),
                Some(What::EndOfInput) => self.conn.advance(|life| life.end_output()),
                Some(What::Progress) => self.conn.answered(cx.state.now()),
                Some(What::Forward { .. }) => {}
            }
        }
        self.flush_replies(cx, true);
    }

    /// Another connection has made this one its partner. It waits until it is told to go on.
    fn begin_pair(&mut self, cx: &mut PeerCx<'_, H::Message>, with: mio::Token) {
        if !self.conn.life().is_open() {
            return cx.state.pairs.leave(self.token(cx), self.conn.reason(), false);
        }
        if !self.conn.begin_pair() {
            cx.state.pairs.push(with, What::Ready);
        }
        if self.conn.life().is_half_closed() {
            cx.state.pairs.push(with, What::EndOfInput);
        }
    }

    /// Frames packets that the partner has forwarded, until so many have gathered that they are written.
    /// One that cannot be sent ends the connection, as an answer does.
    fn take_forwarded(&mut self, cx: &mut PeerCx<'_, H::Message>, run: &mut Run<'_>) {
        let owed = self.conn.has(Flags::OWES_WRITABLE);
        let mut framed = Ok(());
        self.dispatch(cx, |_, ctx| {
            while let Some(packet) = run.packet()
                && ctx.state.out.len() < FLUSH_AT
            {
                framed = ctx.frame_packet(&mut Packet::Borrowed(packet));
                if framed.is_err() {
                    break;
                }
                run.next();
            }
        });
        if framed.is_err() && !owed {
            // The handler has sent nothing, so it waits for nothing.
            self.conn.remove(Flags::OWES_WRITABLE);
        }
        let gathered = cx.state.out.len();
        self.write_out(cx);
        match framed {
            Ok(()) if self.conn.life().is_open() => {}
            Err(SendError::Full { .. }) if gathered > 0 => {}
            // It ends, and the partner is told. After an end of input nothing follows.
            Ok(()) | Err(SendError::Closing) => run.skip_packets(),
            Err(error) => {
                run.skip_packets();
                cx.profile.counters.refused_sends.add(1);
                self.close(cx, error.into());
            }
        }
    }

    /// The queue has crossed a water mark: the partner stops, or goes on.
    #[inline(never)]
    pub(super) fn hold_partner(&self, cx: &mut PeerCx<'_, H::Message>, crossing: Crossing) {
        let what = if crossing == Crossing::Over { What::Full } else { What::Ready };
        cx.state.pairs.tell_partner(self.token(cx), what);
    }

    /// The input has ended, and all of it is delivered. The partner passes that on, so the handler is
    /// not asked.
    pub(super) fn pass_end_on(&mut self, cx: &mut PeerCx<'_, H::Message>) {
        self.conn.insert(Flags::PASSED_END_ON);
        cx.state.pairs.tell_partner(self.token(cx), What::EndOfInput);
    }

    /// Output has left that the partner waits for, because its input has ended.
    #[cold]
    pub(super) fn tell_progress(&self, cx: &mut PeerCx<'_, H::Message>) {
        cx.state.pairs.tell_partner(self.token(cx), What::Progress);
    }

    /// Whether the connection has a partner, also if it was not told yet.
    pub(super) fn has_partner(&self, cx: &PeerCx<'_, H::Message>) -> bool {
        !cx.state.pairs.is_empty() && cx.state.pairs.partner(self.token(cx)).is_some()
    }

    /// The partner has ended: the handler decides what becomes of this connection. If both inputs have
    /// ended, the connection ends by itself once its queue is sent, however long that takes.
    fn partner_ended(
        &mut self,
        cx: &mut PeerCx<'_, H::Message>,
        reason: Option<CloseReason>,
        finished: bool,
    ) {
        self.conn.end_pair();
        cx.state.pairs.end_was_told(self.token(cx));
        if self.conn.life().is_half_closed() && finished {
            return self.conn.advance(|life| life.end_output());
        }
        self.deliver_info(cx, Info::PartnerEnded { reason });
        if self.conn.has(Flags::PASSED_END_ON) && !self.conn.has(Flags::PAIRED) {
            // It was told to the partner instead.
            self.conn.remove(Flags::PASSED_END_ON);
            self.deliver_info(cx, Info::EndOfInput { clean: true });
        }
    }

    /// The end is decided: the partner learns of it.
    #[cold]
    pub(super) fn leave_pair(&mut self, cx: &mut PeerCx<'_, H::Message>, reason: CloseReason) {
        self.conn.end_pair();
        let finished = self.conn.life().is_input_ended() && reason == CloseReason::PeerClosed;
        cx.state.pairs.leave(self.token(cx), Some(reason), finished);
        cx.state.ask_for_trim(cx.state.pairs.spare());
    }
}
