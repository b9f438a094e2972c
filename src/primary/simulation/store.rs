//! A bucket in memory behind a network: requests take their time, are refused, their answers are lost, and one whose
//! sender was killed may still be done later. All that is sent is noted, whatever becomes of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::ledger::Ledger;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::FileId;
use crate::runtime::simulated::{self, Simulation};
use crate::store::{
    Bucket, ByteRange, Content, Fencing, Layout, Next, ObjectInfo, Page, PutOptions, Taken, Upload,
};

/// How a bucket answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weather {
    /// Nothing reaches the store.
    pub(super) is_down: bool,
    /// Percentage of requests that are refused.
    pub(super) refused: u64,
    /// Percentage of requests that are done, and whose answer is lost.
    pub(super) lost: u64,
    /// Percentage of requests that take seconds.
    pub(super) slow: u64,
}

/// The bucket.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) name: &'static str,
    pub(super) inner: Arc<dyn Bucket>,
    pub(super) weather: Arc<Mutex<Weather>>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    /// The files that got into the bucket and were not looked at yet.
    pub(super) landed: Arc<Mutex<Vec<(FileId, Bytes)>>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn simulation() -> Arc<Simulation> {
    simulated::current().expect("a simulation")
}

fn failed(what: &str) -> Error {
    let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Denied];
    let kind = kinds[simulation().below(kinds.len() as u64) as usize];
    Error::new(kind, format!("simulated: {what}"))
}

impl Network {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, key: &str, body: &[u8]) {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).sent(self.name, key, body);
    }

    fn landed(&self, key: &str, body: Bytes) {
        if let Some(id) = Layout::Ltx.file(key) {
            self.landed.lock().unwrap_or_else(PoisonError::into_inner).push((id, body));
        }
    }

    /// The way to the store.
    async fn go(&self) -> Result<()> {
        let simulation = simulation();
        simulation.take_a_while().await;
        let weather = self.weather();
        if simulation.below(100) < weather.slow {
            tokio::time::sleep(Duration::from_millis(simulation.below(3000))).await;
        }
        if weather.is_down || simulation.below(100) < weather.refused {
            return Err(failed("the request was refused"));
        }
        Ok(())
    }

    /// The way back.
    async fn back<T>(&self, answer: Result<T>) -> Result<T> {
        let simulation = simulation();
        simulation.take_a_while().await;
        let weather = self.weather();
        if weather.is_down || simulation.below(100) < weather.lost {
            return Err(failed("the answer was lost"));
        }
        answer
    }

    /// A request that is on its way whatever becomes of who sent it.
    async fn send<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.go().await?;
        let sent = tokio::spawn(async move {
            simulation().take_a_while().await;
            request.await
        });
        let answer = sent.await.expect("no bucket panics");
        self.back(answer).await
    }
}

#[async_trait]
impl Bucket for Network {
    fn describe(&self) -> String {
        self.name.to_owned()
    }

    async fn list(&self, prefix: &str, start: Option<Next>) -> Result<Page<ObjectInfo>> {
        self.go().await?;
        let answer = self.inner.list(prefix, start).await;
        self.back(answer).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.go().await?;
        let answer = self.inner.head(key).await;
        self.back(answer).await
    }

    async fn get(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        self.go().await?;
        let answer = self.inner.get(key, range, size).await;
        self.back(answer).await
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<()> {
        self.sent(key, &body);
        let (network, key, options) = (self.clone(), key.to_owned(), options.clone());
        // One that hangs in the network of a process that is gone.
        let late = if simulation().below(16) == 0 { simulation().below(3000) } else { 0 };
        self.send(async move {
            tokio::time::sleep(Duration::from_millis(late)).await;
            network.inner.put(&key, body.clone(), &options).await?;
            network.landed(&key, body);
            Ok(())
        })
        .await
    }

    async fn upload(&self, key: &str, options: &PutOptions) -> Result<Box<dyn Upload>> {
        self.go().await?;
        let upload = self.inner.upload(key, options).await;
        let upload = self.back(upload).await?;
        let (network, key) = (self.clone(), key.to_owned());
        Ok(Box::new(Sending { network, key, body: BytesMut::new(), inner: Some(upload) }))
    }

    async fn delete(&self, keys: &[String]) -> Result<()> {
        let (inner, keys) = (Arc::clone(&self.inner), keys.to_vec());
        self.send(async move { inner.delete(&keys).await }).await
    }

    async fn abort_uploads(&self, prefix: &str) -> Result<usize> {
        self.go().await?;
        self.inner.abort_uploads(prefix).await
    }

    fn fencing(&self) -> Fencing {
        self.inner.fencing()
    }
}

struct Sending {
    network: Network,
    key: String,
    /// The parts that got there.
    body: BytesMut,
    /// `None` once it is completed.
    inner: Option<Box<dyn Upload>>,
}

#[async_trait]
impl Upload for Sending {
    fn part_size(&self) -> usize {
        1500
    }

    async fn part(&mut self, part: Bytes) -> Result<Taken> {
        self.network.sent(&self.key, &[&self.body, &part[..]].concat());
        self.network.go().await?;
        let Some(inner) = &mut self.inner else { return Err(failed("the upload is over")) };
        inner.part(part.clone()).await?;
        self.body.extend_from_slice(&part);
        simulation().take_a_while().await;
        Ok(Taken::Sent)
    }

    async fn complete(&mut self) -> Result<()> {
        let Some(mut inner) = self.inner.take() else { return Err(failed("the upload is over")) };
        let (network, key, body) = (self.network.clone(), self.key.clone(), self.body.clone().freeze());
        let complete = async move {
            inner.complete().await?;
            network.landed(&key, body);
            Ok(())
        };
        self.network.send(complete).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner = None;
        self.network.go().await
    }
}
