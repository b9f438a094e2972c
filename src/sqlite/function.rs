//! Scalar SQL functions in safe code.

use rusqlite::functions::{ConnectionRef, Context, FunctionFlags};
use rusqlite::types::{FromSql, Value, ValueRef};
use rusqlite::{Connection, ffi};

use super::roles;
use crate::error::{Error, ErrorKind, Result};

/// Where SQL may use a function or table. Source: <https://www.sqlite.org/c3ref/c_deterministic.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// In statements of the application only, never from the schema of a database that it opened:
    /// for what has side effects or makes requests.
    DirectOnly,
    /// In views and triggers of a schema that the application trusts: for what tells about the process.
    TrustedSchema,
    /// Anywhere.
    Innocuous,
}

impl Safety {
    const fn flags(self) -> FunctionFlags {
        match self {
            Self::DirectOnly => FunctionFlags::SQLITE_DIRECTONLY,
            Self::TrustedSchema => FunctionFlags::empty(),
            Self::Innocuous => FunctionFlags::SQLITE_INNOCUOUS,
        }
    }
}

/// A call of a SQL function.
pub struct Call<'a> {
    context: &'a Context<'a>,
    connection: ConnectionRef<'a>,
}

impl Call<'_> {
    /// The number of arguments.
    pub fn len(&self) -> usize {
        self.context.len()
    }

    /// Whether there are no arguments.
    pub fn is_empty(&self) -> bool {
        self.context.is_empty()
    }

    /// Argument `index`, counted from 0; `None` if it is NULL or not there.
    ///
    /// # Errors
    /// `Config` if it is of another type, or text that is not UTF-8.
    pub fn arg<T: FromSql>(&self, index: usize) -> Result<Option<T>> {
        if index >= self.len() || matches!(self.context.get_raw(index), ValueRef::Null) {
            return Ok(None);
        }
        let value = self.context.get_raw(index);
        T::column_result(value).map(Some).map_err(|_| {
            Error::config(format!("argument {} does not fit: it is of type {}", index + 1, value.data_type()))
        })
    }

    /// The connection that calls.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Makes `function` callable on `conn` as `name` with `arguments` arguments.
///
/// A panic of it becomes an error of the statement. An error's message gets the name in front of it.
///
/// # Errors
/// Those of `sqlite3_create_function_v2`.
pub fn create_function(
    conn: &Connection,
    name: &'static str,
    arguments: i32,
    safety: Safety,
    function: fn(&Call<'_>) -> Result<Value>,
) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | safety.flags();
    conn.create_scalar_function(name, arguments, flags, move |context| {
        // SAFETY: the connection is in use by this thread for the time of the call, and `Call` does not
        // outlive it. It is lent to `function` only, which runs on this thread.
        let connection = unsafe { context.get_connection() }?;
        let called =
            roles::refuse_inherited(&connection).and_then(|()| function(&Call { context, connection }));
        called.map_err(|e| sql_error(name, e))
    })
}

/// The error of a statement that failed in `name` because of `error`.
pub(super) fn sql_error(name: &str, error: Error) -> rusqlite::Error {
    match error.kind() {
        // Hosts know an interrupt by its code, and its text is SQLite's.
        ErrorKind::Interrupted => {
            rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), None)
        }
        _ => rusqlite::Error::UserFunctionError(error.context(name).into()),
    }
}
