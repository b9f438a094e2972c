//! Reading: what there is, and those messages of an object that hold the bytes that are wanted.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use super::NatsBucket;
use super::object::Object;
use super::session::{Session, delivery};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::http::sessions::SessionRef;
use crate::store::{ByteRange, Content, ObjectInfo, Site as _, errors};

/// The number of messages that are asked for at a time.
const MESSAGES: usize = 16;

/// A message of content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    seq: u64,
    /// The first byte of the object that it holds.
    offset: u64,
    len: u64,
}

impl NatsBucket {
    /// All objects whose keys begin with `prefix`, in the order of keys.
    pub(super) async fn objects_of(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let session = self.session().await?;
        let messages = session.messages(&self.site().names.metas(), true, false).await;
        let messages = messages.map_err(|failure| session.explain(failure, "list the files"))?;
        let mut found = Vec::new();
        for message in messages {
            let object = Object::read(&message.payload)?;
            if object.is_file() && object.name.starts_with(prefix) {
                let nanos = delivery(&message).map_or(0, |delivery| delivery.nanos);
                found.push(object.info(Timestamp::from_millis(nanos / 1_000_000)));
            }
        }
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    pub(super) async fn describe_object(&self, key: &str) -> Result<ObjectInfo> {
        let session = self.session().await?;
        let (object, stored) = self.present(&session, key).await?;
        Ok(object.info(stored))
    }

    /// The object at `key`, and when its description was stored.
    async fn present(&self, session: &Session, key: &str) -> Result<(Object, Timestamp)> {
        let meta =
            session.meta(key).await.map_err(|failure| session.explain(failure, &format!("read {key}")))?;
        match meta {
            Some((object, stored)) if object.is_file() => Ok((object, stored.time())),
            _ => Err(errors::not_found(&self.site().url(), key)),
        }
    }

    pub(super) async fn get_object(&self, key: &str, range: ByteRange, size: Option<u64>) -> Result<Content> {
        let session = self.session().await?;
        let (object, _) = self.present(&session, key).await?;
        let (url, file_size) = (self.site().url(), object.size);
        if let Some(listed) = size {
            errors::check_size(&url, key, listed, file_size)?;
        }
        let within = range.within(file_size).ok_or_else(|| errors::too_short(&url, key, range, file_size))?;
        let (start, end) = within;
        let chunks = self.chunks(&session, &object, key).await?;
        let wanted: Vec<Chunk> = chunks
            .iter()
            .filter(|chunk| chunk.offset < end && chunk.offset + chunk.len > start)
            .copied()
            .collect();
        let (bucket, key) = (self.clone(), key.to_owned());
        let pieces = stream::iter(wanted).map(move |chunk| {
            let (bucket, session, key) = (bucket.clone(), session.clone(), key.clone());
            async move { bucket.piece(&session, &key, chunk, (start, end)).await }
        });
        Ok(Content { offset: start, file_size, timestamp: None, body: pieces.buffered(MESSAGES).boxed() })
    }

    /// What a message has of the bytes from the first offset to the second.
    async fn piece(
        &self,
        session: &SessionRef<Session>,
        key: &str,
        chunk: Chunk,
        (start, end): (u64, u64),
    ) -> Result<Bytes> {
        let found = session.message(chunk.seq).await;
        let found = found.map_err(|failure| session.explain(failure, &format!("read {key}")))?;
        let content = found.ok_or_else(|| errors::not_found(&self.site().url(), key))?;
        if content.len() as u64 != chunk.len {
            let text = format!("a message of {key} of {} has another size than it had", self.site().url());
            return Err(Error::wrong_answer(text));
        }
        let from = start.saturating_sub(chunk.offset);
        let to = (end - chunk.offset).min(chunk.len);
        Ok(content.slice(from as usize..to as usize))
    }

    /// The messages of an object's content, in order. Of an object they never change.
    async fn chunks(&self, session: &Session, object: &Object, key: &str) -> Result<Arc<[Chunk]>> {
        let remembered = || self.shared.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunks) = remembered().get(&object.nuid) {
            return Ok(Arc::clone(chunks));
        }
        let what = || format!("read {key}");
        if object.chunks == 0 {
            return Ok(Arc::default());
        }
        let subject = self.site().names.content(&object.nuid);
        let messages = session.messages(&subject, false, true).await;
        let messages = messages.map_err(|failure| session.explain(failure, &what()))?;
        let (mut chunks, mut offset) = (Vec::new(), 0);
        for message in messages {
            let size = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Size"));
            let len = size.and_then(|size| size.as_str().parse::<u64>().ok());
            let (Some(len), Some(delivery)) = (len, delivery(&message)) else {
                return Err(Error::wrong_answer(format!(
                    "{} gives a message without its size",
                    self.site().server
                )));
            };
            chunks.push(Chunk { seq: delivery.seq, offset, len });
            offset += len;
        }
        if offset != object.size {
            return Err(Error::wrong_answer(format!(
                "{key} of replica {} has {} bytes by its description, and {offset} in its messages: it is being replaced or \
                 removed, or it was damaged",
                self.site().url(),
                object.size
            )));
        }
        let chunks: Arc<[Chunk]> = chunks.into();
        remembered().put(object.nuid.clone(), Arc::clone(&chunks));
        Ok(chunks)
    }
}
