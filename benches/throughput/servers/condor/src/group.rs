//! Every packet goes to every connection, as a packet to the group of all.

use std::cell::OnceCell;
use std::io::{self, Write};
use std::net::TcpStream;
use std::rc::Rc;

use bytes::Bytes;
use condor::{
    Action, CloseReason, Context, Endpoint, Error, Group, Handler, ListenerOptions, Reactor,
    SlowMember,
};

/// The first connection makes the group.
type Room = Rc<OnceCell<Group<()>>>;

struct Member(Room);

/// A packet of this length is the silent member's. Its peer is sent as much as its queue takes.
const SILENT: usize = 1;
const FILLING: [u8; 60_000] = [0; 60_000];

impl Handler for Member {
    type Message = ();

    fn init(&mut self, ctx: &mut Context<'_, ()>) -> Action<'_> {
        let group = self.0.get_or_init(|| ctx.group().slow_member(SlowMember::Skip));
        ctx.join(group).into()
    }

    fn handle_packet<'a>(&'a mut self, packet: &'a [u8], ctx: &mut Context<'_, ()>) -> Action<'a> {
        if packet.len() == SILENT {
            while ctx.send(&FILLING[..]).is_ok() {}
            return Action::Continue;
        }
        let group = self.0.get_or_init(|| ctx.group().slow_member(SlowMember::Skip));
        match group.send_packet(Bytes::copy_from_slice(packet)) {
            Ok(()) => Action::Continue,
            Err(_) => Action::stop(CloseReason::Custom("a packet to the group was refused")),
        }
    }
}

/// Starts the listener. Returns its address.
pub(crate) fn start(reactor: &mut Reactor, listen: ListenerOptions) -> Result<Endpoint, Error> {
    let room = Room::default();
    let listener = reactor.start_listener("echo", listen, move |_| Member(Rc::clone(&room)))?;
    Ok(listener.local_addr())
}

/// Connects to the listener, and never reads. The kernel takes some megabytes at most, so the server is
/// asked for more several times.
pub(crate) fn silent_member(address: &Endpoint) -> io::Result<TcpStream> {
    let address = address.as_inet().ok_or(io::ErrorKind::Unsupported)?;
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&[0, 1, 0].repeat(64))?;
    Ok(stream)
}
