//! The commands about keys and their values.

use std::time::Duration;

use condor::{Action, Context, SendError};

use crate::client::{Answer, Client, wrong_number};
use crate::protocol::{Request, integer};
use crate::store::{NOT_AN_INTEGER, Store};

/// A value of this length or longer is sent without a copy. The library copies shorter ones, and then
/// a borrowed value saves counting its owners.
pub(crate) const SHARED_FROM: usize = 32 * 1024;
const BAD_TIME: &str = "ERR invalid expire time in 'set' command";

impl Client {
    pub(crate) fn get(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        send_value(&self.server.borrow().store, request.nth(1).text, ctx)?;
        Ok(Action::Continue)
    }

    pub(crate) fn set(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        let (key, value) = (request.nth(1).text, request.nth(2));
        let store = &mut self.server.borrow_mut().store;
        let mut expires = None;
        if request.len() > 3 {
            let options = Options::parse(request)?;
            if let Some(is_there) = options.only_if_there
                && store.get(key, ctx.now()).is_some() != is_there
            {
                return Ok(Action::send("$-1\r\n"));
            }
            // A time beyond all clocks is refused like one of zero.
            let at = options.expires.map(|after| ctx.now().checked_add(after).ok_or(BAD_TIME));
            expires = at.transpose()?;
        }
        // The one copy of the value: the packet is in a buffer that is used again.
        store.set(key, value.framed().into_owned().into(), expires);
        Ok(Action::send("+OK\r\n"))
    }

    pub(crate) fn del(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        let store = &mut self.server.borrow_mut().store;
        let deleted = request.from(1).filter(|key| store.delete(key.text, ctx.now())).count();
        Ok(Action::send(format!(":{deleted}\r\n")))
    }

    /// `INCR`, and `INCRBY`, which clients use for both.
    pub(crate) fn incr(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        let by = if request.len() > 2 { integer(request.nth(2).text) } else { Some(1) };
        let (by, store) = (by.ok_or(NOT_AN_INTEGER)?, &mut self.server.borrow_mut().store);
        let number = store.add(request.nth(1).text, by, ctx.now())?;
        ctx.send_with(|out| write!(out, ":{number}\r\n"))?;
        Ok(Action::Continue)
    }

    pub(crate) fn mget(&mut self, request: &Request<'_>, ctx: &mut Context<'_, ()>) -> Answer {
        let store = &self.server.borrow().store;
        ctx.send_with(|out| write!(out, "*{}\r\n", request.len() - 1))?;
        for key in request.from(1) {
            send_value(store, key.text, ctx)?;
        }
        Ok(Action::Continue)
    }

    pub(crate) fn mset(&mut self, request: &Request<'_>, _: &mut Context<'_, ()>) -> Answer {
        if request.len().is_multiple_of(2) {
            return Err(wrong_number(b"mset").into());
        }
        let store = &mut self.server.borrow_mut().store;
        let mut arguments = request.from(1);
        while let (Some(key), Some(value)) = (arguments.next(), arguments.next()) {
            store.set(key.text, value.framed().into_owned().into(), None);
        }
        Ok(Action::send("+OK\r\n"))
    }
}

/// What follows the value in `SET`.
#[derive(Default)]
struct Options {
    expires: Option<Duration>,
    only_if_there: Option<bool>,
}

impl Options {
    fn parse(request: &Request<'_>) -> Result<Self, &'static str> {
        const SYNTAX: &str = "ERR syntax error";
        let mut options = Self::default();
        let mut arguments = request.from(3);
        while let Some(option) = arguments.next() {
            match &*option.text.to_ascii_lowercase() {
                b"nx" if options.only_if_there != Some(true) => options.only_if_there = Some(false),
                b"xx" if options.only_if_there != Some(false) => options.only_if_there = Some(true),
                unit @ (b"ex" | b"px") if options.expires.is_none() => {
                    let time = integer(arguments.next().ok_or(SYNTAX)?.text);
                    let time = u64::try_from(time.ok_or(NOT_AN_INTEGER)?).map_err(|_| BAD_TIME)?;
                    let millis = if unit == b"ex" { time.checked_mul(1_000) } else { Some(time) };
                    let millis = millis.filter(|millis| *millis > 0).ok_or(BAD_TIME)?;
                    options.expires = Some(Duration::from_millis(millis));
                }
                _ => return Err(SYNTAX),
            }
        }
        Ok(options)
    }
}

/// Sends the value of a key, or that there is none.
fn send_value(store: &Store, key: &[u8], ctx: &mut Context<'_, ()>) -> Result<(), SendError> {
    match store.get(key, ctx.now()) {
        None => ctx.send("$-1\r\n"),
        Some(value) if value.len() < SHARED_FROM => ctx.send(&value[..]),
        Some(value) => ctx.send(value.clone()),
    }
}
