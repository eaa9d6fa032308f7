//! A TCP socket that is watched for arrivals only while somebody waits for one.
//!
//! A connection is not read while its last batch is on its way to the disk. A socket of the runtime's own would wake a thread for
//! each packet that arrives in that time, only to be left alone. This one is read first, registered only where nothing is there, and
//! given up again once something has arrived unasked. A client that waits for its answers stays registered and costs no more calls
//! than before.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;

/// A connected socket.
pub(crate) struct Socket {
    stream: Stream,
    /// The last read found nothing and its task waits to be woken; a write likewise.
    read_waits: bool,
    write_waits: bool,
}

enum Stream {
    /// Nobody is told of what arrives.
    Bare(std::net::TcpStream),
    /// Registered with the runtime.
    Watched(TcpStream),
    /// It could not be registered or given up.
    Lost,
}

impl Socket {
    /// Takes over an accepted socket that does not block.
    pub(crate) const fn new(stream: std::net::TcpStream) -> Self {
        Self { stream: Stream::Bare(stream), read_waits: false, write_waits: false }
    }

    fn watch(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if matches!(self.stream, Stream::Bare(_)) {
            self.stream = match std::mem::replace(&mut self.stream, Stream::Lost) {
                Stream::Bare(stream) => Stream::Watched(TcpStream::from_std(stream)?),
                other => other,
            };
        }
        match &mut self.stream {
            Stream::Watched(stream) => Ok(Pin::new(stream)),
            Stream::Bare(_) | Stream::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn unwatch(&mut self) -> io::Result<()> {
        self.stream = match std::mem::replace(&mut self.stream, Stream::Lost) {
            Stream::Watched(stream) => Stream::Bare(stream.into_std()?),
            other => other,
        };
        Ok(())
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Stream::Bare(stream) = &mut self.stream {
            // As the runtime's own sockets do: who always has something to read leaves the thread to others now and then.
            let budget = ready!(coop::poll_proceed(cx));
            let read = stream.read(buffer.initialize_unfilled());
            if !would_block(&read) {
                budget.made_progress();
                return Poll::Ready(read.map(|count| buffer.advance(count)));
            }
        }
        let read = self.watch()?.poll_read(cx, buffer);
        let waited = std::mem::replace(&mut self.read_waits, read.is_pending());
        if read.is_ready() && !waited && !self.write_waits {
            // It came unasked: more of it would, while nobody reads.
            self.unwatch()?;
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Stream::Bare(stream) = &mut self.stream {
            let written = stream.write(bytes);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
        }
        let written = self.watch()?.poll_write(cx, bytes);
        self.write_waits = written.is_pending();
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Bare(stream) => Poll::Ready(stream.shutdown(Shutdown::Write)),
            Stream::Watched(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Lost => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    async fn pair() -> (Socket, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::new(listener.accept().await.unwrap().0.into_std().unwrap()), client)
    }

    async fn read(socket: &mut Socket, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(Duration::from_secs(10), socket.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Long enough for what was sent over loopback to have arrived, and for others to have begun to wait.
    async fn a_moment() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    #[tokio::test]
    async fn it_is_watched_only_while_somebody_waits() {
        let (mut socket, mut client) = pair().await;
        client.write_all(b"one").await.unwrap();
        a_moment().await;
        assert_eq!(read(&mut socket, 3).await, b"one");
        assert!(matches!(socket.stream, Stream::Bare(_)), "what was there already needs no registration");
        let sends = async {
            a_moment().await;
            client.write_all(b"two").await.unwrap();
        };
        let (two, ()) = tokio::join!(read(&mut socket, 3), sends);
        assert_eq!(two, b"two");
        assert!(matches!(socket.stream, Stream::Watched(_)), "a client that waits for its answers stays registered");
        client.write_all(b"three").await.unwrap();
        a_moment().await;
        assert_eq!(read(&mut socket, 5).await, b"three");
        assert!(matches!(socket.stream, Stream::Bare(_)), "it came unasked");
    }

    #[tokio::test]
    async fn an_end_beside_data_is_seen() {
        let (mut socket, mut client) = pair().await;
        let ends = async {
            a_moment().await;
            client.write_all(b"last").await.unwrap();
            client.shutdown().await.unwrap();
        };
        let (last, ()) = tokio::join!(read(&mut socket, 4), ends);
        assert_eq!(last, b"last");
        let end = timeout(Duration::from_secs(10), socket.read(&mut [0; 8])).await.unwrap();
        assert_eq!(end.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_holds_up_the_writer_and_loses_nothing() {
        let (socket, mut client) = pair().await;
        let (mut from_client, mut to_client) = tokio::io::split(socket);
        let sent: Vec<u8> = (0..8 << 20).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writes = tokio::spawn(async move { to_client.write_all(&sent).await });
        // Reads meanwhile must not give up the registration that the writer waits on.
        client.write_all(b"x").await.unwrap();
        let mut byte = [0];
        timeout(Duration::from_secs(10), from_client.read_exact(&mut byte)).await.unwrap().unwrap();
        let mut received = vec![0; expected.len()];
        timeout(Duration::from_secs(30), client.read_exact(&mut received)).await.unwrap().unwrap();
        assert!(received == expected);
        writes.await.unwrap().unwrap();
    }
}
