//! Each connection has up to eight requests in work. The answers leave in the order of the requests.

use common::{WORKERS, address, work};
use condor::{
    Action, Context, Error, Handler, Info, ListenerOptions, Reactor, Replies, Reply, Ticket,
};
use threadpool::ThreadPool;

#[path = "../../common.rs"]
mod common;

const MAX_CONNECTIONS: usize = 1_000;

struct Window {
    replies: Replies,
    workers: ThreadPool,
}

impl Handler for Window {
    type Message = Reply;

    fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, Reply>) -> Action<'_> {
        let request = packet.to_vec();
        let start = |ticket: Ticket| self.workers.execute(move || ticket.answer(work(&request)));
        self.replies.open(ctx).map(start).into()
    }

    fn handle_info(&mut self, info: Info<'_, Reply>, ctx: &mut Context<'_, Reply>) -> Action<'_> {
        self.replies.handle_info(info, ctx)
    }
}

fn main() -> Result<(), Error> {
    let workers = ThreadPool::new(WORKERS);
    let options = ListenerOptions::new(address()).max_connections(MAX_CONNECTIONS);
    let mut reactor = Reactor::new()?;
    reactor.start_listener("window", options, move |_peer| Window {
        replies: Replies::new(8),
        workers: workers.clone(),
    })?;
    reactor.run()
}
