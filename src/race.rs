//! In which order the addresses of one dial are tried, and when: happy eyeballs (RFC 8305).
//!
//! ```text
//!   t = 0     first address
//!   + delay   second address, although the first has not failed     ─┐ the first that connects wins,
//!   + delay   third address                                         ─┘ and the others are closed
//! ```
//!
//! An address that fails makes the next one due at once.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::wheel::Tick;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Race {
    /// The addresses that were not tried, the last one first, each with the number of its target.
    left: Vec<(Endpoint, u32)>,
    /// Attempts that are under way, by key and generation.
    running: Vec<(u32, u32)>,
    /// When the next attempt is due, if none fails before.
    next_at: Tick,
}

impl Race {
    /// A race to these addresses, each with the number of the target that it belongs to. The families
    /// alternate, beginning with that of the first address (RFC 8305 §4); otherwise the order stays.
    pub(crate) fn new(addrs: Vec<(Endpoint, u32)>, now: Tick) -> Self {
        let is_v6 = |(addr, _): &(Endpoint, u32)| addr.ip().is_some_and(|ip| ip.is_ipv6());
        let first = addrs.first().is_some_and(is_v6);
        let (mut one, mut other): (Vec<_>, Vec<_>) =
            addrs.into_iter().rev().partition(|addr| is_v6(addr) == first);
        let mut left = Vec::with_capacity(one.len() + other.len());
        while let Some(addr) = one.pop() {
            left.push(addr);
            left.extend(other.pop());
        }
        other.reverse();
        left.extend(other);
        left.reverse();
        Self { left, running: Vec::new(), next_at: now }
    }

    /// The address to try now, if one is due. It is taken.
    pub(crate) fn next(&mut self, now: Tick, attempt_delay: Duration) -> Option<(Endpoint, u32)> {
        if !self.running.is_empty() && now < self.next_at {
            return None;
        }
        let addr = self.left.pop()?;
        self.next_at = now.after(attempt_delay);
        Some(addr)
    }

    /// An attempt is under way.
    pub(crate) fn begun(&mut self, attempt: (u32, u32)) {
        self.running.push(attempt);
    }

    /// The attempt with this key is not under way any more.
    pub(crate) fn ended(&mut self, key: u32) {
        self.running.retain(|(running, _)| *running != key);
    }

    /// An attempt has failed. The next one is due at once.
    pub(crate) fn failed(&mut self, now: Tick) {
        self.next_at = now;
    }

    /// The attempts that are under way.
    pub(crate) fn running(&self) -> &[(u32, u32)] {
        &self.running
    }

    /// Forgets the attempts that are under way, and returns them.
    pub(crate) fn end_all(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.running)
    }

    /// Whether every attempt has failed.
    pub(crate) fn is_lost(&self) -> bool {
        self.left.is_empty() && self.running.is_empty()
    }

    /// When the next attempt is due.
    pub(crate) fn due_at(&self) -> Option<Tick> {
        (!self.left.is_empty()).then_some(self.next_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(250);

    fn order(addrs: &[&str]) -> Vec<String> {
        let addrs = addrs.iter().map(|addr| (addr.parse().expect("an endpoint"), 0)).collect();
        let mut race = Race::new(addrs, Tick(0));
        let mut order = Vec::new();
        while let Some((addr, _)) = race.next(Tick(0), Duration::ZERO) {
            order.push(addr.to_string());
        }
        order
    }

    /// Goal: the families alternate, beginning with the first address's, and otherwise the order
    /// stays. Method: lists of each kind.
    #[test]
    fn families_alternate() {
        let (a, b, c) = ("192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1");
        let (x, y) = ("[2001:db8::1]:1", "[2001:db8::2]:1");
        assert_eq!(order(&[a, b, x, y]), [a, x, b, y]);
        assert_eq!(order(&[x, a, b, c]), [x, a, b, c]);
        assert_eq!(order(&[a, b, c]), [a, b, c]);
        assert_eq!(order(&[x, y, a]), [x, a, y]);
        assert_eq!(order(&["unix:/a", a]), ["unix:/a", a]);
        assert!(order(&[]).is_empty());
    }

    /// Goal: an attempt that is under way delays the next one by the attempt delay, and one that fails
    /// makes the next one due at once. Method: the due times.
    #[test]
    fn the_next_attempt_waits_for_the_delay_or_for_a_failure() {
        let addrs = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"];
        let addrs = addrs.map(|addr| (addr.parse().unwrap(), 0));
        let mut race = Race::new(addrs.to_vec(), Tick(5));
        let begin = |race: &mut Race, now, key| {
            assert!(race.next(now, DELAY).is_some());
            race.begun((key, 0));
        };
        let fail = |race: &mut Race, now, key| {
            race.ended(key);
            race.failed(now);
        };
        begin(&mut race, Tick(5), 0);
        assert_eq!(race.due_at(), Some(Tick(255)));
        assert!(race.next(Tick(254), DELAY).is_none());
        begin(&mut race, Tick(255), 1);
        fail(&mut race, Tick(300), 0);
        assert!(!race.is_lost());
        begin(&mut race, Tick(300), 2);
        assert_eq!(race.due_at(), None, "no address is left");
        fail(&mut race, Tick(301), 1);
        assert!(!race.is_lost(), "one is under way");
        fail(&mut race, Tick(302), 2);
        assert!(race.is_lost());
        assert!(Race::new(Vec::new(), Tick(0)).is_lost());
    }
}
