//! Every frame goes to every connection, by a loop over them.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use common::{LONGEST_FRAME, Options, whole_frames};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A connection as the others see it.
struct Peer {
    stream: TcpStream,
    /// What the kernel did not take, in order.
    unsent: RefCell<Vec<u8>>,
    /// Wakes the peer's task when `unsent` begins to fill.
    full: Notify,
    broken: Cell<bool>,
}

#[derive(Default)]
struct Room {
    peers: RefCell<Vec<Rc<Peer>>>,
    buffer: RefCell<Vec<u8>>,
}

pub(crate) async fn run(options: &Options) -> io::Result<()> {
    let listener = crate::listen(options)?;
    let room = Rc::new(Room::default());
    room.buffer.borrow_mut().resize(LONGEST_FRAME, 0);
    loop {
        let (stream, _) = listener.accept().await?;
        let peer = Rc::new(Peer {
            stream,
            unsent: RefCell::default(),
            full: Notify::new(),
            broken: Cell::new(false),
        });
        room.peers.borrow_mut().push(Rc::clone(&peer));
        tokio::task::spawn_local(serve(Rc::clone(&room), peer));
    }
}

async fn serve(room: Rc<Room>, peer: Rc<Peer>) {
    let mut held = Vec::new();
    while !peer.broken.get() {
        let alive = tokio::select! {
            ready = peer.stream.readable() => ready.and_then(|()| room.receive(&peer, &mut held)),
            () = peer.full.notified() => peer.flush().await.map(|()| true),
        };
        if !matches!(alive, Ok(true)) {
            break;
        }
    }
    room.peers.borrow_mut().retain(|other| !Rc::ptr_eq(other, &peer));
}

impl Room {
    /// One read; false at the end of the stream.
    fn receive(&self, peer: &Peer, held: &mut Vec<u8>) -> io::Result<bool> {
        let mut buffer = self.buffer.borrow_mut();
        buffer[..held.len()].copy_from_slice(held);
        let read = match peer.stream.try_read(&mut buffer[held.len()..]) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        let have = &buffer[..held.len() + read];
        let (frames, rest) = have.split_at(whole_frames(have));
        if !frames.is_empty() {
            self.peers.borrow().iter().for_each(|peer| peer.put(frames));
        }
        *held = rest.to_vec();
        Ok(true)
    }
}

impl Peer {
    fn put(&self, frames: &[u8]) {
        let mut unsent = self.unsent.borrow_mut();
        let sent = if unsent.is_empty() { self.stream.try_write(frames) } else { Ok(0) };
        match sent {
            Ok(sent) if sent == frames.len() => return,
            Ok(sent) => unsent.extend_from_slice(&frames[sent..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                unsent.extend_from_slice(frames)
            }
            Err(_) => self.broken.set(true),
        }
        self.full.notify_one();
    }

    async fn flush(&self) -> io::Result<()> {
        while !self.unsent.borrow().is_empty() {
            self.stream.writable().await?;
            let mut unsent = self.unsent.borrow_mut();
            match self.stream.try_write(&unsent) {
                Ok(sent) => drop(unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
