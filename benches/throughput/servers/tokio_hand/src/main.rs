//! Tokio on the current thread, framed by hand: one read buffer shared by all tasks, whole frames
//! written straight out of it.
//!
//! `--mode channel` broadcasts through tokio's channel instead of a loop over the connections;
//! `--mode copy` is no echo server, but a gateway to `--backend`.
//!
//! A task owns memory only for a partial frame and for output the kernel did not take.

mod broadcast;
mod channel;
mod copy;
mod echo;

use std::io;

use common::Options;
use tokio::net::TcpListener;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = tokio::task::LocalSet::new();
    match options.mode.as_deref() {
        Some("channel") => local.block_on(&runtime, channel::run(&options)),
        Some("copy") => runtime.block_on(copy::run(&options)),
        _ if options.broadcast => local.block_on(&runtime, broadcast::run(&options)),
        _ => runtime.block_on(echo::run(&options)),
    }
}

fn listen(options: &Options) -> io::Result<TcpListener> {
    let listener = TcpListener::from_std(common::listener(options.listen)?)?;
    common::announce(listener.local_addr()?)?;
    Ok(listener)
}
