//! What both servers of a service share, so that it counts for neither.

use std::thread;
use std::time::Duration;

/// How many threads work.
#[allow(dead_code, reason = "the key-value servers have no workers")]
pub const WORKERS: usize = 8;

/// The address to listen on: the first argument, or port 5555 of the loopback interface.
pub fn address() -> std::net::SocketAddr {
    let argument = std::env::args().nth(1);
    argument.as_deref().unwrap_or("127.0.0.1:5555").parse().expect("an address with a port")
}

/// Work that takes 5 ms, for example in a file or in a library that blocks.
#[allow(dead_code, reason = "the key-value servers have no workers")]
pub fn work(request: &[u8]) -> Vec<u8> {
    thread::sleep(Duration::from_millis(5));
    request.to_ascii_uppercase()
}
