//! What arrives is read into a buffer that all connections of a thread share, and what came is copied from there.
//!
//! Promise: a connection that waits holds no buffer, and one whose packet is not whole yet holds what has arrived of it, whatever length
//! the packet announces (promise I4).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

thread_local! {
    /// As long as the longest read so far, which is bounded.
    static ARRIVALS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Appends what arrives next, `most` bytes at a time. Gives back how many came; 0 at the end.
pub(crate) async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    most: usize,
) -> io::Result<usize> {
    if buffer.is_empty() {
        // Packets that were cut from it may live on; it need not.
        *buffer = BytesMut::new();
    }
    poll_fn(|context| {
        ARRIVALS.with_borrow_mut(|arrivals| {
            if arrivals.len() < most {
                arrivals.resize(most, 0);
            }
            let mut arrived = ReadBuf::new(&mut arrivals[..most]);
            ready!(Pin::new(&mut *reader).poll_read(context, &mut arrived))?;
            buffer.extend_from_slice(arrived.filled());
            Poll::Ready(Ok(arrived.filled().len()))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_holds_no_buffer() {
        let mut buffer = BytesMut::with_capacity(4_096);
        let mut reader: &[u8] = b"some bytes";
        assert_eq!(read(&mut reader, &mut buffer, 4).await.unwrap(), 4);
        assert_eq!(read(&mut reader, &mut buffer, 1_000).await.unwrap(), 6);
        assert_eq!(&buffer[..], b"some bytes");
        assert!(buffer.capacity() < 100);
        let packet = buffer.split_to(10).freeze();
        assert_eq!(read(&mut reader, &mut buffer, 1_000).await.unwrap(), 0);
        assert_eq!((packet.is_unique(), buffer.capacity()), (true, 0));
    }
}
