//! What the whole process is told.

use super::Env;
use super::given::{Given, Unknown};
use super::settings::{Scope, named};
use crate::logging;

/// Starts logging as the environment says, the first time that it is called; nothing after that.
///
/// A malformed variable does not stop anybody from opening a database: the default is used, and standard error
/// says so.
pub fn start_logging(env: &dyn Env) {
    logging::install(|| {
        let given = Given::read(&Vec::new(), env, &[Scope::Process], Unknown::Refused);
        let given = given.expect("BUG: no parameters were refused");
        let default = named("log_level").default.expect("BUG: no default log level");
        let (level, complaints) = match given.word("log_level") {
            Ok(level) => (level.unwrap_or(default), Vec::new()),
            Err(e) => (default, vec![format!("{e}; '{default}' is used")]),
        };
        logging::Options {
            level: logging::level(level),
            file: given.env("log_file").map(|found| found.text.into()),
            complaints,
        }
    });
}
