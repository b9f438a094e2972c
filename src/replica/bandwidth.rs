//! A limit on how much comes from a store in a second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, sleep_until};

use crate::error::Result;

/// A limit on what all requests of a source bring in a second, together.
#[derive(Clone, Debug)]
pub struct Bandwidth {
    bytes_a_second: u64,
    /// When all that came so far may have come.
    paid_at: Arc<Mutex<Option<Instant>>>,
}

/// Limits are equal, whatever came so far.
impl PartialEq for Bandwidth {
    fn eq(&self, other: &Self) -> bool {
        self.bytes_a_second == other.bytes_a_second
    }
}

impl Eq for Bandwidth {}

impl Bandwidth {
    /// At most `bytes_a_second`, which is at least 1.
    pub fn new(bytes_a_second: u64) -> Self {
        Self { bytes_a_second: bytes_a_second.max(1), paid_at: Arc::default() }
    }

    /// `body`, each part of which is handed on when it may have come.
    pub(super) fn limited(
        &self,
        body: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let bandwidth = self.clone();
        let part = move |part: Result<Bytes>| {
            let bandwidth = bandwidth.clone();
            async move {
                if let Ok(bytes) = &part {
                    bandwidth.spend(bytes.len()).await;
                }
                part
            }
        };
        body.then(part).boxed()
    }

    /// Waits until `bytes` more may have come.
    pub(super) async fn spend(&self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_a_second as f64);
        let paid_at = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let next = paid_at.map_or(now, |at| at.max(now)) + takes;
            *paid_at = Some(next);
            next
        };
        sleep_until(paid_at).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{TryStreamExt as _, stream};

    use super::*;
    use crate::error::Error;

    #[tokio::test(start_paused = true)]
    async fn two_requests_share_what_may_come() {
        let bandwidth = Bandwidth::new(1000);
        let body = || {
            let parts = (0..10).map(|_| Ok::<_, Error>(Bytes::from_static(&[7; 100])));
            bandwidth
                .limited(stream::iter(parts).boxed())
                .try_fold(0, |sum, part| async move { Ok(sum + part.len()) })
        };
        let begun = Instant::now();
        let (one, other) = tokio::join!(body(), body());
        assert_eq!((one.unwrap(), other.unwrap()), (1000, 1000));
        let took = begun.elapsed();
        assert!(Duration::from_millis(1990) < took && took < Duration::from_millis(2010), "{took:?}");
    }
}
