//! MQTT over WebSocket at `/mqtt` (RFC 6455; chapter 6 of MQTT 5), as a stream of bytes.
//!
//! A page in a browser may open a WebSocket to whatever the browser can reach, this machine too. So a request that comes from a
//! page is refused unless the page is the broker's own host or one that the configuration names.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::arrivals;

/// Where it is.
const PATH: &str = "/mqtt";
/// The subprotocol [MQTT-6.0.0-3].
const PROTOCOL: &str = "mqtt";
/// The longest request that is read.
const REQUEST_BYTES: usize = 16 << 10;
/// The longest message that is written.
const MESSAGE_BYTES: usize = 256 << 10;
/// Bytes that may wait for a client that does not read, before its pings are not answered.
const UNREAD: usize = 64 << 10;

/// Answers the request of a client that begins with HTTP; `buffer` has what was read of it, and then what came behind it. Gives back
/// whether a WebSocket follows.
pub(crate) async fn accept(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut BytesMut,
    origins: &[String],
) -> io::Result<bool> {
    let answer = loop {
        match Request::try_parse(buffer) {
            Ok(Some((length, request))) => {
                buffer.advance(length);
                break answer(&request, origins);
            }
            Ok(None) if buffer.len() < REQUEST_BYTES => {
                if arrivals::read(stream, buffer, REQUEST_BYTES).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(None) | Err(_) => break Err(StatusCode::BAD_REQUEST),
        }
    };
    let is_welcome = answer.is_ok();
    let answer = answer.unwrap_or_else(refusal);
    let mut bytes = Vec::new();
    write_response(&mut bytes, &answer).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(is_welcome)
}

fn answer(request: &Request, origins: &[String]) -> Result<Response, StatusCode> {
    if let Some(status) = objection(request, origins) {
        return Err(status);
    }
    match create_response(request) {
        Ok(mut response) => {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
            Ok(response)
        }
        Err(Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader)) => Err(StatusCode::UPGRADE_REQUIRED),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

fn refusal(status: StatusCode) -> Response {
    let mut refusal = Response::new(());
    *refusal.status_mut() = status;
    let headers = refusal.headers_mut();
    if status == StatusCode::UPGRADE_REQUIRED {
        // Section 4.4 of RFC 6455.
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    refusal
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

/// The frame that is being read.
enum Frame {
    Data,
    Control(Control, Vec<u8>),
}

/// Takes the data out of frames as their bytes arrive.
#[derive(Default)]
struct Frames {
    /// Of a head that is not whole yet.
    head: SmallVec<[u8; 14]>,
    frame: Option<Frame>,
    /// Bytes of the frame that are to come.
    left: u64,
    mask: [u8; 4],
    /// A message has begun whose last frame has not.
    is_within: bool,
    is_closed: bool,
    /// Frames that answer what came: pongs, and a close.
    answers: Vec<u8>,
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Appends the head of a frame of ours.
fn begin(out: &mut Vec<u8>, opcode: OpCode, length: usize) {
    let head = FrameHeader { opcode, ..FrameHeader::default() };
    // Nothing fails that is written to memory.
    let _ = head.format(length as u64, out);
}

impl Frames {
    /// Leaves of `bytes`, as they arrived, the data at the front. Gives back how much that is.
    fn take(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut from, mut data) = (0, 0);
        while from < bytes.len() && !self.is_closed {
            let Some(frame) = &mut self.frame else {
                self.head.push(bytes[from]);
                from += 1;
                let head = FrameHeader::parse(&mut Cursor::new(&self.head)).map_err(io::Error::other)?;
                if let Some((head, length)) = head {
                    self.head.clear();
                    self.start(&head, length)?;
                }
                continue;
            };
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - from);
            let some = from..from + count;
            for four in bytes[some.clone()].chunks_mut(4) {
                four.iter_mut().zip(&self.mask).for_each(|(byte, mask)| *byte ^= mask);
            }
            self.mask.rotate_left(count % 4);
            match frame {
                Frame::Data => {
                    bytes.copy_within(some, data);
                    data += count;
                }
                Frame::Control(_, payload) => payload.extend_from_slice(&bytes[some]),
            }
            from += count;
            self.left -= count as u64;
            self.end();
        }
        Ok(data)
    }

    fn start(&mut self, head: &FrameHeader, length: u64) -> io::Result<()> {
        // Section 5 of RFC 6455.
        self.mask = head.mask.ok_or_else(|| broken("a frame without a mask"))?;
        if head.rsv1 || head.rsv2 || head.rsv3 || length > u64::MAX / 2 {
            return Err(broken("a frame that nobody agreed on"));
        }
        self.frame = Some(match head.opcode {
            OpCode::Control(control) if head.is_final && length < 126 => Frame::Control(control, Vec::new()),
            OpCode::Data(Data::Binary) if !self.is_within => Frame::Data,
            OpCode::Data(Data::Continue) if self.is_within => Frame::Data,
            // [MQTT-6.0.0-1]: anything but binary data ends it.
            _ => return Err(broken("a frame that may not be there")),
        });
        if matches!(self.frame, Some(Frame::Data)) {
            self.is_within = !head.is_final;
        }
        self.left = length;
        self.end();
        Ok(())
    }

    /// Where nothing of the frame is to come, it is done with.
    fn end(&mut self) {
        if self.left > 0 {
            return;
        }
        if let Some(Frame::Control(control, mut payload)) = self.frame.take() {
            let answer = match control {
                Control::Ping => Control::Pong,
                Control::Close => {
                    self.is_closed = true;
                    // Why the client goes.
                    payload.truncate(2);
                    Control::Close
                }
                _ => return,
            };
            if self.answers.len() < UNREAD {
                begin(&mut self.answers, OpCode::Control(answer), payload.len());
                self.answers.extend(payload);
            }
        }
    }
}

/// A WebSocket whose binary messages are the stream, whatever their length: what has arrived of one is read at once.
pub(crate) struct WebSocket<S> {
    inner: S,
    /// Came with the request.
    early: BytesMut,
    frames: Frames,
    /// Whole frames for the client, of which some bytes were sent.
    out: Vec<u8>,
    sent: usize,
    /// Whoever writes waits to be woken, and nobody else may wait in its place.
    writer_waits: bool,
    has_said_goodbye: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// A stream on which the request was answered; `early` came behind it.
    pub(crate) fn new(inner: S, early: BytesMut) -> Self {
        let (frames, out) = (Frames::default(), Vec::new());
        Self { inner, early, frames, out, sent: 0, writer_waits: false, has_said_goodbye: false }
    }

    /// Sends what waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.append(&mut self.frames.answers);
        while self.sent < self.out.len() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(context, &self.out[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        // A connection that waits holds nothing.
        (self.out, self.sent) = (Vec::new(), 0);
        Pin::new(&mut self.inner).poll_flush(context)
    }

    /// For whoever reads: answers that are due.
    fn send_answers(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.writer_waits || self.frames.answers.is_empty() && self.out.is_empty() {
            return Ok(());
        }
        match self.poll_send(context) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// Appends bytes as they arrived. Gives back how many.
    fn poll_arrivals(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.len());
            self.early.copy_to_slice(&mut buffer[..count]);
            return Poll::Ready(Ok(count));
        }
        self.early = BytesMut::new();
        let mut arrived = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut arrived))?;
        Poll::Ready(Ok(arrived.filled().len()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.frames.is_closed {
            self.send_answers(context)?;
            let bytes = buffer.initialize_unfilled();
            let arrived = ready!(self.poll_arrivals(context, bytes))?;
            let data = self.frames.take(&mut bytes[..arrived])?;
            if data > 0 || arrived == 0 {
                buffer.advance(data);
                break;
            }
        }
        self.send_answers(context)?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writer_waits = true;
        ready!(self.poll_send(context))?;
        let some = &bytes[..bytes.len().min(MESSAGE_BYTES)];
        let out = &mut self.out;
        begin(out, OpCode::Data(Data::Binary), some.len());
        out.extend_from_slice(some);
        self.writer_waits = self.poll_send(context)?.is_pending();
        Poll::Ready(Ok(some.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_send(context);
        self.writer_waits = sent.is_pending();
        sent
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_said_goodbye && !self.frames.is_closed {
            begin(&mut self.out, OpCode::Control(Control::Close), 0);
        }
        self.has_said_goodbye = true;
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
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

    /// Whatever the network makes of them, the data of frames is the same, and what may not be there is found.
    #[test]
    fn frames_may_be_cut_anywhere() {
        let masked = |first: u8, payload: &[u8]| {
            let mask = [1, 2, 3, 4];
            let body = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            [&[first, 0x80 | payload.len() as u8][..], &mask, &body.collect::<Vec<u8>>()].concat()
        };
        let whole = [
            masked(0x02, b"some"),
            masked(0x89, b"ping"),
            masked(0x00, b""),
            masked(0x80, b" data"),
            masked(0x82, b"!"),
        ];
        let whole = whole.concat();
        for size in 1..=whole.len() {
            let (mut frames, mut data) = (Frames::default(), Vec::new());
            for piece in whole.chunks(size) {
                let mut piece = piece.to_vec();
                let count = frames.take(&mut piece).unwrap();
                data.extend_from_slice(&piece[..count]);
            }
            assert_eq!((data.as_slice(), frames.answers.as_slice()), (&b"some data!"[..], &b"\x8A\x04ping"[..]));
        }
        for bad in [
            vec![0x82, 1, 0],
            masked(0x81, b"text"),
            masked(0xC2, b"x"),
            masked(0x83, b"x"),
            masked(0x80, b"x"),
            masked(0x09, b"x"),
            [masked(0x02, b"x"), masked(0x82, b"x")].concat(),
            vec![0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
            vec![0x89, 0xFE, 0, 126, 0, 0, 0, 0],
        ] {
            assert!(Frames::default().take(&mut bad.clone()).is_err(), "{bad:?}");
        }
        let mut frames = Frames::default();
        frames.take(&mut masked(0x88, b"\x03\xE8why")).unwrap();
        assert_eq!((frames.is_closed, frames.answers.as_slice()), (true, &b"\x88\x02\x03\xE8"[..]));
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
