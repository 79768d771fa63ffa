//! The server under soak: echoes, long answers, timers, answers from another thread, broadcasts.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use condor::{
    Action, Address, CloseReason, Context, Handle, Handler, Info, ListenerHandle, ListenerOptions,
    Reactor,
};

/// The longest request and answer.
pub(crate) const MAX_PACKET: usize = 60_000;
/// How long a packet may take.
pub(crate) const PACKET_TIMEOUT: Duration = Duration::from_secs(1);

/// What a request asks for, in its first byte; the rest comes back.
pub(crate) mod ask {
    /// The packet.
    pub(crate) const ECHO: u8 = b'E';
    /// As many bytes as one packet holds, shared by everybody.
    pub(crate) const LONG: u8 = b'L';
    /// The packet, some milliseconds later.
    pub(crate) const LATER: u8 = b'T';
    /// The packet, by way of another thread.
    pub(crate) const ELSEWHERE: u8 = b'M';
    /// As [`ELSEWHERE`], and nothing is read meanwhile.
    pub(crate) const IN_TURN: u8 = b'P';
    /// The packet, and the end.
    pub(crate) const LAST: u8 = b'Q';
    /// Every broadcast from now on.
    pub(crate) const NEWS: u8 = b'S';
}

#[derive(Clone)]
enum Note {
    /// Send this.
    Answer(Vec<u8>),
    /// Send this, and go on reading.
    InTurn(Vec<u8>),
    /// Broadcast number so much.
    News(u64),
}

type Errand = (Address<Note>, Note);

struct Soaked {
    errands: Sender<Errand>,
    long: Bytes,
    subscribed: bool,
}

impl Soaked {
    /// Has another thread send the answer.
    fn elsewhere(&self, ctx: &Context<'_, Note>, note: Note) -> Action<'static> {
        match self.errands.send((ctx.address(), note)) {
            Ok(()) => Action::Continue,
            Err(_) => Action::stop(CloseReason::Custom("nobody runs errands")),
        }
    }
}

impl Handler for Soaked {
    type Message = Note;

    fn handle_packet<'a>(
        &'a mut self,
        packet: &'a [u8],
        ctx: &mut Context<'_, Note>,
    ) -> Action<'a> {
        match packet.first() {
            Some(&ask::LONG) => Action::send(self.long.clone()),
            Some(&ask::LATER) => {
                let delay = Duration::from_millis(packet.len() as u64 % 50);
                ctx.send_after(delay, Note::Answer(packet.to_vec()));
                Action::Continue
            }
            Some(&ask::ELSEWHERE) => self.elsewhere(ctx, Note::Answer(packet.to_vec())),
            Some(&ask::IN_TURN) => {
                ctx.pause_reading();
                self.elsewhere(ctx, Note::InTurn(packet.to_vec()))
            }
            Some(&ask::LAST) => Action::send_and_stop(packet, CloseReason::Normal),
            Some(&ask::NEWS) => {
                self.subscribed = true;
                Action::send(packet)
            }
            _ => Action::send(packet),
        }
    }

    fn handle_info<'a>(
        &'a mut self,
        info: Info<'a, Note>,
        ctx: &mut Context<'_, Note>,
    ) -> Action<'a> {
        match info {
            Info::Message(Note::Answer(packet)) => Action::send(packet),
            Info::Message(Note::InTurn(packet)) => {
                ctx.resume_reading();
                Action::send(packet)
            }
            Info::Message(Note::News(number)) if self.subscribed => {
                Action::send(number.to_be_bytes().to_vec())
            }
            other => other.default_action(),
        }
    }
}

/// Serves until the standard input ends. Each line of it is answered with the figures.
pub(crate) fn serve() -> super::Result<()> {
    let (errands, inbox) = mpsc::channel::<Errand>();
    thread::spawn(move || {
        for (address, note) in inbox {
            // The connection may be gone: that is the client's doing.
            let _ = address.send(note);
        }
    });
    let options = ListenerOptions::port(0)
        .max_packet(MAX_PACKET)
        .packet_timeout(PACKET_TIMEOUT)
        .idle_timeout(Duration::from_secs(20))
        .linger_timeout(Duration::from_secs(1))
        .max_connections(2_000);
    let mut reactor = Reactor::new()?;
    let long = Bytes::from(vec![b'L'; MAX_PACKET]);
    let listener = reactor.start_listener("soak", options, move |_peer| Soaked {
        errands: errands.clone(),
        long: long.clone(),
        subscribed: false,
    })?;
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr())?;
    let handle = reactor.handle();
    thread::spawn(move || {
        let answered = answer(&handle, &mut out);
        let drained = handle.shutdown();
        answered.is_ok() && drained.is_ok()
    });
    thread::spawn(move || broadcast(&listener));
    reactor.run()?;
    Ok(())
}

fn broadcast(listener: &ListenerHandle<Note>) {
    for number in 0.. {
        if listener.broadcast(Note::News(number)).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What the server knows of itself.
pub(crate) struct Figures {
    pub(crate) open: u64,
    pub(crate) accepted: u64,
    pub(crate) made: u64,
    pub(crate) terminated: u64,
    pub(crate) packets_in: u64,
    pub(crate) messages: u64,
    pub(crate) packet_timeouts: u64,
    pub(crate) panics: u64,
    pub(crate) turn_p50: u64,
    pub(crate) turn_p999: u64,
    pub(crate) turn_worst: u64,
}

fn answer(handle: &Handle, out: &mut impl Write) -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        line?;
        let stats = handle.stats();
        let turn = handle.loop_stats().remove(0).turn_nanos;
        let figures = [
            stats.open,
            stats.accepted,
            stats.made,
            stats.terminated,
            stats.packets_in,
            stats.messages,
            stats.packet_timeouts,
            stats.panics,
            turn.quantile(0.5),
            turn.quantile(0.999),
            turn.quantile(1.0),
        ];
        writeln!(out, "{}", figures.map(|figure| figure.to_string()).join(" "))?;
    }
    Ok(())
}

impl Figures {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut figures = line.split_whitespace().map_while(|word| word.parse().ok());
        let mut next = || figures.next();
        Some(Self {
            open: next()?,
            accepted: next()?,
            made: next()?,
            terminated: next()?,
            packets_in: next()?,
            messages: next()?,
            packet_timeouts: next()?,
            panics: next()?,
            turn_p50: next()?,
            turn_p999: next()?,
            turn_worst: next()?,
        })
    }
}
