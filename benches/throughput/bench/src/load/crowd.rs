//! Connections that are opened together and served by one poll.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use mio::{Events, Poll, Token};

use super::lane::Lane;
use super::patience::Patience;
use super::pattern::Pattern;
use super::{CHUNK, EVENTS};

/// Connections opened before any of them is used: fewer than any backlog.
const BATCH: usize = 100;

/// Open connections, each known to be accepted because it had one packet answered.
pub(crate) struct Crowd {
    address: SocketAddr,
    pub(super) poll: Poll,
    pub(super) lanes: Vec<Lane>,
    pub(super) pattern: Pattern,
    pub(super) input: Vec<u8>,
}

impl Crowd {
    pub(crate) fn new(address: SocketAddr, payload: usize) -> Result<Self> {
        Ok(Self {
            address,
            poll: Poll::new()?,
            lanes: Vec::new(),
            pattern: Pattern::new(payload, CHUNK)?,
            input: vec![0; CHUNK],
        })
    }

    /// Connects until there are this many, and has one packet answered on each new connection.
    pub(crate) fn grow(&mut self, connections: usize) -> Result<()> {
        while self.lanes.len() < connections {
            let first = self.lanes.len();
            self.connect((first + BATCH).min(connections))?;
            for at in first..self.lanes.len() {
                self.say_one(at)?;
            }
            self.hear_all(first)?;
        }
        Ok(())
    }

    /// Connects until there are this many, all of which say nothing.
    pub(super) fn connect(&mut self, connections: usize) -> Result<()> {
        for at in self.lanes.len()..connections {
            let tag = u16::try_from(at).context("more than 65,536 connections")?;
            self.lanes.push(Lane::connect(self.address, tag, self.poll.registry(), Token(at))?);
        }
        Ok(())
    }

    fn say_one(&mut self, at: usize) -> Result<()> {
        self.lanes[at].allow(self.pattern.frame());
        self.lanes[at].send(&mut self.pattern)
    }

    /// Waits until all from this one on have been answered.
    fn hear_all(&mut self, first: usize) -> Result<()> {
        let (mut patience, mut events) = (Patience::new(), Events::with_capacity(EVENTS));
        let mut missing = self.lanes.len() - first;
        while missing > 0 {
            patience.wait(&mut self.poll, &mut events, None)?;
            for event in &events {
                let lane = &mut self.lanes[event.token().0];
                if event.is_writable() {
                    lane.send(&mut self.pattern)?;
                }
                let was_missing = lane.received() < lane.target();
                lane.receive(
                    &mut self.pattern,
                    &mut self.input,
                    event.is_read_closed() || event.is_error(),
                )?;
                missing -= usize::from(was_missing && lane.received() == lane.target());
            }
        }
        Ok(())
    }
}
