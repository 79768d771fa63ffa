//! Looks up names away from the reactor's thread, because the system's resolver blocks.
//!
//! A look-up runs on a thread of its own, and all dials of one connector that need the same names at
//! the same time share it. A few run beside each other, and the others wait for their turn. A look-up
//! cannot be stopped: one that outlives its dials is *stuck*, and its answer is not used. A few stuck
//! ones are left behind. If there are more, no other look-up begins until one of them ends. The thread
//! holds only a weak reference to the connector, so it keeps no reactor and no process from ending.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::PoisonError;
use std::sync::Weak;
use std::thread;

use crate::guard::caught;
use crate::mailbox::Notifier;
use crate::options::{Resolve, Target};
use crate::sync::{Arc, Mutex, MutexGuard};

/// The most look-ups that run beside each other.
const MOST_RUNNING: usize = 4;
/// The most look-ups that are left behind.
const MOST_STUCK: usize = 4;

/// Names that are looked up together.
pub(crate) type Names = Arc<[Arc<str>]>;

/// The names among some targets.
pub(crate) fn names_of(targets: &[Target]) -> Names {
    let name = |target: &Target| match target {
        Target::Name(name) => Some(Arc::clone(name)),
        Target::Endpoint(_) => None,
    };
    targets.iter().filter_map(name).collect()
}

/// The addresses of one name, or why there are none.
pub(crate) type Found = (Arc<str>, Result<Vec<SocketAddr>, String>);

/// What a look-up has found, for the dials that wait for it.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) found: Vec<Found>,
    pub(crate) dials: BTreeSet<u32>,
}

/// What the thread of a look-up has found.
#[derive(Debug)]
struct Answer {
    /// The look-up that it belongs to.
    ticket: u64,
    found: Vec<Found>,
}

/// Answers on their way to the reactor.
#[derive(Debug)]
struct Arrived {
    answers: Mutex<VecDeque<Answer>>,
    notifier: Arc<Notifier>,
}

impl Arrived {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look-up that dials wait for.
#[derive(Debug)]
struct LookUp {
    ticket: u64,
    names: Names,
    /// The dials that wait for it.
    dials: BTreeSet<u32>,
}

/// See the module's documentation.
pub(crate) struct Resolver {
    resolve: Option<Resolve>,
    arrived: Arc<Arrived>,
    /// The last ticket that was given.
    ticket: u64,
    running: Vec<LookUp>,
    /// By ticket: look-ups that have not begun. Their order is that of their tickets.
    waiting: BTreeMap<u64, LookUp>,
    /// Their tickets.
    by_names: BTreeMap<Names, u64>,
    /// Look-ups whose dials have given up.
    stuck: usize,
    /// Looks up on the reactor's thread: a simulation has no other.
    is_simulated: bool,
}

impl Resolver {
    pub(crate) fn new(resolve: Option<Resolve>, notifier: Arc<Notifier>) -> Self {
        let arrived = Arc::new(Arrived { answers: Mutex::new(VecDeque::new()), notifier });
        let (running, waiting, by_names) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let (ticket, stuck, is_simulated) = (0, 0, false);
        Self { resolve, arrived, ticket, running, waiting, by_names, stuck, is_simulated }
    }

    /// One with the same closure, for other names.
    pub(crate) fn another(&self) -> Self {
        let another = Self::new(self.resolve.clone(), Arc::clone(&self.arrived.notifier));
        Self { is_simulated: self.is_simulated, ..another }
    }

    /// Looks up on the reactor's thread, by `resolve` unless the user has given a closure.
    pub(crate) fn simulated(self, resolve: Resolve) -> Self {
        Self { resolve: self.resolve.or(Some(resolve)), is_simulated: true, ..self }
    }

    /// Begins a look-up of all these names for a dial, or joins one of the same names. Returns its
    /// ticket.
    pub(crate) fn look_up(&mut self, names: &Names, dial: u32) -> io::Result<u64> {
        let waiting = self.by_names.get(names).and_then(|ticket| self.waiting.get_mut(ticket));
        let running = self.running.iter_mut().find(|of| of.names == *names);
        if let Some(known) = running.or(waiting) {
            known.dials.insert(dial);
            return Ok(known.ticket);
        }
        if self.stuck >= MOST_STUCK {
            let text = format!("{MOST_STUCK} earlier look-ups are stuck");
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        self.ticket += 1;
        let (ticket, names, dials) = (self.ticket, Arc::clone(names), BTreeSet::from([dial]));
        let look_up = LookUp { ticket, names, dials };
        if self.running.len() < MOST_RUNNING {
            self.begin(look_up).map_err(|(error, _)| error)?;
        } else {
            self.by_names.insert(Arc::clone(&look_up.names), ticket);
            self.waiting.insert(ticket, look_up);
        }
        Ok(ticket)
    }

    /// Begins a look-up, or gives it back.
    fn begin(&mut self, look_up: LookUp) -> Result<(), (io::Error, LookUp)> {
        let (ticket, names) = (look_up.ticket, Arc::clone(&look_up.names));
        let (resolve, arrived) = (self.resolve.clone(), Arc::downgrade(&self.arrived));
        if self.is_simulated {
            find(ticket, &names, resolve, &arrived);
            self.running.push(look_up);
            return Ok(());
        }
        let begun = thread::Builder::new()
            .name("condor-resolver".to_owned())
            .spawn(move || find(ticket, &names, resolve, &arrived));
        match begun {
            Ok(_) => self.running.push(look_up),
            Err(error) => return Err((error, look_up)),
        }
        Ok(())
    }

    /// A dial does not wait any more. If it was the last one, the look-up counts as stuck, and the next
    /// dial begins another.
    pub(crate) fn give_up(&mut self, ticket: u64, dial: u32) {
        if let Some(at) = self.running.iter().position(|look_up| look_up.ticket == ticket) {
            self.running[at].dials.remove(&dial);
            if self.running[at].dials.is_empty() {
                self.running.swap_remove(at);
                self.stuck += 1;
            }
        } else if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.dials.remove(&dial);
            if waiting.dials.is_empty() {
                self.by_names.remove(&waiting.names);
                self.waiting.remove(&ticket);
            }
        }
    }

