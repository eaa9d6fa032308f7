//! A TCP socket that is watched for arrivals only while somebody waits for one.
//!
//! A connection is not read while its last batch is on its way to the disk. A socket of the runtime's own would wake a thread for
//! each packet that arrives in that time, only to be left alone: at 60,000 messages a second that was a fifth of the front door's
//! CPU. This one is read first and registered only where nothing is there, and given up again once something has arrived
//! unasked. A client that waits for its answers stays registered and costs no more calls than before.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connected socket.
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    /// The registration, while there is one.
    watch: Option<AsyncFd<Arc<TcpStream>>>,
    /// The last read found nothing and its task waits to be woken; a write likewise.
    read_waits: bool,
    write_waits: bool,
}

impl Socket {
    /// Takes over an accepted socket.
    pub(crate) fn new(stream: tokio::net::TcpStream) -> io::Result<Self> {
        let stream = Arc::new(stream.into_std()?);
        Ok(Self { stream, watch: None, read_waits: false, write_waits: false })
    }

    fn watch(&mut self) -> io::Result<&AsyncFd<Arc<TcpStream>>> {
        if self.watch.is_none() {
            self.watch = Some(AsyncFd::new(self.stream.clone())?);
        }
        self.watch.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watch.is_none() {
            match (&*this.stream).read(buffer.initialize_unfilled()) {
                Err(error) if would_block(&error) => {}
                read => return Poll::Ready(read.map(|count| buffer.advance(count))),
            }
        }
        loop {
            let stream = this.stream.clone();
            let Poll::Ready(ready) = this.watch()?.poll_read_ready(cx) else {
                this.read_waits = true;
                return Poll::Pending;
            };
            let mut ready = ready?;
            match (&*stream).read(buffer.initialize_unfilled()) {
                Err(error) if would_block(&error) => ready.clear_ready(),
                read => {
                    if matches!(read, Ok(count) if count < buffer.remaining()) {
                        // There was no more.
                        ready.clear_ready();
                    }
                    let arrived_unasked = !std::mem::take(&mut this.read_waits);
                    if arrived_unasked && !this.write_waits {
                        this.watch = None;
                    }
                    return Poll::Ready(read.map(|count| buffer.advance(count)));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            match (&*this.stream).write(bytes) {
                Err(error) if would_block(&error) => {
                    this.write_waits = true;
                    ready!(this.watch()?.poll_write_ready(cx))?.clear_ready();
                }
                written => {
                    this.write_waits = false;
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
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
        (Socket::new(listener.accept().await.unwrap().0).unwrap(), client)
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
        assert!(socket.watch.is_none(), "what was there already needs no registration");
        let sends = async {
            a_moment().await;
            client.write_all(b"two").await.unwrap();
        };
        let (two, ()) = tokio::join!(read(&mut socket, 3), sends);
        assert_eq!(two, b"two");
        assert!(socket.watch.is_some(), "a client that waits for its answers stays registered");
        client.write_all(b"three").await.unwrap();
        a_moment().await;
        assert_eq!(read(&mut socket, 5).await, b"three");
        assert!(socket.watch.is_none(), "it came unasked");
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
