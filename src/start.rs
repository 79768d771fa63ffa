//! Starts a listener: all the steps that can fail, on the caller's thread.
//!
//! The options are checked, the name is reserved and the socket listens before a reactor gets a
//! command. Then the reactor of each shard gets one [`Part`], which becomes a listener once it has
//! a slot.

use std::sync::atomic::Ordering;

use crate::acceptor::{self, Acceptor, ListeningSocket};
use crate::admission::{Admission, Listening};
use crate::directory::{Command, Inbox, Kind, NameGuard};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::handle::{Handle, ListenerHandle};
use crate::handler::{Accepted, Handler, IntoHandler};
use crate::listener::{Factory, Listener};
use crate::logging::say;
use crate::mailbox::Mailbox;
use crate::options::{ConnectionOptions, ListenerOptions, OpeningOptions, Origin};
use crate::phases::AnyListener;
use crate::profile::Profile;
#[cfg(feature = "sim")]
use crate::simulated::{Host, SimulatedAcceptor};
use crate::status::Status;
use crate::sync::Arc;
use crate::text::Line;

/// A listener whose socket listens already, and that no reactor has adopted yet.
pub(crate) struct Prepared<M, A: Acceptor> {
    /// One part for each shard. The part that accepts comes last.
    pub(crate) parts: Vec<Part<M, A>>,
    pub(crate) handle: ListenerHandle<M>,
}

/// One shard's part of a listener.
pub(crate) struct Part<M, A: Acceptor> {
    listening: Option<Listening<A>>,
    admission: Arc<Admission<A::Stream>>,
    profile: Profile<M>,
    opening: OpeningOptions,
    backlog: u32,
}

impl<M: Send + 'static, A: Acceptor + 'static> Part<M, A> {
    /// Makes a listener of the part, for the slot that its reactor has for it.
    pub(crate) fn into_listener<R: IntoHandler<Handler: Handler<Message = M>>>(
        mut self,
        slot: u16,
        mut factory: impl FnMut(&Accepted<'_, M>) -> R + 'static,
    ) -> Box<dyn AnyListener> {
        self.profile.slot = slot;
        let factory: Factory<R::Handler> = Box::new(move |peer| factory(peer).into_handler());
        let Self { admission, listening, profile, opening, backlog } = self;
        Box::new(Listener::new(profile, admission, listening, factory, opening, backlog))
    }
}

impl Handle {
    /// Starts a listener. It accepts as soon as this returns, and the reactor serves it from its
    /// next turn on. See [`Reactor::start_listener`](crate::Reactor::start_listener).
    ///
    /// # Errors
    ///
    /// As [`Reactor::start_listener`](crate::Reactor::start_listener), and [`Error::Gone`] if the
    /// reactor is gone. After an error, the name and the address are free again.
    pub fn start_listener<M, R, F>(
        &self,
        name: &str,
        options: ListenerOptions,
        factory: F,
    ) -> Result<ListenerHandle<M>, Error>
    where
        M: Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        F: FnMut(&Accepted<'_, M>) -> R + Clone + Send + 'static,
    {
        #[cfg(feature = "sim")]
        if let Some(host) = &self.shared.host {
            return self.hand_out(self.prepare_simulated(host, name, options)?, factory);
        }
        self.hand_out(self.prepare_tcp::<M>(name, options)?, factory)
    }

    /// Gives each shard its part of a listener.
    fn hand_out<M, A, R, F>(
        &self,
        Prepared { parts, handle }: Prepared<M, A>,
        factory: F,
    ) -> Result<ListenerHandle<M>, Error>
    where
        M: Send + 'static,
        A: Acceptor<Stream: Send> + Send + 'static,
        R: IntoHandler<Handler: Handler<Message = M>>,
        F: FnMut(&Accepted<'_, M>) -> R + Clone + Send + 'static,
    {
        // The part that accepts goes last, so the others are there for the first connection. If its
        // command fails, its [`Listening`] is dropped, and that ends the other parts.
        for part in parts {
            let inbox = &self.shared.inboxes[part.profile.shard];
            let factory = factory.clone();
            let make = move |slot| part.into_listener(slot, factory);
            inbox.command(Command::Adopt(Box::new(make)))?;
        }
        self.shared.publish(&handle.status, Some(handle.addr.clone()));
        Ok(handle)
    }

    /// Makes a listener that is ready to be served. If the reactor is simulated, there are no
    /// sockets: the listener has its name and its address, but no client can reach it.
    pub(crate) fn prepare_tcp<M: Send + 'static>(
        &self,
        name: &str,
        options: ListenerOptions,
    ) -> Result<Prepared<M, ListeningSocket>, Error> {
        let is_simulated = self.shared.is_simulated;
        let prepared = self.prepare(name, options, move |options| {
            if is_simulated {
                return Ok((None, options.addr()));
            }
            let (socket, addr) = acceptor::listen(name, options)?;
            Ok((Some(socket), addr))
        })?;
        if let Some(part) = prepared.parts.first() {
            self.shared.set_admission(&prepared.handle.status, Arc::clone(&part.admission));
        }
        Ok(prepared)
    }

    /// The same on a node of a simulation.
    #[cfg(feature = "sim")]
    pub(crate) fn prepare_simulated<M: Send + 'static>(
        &self,
        host: &Host,
        name: &str,
        options: ListenerOptions,
    ) -> Result<Prepared<M, SimulatedAcceptor>, Error> {
        self.prepare(name, options, |options| {
            let (acceptor, addr) = host.listen(name, options)?;
            Ok((Some(acceptor), addr))
        })
    }

