//! The main database of a replica.
use crate::config::ReplicaConfig;
use crate::error::{Error, Result};
use crate::sqlite::{OpenRequest, Opened};

pub(super) fn open(_request: &OpenRequest<'_>, _config: ReplicaConfig) -> Result<Opened> {
    Err(Error::config("replicas are not read yet"))
}
