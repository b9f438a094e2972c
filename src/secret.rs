//! Memory for secrets: wiped when it is given back, and where the system allows it, never swapped and left out of core
//! dumps.
//!
//! `sqlite`, the room that may call the system for it, says by [`install`] how such memory is had. Before that, which
//! is before the library is loaded, it is ordinary memory that is wiped.

use std::fmt;
use std::sync::OnceLock;

use zeroize::Zeroizing;

/// A piece of memory for one secret, which wipes itself when it is dropped.
pub trait Guarded: AsRef<[u8]> + AsMut<[u8]> + Send + Sync {}

impl Guarded for Zeroizing<Vec<u8>> {}

/// Gives a zeroed piece of as many bytes; `None` if the system has none.
pub type Allocate = fn(usize) -> Option<Box<dyn Guarded>>;

static ALLOCATE: OnceLock<Allocate> = OnceLock::new();

/// Says how memory for secrets is had. The first call counts.
pub fn install(allocate: Allocate) {
    let _ = ALLOCATE.set(allocate);
}

/// The bytes of a secret. They are never printed.
pub struct SecretBytes(Box<dyn Guarded>);

impl SecretBytes {
    /// A secret of `len` bytes, all zero until they are written.
    pub fn new(len: usize) -> Self {
        let guarded = ALLOCATE.get().and_then(|allocate| allocate(len));
        Self(guarded.unwrap_or_else(|| Box::new(Zeroizing::new(vec![0; len]))))
    }

    /// The bytes.
    pub fn reveal(&self) -> &[u8] {
        (*self.0).as_ref()
    }

    /// The bytes, to write them.
    pub fn reveal_mut(&mut self) -> &mut [u8] {
        (*self.0).as_mut()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
