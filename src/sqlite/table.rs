//! Table-valued SQL functions in safe code: read-only, and there without `CREATE VIRTUAL TABLE`.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;

use rusqlite::types::Value;
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection, VTabCursor,
    sqlite3_vtab, sqlite3_vtab_cursor,
};
use rusqlite::{Connection, ffi};

use super::function::{Safety, caught};
use super::roles;
use crate::error::{Error, ErrorKind, Result};

/// A row: one value for each of [`Table::COLUMNS`].
pub type Row = Vec<Value>;

/// Rows that come one by one.
pub trait Rows {
    /// The next row; `None` after the last one.
    ///
    /// # Errors
    /// As [`Table::rows`].
    fn next(&mut self, conn: &Connection) -> Result<Option<Row>>;
}

impl Rows for std::vec::IntoIter<Row> {
    fn next(&mut self, _: &Connection) -> Result<Option<Row>> {
        Ok(Iterator::next(self))
    }
}

/// Which of [`Table::COLUMNS`] a statement reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns(u32);

impl Columns {
    /// All of them.
    pub const ALL: Self = Self(u32::MAX);

    /// Whether the statement reads column `index`, counted from 0.
    pub const fn has(self, index: u32) -> bool {
        index >= Self::TOLD || self.0 & (1 << index) != 0
    }

    /// So many columns fit beside the arguments in SQLite's index number.
    const TOLD: u32 = 24;

    /// SQLite's mask: bit n is column n, the last bit all beyond.
    const fn of(used: u64) -> Self {
        Self(used as u32 & ((1 << Self::TOLD) - 1))
    }
}

/// Arguments in SQLite's index number, which has those in its lowest bits, then the columns.
const ARGUMENT_BITS: u32 = 7;

/// A table-valued function.
pub trait Table: 'static {
    /// Its name.
    const NAME: &'static str;
    /// Its columns as `CREATE TABLE` has them: `name TYPE`.
    const COLUMNS: &'static [&'static str];
    /// The names of its arguments, in order; they are hidden columns.
    const ARGUMENTS: &'static [&'static str];
    /// Where SQL may use it.
    const SAFETY: Safety;

    /// Its rows for these arguments. An argument that is not given is NULL.
    ///
    /// # Errors
    /// Whatever makes the statement fail; the message gets the name in front of it.
    fn rows(conn: &Connection, arguments: &[Value]) -> Result<Vec<Row>>;

    /// The same rows, for a table whose rows cost something: they are asked for one by one, and values
    /// of columns that are not `wanted` may be anything.
    ///
    /// # Errors
    /// As [`Table::rows`].
    fn scan(conn: &Connection, arguments: &[Value], wanted: Columns) -> Result<Box<dyn Rows>> {
        let _ = wanted;
        Ok(Box::new(Self::rows(conn, arguments)?.into_iter()))
    }
}

/// Makes the table-valued function `T` usable on `conn`.
///
/// # Errors
/// Those of `sqlite3_create_module_v2`.
pub fn create_table_function<T: Table>(conn: &Connection) -> rusqlite::Result<()> {
    conn.create_module(T::NAME, const { &Module::<Instance<T>>::eponymous_only_module() }, None)
}

/// The table on one connection. `base` is first, as SQLite wants it.
#[repr(C)]
struct Instance<T> {
    base: sqlite3_vtab,
    /// The connection, which outlives the table.
    db: *mut ffi::sqlite3,
    table: PhantomData<T>,
}

/// A scan of the table. `base` is first, as SQLite wants it.
#[repr(C)]
struct Scan<T> {
    base: sqlite3_vtab_cursor,
    /// The connection, which outlives the table.
    db: *mut ffi::sqlite3,
    arguments: Vec<Value>,
    rows: Box<dyn Rows>,
    row: Option<Row>,
    rowid: i64,
    table: PhantomData<T>,
}

// SAFETY: `repr(C)` with `sqlite3_vtab` first.
unsafe impl<'vtab, T: Table> VTab<'vtab> for Instance<T> {
    type Aux = ();
    type Cursor = Scan<T>;

    fn connect(
        conn: &mut VTabConnection,
        _aux: Option<&()>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _arguments: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Self)> {
        match T::SAFETY {
            Safety::DirectOnly => conn.config(VTabConfig::DirectOnly)?,
            Safety::Innocuous => conn.config(VTabConfig::Innocuous)?,
            Safety::TrustedSchema => {}
        }
        let hidden: String = T::ARGUMENTS.iter().map(|a| format!(", {a} HIDDEN")).collect();
        let sql = CString::new(format!("CREATE TABLE x({}{hidden})", T::COLUMNS.join(", ")))?;
        // SAFETY: only kept, for `filter`.
        let db = unsafe { conn.handle() };
        Ok((Cow::Owned(sql), Self { base: sqlite3_vtab::default(), db, table: PhantomData }))
    }

