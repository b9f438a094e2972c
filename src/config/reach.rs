//! What SQL may do beside reading and writing the databases of its connection.

use super::Env;
use super::catalog::SQL;
use super::layer::Given;
use super::setting::SqlReach;
use crate::error::{Error, ErrorKind, Result};

/// Permits SQL to write files and to reach a store: `LITESTREAM_SQL` says where, `on` everywhere and `off`
/// nowhere; without it the connection decides.
///
/// # Errors
/// `Denied`, with what would permit it; `Config` if the variable is neither.
pub fn permit_sql(env: &dyn Env, by_connection: impl FnOnce() -> Result<()>) -> Result<()> {
    match Given::environment(env).get(&SQL)? {
        Some(SqlReach::On) => Ok(()),
        Some(SqlReach::Off) => Err(Error::new(
            ErrorKind::Denied,
            "LITESTREAM_SQL=off in the environment forbids it in this process",
        )),
        None => by_connection(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_before_the_connection() {
        let denied = || Err(Error::new(ErrorKind::Denied, "no"));
        assert!(permit_sql(&[("LITESTREAM_SQL", "on")], denied).is_ok());
        assert_eq!(
            permit_sql(&[("LITESTREAM_SQL", "off")], || Ok(())).unwrap_err().kind(),
            ErrorKind::Denied
        );
        assert!(permit_sql(&[], || Ok(())).is_ok());
        assert_eq!(permit_sql(&[], denied).unwrap_err().to_string(), "no");
        let message = permit_sql(&[("LITESTREAM_SQL", "yes")], || Ok(())).unwrap_err().to_string();
        assert_eq!(message, "LITESTREAM_SQL: 'yes' is none of on, off");
    }
}
