//! Which replica a shipper is of, where the URL alone does not say it: two servers may have buckets of one name.

use std::fmt;
use std::path::{Path, PathBuf};

use crc_fast::CrcAlgorithm;

use crate::store::ReplicaIdentity;

/// The folder of the replicas below that of local state.
const FOLDER: &str = "replicas";

/// Name of a replica in local state and between processes: 16 hexadecimal digits of a hash of its URL
/// and endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::primary) struct ReplicaId(String);

impl ReplicaId {
    /// The id of the replica with this identity.
    pub(in crate::primary) fn of(identity: &ReplicaIdentity) -> Self {
        let hash = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, identity.place().as_bytes());
        Self(format!("{hash:016x}"))
    }

    /// The folder of local state of the replica, below that of the database.
    pub(in crate::primary) fn folder(&self, state_folder: &Path) -> PathBuf {
        Self::all(state_folder).join(&self.0)
    }

    /// The folder that has those of all replicas.
    pub(in crate::primary) fn all(state_folder: &Path) -> PathBuf {
        state_folder.join(FOLDER)
    }

    /// The digits.
    pub(in crate::primary) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
