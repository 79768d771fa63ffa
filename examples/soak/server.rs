//! The server under test: echoes, long answers, timers, answers from another thread, broadcasts.

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

/// The kinds of requests: the first byte of a request.
pub(crate) mod kind {
    /// Send the packet back.
    pub(crate) const ECHO: u8 = b'E';
    /// Send a packet of the maximum size. All connections share its bytes.
    pub(crate) const LONG: u8 = b'L';
    /// Send the packet back some milliseconds later.
    pub(crate) const LATER: u8 = b'T';
    /// Another thread sends the packet back.
    pub(crate) const ELSEWHERE: u8 = b'M';
    /// As [`ELSEWHERE`], and the handler pauses reading until then.
    pub(crate) const IN_TURN: u8 = b'P';
    /// Send the packet back, and close the connection.
    pub(crate) const LAST: u8 = b'Q';
    /// Send the packet back, and every broadcast from now on.
    pub(crate) const NEWS: u8 = b'S';
}

#[derive(Clone)]
enum Note {
    /// Send this.
    Answer(Vec<u8>),
    /// Send this, and resume reading.
    InTurn(Vec<u8>),
    /// The number of a broadcast.
    News(u64),
}

/// A message for the other thread to send.
type Job = (Address<Note>, Note);

struct Soaked {
    jobs: Sender<Job>,
    long: Bytes,
    subscribed: bool,
}

impl Soaked {
    /// Lets the other thread send the answer.
    fn elsewhere(&self, ctx: &Context<'_, Note>, note: Note) -> Action<'static> {
        match self.jobs.send((ctx.address(), note)) {
            Ok(()) => Action::Continue,
            Err(_) => Action::stop(CloseReason::Custom("the other thread has ended")),
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
            Some(&kind::LONG) => Action::send(self.long.clone()),
            Some(&kind::LATER) => {
                let delay = Duration::from_millis(packet.len() as u64 % 50);
                match ctx.send_after(delay, Note::Answer(packet.to_vec())) {
                    Ok(_) => Action::Continue,
                    Err(error) => Action::stop(error.into()),
                }
            }
            Some(&kind::ELSEWHERE) => self.elsewhere(ctx, Note::Answer(packet.to_vec())),
            Some(&kind::IN_TURN) => {
                ctx.pause_reading();
                self.elsewhere(ctx, Note::InTurn(packet.to_vec()))
            }
            Some(&kind::LAST) => Action::send_and_stop(packet, CloseReason::Normal),
            Some(&kind::NEWS) => {
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

/// Serves until stdin ends. Answers each line of stdin with the figures.
pub(crate) fn serve() -> super::Result<()> {
    let (jobs, inbox) = mpsc::channel::<Job>();
    thread::spawn(move || {
        for (address, note) in inbox {
            // If the client has ended the connection, `send` fails. That is no error of the server.
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
        jobs: jobs.clone(),
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

/// The server's own counters.
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
        let mut figures = line.split_whitespace().map_while(|figure| figure.parse().ok());
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
