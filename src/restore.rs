//! A replica becomes a database file.
