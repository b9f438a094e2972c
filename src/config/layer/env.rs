//! The layer of environment variables.

use std::fmt;

/// Where environment variables come from.
pub trait Env: fmt::Debug {
    /// The value of the variable `name`; an empty one counts as not set.
    fn var(&self, name: &str) -> Option<String>;

    /// Whether the variable `name` is set to nothing.
    fn is_empty(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn is_empty(&self, name: &str) -> bool {
        std::env::var_os(name).is_some_and(|value| value.is_empty())
    }
}

/// An environment without variables.
#[derive(Debug)]
pub(in crate::config) struct NoEnv;

impl Env for NoEnv {
    fn var(&self, _: &str) -> Option<String> {
        None
    }
}
