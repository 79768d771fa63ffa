//! Keys and values, by lines: PING, GET, SET, DEL, EXISTS, INCR, KEYS and QUIT.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use common::address;
use condor::{Action, CloseReason, Context, Error, Handler, Lines, ListenerOptions, Reactor};

#[path = "../../common.rs"]
mod common;

const MAX_CONNECTIONS: usize = 1_000;
const MAX_LINE: usize = 1_024;
const MAX_KEYS: usize = 100_000;

#[derive(Clone, Default)]
struct Store(Rc<RefCell<BTreeMap<String, String>>>);

impl Store {
    fn answer(&self, line: &[u8], ctx: &mut Context<'_, ()>) -> Result<Action<'_>, CloseReason> {
        let line = std::str::from_utf8(line).map_err(|_| CloseReason::Custom("not UTF-8"))?;
        let mut keys = self.0.borrow_mut();
        let mut words = line.splitn(3, ' ');
        let words = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
        let flag = |is_true| Action::send(if is_true { "1" } else { "0" });
        Ok(match words {
            ["PING", "", ""] => Action::send("PONG"),
            ["GET", key, ""] => Action::send(keys.get(key).cloned().unwrap_or("(nil)".into())),
            ["SET" | "INCR", key, _] if keys.len() >= MAX_KEYS && !keys.contains_key(key) => {
                Action::send("ERR too many keys")
            }
            ["SET", key, value] => {
                keys.insert(key.into(), value.into());
                Action::send("OK")
            }
            ["DEL", key, ""] => flag(keys.remove(key).is_some()),
            ["EXISTS", key, ""] => flag(keys.contains_key(key)),
            ["INCR", key, ""] => {
                let number = keys.get(key).map_or(Some(0), |value| value.parse::<i64>().ok());
                let Some(number) = number.and_then(|number| number.checked_add(1)) else {
                    return Ok(Action::send("ERR not a number"));
                };
                keys.insert(key.into(), number.to_string());
                Action::send(number.to_string())
            }
            ["KEYS", "", ""] => {
                keys.keys().try_for_each(|key| ctx.send(key))?;
                Action::send(".")
            }
            ["QUIT", "", ""] => Action::send_and_stop("OK", CloseReason::Normal),
            _ => Action::send("ERR unknown request"),
        })
    }
}

impl Handler for Store {
    type Message = ();

    fn handle_packet(&mut self, line: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        self.answer(line, ctx).unwrap_or_else(Action::stop)
    }
}

fn main() -> Result<(), Error> {
    let store = Store::default();
    let options = ListenerOptions::new(address()).framing(Lines::new(MAX_LINE));
    let mut reactor = Reactor::new()?;
    let options = options.max_connections(MAX_CONNECTIONS);
    reactor.start_listener("store", options, move |_peer| store.clone())?;
    reactor.run()
}
