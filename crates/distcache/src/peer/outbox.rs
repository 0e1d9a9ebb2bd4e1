//! Writing in batches: whoever has something to send encodes it into one shared buffer, one task writes the buffer out.
//!
//! Knows neither messages nor peers. The invariant: what was pushed is written in the order of pushing, or the stream is dead.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Above this many unsent bytes the other side is not keeping up; whoever can wait should.
const BACKED_UP_BYTES: usize = 1 << 20;
/// Whether the writer lets others push before it writes; off, each message that wakes it is a system call of its own.
const LETS_OTHERS_PUSH: bool = true;
/// Whoever takes nothing for this long will never take anything, and what waits for it takes memory.
const STALL_MAX: Duration = Duration::from_secs(15);
/// A buffer that grew for one large value is not kept.
const KEPT_BYTES_MAX: usize = 256 << 10;

#[derive(Default)]
pub(crate) struct Outbox {
    unsent: Mutex<BytesMut>,
    filled: Notify,
    drained: Notify,
}

impl Outbox {
    /// Appends what `encode` writes.
    pub(crate) fn push(&self, encode: impl FnOnce(&mut BytesMut)) {
        let was_empty = {
            let mut unsent = self.unsent.lock();
            let was_empty = unsent.is_empty();
            encode(&mut unsent);
            was_empty
        };
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Whether the other side is not keeping up.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.unsent.lock().len() >= BACKED_UP_BYTES
    }

    /// Waits until the other side has taken most of what was pushed.
    pub(crate) async fn until_drained(&self) {
        loop {
            let drained = self.drained.notified();
            if !self.is_backed_up() {
                return;
            }
            drained.await;
        }
    }

    /// Writes until the stream fails. `expects_more` says whether others are about to push: then the writer lets them run
    /// first, because tokio would run it ahead of them and each message would be written by itself.
    pub(crate) async fn write_to(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        expects_more: impl Fn() -> bool,
    ) -> io::Result<()> {
        let mut writing = BytesMut::new();
        loop {
            self.filled.notified().await;
            if LETS_OTHERS_PUSH && expects_more() {
                tokio::task::yield_now().await;
            }
            std::mem::swap(&mut *self.unsent.lock(), &mut writing);
            if writing.is_empty() {
                continue;
            }
            let mut rest = &writing[..];
            while !rest.is_empty() {
                match timeout(STALL_MAX, stream.write(rest)).await?? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    written => rest = &rest[written..],
                }
            }
            timeout(STALL_MAX, stream.flush()).await??;
            if writing.capacity() > KEPT_BYTES_MAX {
                writing = BytesMut::new();
            }
            writing.clear();
            self.drained.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BufMut;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_given_up_and_whoever_is_slow_is_not() {
        let outbox = Outbox::default();
        let (mut near, mut far) = tokio::io::duplex(64);
        outbox.push(|out| out.put_slice(&[1; 1_000]));
        let slow = async {
            for _ in 0..5 {
                tokio::time::sleep(STALL_MAX * 9 / 10).await;
                far.read_exact(&mut [0; 64]).await.unwrap();
            }
            tokio::time::Instant::now()
        };
        let (ended, taken) = tokio::join!(outbox.write_to(&mut near, || false), slow);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(taken.elapsed() >= STALL_MAX, "{:?}", taken.elapsed());
    }

    #[tokio::test]
    async fn what_is_pushed_arrives_in_order_and_pushers_wait_for_a_slow_reader() {
        let outbox = Arc::new(Outbox::default());
        let (mut near, mut far) = tokio::io::duplex(1024);
        let writer = outbox.clone();
        tokio::spawn(async move { writer.write_to(&mut near, || false).await });
        let pusher = outbox.clone();
        tokio::spawn(async move {
            for n in 0..400_000u32 {
                pusher.until_drained().await;
                pusher.push(|out| out.put_u32(n));
            }
        });
        for n in 0..400_000 {
            assert_eq!(far.read_u32().await.unwrap(), n);
            assert!(outbox.unsent.lock().len() <= BACKED_UP_BYTES);
        }
    }
}
