//! Deleting: each blob by a request of its own, several at a time. Batches would need a signature for each too.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::Method;

use super::AzureBucket;
use super::failure::Failure;
use super::session::Session;
use crate::error::Result;
use crate::store::http::TURNS;
use crate::store::http::call::Call;

impl AzureBucket {
    pub(super) async fn delete_blobs(&self, keys: &[String]) -> Result<()> {
        let session = &*self.session().await?;
        let deletions =
            stream::iter(keys.to_vec()).map(|key| async move { self.delete_blob(session, &key).await });
        deletions.buffer_unordered(TURNS).try_collect().await
    }

    async fn delete_blob(&self, session: &Session, key: &str) -> Result<()> {
        let call = Call::new(Method::DELETE, self.site().blob_path(key));
        match session.send(&call, self.way).await {
            Err(Failure::Refused(refusal)) if refusal.is_of_the_blob() => Ok(()),
            Err(failure) => Err(self.explain(session, failure, &format!("delete {key}"))),
            Ok(_) => Ok(()),
        }
    }
}
