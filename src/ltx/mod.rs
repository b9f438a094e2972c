//! The LTX codec, format version 3: bytes in, bytes out.
//!
//! Source: the design's section 4; `github.com/superfly/ltx` (Go), which Litestream 0.5 uses.

mod name;

pub use name::{FileId, FileName, Level, Txid};
