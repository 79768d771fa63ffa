//! ringline, one worker, framed by hand.
//!
//! It chooses its backend when it is built: io_uring on Linux 6.0 and later. The driver looks at
//! the process to say which it was.

use std::future::Future;

use common::{BACKLOG, Options, whole_frames};
use ringline::{AsyncEventHandler, Config, ConfigBuilder, ConnCtx, ParseResult, RinglineBuilder};

/// Provided receive buffers: 16 MiB in all.
const RECEIVE_BUFFERS: (u16, u32) = (1024, 16 * 1024);
/// Send slots: room for every answer of the scenario with large packets.
const SEND_SLOTS: (u16, u32) = (4096, 16 * 1024);

struct Echo;

impl AsyncEventHandler for Echo {
    #[expect(
        clippy::manual_async_fn,
        reason = "the trait wants a future that does not borrow the handler"
    )]
    fn on_accept(&self, connection: ConnCtx) -> impl Future<Output = ()> + 'static {
        async move {
            while connection.with_data(|data| answer(&connection, data)).await > 0 {}
            connection.close();
        }
    }

    fn create_for_worker(_: usize) -> Self {
        Self
    }
}

fn answer(connection: &ConnCtx, data: &[u8]) -> ParseResult {
    match whole_frames(data) {
        0 => ParseResult::NeedMore,
        whole => {
            if let Err(error) = connection.send_nowait(&data[..whole]) {
                eprintln!("an answer of {whole} bytes was refused: {error}");
                connection.close();
            }
            ParseResult::Consumed(whole)
        }
    }
}

fn config(options: &Options) -> Result<Config, ringline::Error> {
    ConfigBuilder::new()
        .workers(1)
        .pin_to_core(false)
        .resolver_threads(0)
        .spawner_threads(0)
        .blocking_threads(0)
        .max_connections(options.max_connections as u32)
        .backlog(BACKLOG)
        .tcp_nodelay(true)
        .recv_buffer(RECEIVE_BUFFERS.0, RECEIVE_BUFFERS.1)
        .send_pool(SEND_SLOTS.0, SEND_SLOTS.1)
        .build()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_command_line();
    let (handle, workers) =
        RinglineBuilder::new(config(&options)?).bind(options.listen).launch::<Echo>()?;
    common::announce(handle.bound_addr().ok_or("ringline has no address")?)?;
    for worker in workers {
        worker.join().map_err(|_| "the worker panicked")??;
    }
    Ok(())
}
