//! How a client gets its connection.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};

use socket2::{Domain, Socket, Type};

use super::{Client, ClientError};
use crate::endpoint::Endpoint;

impl Client {
    /// Connects to the first address that accepts the connection. Each address has
    /// [`DEFAULT_TIMEOUT`] to do so. The framing is [`LengthField::U16`], unless
    /// [`framing`](Self::framing) sets another one.
    ///
    /// [`DEFAULT_TIMEOUT`]: Self::DEFAULT_TIMEOUT
    /// [`LengthField::U16`]: crate::LengthField::U16
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub fn connect(addr: impl ToSocketAddrs + fmt::Debug) -> Result<Self, ClientError> {
        let failed = |addr, source| ClientError::Connect { addr, source };
        let addrs = addr.to_socket_addrs().map_err(|e| failed(format!("{addr:?}"), e))?;
        let nothing = io::Error::new(ErrorKind::NotFound, "the name has no address");
        let mut last = failed(format!("{addr:?}"), nothing);
        for addr in addrs {
            match TcpStream::connect_timeout(&addr, Self::DEFAULT_TIMEOUT) {
                Ok(stream) => return Self::from_stream(stream),
                Err(source) => last = failed(addr.to_string(), source),
            }
        }
        Err(last)
    }

    /// Connects to an endpoint, which may be a Unix socket.
    ///
    /// ```
    /// use condor::client::Client;
    /// use condor::{Endpoint, ListenerOptions};
    /// # use condor::{Action, Context, Handler};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Message = ();
    /// #     fn handle_packet<'a>(&'a mut self, packet: &'a [u8], _: &mut Context<'_, ()>) -> Action<'a> {
    /// #         Action::send(packet)
    /// #     }
    /// # }
    /// # let path = std::env::temp_dir().join(format!("client-{}.sock", std::process::id()));
    /// # let _server = condor::testing::serve(ListenerOptions::unix(&path), |_| Echo);
    /// # let text = format!("unix:{}", path.display());
    ///
    /// // `text` is "unix:/run/echo.sock".
    /// let endpoint: Endpoint = text.parse()?;
    /// assert_eq!(Client::connect_to(&endpoint)?.request("hello")?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub fn connect_to(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let name = match endpoint {
            Endpoint::Inet(addr) => return Self::connect(addr),
            Endpoint::Unix(name) => name,
        };
        let connect = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.connect_timeout(&name.to_kernel()?, Self::DEFAULT_TIMEOUT)?;
            Ok(socket)
        };
        match connect() {
            Ok(socket) => Ok(Self::of(socket.into())),
            Err(source) => Err(ClientError::Connect { addr: endpoint.to_string(), source }),
        }
    }

    /// Makes a client of an existing connection. It sets `TCP_NODELAY` and blocking mode, and leaves
    /// the other options as they are.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`] if the connection is broken already.
    pub fn from_stream(stream: TcpStream) -> Result<Self, ClientError> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        Ok(Self::of(stream))
    }
}