    /// Asks for the arguments in their order; bit n of the index number says that argument n is there, and
    /// the bits above [`ARGUMENT_BITS`] which columns are read.
    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        // A connection that was inherited gets its text here: when the statement runs, SQLite locks the files first.
        // SAFETY: SQLite is preparing a statement on this connection on this thread.
        caught(T::NAME, || unsafe { connection(self.db) })?;
        let mut asked = vec![None; T::ARGUMENTS.len()];
        for (n, constraint) in info.constraints().enumerate() {
            let argument = constraint.column() - T::COLUMNS.len() as c_int;
            let Some(slot) = usize::try_from(argument).ok().and_then(|a| asked.get_mut(a)) else { continue };
            if constraint.operator() == IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ {
                if !constraint.is_usable() {
                    // The argument comes from a table that this plan visits later.
                    return Ok(false);
                }
                *slot = Some(n);
            }
        }
        let (mut given, mut mask) = (0, 0);
        for (argument, constraint) in asked.into_iter().enumerate() {
            if let Some(constraint) = constraint {
                given += 1;
                mask |= 1 << argument;
                let mut usage = info.constraint_usage(constraint);
                usage.set_argv_index(given);
                usage.set_omit(true);
            }
        }
        info.set_idx_num(mask | (Columns::of(info.col_used()).0 << ARGUMENT_BITS) as c_int);
        info.set_estimated_cost(1000.0);
        info.set_estimated_rows(100);
        Ok(true)
    }

    fn open(&'vtab mut self) -> rusqlite::Result<Scan<T>> {
        Ok(Scan {
            base: sqlite3_vtab_cursor::default(),
            db: self.db,
            arguments: Vec::new(),
            rows: Box::new(Vec::new().into_iter()),
            row: None,
            rowid: 0,
            table: PhantomData,
        })
    }
}

impl<T: Table> Scan<T> {
    fn begin(&mut self, mask: c_int, given: &Filters<'_>) -> Result<()> {
        let mut given = given.iter();
        self.arguments.clear();
        for argument in 0..T::ARGUMENTS.len() {
            let value = if mask & (1 << argument) == 0 { None } else { given.next() };
            let value = value.map_or(Ok(Value::Null), Value::try_from);
            self.arguments.push(value.map_err(|e| Error::config(format!("argument {}: {e}", argument + 1)))?);
        }
        let wanted = Columns((mask as u32) >> ARGUMENT_BITS);
        self.rows = T::scan(&self.connection()?, &self.arguments, wanted)?;
        self.rowid = 0;
        self.advance()
    }

    fn advance(&mut self) -> Result<()> {
        let conn = self.connection()?;
        self.row = self.rows.next(&conn)?;
        self.rowid += 1;
        Ok(())
    }

    fn connection(&self) -> Result<Connection> {
        // SAFETY: SQLite is running a statement on this connection on this thread.
        unsafe { connection(self.db) }
    }
}

/// The connection `db`, to be dropped within the call of SQLite's that this is in.
///
/// # Errors
/// `Unsupported` if a forked child inherited it.
///
/// # Safety
/// SQLite must be preparing or running a statement on it on this thread.
unsafe fn connection(db: *mut ffi::sqlite3) -> Result<Connection> {
    // SAFETY: as the caller promises; the reference ends with the call, and does not close the connection, which
    // it does not own.
    let connection = unsafe { Connection::from_handle(db) }
        .map_err(|e| Error::new(ErrorKind::Io, "the connection is not usable").with_source(e))?;
    roles::refuse_inherited(&connection)?;
    Ok(connection)
}

// SAFETY: `repr(C)` with `sqlite3_vtab_cursor` first.
unsafe impl<T: Table> VTabCursor for Scan<T> {
    fn filter(&mut self, mask: c_int, _: Option<&str>, given: &Filters<'_>) -> rusqlite::Result<()> {
        Ok(caught(T::NAME, || self.begin(mask, given))?)
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        Ok(caught(T::NAME, || self.advance())?)
    }

    fn eof(&self) -> bool {
        self.row.is_none()
    }

    fn column(&self, context: &mut Context, column: c_int) -> rusqlite::Result<()> {
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        let row = self.row.as_deref().unwrap_or_default();
        let value = match column.checked_sub(T::COLUMNS.len()) {
            Some(argument) => self.arguments.get(argument),
            None => row.get(column),
        };
        context.set_result(value.unwrap_or(&Value::Null))
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.rowid)
    }
}
