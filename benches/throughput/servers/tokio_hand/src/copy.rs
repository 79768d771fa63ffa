//! A gateway: each connection gets a connection to the backend, and `copy_bidirectional` passes bytes
//! both ways.

use std::io;
use std::net::SocketAddr;

use common::Options;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

pub(crate) async fn run(options: &Options) -> io::Result<()> {
    let backend = options.backend.ok_or_else(|| io::Error::other("--backend is missing"))?;
    let listener = crate::listen(options)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A peer that goes away is not this server's concern.
        tokio::spawn(async move { serve(stream, backend).await.ok() });
    }
}

async fn serve(mut client: TcpStream, backend: SocketAddr) -> io::Result<()> {
    let mut upstream = TcpStream::connect(backend).await?;
    upstream.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
