//! What lies under MQTT: TCP, TLS over it, WebSocket over either. The first byte tells WebSocket from MQTT, so both share a port.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use crate::access::Origin;
use crate::connection;
use crate::front_door::Shared;
use crate::packet::Reason;
use crate::socket::Socket;
use crate::tls::Tls;
use crate::websocket;

/// Anything that MQTT can be spoken over. Plain TCP is not boxed, for it is what is fast.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Serves a connection, whatever it speaks, to its end.
pub(crate) async fn serve(stream: TcpStream, address: IpAddr, tls: Option<Arc<Tls>>, shared: Arc<Shared>) {
    let deadline = Instant::now() + shared.config.handshake_timeout.get();
    let mut origin = Origin { address, identity: None };
    let Some(tls) = tls else {
        return sniff(Socket::new(stream), origin, deadline, shared).await;
    };
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection could not be taken over"),
    };
    match timeout_at(deadline, tls.accept(stream)).await {
        Ok(Ok((stream, identity))) => {
            origin.identity = identity;
            sniff(Box::new(stream) as Box<dyn Transport>, origin, deadline, shared).await;
        }
        Ok(Err(error)) => {
            // Says which alert, never who.
            tracing::debug!(%error, "a TLS handshake failed");
            let why = "a TLS handshake failed: no TLS was spoken, or one side does not trust the other's certificate; NEARSIDE_LOG=debug says which";
            shared.refusals.say(address, None, why);
            shared.refuse(Reason::Credentials);
        }
        Err(_) => shared.refuse(Reason::KeepAlive),
    }
}

async fn sniff(mut stream: impl Transport + 'static, origin: Origin, deadline: Instant, shared: Arc<Shared>) {
    let mut buffer = BytesMut::with_capacity(*connection::READ.start());
    match timeout_at(deadline, stream.read_buf(&mut buffer)).await {
        Ok(Ok(n)) if n > 0 => {}
        Ok(_) => return shared.refuse(Reason::Protocol),
        Err(_) => return shared.refuse(Reason::KeepAlive),
    }
    // `GET`; a CONNECT begins with 0x10.
    if buffer.first() != Some(&b'G') || !shared.config.websocket {
        return connection::serve(stream, buffer, origin, deadline, shared).await;
    }
    let stream: Box<dyn Transport> = Box::new(Prefixed { front: buffer, inner: stream });
    let most = shared.config.max_packet.bytes() as usize;
    let accepting = websocket::accept(stream, most, &shared.config.websocket_origins);
    match timeout_at(deadline, accepting).await {
        Ok(Ok(stream)) => connection::serve(stream, BytesMut::new(), origin, deadline, shared).await,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a WebSocket handshake failed");
            shared.refuse(Reason::Protocol);
        }
        Err(_) => shared.refuse(Reason::KeepAlive),
    }
}

/// A stream of which some was read already.
struct Prefixed<S> {
    front: BytesMut,
    inner: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.front.is_empty() {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let count = buffer.remaining().min(self.front.len());
        buffer.put_slice(&self.front[..count]);
        self.front.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
