//! The only room with `unsafe`: trampolines, the host's API, the base VFS, functions.

mod function;
mod table;

pub use function::{Call, Safety, create_function};
pub use table::{Row, Table, create_table_function};
