//! Tests of the job queue.

use condor::client::ClientError;
use condor::testing::{Harness, serve};

use super::*;

const DENIED: [u8; 4] = [198, 51, 100, 7];

fn loopback() -> ListenerOptions {
    options(([127, 0, 0, 1], 0).into())
}

fn connection() -> Harness<Jobs> {
    Harness::new(loopback(), factory(HashSet::from([DENIED.into()])))
}

/// The lines that have arrived since the last call.
fn lines(harness: &Harness<Jobs>) -> Vec<String> {
    harness.packets().into_iter().map(|line| String::from_utf8(line).expect("UTF-8")).collect()
}

fn ask(harness: &Harness<Jobs>, request: &str) -> Vec<String> {
    harness.packet(request);
    lines(harness)
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_job_comes_out_as_it_went_in() {
    let harness = connection();
    assert_eq!(ask(&harness, "PUT q one two"), ["OK 1"]);
    assert_eq!(ask(&harness, "PUT q three"), ["OK 2"]);
    assert_eq!(ask(&harness, "GET q"), ["JOB 1 one two"]);
    assert_eq!(ask(&harness, "GET q"), ["JOB 2 three"]);
}

#[test]
fn a_deleted_job_is_gone() {
    let harness = connection();
    harness.packet("PUT q first");
    harness.packet("PUT q second");
    assert_eq!(lines(&harness), ["OK 1", "OK 2"]);
    assert_eq!(ask(&harness, "DEL q 1"), ["OK"]);
    assert_eq!(ask(&harness, "DEL q 1"), ["NONE"]);
    assert_eq!(ask(&harness, "DEL other 2"), ["NONE"]);
    assert_eq!(ask(&harness, "GET q"), ["JOB 2 second"]);
}

#[test]
fn a_get_waits_for_a_job_of_another_connection() {
    let waits = connection();
    assert_eq!(ask(&waits, "GET q"), NOTHING);
    // Its later requests are carried out, and answered in order.
    assert_eq!(ask(&waits, "DEL q 9"), NOTHING);
    let puts = waits.connect();
    assert_eq!(ask(&puts, "PUT other x"), ["OK 1"]);
    assert_eq!(lines(&waits), NOTHING);
    assert_eq!(ask(&puts, "PUT q x"), ["OK 2"]);
    assert_eq!(lines(&waits), ["JOB 2 x", "NONE"]);
}

#[test]
fn who_waits_longer_is_served_first() {
    let first = connection();
    let [second, third, puts] = [first.connect(), first.connect(), first.connect()];
    for waits in [&first, &second, &third] {
        waits.packet("GET q");
    }
    puts.packet("PUT q a");
    puts.packet("PUT q b");
    assert_eq!(lines(&first), ["JOB 1 a"]);
    assert_eq!(lines(&second), ["JOB 2 b"]);
    assert_eq!(lines(&third), NOTHING);
}

#[test]
fn who_comes_later_takes_no_job_that_is_promised() {
    let waits = connection();
    let later = waits.connect();
    waits.packet("GET q");
    // Both requests are handled before the connection that waits is told.
    later.receive([later.framed("PUT q x"), later.framed("GET q")].concat());
    assert_eq!(lines(&later), ["OK 1"]);
    assert_eq!(lines(&waits), ["JOB 1 x"]);
}

#[test]
fn who_leaves_takes_no_job() {
    let leaves = connection();
    let [stays, puts] = [leaves.connect(), leaves.connect()];
    leaves.packet("GET q");
    stays.packet("GET q");
    leaves.peer_resets();
    assert_eq!(leaves.closed(), Some(CloseReason::Reset));
    puts.packet("PUT q x");
    assert_eq!(lines(&stays), ["JOB 1 x"]);
}

#[test]
fn a_job_and_a_reset_at_the_same_time() {
    let leaves = connection();
    let [stays, puts] = [leaves.connect(), leaves.connect()];
    leaves.packet("GET q");
    stays.packet("GET q");
    puts.arrive(puts.framed("PUT q x"));
    leaves.peer_resets();
    leaves.run();
    let received = [lines(&leaves), lines(&stays)].concat();
    assert_eq!(received, ["JOB 1 x"]);
}

#[test]
fn a_connection_that_is_closing_passes_its_job_on() {
    let closing = connection();
    let [stays, puts] = [closing.connect(), closing.connect()];
    closing.peer_stalls();
    for request in ["DEL q 9", "GET q", "WRONG"] {
        closing.packet(request);
    }
    stays.packet("GET q");
    puts.packet("PUT q x");
    // Its last lines wait for the peer, so it is not terminated yet, and the job is kept for it.
    assert_eq!((closing.closed(), lines(&stays).len()), (None, 0));
    closing.peer_reads_all();
    assert_eq!(closing.closed(), Some(Wrong::Verb.into()));
    assert_eq!(lines(&stays), ["JOB 1 x"]);
    assert_eq!(lines(&closing), ["NONE".to_owned(), Wrong::Verb.line()]);
}

#[test]
fn a_client_that_sends_no_more_gets_its_job() {
    let waits = connection();
    let puts = waits.connect();
    waits.arrive(waits.framed("GET q"));
    waits.peer_closes();
    waits.advance(HALF_CLOSED - Duration::from_millis(1));
    assert_eq!(waits.closed(), None);
    puts.packet("PUT q x");
    assert_eq!(lines(&waits), ["JOB 1 x"]);
    assert_eq!(waits.closed(), Some(CloseReason::PeerClosed));
    assert!(waits.is_finished());
}

#[test]
fn it_waits_for_the_half_close_timeout_only() {
    let waits = connection();
    let puts = waits.connect();
    waits.packet("GET q");
    waits.peer_closes();
    waits.advance(HALF_CLOSED);
    assert_eq!(waits.closed(), Some(CloseReason::HalfCloseTimeout));
    puts.packet("PUT q x");
    assert_eq!(lines(&waits), NOTHING);
    assert_eq!(lines(&puts), ["OK 1"]);
    assert_eq!(ask(&puts, "GET q"), ["JOB 1 x"]);
}

#[test]
fn each_mistake_has_its_number() {
    let mistakes: [(&[u8], Wrong); 8] = [
        (b"TAKE q", Wrong::Verb),
        (b"", Wrong::Verb),
        (b"GET a b", Wrong::Queue),
        (b"PUT  text", Wrong::Queue),
        (b"PUT q", Wrong::Text),
        (b"DEL q", Wrong::Id),
        (b"DEL q one", Wrong::Id),
        (b"GET \xff", Wrong::Utf8),
    ];
    for (request, wrong) in mistakes {
        let harness = connection();
        harness.packet("PUT q x");
        harness.packet(request);
        assert_eq!(lines(&harness), ["OK 1".to_owned(), wrong.line()], "{request:?}");
        assert_eq!(harness.closed(), Some(CloseReason::Code(wrong as u32)));
    }
}

#[test]
fn sixteen_answers_may_wait() {
    let harness = connection();
    for _ in 0..MOST_OWED {
        harness.packet("GET q");
    }
    assert_eq!(harness.closed(), None);
    assert_eq!(ask(&harness, "GET q"), [Wrong::TooMany.line()]);
    assert_eq!(harness.closed(), Some(Wrong::TooMany.into()));
}

#[test]
fn a_connection_serves_itself() {
    let harness = connection();
    assert_eq!(ask(&harness, "GET q"), NOTHING);
    assert_eq!(ask(&harness, "PUT q x"), ["JOB 1 x", "OK 1"]);
}

#[test]
fn a_drain_answers_who_waits() {
    let waits = connection();
    waits.packet("GET q");
    waits.drain();
    assert_eq!(lines(&waits), ["CLOSING"]);
    assert_eq!(waits.closed(), Some(CloseReason::Shutdown));
}

#[test]
fn the_deny_list_is_kept() {
    let harness = connection();
    let denied = harness.connect_from((DENIED, 40_000));
    assert_eq!(lines(&denied), ["DENIED"]);
    assert!(denied.is_finished());
    assert_eq!((denied.closed(), harness.stats().refused), (None, 1));
    assert_eq!(ask(&harness, "PUT q x"), ["OK 1"]);
}

#[test]
fn nothing_is_left_over() {
    let harness = connection();
    let second = harness.connect();
    harness.packet("GET q");
    harness.peer_resets();
    second.peer_closes();
    assert_eq!(harness.leftovers(), condor::testing::Leftovers::default());
}

#[test]
fn two_clients_over_sockets() {
    let server = serve(loopback(), factory(HashSet::new()));
    let mut waits = server.client();
    waits.send("GET q").unwrap();
    waits.shutdown_write().unwrap();
    let mut puts = server.client();
    assert_eq!(puts.request("PUT q text").unwrap(), b"OK 1");
    assert_eq!(waits.receive().unwrap(), b"JOB 1 text");
    assert!(matches!(waits.receive(), Err(ClientError::Closed)));
}

#[test]
fn a_denied_client_over_a_socket() {
    let server = serve(loopback(), factory(HashSet::from([[127, 0, 0, 1].into()])));
    let mut denied = server.client();
    assert_eq!(denied.receive().unwrap(), b"DENIED");
    assert!(matches!(denied.receive(), Err(ClientError::Closed)));
}
