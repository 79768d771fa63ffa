//! Connections that are opened together and served by one poll.

use std::time::Duration;

use anyhow::{Context, Result};
use mio::{Events, Poll, Token};

use super::lane::Lane;
use super::pattern::Pattern;
use super::progress::Progress;
use super::{CHUNK, EVENTS};
use crate::address::Address;

/// Connections opened before any of them is used: fewer than any backlog.
const BATCH: usize = 100;

/// Open connections, and the one poll that serves them.
#[derive(Debug)]
pub(crate) struct Crowd {
    address: Address,
    pub(super) poll: Poll,
    pub(super) lanes: Vec<Lane>,
    pub(super) pattern: Pattern,
    pub(super) input: Vec<u8>,
}

impl Crowd {
    pub(crate) fn new(address: &Address, payload: usize) -> Result<Self> {
        Ok(Self {
            address: address.clone(),
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
                self.send(at, self.pattern.frame())?;
            }
            self.serve_until(first, Lane::is_answered)?;
        }
        Ok(())
    }

    /// Connects until there are this many connections, and sends nothing.
    pub(super) fn connect(&mut self, connections: usize) -> Result<()> {
        for at in self.lanes.len()..connections {
            let tag = u16::try_from(at).context("more than 65,536 connections")?;
            self.lanes.push(Lane::connect(&self.address, tag, self.poll.registry(), Token(at))?);
        }
        Ok(())
    }

    /// Allows this many bytes more on a connection, and sends what the kernel takes of them.
    pub(super) fn send(&mut self, at: usize, bytes: u64) -> Result<()> {
        self.lanes[at].allow(bytes);
        self.lanes[at].send(&mut self.pattern)
    }

    /// Sends and receives, as the kernel allows, until all from this one on have got there.
    pub(super) fn serve_until(&mut self, first: usize, there: fn(&Lane) -> bool) -> Result<()> {
        let (mut progress, mut events) = (Progress::new(), Events::with_capacity(EVENTS));
        while !self.lanes[first..].iter().all(there) {
            self.serve(&mut progress, &mut events, None)?;
        }
        Ok(())
    }

    /// Waits for events until the deadline, or as long as it takes, and sends and receives once on
    /// each connection that has some.
    pub(super) fn serve(
        &mut self,
        progress: &mut Progress,
        events: &mut Events,
        deadline: Option<Duration>,
    ) -> Result<()> {
        progress.wait(&mut self.poll, events, deadline)?;
        for event in &*events {
            let lane = &mut self.lanes[event.token().0];
            if event.is_writable() {
                lane.send(&mut self.pattern)?;
            }
            let to_the_end = event.is_read_closed() || event.is_error();
            lane.receive(&mut self.pattern, &mut self.input, to_the_end)?;
        }
        Ok(())
    }
}