    /// It is asked in each turn, so it takes the lock only if an answer may come.
    pub(crate) fn has_answers(&self) -> bool {
        let may_come = !self.running.is_empty() || self.stuck > 0 || !self.waiting.is_empty();
        may_come && (!self.arrived.lock().is_empty() || self.may_begin())
    }

    /// Whether a look-up that waits can begin.
    fn may_begin(&self) -> bool {
        let is_free = self.running.len() < MOST_RUNNING && self.stuck < MOST_STUCK;
        is_free && !self.waiting.is_empty()
    }

    /// No dial waits any more.
    pub(crate) fn give_up_all(&mut self) {
        self.stuck += self.running.len();
        self.running.clear();
        self.waiting.clear();
        self.by_names.clear();
    }

    /// Takes the closure, whose drop is code of the user.
    pub(crate) fn take_closure(&mut self) -> Option<Resolve> {
        self.resolve.take()
    }

    /// The next answer. `None` if there is none that a dial waits for.
    pub(crate) fn answer(&mut self) -> Option<Resolved> {
        if self.may_begin()
            && let Some((_, look_up)) = self.waiting.pop_first()
        {
            self.by_names.remove(&look_up.names);
            if let Err((error, LookUp { names, dials, .. })) = self.begin(look_up) {
                let failed = |name: &Arc<str>| (Arc::clone(name), Err(error.to_string()));
                return Some(Resolved { found: names.iter().map(failed).collect(), dials });
            }
        }
        loop {
            let answer = self.arrived.lock().pop_front()?;
            let at = self.running.iter().position(|look_up| look_up.ticket == answer.ticket);
            if let Some(at) = at {
                let LookUp { dials, .. } = self.running.swap_remove(at);
                return Some(Resolved { found: answer.found, dials });
            }
            // It was stuck, and no dial waits for it.
            self.stuck = self.stuck.saturating_sub(1);
        }
    }
}

/// The work of a look-up's thread.
fn find(ticket: u64, names: &[Arc<str>], resolve: Option<Resolve>, arrived: &Weak<Arrived>) {
    let look_up = |name: &str| match &resolve {
        Some(resolve) => resolve(name),
        None => name.to_socket_addrs().map(Iterator::collect),
    };
    let found = |name: &Arc<str>| {
        // The error is the user's, too: its text and its drop may panic.
        let addrs = match caught(|| look_up(name).map_err(|error| error.to_string())) {
            Ok(Ok(addrs)) if addrs.is_empty() => Err("it has no addresses".to_owned()),
            Ok(looked_up) => looked_up,
            Err(panic) => Err(format!("the resolver panicked: {panic}")),
        };
        (Arc::clone(name), addrs)
    };
    let found = names.iter().map(found).collect();
    // The closure is dropped before the answer is seen. Without an answer the look-up would count
    // as stuck for ever.
    let _ = caught(|| drop(resolve));
    if let Some(arrived) = arrived.upgrade() {
        arrived.lock().push_back(Answer { ticket, found });
        arrived.notifier.notify();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A resolver whose look-ups say when they begin, and go on when the test lets them.
    fn held() -> (Resolver, Receiver<String>, Sender<()>) {
        let (begun, begins) = channel();
        let (release, held) = channel();
        let held = Mutex::new(held);
        let resolve = move |name: &str| {
            begun.send(name.to_owned()).map_err(io::Error::other)?;
            let released = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
            released.map_err(io::Error::other)?;
            Ok(vec![SocketAddr::from(([192, 0, 2, 1], 80))])
        };
        let notifier = Arc::new(Notifier::new(|| {}));
        (Resolver::new(Some(Arc::new(resolve)), notifier), begins, release)
    }

    fn names(name: &str) -> Names {
        Arc::from([Arc::from(name)])
    }

    fn answer(resolver: &mut Resolver) -> Resolved {
        loop {
            match resolver.answer() {
                Some(answer) => return answer,
                None => thread::yield_now(),
            }
        }
    }

    /// Goal: dials of the same names share one look-up, and it goes on if one of them gives up. Method:
    /// two dials, the first of which gives up.
    #[test]
    fn a_look_up_goes_on_while_a_dial_waits_for_it() {
        let (mut resolver, begins, release) = held();
        let ticket = resolver.look_up(&names("one:1"), 7).unwrap();
        assert_eq!(resolver.look_up(&names("one:1"), 8).unwrap(), ticket);
        resolver.give_up(ticket, 7);
        release.send(()).unwrap();
        let answer = answer(&mut resolver);
        assert_eq!((&answer.dials, &*answer.found[0].0), (&BTreeSet::from([8]), "one:1"));
        assert!(answer.found[0].1.is_ok());
        assert_eq!((begins.iter().take(1).count(), resolver.stuck), (1, 0));
        assert!(!resolver.has_answers());
    }

    /// Goal: a few look-ups run beside each other, and the others wait; one whose dials give up before
    /// it begins never does. Method: six names, each of which is held.
    #[test]
    fn look_ups_wait_for_their_turn() {
        let (mut resolver, begins, release) = held();
        let mut look_up =
            |dial| resolver.look_up(&names(&format!("{}:1", dial % 10)), dial).unwrap();
        let tickets: Vec<u64> = [0, 1, 2, 3, 4, 5, 14, 15].into_iter().map(&mut look_up).collect();
        assert_eq!(tickets[6..], tickets[4..6], "those that wait are shared, too");
        let mut begun: Vec<String> = begins.iter().take(MOST_RUNNING).collect();
        begun.sort();
        assert_eq!(begun, ["0:1", "1:1", "2:1", "3:1"]);
        assert!(!resolver.has_answers(), "no other can begin");
        resolver.give_up(tickets[4], 4);
        resolver.give_up(tickets[4], 14);
        for _ in 0..5 {
            release.send(()).unwrap();
        }
        let answered = (0..5).flat_map(|_| answer(&mut resolver).dials);
        assert_eq!(answered.collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2, 3, 5, 15]));
        assert_eq!(begins.try_iter().collect::<Vec<_>>(), ["5:1"]);
    }

