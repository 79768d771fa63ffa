//! The keys and their values.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use bytes::Bytes;

use crate::protocol::integer;

pub(crate) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// The most expired keys that one request removes.
const SWEPT: usize = 16;

#[derive(Debug)]
struct Entry {
    /// The value as it is in an answer, `$5\r\nvalue\r\n`. So `GET` sends it as it is, and all
    /// connections share one that is long.
    framed: Bytes,
    expires: Option<Instant>,
}

/// All of it belongs to one thread, so it has no lock.
#[derive(Debug, Default)]
pub(crate) struct Store {
    entries: HashMap<Bytes, Entry>,
    /// The keys that expire, in the order of their times.
    expiring: BTreeSet<(Instant, Bytes)>,
}

impl Store {
    /// How many keys there are, and how many of them expire.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.expiring.len())
    }

    /// Removes some of the keys whose time has come. No request sees such a key in any case: this
    /// frees the memory, a bit with each request.
    pub(crate) fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT {
            match self.expiring.first() {
                Some((at, _)) if *at <= now => {}
                _ => return,
            }
            if let Some((_, key)) = self.expiring.pop_first() {
                self.entries.remove(&key);
            }
        }
    }

    fn live(&self, key: &[u8], now: Instant) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.expires.is_none_or(|at| at > now))
    }

    /// The value, as it is in an answer.
    pub(crate) fn get(&self, key: &[u8], now: Instant) -> Option<&Bytes> {
        self.live(key, now).map(|entry| &entry.framed)
    }

    /// Sets a value, given as it is in an answer.
    pub(crate) fn set(&mut self, key: &[u8], framed: Bytes, expires: Option<Instant>) {
        let entry = Entry { framed, expires };
        match self.entries.get_mut(key) {
            Some(old) if old.expires.is_none() && expires.is_none() => *old = entry,
            _ => {
                self.remove(key);
                let key = Bytes::copy_from_slice(key);
                self.expiring.extend(expires.map(|at| (at, key.clone())));
                self.entries.insert(key, entry);
            }
        }
    }

    /// Removes a key. Returns whether it was there and had not expired.
    pub(crate) fn delete(&mut self, key: &[u8], now: Instant) -> bool {
        let is_live = self.live(key, now).is_some();
        self.remove(key);
        is_live
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, Entry { expires: Some(at), .. })) = self.entries.remove_entry(key) {
            self.expiring.remove(&(at, key));
        }
    }

    /// Adds to a number, which is 0 if there is no such key.
    pub(crate) fn add(&mut self, key: &[u8], by: i64, now: Instant) -> Result<i64, &'static str> {
        let old = self.live(key, now);
        let number = old.map_or(Some(0), |entry| integer(text(&entry.framed)));
        let number = number.ok_or(NOT_AN_INTEGER)?;
        let number = number.checked_add(by).ok_or("ERR increment or decrement would overflow")?;
        let expires = old.and_then(|entry| entry.expires);
        self.set(key, framed(number.to_string().as_bytes()).into(), expires);
        Ok(number)
    }
}

/// A string as it is in an answer.
pub(crate) fn framed(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

/// The text of such a string.
fn text(framed: &[u8]) -> &[u8] {
    let start = framed.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    &framed[start..framed.len() - 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Moments in milliseconds after any start.
    #[expect(clippy::disallowed_methods, reason = "the tests add to it, and never wait")]
    fn clock() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |millis| start + Duration::from_millis(millis)
    }

    #[test]
    fn expired_keys_are_gone_at_once_and_freed_bit_by_bit() {
        let at = clock();
        let mut store = Store::default();
        for nth in 0..40_u8 {
            store.set(&[nth], framed(b"x").into(), Some(at(10)));
        }
        assert!(store.get(&[0], at(9)).is_some());
        assert_eq!(store.get(&[0], at(10)), None);
        store.sweep(at(9));
        assert_eq!(store.len(), (40, 40));
        store.sweep(at(10));
        assert_eq!(store.len(), (24, 24));
        assert!(!store.delete(&[39], at(10)), "it has expired");
        assert_eq!(store.add(&[38], 1, at(10)), Ok(1));
        assert_eq!(store.len(), (23, 22));
        store.sweep(at(10));
        store.sweep(at(10));
        assert_eq!(store.len(), (1, 0));
    }

    #[test]
    fn a_key_that_is_set_again_has_one_time_or_none() {
        let at = clock();
        let mut store = Store::default();
        store.set(b"k", framed(b"1").into(), Some(at(10)));
        store.set(b"k", framed(b"1").into(), Some(at(20)));
        assert_eq!((store.add(b"k", 1, at(15)), store.len()), (Ok(2), (1, 1)));
        assert_eq!(store.get(b"k", at(20)), None, "INCR keeps the time");
        store.set(b"k", framed(b"1").into(), Some(at(30)));
        store.set(b"k", framed(b"1").into(), None);
        assert_eq!((store.get(b"k", at(99)).is_some(), store.len()), (true, (1, 0)));
    }
}
