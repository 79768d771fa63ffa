//! Tests of the quote service.

use std::sync::mpsc::{Sender, channel, sync_channel};

use condor::client::ClientError;
use condor::testing::{Harness, serve};

use super::*;

const TOKEN: &str = "secret";

fn loopback() -> ListenerOptions {
    options(([127, 0, 0, 1], 0).into())
}

/// A connection under the simulated clock. The test is the worker.
fn connection() -> (Harness<Quotes>, Receiver<Job>) {
    let (jobs, queue) = sync_channel(2 * MOST_OPEN);
    (Harness::new(loopback(), factory(TOKEN, jobs)), queue)
}

fn logged_in() -> (Harness<Quotes>, Receiver<Job>) {
    let (harness, queue) = connection();
    harness.packet(TOKEN);
    assert_eq!(harness.packets(), [[0]]);
    (harness, queue)
}

/// A worker's answer, as it is told to the reactor.
fn work(harness: &Harness<Quotes>, job: Job, price: u64) {
    job.ticket.answer(answer(Some(price)));
    harness.run();
}

#[test]
fn a_client_without_a_token_is_refused() {
    let (harness, _queue) = connection();
    harness.advance(LOGIN - Duration::from_millis(1));
    assert_eq!(harness.closed(), None);
    harness.advance(Duration::from_millis(1));
    assert_eq!(harness.packets(), [message(LATE)]);
    assert_eq!(harness.closed(), Some(CloseReason::Custom(LATE)));
}

#[test]
fn half_a_token_does_not_help() {
    let (harness, _queue) = connection();
    let token = harness.framed(TOKEN);
    harness.receive(&token[..5]);
    harness.advance(LOGIN);
    assert_eq!(harness.packets(), [message(LATE)]);
}

#[test]
fn a_wrong_token_is_refused_at_once() {
    let (harness, queue) = connection();
    harness.arrive(harness.framed("guess"));
    harness.packet("ABC");
    assert_eq!(harness.packets(), [message(WRONG)]);
    assert_eq!(harness.closed(), Some(CloseReason::Custom(WRONG)));
    assert_eq!(queue.try_iter().count(), 0);
}

#[test]
fn after_the_login_there_is_no_hurry() {
    let (harness, queue) = logged_in();
    harness.advance(Duration::from_secs(59));
    harness.packet("ABC");
    work(&harness, queue.recv().unwrap(), 7);
    assert_eq!(harness.packets(), [answer(Some(7))]);
    harness.advance(Duration::from_secs(60));
    assert_eq!(harness.closed(), Some(CloseReason::IdleTimeout));
}

#[test]
fn answers_keep_the_order_of_the_requests() {
    let (harness, queue) = logged_in();
    for symbol in [&b"A"[..], b"B", b"\xff", b"C"] {
        harness.packet(symbol);
    }
    let jobs: Vec<_> = queue.try_iter().collect();
    assert_eq!(jobs.iter().map(|job| &job.symbol[..]).collect::<Vec<_>>(), ["A", "B", "C"]);
    for (price, job) in jobs.into_iter().enumerate().rev() {
        assert_eq!(harness.packets(), [[0; 0]; 0]);
        work(&harness, job, price as u64);
    }
    let expected = [answer(Some(0)), answer(Some(1)), message("not UTF-8"), answer(Some(2))];
    assert_eq!(harness.packets(), expected);
}

#[test]
fn sixteen_requests_are_outstanding_at_most() {
    let (harness, queue) = logged_in();
    let all: Vec<_> = (0..20).flat_map(|_| harness.framed("ABC")).collect();
    harness.receive(all);
    let mut jobs: Vec<_> = queue.try_iter().collect();
    assert_eq!(jobs.len(), MOST_OPEN);
    // The answer to the last request frees no place, because it cannot leave yet.
    work(&harness, jobs.pop().unwrap(), 1);
    assert_eq!(queue.try_iter().count(), 0);
    work(&harness, jobs.remove(0), 1);
    jobs.extend(queue.try_iter());
    assert_eq!(jobs.len(), MOST_OPEN - 1);
}

#[test]
fn a_client_that_sends_no_more_gets_all_its_answers() {
    let (harness, queue) = logged_in();
    let all: Vec<_> = (0..20).flat_map(|_| harness.framed("ABC")).collect();
    harness.arrive(all);
    harness.peer_closes();
    for price in 0..20 {
        assert_eq!(harness.closed(), None);
        work(&harness, queue.try_recv().expect("a request"), price);
    }
    assert_eq!(harness.packets(), (0..20).map(|price| answer(Some(price))).collect::<Vec<_>>());
    assert_eq!(harness.closed(), Some(CloseReason::PeerClosed));
    assert!(harness.is_finished());
}

