//! What lies under MQTT: TCP, TLS over it, WebSocket over either. The first byte tells WebSocket from MQTT, so both share a port.

use std::net::{IpAddr, TcpStream};
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::access::Origin;
use crate::arrivals;
use crate::connection;
use crate::front_door::Shared;
use crate::handshake;
use crate::packet::Reason;
use crate::socket::Socket;
use crate::tls::Tls;
use crate::waiting::Patience;
use crate::websocket::{self, WebSocket};

/// Anything that MQTT can be spoken over. Plain TCP is not boxed, for it is what is fast.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Serves a connection, whatever it speaks, to its end.
pub(crate) async fn serve(
    stream: TcpStream,
    address: IpAddr,
    tls: Option<Arc<Tls>>,
    patience: Patience,
    shared: Arc<Shared>,
) {
    let origin = Origin { address, identity: None };
    match tls {
        None => sniff(Socket::new(stream), origin, patience, shared).await,
        // A handshake is not small, and ten thousand that wait without TLS have no room for one.
        Some(tls) => Box::pin(serve_tls(stream, origin, &tls, patience, shared)).await,
    }
}

async fn serve_tls(stream: TcpStream, mut origin: Origin, tls: &Tls, patience: Patience, shared: Arc<Shared>) {
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection could not be taken over"),
    };
    match Box::pin(patience.wait_for(tls.accept(stream))).await {
        Ok(Ok((stream, identity))) => {
            origin.identity = identity;
            sniff(Box::new(stream) as Box<dyn Transport>, origin, patience, shared).await;
        }
        Ok(Err(error)) => {
            // Says which alert, never who.
            tracing::debug!(%error, "a TLS handshake failed");
            let why = "a TLS handshake failed: no TLS was spoken, or one side does not trust the other's certificate; NEARSIDE_LOG=debug says which";
            shared.refusals.say(origin.address, None, why);
            shared.refuse(Reason::Credentials);
        }
        Err(reason) => shared.refuse(reason),
    }
}

async fn sniff(mut stream: impl Transport + 'static, origin: Origin, patience: Patience, shared: Arc<Shared>) {
    let mut buffer = BytesMut::new();
    match patience.wait_for(arrivals::read(&mut stream, &mut buffer, *connection::READ.start())).await {
        Ok(Ok(n)) if n > 0 => {}
        Ok(_) => return shared.refuse(Reason::Protocol),
        Err(reason) => return shared.refuse(reason),
    }
    // `GET`; a CONNECT begins with 0x10.
    if buffer.first() != Some(&b'G') || !shared.config.websocket {
        return connection::serve(stream, buffer, origin, patience, shared).await;
    }
    Box::pin(serve_websocket(Box::new(stream), buffer, origin, patience, shared)).await;
}

async fn serve_websocket(
    mut stream: Box<dyn Transport>,
    mut buffer: BytesMut,
    origin: Origin,
    patience: Patience,
    shared: Arc<Shared>,
) {
    let accepting = websocket::accept(&mut stream, &mut buffer, &shared.config.websocket_origins);
    match patience.wait_for(accepting).await {
        Ok(Ok(true)) => {
            let stream = WebSocket::new(stream, buffer);
            connection::serve(stream, BytesMut::new(), origin, patience, shared).await;
        }
        Ok(refused) => {
            if let Err(error) = refused {
                tracing::debug!(%error, "a WebSocket handshake failed");
            }
            shared.refuse(Reason::Protocol);
            let farewell = async {
                if stream.shutdown().await.is_ok() {
                    handshake::hear_out(&mut stream, &mut buffer, &shared).await;
                }
            };
            // What is heard out has a time of its own, and what is written to who does not read has the handshake's.
            let _ = patience.wait_for(farewell).await;
        }
        Err(reason) => shared.refuse(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands ready for what comes seldom would take ten thousand times its size.
    #[test]
    fn a_connection_that_waits_is_small() {
        fn size<F>(_: impl FnOnce(TcpStream, IpAddr, Option<Arc<Tls>>, Patience, Arc<Shared>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(serve) < 4_096, "{} bytes", size(serve));
    }
}