    /// The same for any kind of listening socket, which `listen` makes.
    pub(crate) fn prepare<M: Send + 'static, A: Acceptor>(
        &self,
        name: &str,
        mut options: ListenerOptions,
        listen: impl FnOnce(&ListenerOptions) -> Result<(Option<A>, Endpoint), Error>,
    ) -> Result<Prepared<M, A>, Error> {
        let shared = &self.shared;
        self.may_start(name)?;
        let findings = options.check();
        if !findings.errors.is_empty() {
            return Err(Error::Options { name: name.to_owned(), errors: findings.errors });
        }
        for warning in findings.warnings {
            say!(Warn, "listener \"{name}\": {warning}");
        }
        let status = shared.reserve(Kind::Listener, name, options.connection.max_connections)?;
        let acceptor = status.acceptor();
        let (mut socket, addr) = listen(&options).inspect_err(|_| shared.cancel(name))?;
        // The acceptor has a copy of an inherited socket by now. This drops the copy in the
        // options, which would go on listening during the drain.
        options.origin = Origin::Bind(addr.clone());
        say!(Info, "listener \"{name}\": listening on {addr}");
        let notifiers = shared.inboxes.iter().map(|inbox| Arc::clone(&inbox.notifier));
        let admission = Arc::new(Admission::new(notifiers, Arc::clone(&status)));
        let profiles = self.profiles::<M>("listener", name, &options.connection, &status);
        let mut parts: Vec<_> = profiles
            .into_iter()
            .map(|profile| {
                let admission = Arc::clone(&admission);
                let listening = (profile.shard == acceptor)
                    .then(|| Listening::new(socket.take(), Arc::clone(&admission)));
                Part {
                    listening,
                    admission,
                    profile,
                    opening: options.opening.clone(),
                    backlog: options.backlog,
                }
            })
            .collect();
        let mailboxes = Arc::clone(&parts[0].profile.mailboxes);
        let name = name.into();
        parts.sort_by_key(|part| part.profile.shard == acceptor);
        let handle = ListenerHandle { name, addr, mailboxes, status, reactor: self.clone() };
        Ok(Prepared { parts, handle })
    }

    /// Whether a listener or a connector may start under this name, unless it is taken.
    pub(crate) fn may_start(&self, name: &str) -> Result<(), Error> {
        if self.shared.inboxes.iter().any(Inbox::is_gone) {
            return Err(Error::Gone);
        }
        match name.chars().find(|c| Line::is_special(*c)) {
            Some(found) => Err(Error::BadName { name: name.to_owned(), found }),
            None => Ok(()),
        }
    }

    /// What stays the same for the part on each shard, in the order of the shards.
    pub(crate) fn profiles<M>(
        &self,
        what: &str,
        name: &str,
        options: &ConnectionOptions,
        status: &Arc<Status>,
    ) -> Vec<Profile<M>> {
        let label: Arc<str> = format!("{what} \"{name}\"").into();
        let (shared, name): (_, Arc<str>) = (&self.shared, name.into());
        let shards = status.counters().iter().zip(&shared.inboxes);
        let mailboxes = shards.zip(status.serial()..).map(|((counters, inbox), serial)| {
            let refused = Arc::clone(counters);
            let refuse = move || {
                refused.refused_messages.fetch_add(1, Ordering::Relaxed);
            };
            let notifier = Arc::clone(&inbox.notifier);
            Arc::new(Mailbox::new(serial, options.mailbox_capacity, notifier, refuse))
        });
        let mailboxes: Arc<[_]> = mailboxes.collect();
        let profile = |(shard, mailbox): (usize, &Arc<Mailbox<M>>)| {
            let framing = options.framing_in_force();
            let name_guard = NameGuard {
                shared: Arc::clone(shared),
                name: Arc::clone(&name),
                status: Arc::clone(status),
            };
            Profile {
                name: Arc::clone(&name),
                label: Arc::clone(&label),
                shard,
                slot: 0,
                serial: mailbox.serial(),
                shape: framing.shape(),
                framing,
                limits: options.limits(),
                read_at_once: options.read_at_once(),
                options: options.clone(),
                mailbox: Arc::clone(mailbox),
                mailboxes: Arc::clone(&mailboxes),
                counters: Arc::clone(&status.counters()[shard]),
                handle: self.clone(),
                name_guard,
            }
        };
        mailboxes.iter().enumerate().map(profile).collect()
    }
}
