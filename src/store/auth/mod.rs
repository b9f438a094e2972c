//! Who we are to services that give access tokens (OAuth 2): how such services are asked, tokens that are kept until
//! they expire, and JSON Web Tokens that we sign ourselves.

mod ask;
mod jwt;
mod token;

pub(in crate::store) use ask::{Ask, Reply, ask};
#[cfg(test)]
pub(in crate::store) use jwt::tests as jwt_tests;
pub(in crate::store) use jwt::{SigningKey, certificate};
pub(in crate::store) use token::{AccessToken, TokenSource, Tokens, oauth_token, urlencoded};

/// Looks up an environment variable; `None` if it is not set. Tests have one of their own.
pub(in crate::store) type EnvFn = dyn Fn(&str) -> Option<String> + Send + Sync;
/// A borrowed [`EnvFn`].
pub(in crate::store) type Env<'a> = &'a EnvFn;

/// The process's environment variable `name`, if it is set and not empty.
pub(in crate::store) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