#[test]
fn a_job_for_which_the_queue_has_no_place_is_answered() {
    let (jobs, queue) = sync_channel(1);
    let harness = Harness::new(loopback(), factory(TOKEN, jobs));
    for packet in [TOKEN, "ABC", "DEF"] {
        harness.packet(packet);
    }
    assert_eq!(harness.packets(), [[0]]);
    work(&harness, queue.recv().unwrap(), 1);
    assert_eq!(harness.packets(), [answer(Some(1)), message("the work failed")]);
    assert_eq!(harness.closed(), None);
}

#[test]
fn a_drain_waits_for_the_workers() {
    let (harness, queue) = logged_in();
    harness.packet("ABC");
    harness.drain();
    assert_eq!(harness.closed(), None);
    work(&harness, queue.recv().unwrap(), 5);
    assert_eq!(harness.packets(), [answer(Some(5))]);
    assert_eq!(harness.closed(), Some(CloseReason::Shutdown));
    harness.peer_closes();
    assert_eq!(harness.report().map(|report| report.forced), Some(0));
}

#[test]
fn the_statistics_come_every_second() {
    let (handles, handle) = channel();
    /// Gives the handle of its reactor away.
    struct Handles(Sender<Handle>);
    impl Handler for Handles {
        type Message = ();
        fn handle_packet(&mut self, _: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
            self.0.send(ctx.handle()).unwrap();
            Action::send("here")
        }
    }
    let harness = Harness::of(Handles(handles));
    harness.packet("");
    let handle = handle.recv().unwrap();
    let (lines, printed) = channel();
    let print = statistics(handle.clone(), move |line| lines.send(line).unwrap());
    let _timer = handle.every(Duration::from_secs(1), print).unwrap();
    harness.run();
    harness.advance(Duration::from_millis(2_999));
    let printed: Vec<_> = printed.try_iter().collect();
    assert_eq!(printed, ["1 open, 1 new, 1 answers", "1 open, 0 new, 0 answers"]);
}

#[test]
fn a_worker_that_panics_costs_one_answer() {
    let jobs = workers(|symbol| Some(symbol.parse().expect("a number")));
    let server = serve(loopback(), factory(TOKEN, jobs));
    let mut client = server.client();
    assert_eq!(client.request(TOKEN).unwrap(), [0]);
    // More panics than there are workers.
    for _ in 0..=WORKERS {
        assert_eq!(client.request("ABC").unwrap(), message("the work failed"));
    }
    assert_eq!(client.request("12").unwrap(), answer(Some(12)));
}

#[test]
fn forty_requests_over_a_socket() {
    let server = serve(loopback(), factory(TOKEN, workers(made_up)));
    let mut client = server.client();
    let symbols: Vec<_> = (b'A'..=b'Z').chain(b'A'..=b'N').map(|letter| [letter]).collect();
    client.send(TOKEN).unwrap();
    client.send_all(&symbols).unwrap();
    client.shutdown_write().unwrap();
    assert_eq!(client.receive().unwrap(), [0]);
    for [letter] in symbols {
        assert_eq!(client.receive().unwrap(), answer(Some(letter.into())));
    }
    assert!(matches!(client.receive(), Err(ClientError::Closed)));
}

#[test]
fn the_operator_stops_the_server_with_a_drain() {
    let (begun, begins) = channel();
    let (release, released) = channel::<()>();
    let gate = Mutex::new((begun, released));
    let jobs = workers(move |_| {
        let gate = gate.lock().unwrap();
        gate.0.send(()).unwrap();
        gate.1.recv().ok().map(|()| 1)
    });
    let server = serve(loopback(), factory(TOKEN, jobs));
    let mut client = server.client();
    assert_eq!(client.request(TOKEN).unwrap(), [0]);
    client.send_all(["A", "B", "C"]).unwrap();
    begins.recv().unwrap();

    let handle = server.handle().clone();
    let operator = thread::spawn(move || {
        let mut output = Vec::new();
        operator::operate(&b"stop\n"[..], &mut output, &handle, "testing").map(|()| output)
    });
    while server.handle().is_ready() {
        thread::yield_now();
    }
    for _ in 0..3 {
        release.send(()).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(client.receive().unwrap(), answer(Some(1)));
    }
    assert!(matches!(client.receive(), Err(ClientError::Closed)));
    drop(client);
    let output = String::from_utf8(operator.join().unwrap().unwrap()).unwrap();
    assert!(output.starts_with("drained=1 forced=0 "), "{output}");
}
