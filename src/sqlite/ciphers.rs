//! SQLite3MultipleCiphers: a host whose default VFS encrypts.
//!
//! SQLite encrypts a frame of the WAL there only if the connection's own database file is one of that VFS. So that VFS comes
//! first, and ours is behind it, where all is ciphertext, the WAL too:
//!
//! ```text
//! litestream                         leaves every open to the next one
//! multipleciphers-litestream-below   encrypts; the host makes one for each VFS of which a connection names it
//! litestream-below                   ours
//! unix                               what the host's own encrypting VFS is in front of
//! ```

use std::ffi::{CStr, CString};

use rusqlite::{Connection, OpenFlags};

use super::{BaseVfs, Code, OpenRequest, Opened, Vfs, internal};

/// How the names of the host's encrypting VFSs begin; the rest is the name of the one behind.
const PREFIX: &[u8] = b"multipleciphers-";

/// The name of ours behind one that encrypts.
pub(super) const BELOW: &CStr = c"litestream-below";

/// The same, of the one that is the host's default.
pub(super) const DEFAULT_BELOW: &CStr = c"litestream-default-below";

/// The VFS that `vfs` encrypts in front of; `None` if it does not encrypt.
pub(super) fn behind(vfs: BaseVfs) -> Option<BaseVfs> {
    let rest = vfs.name().to_bytes().strip_prefix(PREFIX)?;
    BaseVfs::named(&CString::new(rest).ok()?)
}

/// The VFS that encrypts in front of the one called `name`; `None` if the host makes none.
pub(super) fn in_front_of(name: &CStr) -> Option<BaseVfs> {
    let name = CString::new([PREFIX, name.to_bytes()].concat()).ok()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    // The host makes it when a connection names it, and keeps it.
    drop(internal::internally(|| Connection::open_with_flags_and_vfs(":memory:", flags, name.as_c_str())));
    BaseVfs::named(&name)
}

/// The VFS in front of all.
pub(super) struct InFront;

impl Vfs for InFront {
    fn open(&self, _request: OpenRequest<'_>) -> Result<Opened, Code> {
        Ok(Opened::PassThrough)
    }
}
