//! Clients that do not read.
//!
//! Guarantees: what is written has left the node within a time limit, counted from the moment in
//! which it could not leave at once; else the connection ends. A connection that has nothing to
//! send may be silent for as long as it likes. Leaves out: reading, which has limits of its own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A connection that does not wait for its reader for ever.
pub(crate) struct Impatient<S> {
    stream: S,
    limit: Duration,
    /// Runs from the first write that had to wait until everything has left.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, patience: None }
    }

    /// What `polled` says, or the end of the connection when it had to wait for too long.
    fn or_overdue<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        let limit = self.limit;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.or_overdue(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.or_overdue(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.patience = None;
        }
        self.or_overdue(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.or_overdue(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_stops_is_given_up_after_the_limit() {
        let (ours, mut theirs) = duplex(8);
        let mut stream = Impatient::new(ours, LIMIT);
        let began = tokio::time::Instant::now();
        let error = stream.write_all(&[7; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), LIMIT);
        assert_eq!(theirs.read(&mut [0; 64]).await.unwrap(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_takes_a_byte_now_and_then_is_given_up_as_well() {
        let (ours, mut theirs) = duplex(8);
        let mut stream = Impatient::new(ours, LIMIT);
        let reader = tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(LIMIT / 2).await;
            }
        });
        let error = stream.write_all(&[7; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(stream);
        reader.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_no_delay() {
        let (ours, mut theirs) = duplex(8);
        let mut stream = Impatient::new(ours, LIMIT);
        for _ in 0..3 {
            stream.write_all(&[7; 8]).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(2 * LIMIT).await;
            theirs.read_exact(&mut [0; 8]).await.unwrap();
        }
    }
}
