//! SQLite's error log, and the guard that keeps panics out of C.

use std::any::Any;
use std::ffi::{CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::ffi;

use super::{Code, host};

/// Writes one line to the host's error log (`SQLITE_CONFIG_LOG`). `message` must carry no secret.
///
/// May be called by any thread, also before anything is loaded: then there is no log.
pub fn log(code: Code, message: &str) {
    if !host::is_loaded() {
        return;
    }
    let line: Vec<u8> = message.bytes().filter(|b| *b != 0).collect();
    let Ok(line) = CString::new(line) else { return };
    // SAFETY: the format takes one string, which ends with a zero.
    unsafe { ffi::sqlite3_log(code.get(), c"%s".as_ptr(), line.as_ptr()) }
}

/// Runs the body of a callback. A panic is logged and becomes `default`.
pub(super) fn guard(callback: &str, default: Code, body: impl FnOnce() -> Result<(), Code>) -> c_int {
    match guard_value(callback, Err(default), body) {
        Ok(()) => ffi::SQLITE_OK,
        Err(code) => code.get(),
    }
}

/// Runs the body of a callback that answers a value. A panic is logged and becomes `default`.
pub(super) fn guard_value<T>(callback: &str, default: T, body: impl FnOnce() -> T) -> T {
    // What a panic leaves half done is the file's own state; SQLite gets an error and decides.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        report(callback, panic);
        default
    })
}

#[cold]
fn report(callback: &str, panic: Box<dyn Any + Send>) {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    log(Code::IOERR, &format!("litestream: panic in {callback}, please report it: {what}"));
    // Dropping what was thrown may panic again.
    std::mem::forget(panic);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_default() {
        assert_eq!(guard("xRead", Code::IOERR_READ, || panic!("thrown on purpose")), Code::IOERR_READ.get());
        assert_eq!(guard("xRead", Code::IOERR_READ, || Err(Code::BUSY)), Code::BUSY.get());
        assert_eq!(guard("xRead", Code::IOERR_READ, || Ok(())), ffi::SQLITE_OK);
    }

    #[test]
    fn what_was_thrown_may_be_anything() {
        struct Thrown;
        impl Drop for Thrown {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let answer = guard_value("xClose", 7, || std::panic::panic_any(Thrown));
        assert_eq!(answer, 7);
    }
}