    /// Goal: each look-up has an answer, whatever panics: the closure, the text of its error, the drop of
    /// that, the drop of the closure. Method: more of each than may be left behind.
    #[cfg(panic = "unwind")]
    #[test]
    fn whatever_panics_a_look_up_has_an_answer() {
        #[derive(Debug)]
        struct Bad {
            text: bool,
        }
        impl std::error::Error for Bad {}
        impl std::fmt::Display for Bad {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                if self.text {
                    std::panic::resume_unwind(Box::new("no text"));
                }
                f.write_str("bad")
            }
        }
        impl Drop for Bad {
            fn drop(&mut self) {
                if !self.text {
                    std::panic::resume_unwind(Box::new("no drop"));
                }
            }
        }
        for text in [true, false] {
            let resolve: Resolve = Arc::new(move |_| Err(io::Error::other(Bad { text })));
            let mut resolver = Resolver::new(Some(resolve), Arc::new(Notifier::new(|| {})));
            for _ in 0..=MOST_STUCK {
                resolver.look_up(&names("one:1"), 1).unwrap();
                let why = answer(&mut resolver).found.remove(0).1.unwrap_err();
                assert!(why.starts_with("the resolver panicked: no "), "{why}");
            }
        }
        // The thread is the last owner of this closure.
        let (release, held) = channel();
        let (last, held) = (Bad { text: false }, Mutex::new(held));
        let resolve: Resolve = Arc::new(move |_| {
            let _ = (&last, held.lock().map(|held: MutexGuard<'_, Receiver<()>>| held.recv()));
            Ok(Vec::new())
        });
        let mut resolver = Resolver::new(Some(resolve), Arc::new(Notifier::new(|| {})));
        resolver.look_up(&names("one:1"), 1).unwrap();
        drop(resolver.take_closure());
        release.send(()).unwrap();
        assert_eq!(answer(&mut resolver).found.len(), 1);
    }

    /// Goal: look-ups that hang are left behind up to a limit, and later ones begin again once they end.
    /// Method: dials that give up; then the look-ups go on.
    #[test]
    fn a_few_look_ups_are_left_behind() {
        let (mut resolver, begins, release) = held();
        for _ in 0..MOST_STUCK {
            let ticket = resolver.look_up(&names("stuck:1"), 1).unwrap();
            resolver.give_up(ticket, 1);
        }
        let refused = resolver.look_up(&names("stuck:1"), 1).unwrap_err();
        assert_eq!(refused.to_string(), "4 earlier look-ups are stuck");
        assert_eq!(begins.iter().take(MOST_STUCK).count(), MOST_STUCK);
        for _ in 0..MOST_STUCK {
            release.send(()).unwrap();
        }
        while resolver.stuck > 0 {
            assert!(resolver.answer().is_none(), "no dial waits for it");
            thread::yield_now();
        }
        resolver.look_up(&names("stuck:1"), 1).unwrap();
        release.send(()).unwrap();
        assert!(answer(&mut resolver).found[0].1.is_ok());
    }
}
