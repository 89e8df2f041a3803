//! A connection whose client reads in time.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A connection that fails if the client does not read an answer whole in some time: one that reads
/// a byte now and then would keep the memory of its answer for ever.
pub(crate) struct Paced {
    stream: TcpStream,
    time: Duration,
    /// Ends when the client must have read what was written, while it has not.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, time: Duration) -> Self {
        Self { stream, time, deadline: None }
    }

    fn wrote(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if wrote.is_pending() {
            let time = self.time;
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(time)));
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        wrote
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Comes once everything was written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.deadline = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::thread;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// The client reads something all the time, but takes minutes for all of it.
    #[test]
    fn a_slow_reader_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_send_buffer_size(4096).unwrap();
            let writing = socket.connect(listener.local_addr().unwrap()).await.unwrap();
            let mut reading = listener.accept().await.unwrap().0.into_std().unwrap();
            reading.set_nonblocking(false).unwrap();
            let client = thread::spawn(move || {
                while reading.read(&mut [0; 16_384]).is_ok_and(|n| n > 0) {
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let mut paced = Paced::new(writing, Duration::from_millis(500));
            let error = loop {
                let wrote = poll_fn(|cx| Pin::new(&mut paced).poll_write(cx, &[0; 16_384])).await;
                match wrote {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            drop(paced);
            client.join().unwrap();
            error
        });
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
