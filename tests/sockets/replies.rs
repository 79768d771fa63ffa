//! Answers of other threads, over kernel sockets: after half a close, on several shards, in a drain.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use condor::testing::serve;
use condor::{
    Accepted, Action, Context, Handler, Info, ListenerOptions, ListenerState, ReactorOptions,
    Replies, Reply, ReplyError, Ticket,
};

use crate::support::{Client, Server, next, until, wire};

const REQUESTS: u32 = 20;

type Job = (Vec<u8>, Ticket);

/// Gives each packet to a worker.
struct Window {
    replies: Replies,
    jobs: Sender<Job>,
}

impl Window {
    fn request(&mut self, packet: &[u8], ctx: &mut Context<'_, Reply>) -> Result<(), ReplyError> {
        let ticket = self.replies.open(ctx)?;
        self.jobs.send((packet.to_vec(), ticket)).unwrap();
        Ok(())
    }
}

impl Handler for Window {
    type Message = Reply;

    fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, Reply>) -> Action<'_> {
        self.request(packet, ctx).into()
    }

    fn handle_info(&mut self, info: Info<'_, Reply>, ctx: &mut Context<'_, Reply>) -> Action<'_> {
        self.replies.handle_info(info, ctx)
    }
}

/// A worker that begins when the sender says so. It takes all jobs that there are, and answers the
/// last one first. It counts the jobs, and sends their number at the end.
fn worker(jobs: Receiver<Job>) -> (Sender<()>, Receiver<u32>) {
    let (go, may_go) = channel();
    let (count, counted) = channel();
    thread::spawn(move || {
        next::<()>(&may_go);
        let mut done = 0;
        while let Ok(first) = jobs.recv() {
            let mut taken = vec![first];
            taken.extend(jobs.try_iter());
            done += u32::try_from(taken.len()).unwrap();
            for (request, ticket) in taken.into_iter().rev() {
                ticket.answer(request.to_ascii_uppercase());
            }
        }
        count.send(done).unwrap();
    });
    (go, counted)
}

fn requests() -> Vec<Vec<u8>> {
    (0..REQUESTS).map(|number| format!("request {number}").into_bytes()).collect()
}

fn wire_of(packets: &[Vec<u8>]) -> Vec<u8> {
    wire(&packets.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Goal: after half a close all answers arrive, in order, and then the end of the stream; on one
/// reactor and on two shards; also if the listener drains before the first answer. Method: one client
/// for each shard sends all its requests and shuts its sending side down. Only then the worker begins.
#[test]
fn all_answers_arrive_after_half_a_close() {
    for (shards, drains) in [(1, false), (1, true), (2, false), (2, true)] {
        for window in [1, 8, 20] {
            let (jobs, queue) = channel();
            let (go, counted) = worker(queue);
            let (server, listener) =
                Server::sharded(shards, ReactorOptions::default(), move |reactor| {
                    let factory = move |_: &Accepted<'_, Reply>| Window {
                        replies: Replies::new(window),
                        jobs: jobs.clone(),
                    };
                    let options = ListenerOptions::port(0);
                    reactor.start_listener("test", options, factory).unwrap()
                });
            let clients: Vec<_> = (0..shards)
                .map(|_| {
                    let mut client = Client::connect(listener.local_addr());
                    client.raw(&wire_of(&requests()));
                    client.finish();
                    client
                })
                .collect();
            let all = shards as u64;
            until("all are accepted", || listener.stats().made == all);
            let drain = drains.then(|| listener.stop().unwrap());
            until("the drain begins", || !drains || listener.state() != ListenerState::Listening);
            go.send(()).unwrap();
            let expected: Vec<_> = requests().iter().map(|r| r.to_ascii_uppercase()).collect();
            for mut client in clients {
                assert!(client.read_to_end() == wire_of(&expected), "{shards} {drains} {window}");
            }
            if let Some(drain) = drain {
                assert_eq!(drain.wait().unwrap().forced, 0);
            }
            until("the connections end", || listener.stats().half_closed == 0);
            drop(server);
            assert_eq!(next(&counted), REQUESTS * u32::try_from(shards).unwrap());
        }
    }
}

/// Goal: a worker whose mailbox is full loses no answer and does not wait. Method: a mailbox of one
/// place, and 16 clients whose answers come all at once.
#[test]
fn no_answer_is_lost_in_a_full_mailbox() {
    let (jobs, queue) = channel();
    let (go, counted) = worker(queue);
    let options = ListenerOptions::port(0).mailbox_capacity(1);
    let server = serve(options, move |_| Window { replies: Replies::new(8), jobs: jobs.clone() });
    let mut clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send_all(requests()).unwrap();
        client.shutdown_write().unwrap();
    }
    go.send(()).unwrap();
    for client in &mut clients {
        for request in requests() {
            assert_eq!(client.receive().unwrap(), request.to_ascii_uppercase());
        }
        client.receive().expect_err("the end");
    }
    assert_eq!(server.listener().stats().refused_messages, 0);
    drop(server);
    assert_eq!(next(&counted), 16 * REQUESTS);
}
