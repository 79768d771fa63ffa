//! The end of a connection that the factory has refused: it never opens.

use std::io::ErrorKind;

use super::marks::Marks;
use super::{Peer, Swept};
use crate::guard::caught;
use crate::handler::{Farewell, Handler, Refusal};
use crate::logging::{Cause, PANIC_CURE, say};
use crate::peer_cx::PeerCx;
use crate::reason::CloseReason;
use crate::stream::Stream;

impl<H: Handler, S: Stream> Peer<H, S> {
    /// Refuses the connection. It lingers if it was sent a last packet; else its slot can be freed at
    /// once: no event and no list refers to it yet.
    pub(crate) fn refuse(&mut self, cx: &mut PeerCx<'_, H::Message>, refusal: Refusal) -> Swept {
        let Refusal { farewell, reason } = refusal;
        cx.profile.counters.refused.add(1);
        if cx.gate.opens(Cause::Refused, cx.state.nanos()) {
            let (label, peer) = (&cx.profile.label, self.identity.peer_addr());
            say!(Debug, "{label}: peer {peer}: refused by the factory: {reason}");
        }
        match farewell {
            Farewell::Reset => self.stream.reset_on_drop(),
            Farewell::Close => self.end_stream(),
            Farewell::Send(packet) => {
                let is_framed = self.frame_farewell(cx, packet.as_slice());
                cx.drop_value("a refusal", packet);
                if is_framed && self.say_farewell(cx) {
                    return Swept::Waits;
                }
                self.end_stream();
            }
        }
        // What was to come before the last packet.
        cx.state.clear_out();
        Swept::Gone
    }

    /// Frames the last packet into the output. Returns false if the framing refuses it.
    fn frame_farewell(&self, cx: &mut PeerCx<'_, H::Message>, packet: &[u8]) -> bool {
        let (profile, out) = (cx.profile, &mut cx.state.out);
        match caught(|| profile.framing.encode(packet, out)) {
            Ok(Ok(())) => {
                profile.counters.packets_out.add(1);
                return true;
            }
            Ok(Err(_)) => profile.counters.refused_sends.add(1),
            Err(text) => {
                profile.counters.panics.add(1);
                if cx.gate.opens(Cause::Panic, cx.state.nanos()) {
                    let label = &profile.label;
                    say!(Error, "{label}: the framer panicked: {text}; {PANIC_CURE}");
                }
            }
        }
        false
    }

    /// Writes the last packet, as far as the kernel takes it at once, and begins to linger. Returns
    /// false if the stream is broken.
    fn say_farewell(&mut self, cx: &mut PeerCx<'_, H::Message>) -> bool {
        let taken = self.write(&cx.state.out, cx.profile, &cx.state.registry);
        cx.state.wrote(taken);
        cx.state.clear_out();
        self.conn.close(CloseReason::Normal);
        if self.conn.life().is_broken() || self.stream.shutdown_write().is_err() {
            return false;
        }
        self.conn.advance(|life| life.linger());
        self.conn.close_by(cx.state.now().after(cx.profile.options.linger_timeout));
        self.marks.insert(Marks::READABLE.with(Marks::REFUSED));
        self.update_timers(cx);
        true
    }

    /// Ends the stream, and drops what the peer has sent: if bytes are unread when the socket is
    /// closed, the kernel sends a reset in place of the end.
    fn end_stream(&mut self) {
        const READS: usize = 16;
        let _ = self.stream.shutdown_write();
        let mut dropped = [0; 4096];
        for _ in 0..READS {
            match self.stream.read(&mut dropped) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}
