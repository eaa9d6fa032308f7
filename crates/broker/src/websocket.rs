//! MQTT over WebSocket at `/mqtt` (RFC 6455; chapter 6 of MQTT 5), as a stream of bytes.
//!
//! A page in a browser may open a WebSocket to whatever the browser can reach, this machine too. So a request that comes from a
//! page is refused unless the page is the broker's own host or one that the configuration names.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// Where it is.
const PATH: &str = "/mqtt";
/// The subprotocol [MQTT-6.0.0-3].
const PROTOCOL: &str = "mqtt";

/// A WebSocket whose binary messages are the stream.
pub(crate) struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// What of the last message was not read yet.
    rest: Bytes,
}

/// Answers the request of a client that begins with HTTP.
pub(crate) async fn accept<S>(stream: S, max_message: usize, origins: &[String]) -> Result<WebSocket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
        .max_write_buffer_size(4 << 20);
    #[expect(clippy::result_large_err, reason = "the library wants the whole answer")]
    let check = |request: &Request, mut response: Response| match objection(request, origins) {
        Some(status) => {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = status;
            Err(refusal)
        }
        None => {
            let protocol = HeaderValue::from_static(PROTOCOL);
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            Ok(response)
        }
    };
    let inner = accept_hdr_async_with_config(stream, check, Some(config)).await?;
    Ok(WebSocket { inner, rest: Bytes::new() })
}

fn objection(request: &Request, origins: &[String]) -> Option<StatusCode> {
    if request.uri().path() != PATH {
        return Some(StatusCode::NOT_FOUND);
    }
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if !offered.any(|protocol| protocol.trim() == PROTOCOL) {
        return Some(StatusCode::BAD_REQUEST);
    }
    (!is_welcome(request.headers(), origins)).then_some(StatusCode::FORBIDDEN)
}

fn is_welcome(headers: &HeaderMap, origins: &[String]) -> bool {
    // Only browsers say where they come from.
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").map(|(_, host)| host);
    (own.is_some() && own == host) || origins.iter().any(|known| known == origin)
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                // [MQTT-6.0.0-1]: anything but binary data ends it.
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = buffer.remaining().min(self.rest.len());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(context)).map_err(broken)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.inner).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(host: &'static str, origin: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        origin.map(|origin| headers.insert(header::ORIGIN, HeaderValue::from_static(origin)));
        is_welcome(&headers, &["https://console.example".to_owned()])
    }

    #[test]
    fn pages_of_others_are_not_welcome() {
        assert!(welcome("127.0.0.1:1883", None));
        assert!(welcome("127.0.0.1:1883", Some("http://127.0.0.1:1883")));
        assert!(welcome("127.0.0.1:1883", Some("https://console.example")));
        assert!(!welcome("127.0.0.1:1883", Some("https://evil.example")));
        assert!(!welcome("127.0.0.1:1883", Some("http://127.0.0.1:8080")));
        assert!(!welcome("127.0.0.1:1883", Some("null")));
    }
}
