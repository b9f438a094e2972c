//! Scalar SQL functions in safe code, and how functions and tables fail.

use std::ffi::{CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{FromSql, Value, ValueRef};
use rusqlite::{Connection, ffi};

use super::{Code, roles};
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
    /// SQLite's values, each of which lives as long as the call.
    arguments: &'a [*mut ffi::sqlite3_value],
    connection: &'a Connection,
}

impl Call<'_> {
    /// The number of arguments.
    pub fn len(&self) -> usize {
        self.arguments.len()
    }

    /// Whether there are no arguments.
    pub fn is_empty(&self) -> bool {
        self.arguments.is_empty()
    }

    /// Argument `index`, counted from 0; `None` if it is NULL or not there.
    ///
    /// # Errors
    /// `Config` if it is of another type, or text that is not UTF-8.
    pub fn arg<T: FromSql>(&self, index: usize) -> Result<Option<T>> {
        let Some(value) = self.arguments.get(index) else { return Ok(None) };
        // SAFETY: a value of this call, whose text and bytes nothing converts while the reference lives.
        let value = unsafe { value_ref(*value) };
        if matches!(value, ValueRef::Null) {
            return Ok(None);
        }
        T::column_result(value).map(Some).map_err(|_| {
            Error::config(format!("argument {} does not fit: it is of type {}", index + 1, value.data_type()))
        })
    }

    /// The connection that calls.
    pub fn connection(&self) -> &Connection {
        self.connection
    }
}

/// What `value` holds.
///
/// # Safety
/// It must be an argument of the call that is under way, and not be converted while the answer is used.
unsafe fn value_ref<'a>(value: *mut ffi::sqlite3_value) -> ValueRef<'a> {
    // SAFETY: as the caller promises. Text and bytes are asked for before their length; they are null if there are none, or
    // if SQLite is out of memory.
    unsafe {
        let bytes = |start: *const u8| {
            let length = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
            if start.is_null() { &[][..] } else { std::slice::from_raw_parts(start, length) }
        };
        match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_TEXT => ValueRef::Text(bytes(ffi::sqlite3_value_text(value))),
            ffi::SQLITE_BLOB => ValueRef::Blob(bytes(ffi::sqlite3_value_blob(value).cast())),
            _ => ValueRef::Null,
        }
    }
}

/// A function as SQLite keeps it for us.
struct Registered {
    name: &'static str,
    function: fn(&Call<'_>) -> Result<Value>,
}

/// Makes `function` callable on `conn` as `name` with `arguments` arguments.
///
/// A panic of it becomes an error of the statement. An error's message gets the name in front of it, and its kind becomes
/// the statement's result code: [`Code::of_function`].
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
    let c_name = CString::new(name)?;
    let registered = Box::into_raw(Box::new(Registered { name, function }));
    // SAFETY: the connection is open and in use by this thread; SQLite copies the name, and gives the address back to
    // `forget` when it needs it no more, also if this fails.
    let code = unsafe {
        ffi::sqlite3_create_function_v2(
            conn.handle(),
            c_name.as_ptr(),
            arguments,
            flags.bits(),
            registered.cast::<c_void>(),
            Some(call),
            None,
            None,
            Some(forget),
        )
    };
    Code::check(code).map_err(|code| rusqlite::Error::SqliteFailure(ffi::Error::new(code.get()), None))
}

/// Frees what [`create_function`] gave to SQLite.
unsafe extern "C" fn forget(registered: *mut c_void) {
    // SAFETY: the address of a box that was given away, which SQLite gives back once.
    drop(unsafe { Box::from_raw(registered.cast::<Registered>()) });
}

/// What SQLite calls.
unsafe extern "C" fn call(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: the address that was registered, which SQLite keeps while the function can be called.
    let registered = unsafe { &*ffi::sqlite3_user_data(context).cast::<Registered>() };
    let arguments = match usize::try_from(count) {
        // SAFETY: SQLite gives so many values, which live as long as the call.
        Ok(count) if count > 0 => unsafe { std::slice::from_raw_parts(values, count) },
        _ => &[],
    };
    let called = caught(registered.name, || {
        // SAFETY: the connection is in use by this thread for the time of the call. It is lent to the function only, which
        // runs on this thread, and does not close what it does not own.
        let connection = unsafe { Connection::from_handle(ffi::sqlite3_context_db_handle(context)) }
            .map_err(|e| Error::new(ErrorKind::Io, "the connection is not usable").with_source(e))?;
        roles::refuse_inherited(&connection)?;
        (registered.function)(&Call { arguments, connection: &connection })
    });
    // SAFETY: the context of this call.
    unsafe {
        match called {
            Ok(value) => answer(context, &value),
            Err(failure) => fail(context, &failure),
        }
    }
}

/// Gives SQLite the result of a call.
///
/// # Safety
/// `context` must be that of the call that is under way.
unsafe fn answer(context: *mut ffi::sqlite3_context, value: &Value) {
    let utf8 = ffi::SQLITE_UTF8 as u8;
    // SAFETY: as the caller promises; SQLite copies text and bytes before it returns.
    unsafe {
        match value {
            Value::Null => ffi::sqlite3_result_null(context),
            Value::Integer(number) => ffi::sqlite3_result_int64(context, *number),
            Value::Real(number) => ffi::sqlite3_result_double(context, *number),
            Value::Text(text) => {
                let (start, length) = (text.as_ptr().cast::<c_char>(), text.len() as u64);
                ffi::sqlite3_result_text64(context, start, length, ffi::SQLITE_TRANSIENT(), utf8);
            }
            Value::Blob(bytes) => {
                let (start, length) = (bytes.as_ptr().cast::<c_void>(), bytes.len() as u64);
                ffi::sqlite3_result_blob64(context, start, length, ffi::SQLITE_TRANSIENT());
            }
        }
    }
}

/// Has the statement fail.
///
/// # Safety
/// `context` must be that of the call that is under way.
unsafe fn fail(context: *mut ffi::sqlite3_context, failure: &Failure) {
    // SAFETY: as the caller promises; SQLite copies the text. The text comes first, since with it the code becomes
    // SQLITE_ERROR.
    unsafe {
        if let Some(text) = &failure.message {
            let length = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
            ffi::sqlite3_result_error(context, text.as_ptr().cast::<c_char>(), length);
        }
        ffi::sqlite3_result_error_code(context, failure.code.get());
    }
}

/// What a statement fails with.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    /// Without one, the text is SQLite's own for the code.
    message: Option<String>,
}

impl Failure {
    fn of(name: &str, error: Error) -> Self {
        let code = Code::of_function(&error);
        // Hosts know an interrupt by its code, and its text is SQLite's.
        let is_interrupt = error.kind() == ErrorKind::Interrupted;
        Self { code, message: (!is_interrupt).then(|| error.context(name).to_string()) }
    }
}

impl From<Failure> for rusqlite::Error {
    fn from(failure: Failure) -> Self {
        Self::SqliteFailure(ffi::Error::new(failure.code.get()), failure.message)
    }
}

/// Runs what calls another room's code for the function or table `name`: a panic must not get to SQLite.
pub(super) fn caught<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
    let done = catch_unwind(AssertUnwindSafe(work));
    let done = done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "a bug in litestream_vfs")));
    done.map_err(|e| Failure::of(name, e))
}
