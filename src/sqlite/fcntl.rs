//! The file controls whose arguments are texts: SQLite's conventions for who allocates what.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;

use rusqlite::ffi;

use super::host::sqlite_text;
use super::{Code, File, FileControl, FileControlOp, PragmaAnswer};

/// The name in front of the base VFS's in the answer to `VFSNAME`.
const NAME: &str = "litestream";

/// Passes a file control on as it is.
///
/// # Safety
/// `arg` must be what SQLite documents for `op`.
pub(super) unsafe fn other(file: &mut dyn File, op: c_int, arg: *mut c_void) -> Result<(), Code> {
    // SAFETY: as the caller promises.
    file.file_control(unsafe { FileControl::new(op, arg) })
}

/// Answers `SQLITE_FCNTL_PRAGMA`. Its argument is an array of three strings: the answer, which SQLite
/// frees; the name of the PRAGMA; its argument or null.
///
/// # Safety
/// `arg` must be what SQLite documents for this operation.
pub(super) unsafe fn pragma(file: &mut dyn File, arg: *mut c_void) -> Result<(), Code> {
    let strings = arg.cast::<*mut c_char>();
    // SAFETY: the array has three strings.
    let [name, value] = unsafe { [text_at(strings, 1), text_at(strings, 2)] };
    let answer = match name {
        Some(Ok(name)) => match value.transpose() {
            Ok(value) => file.pragma(name, value),
            Err(_) => PragmaAnswer::NotMine,
        },
        _ => PragmaAnswer::NotMine,
    };
    let (text, result) = match answer {
        // SAFETY: as the caller promises.
        PragmaAnswer::NotMine => return unsafe { other(file, ffi::SQLITE_FCNTL_PRAGMA, arg) },
        // `SQLITE_OK` without a text is a row whose column has no name, for which CPython raises
        // `MemoryError`. SQLite ignores a PRAGMA that nobody knows.
        PragmaAnswer::Done => return Err(Code::NOTFOUND),
        PragmaAnswer::Value(text) => (text, Ok(())),
        PragmaAnswer::Error(text) => (text, Err(Code::ERROR)),
        PragmaAnswer::Interrupted => ("interrupted".to_owned(), Err(Code::INTERRUPT)),
    };
    // SAFETY: as the caller promises.
    unsafe { answer_pragma(arg, &text)? };
    result
}

/// Fails `SQLITE_FCNTL_PRAGMA` with a message.
///
/// # Safety
/// `arg` must be what SQLite documents for this operation.
pub(super) unsafe fn refuse_pragma(arg: *mut c_void, message: &str) -> Result<(), Code> {
    // SAFETY: as the caller promises.
    unsafe { answer_pragma(arg, message)? };
    Err(Code::ERROR)
}

/// Sets the text of the answer to `SQLITE_FCNTL_PRAGMA`.
///
/// # Safety
/// `arg` must be what SQLite documents for this operation.
unsafe fn answer_pragma(arg: *mut c_void, text: &str) -> Result<(), Code> {
    let text = sqlite_text(text).ok_or(Code::NOMEM)?;
    // SAFETY: the first string of the array is ours to set.
    unsafe { arg.cast::<*mut c_char>().write(text.as_ptr()) };
    Ok(())
}

/// The string at `index`, if there is one; `Err` if it is not UTF-8.
///
/// # Safety
/// There must be a string or null at `index`, and it must live for `'a`.
unsafe fn text_at<'a>(
    strings: *mut *mut c_char,
    index: usize,
) -> Option<Result<&'a str, std::str::Utf8Error>> {
    // SAFETY: as the caller promises.
    let text = NonNull::new(unsafe { *strings.add(index) })?;
    // SAFETY: SQLite's strings end with a zero.
    Some(unsafe { CStr::from_ptr(text.as_ptr()) }.to_str())
}

/// Answers `SQLITE_FCNTL_VFSNAME`: our name, a slash, and what the base VFS says. The argument points
/// to a string that SQLite frees.
///
/// # Safety
/// `arg` must be what SQLite documents for this operation.
pub(super) unsafe fn vfs_name(file: &mut dyn File, arg: *mut c_void) -> Result<(), Code> {
    let answer = arg.cast::<*mut c_char>();
    // SAFETY: as the caller promises. A file without a base does not know the operation.
    match unsafe { other(file, FileControlOp::VFSNAME.get(), arg) } {
        Ok(()) | Err(Code::NOTFOUND) => {}
        Err(code) => return Err(code),
    }
    // SAFETY: null, or a string that the base VFS allocated for SQLite to free.
    let below = NonNull::new(unsafe { *answer });
    let name = below.map_or_else(
        || NAME.to_owned(),
        // SAFETY: as above.
        |below| format!("{NAME}/{}", unsafe { CStr::from_ptr(below.as_ptr()) }.to_string_lossy()),
    );
    let name = sqlite_text(&name).ok_or(Code::NOMEM)?;
    // SAFETY: `below` was allocated by SQLite's allocator and nobody else has it; the place is ours to
    // set.
    unsafe {
        if let Some(below) = below {
            ffi::sqlite3_free(below.as_ptr().cast());
        }
        answer.write(name.as_ptr());
    }
    Ok(())
}
