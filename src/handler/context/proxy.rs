//! What a proxy has told about a connection.

use super::Context;
use crate::endpoint::Endpoint;
use crate::proxy::ProxyHeader;

impl<M> Context<'_, M> {
    /// The address of the proxy that the connection came through. `None` if the listener expects no
    /// [PROXY header](crate::ListenerOptions::proxy) from it. If there is one,
    /// [`peer_addr`](Self::peer_addr) is the client's address, or the proxy's own if the header tells no
    /// client.
    pub fn via_addr(&self) -> Option<Endpoint> {
        self.identity.proxied().map(|proxied| proxied.via_addr.clone())
    }

    /// The PROXY header that the connection began with: the address that the client connected to, and
    /// what else the proxy has told. `None` if the listener expects none from it.
    pub fn proxy(&self) -> Option<&ProxyHeader> {
        self.identity.proxied().map(|proxied| &proxied.header)
    }
}
