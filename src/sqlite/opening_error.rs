//! How `sqlite3_open` fails with a code and a text of ours, and no other.
//!
//! What an auto-extension answers gets "automatic extension loading failed" in front. SQLite looks at the error of
//! the connection afterwards, so a statement that fails on it gives that.

use std::ffi::{CStr, CString, c_int, c_void};

use rusqlite::{Connection, ffi};

use super::{Code, refused};

/// What the function fails with.
struct Cause {
    code: Code,
    message: CString,
}

const NAME: &CStr = c"litestream_refusal";

/// Makes `code` and `message` the error of `conn`, which an auto-extension is given. Whether it is.
pub(super) fn set(conn: &Connection, code: Code, message: &str) -> bool {
    let message: Vec<u8> = message.bytes().filter(|b| *b != 0).collect();
    let Ok(message) = CString::new(message) else { return false };
    let text = message.clone();
    let cause = Box::into_raw(Box::new(Cause { code, message })).cast::<c_void>();
    // SAFETY: the connection is open; the function gets the cause, and SQLite frees it with the function, also if
    // it does not take it. The statement ends with a zero.
    unsafe {
        let db = conn.handle();
        let utf8 = ffi::SQLITE_UTF8;
        let name = NAME.as_ptr();
        let made =
            ffi::sqlite3_create_function_v2(db, name, 0, utf8, cause, Some(fail), None, None, Some(free));
        made == ffi::SQLITE_OK
            && refused::as_if_empty(|| run(db, c"SELECT litestream_refusal()")) != ffi::SQLITE_OK
            && is_error_of(db, code, &text)
    }
}

/// Whether the error of `db` is this one.
///
/// # Safety
/// `db` must be an open connection.
unsafe fn is_error_of(db: *mut ffi::sqlite3, code: Code, text: &CStr) -> bool {
    // SAFETY: as the caller promises; the message ends with a zero and is not kept.
    unsafe {
        ffi::sqlite3_errcode(db) & 0xff == code.primary() && CStr::from_ptr(ffi::sqlite3_errmsg(db)) == text
    }
}

/// # Safety
/// `db` must be an open connection.
unsafe fn run(db: *mut ffi::sqlite3, sql: &CStr) -> c_int {
    let nothing = std::ptr::null_mut();
    // SAFETY: as the caller promises; the statement ends with a zero, and nothing of its rows is wanted.
    unsafe { ffi::sqlite3_exec(db, sql.as_ptr(), None, nothing, std::ptr::null_mut()) }
}

unsafe extern "C" fn fail(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
    // SAFETY: the cause that was registered with this function, which SQLite copies the text of.
    unsafe {
        let cause = &*ffi::sqlite3_user_data(context).cast::<Cause>();
        ffi::sqlite3_result_error(context, cause.message.as_ptr(), -1);
        ffi::sqlite3_result_error_code(context, cause.code.get());
    }
}

unsafe extern "C" fn free(cause: *mut c_void) {
    // SAFETY: the box that was registered with the function, which is freed once.
    drop(unsafe { Box::from_raw(cause.cast::<Cause>()) });
}
