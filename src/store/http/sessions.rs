//! Sessions of a bucket: what its requests need beside themselves, such as a client and credentials.

use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::error::Result;

/// A session that may become outdated: the store refused what may have changed since it began.
pub(in crate::store) trait Renewable {
    /// Whether another one should take its place, which reads all that may have changed.
    fn is_outdated(&self) -> bool;
}

/// Why a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Begin {
    /// There was none.
    First,
    /// The one before is outdated.
    Again,
}

/// The current session of a bucket. It begins when it is first used, in each process: connections do not survive `fork`.
pub(in crate::store) struct Sessions<S>(Mutex<Option<Begun<S>>>);

impl<S> Default for Sessions<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A session that is there, or that who needs it begins.
struct Begun<S> {
    pid: u32,
    session: Arc<OnceCell<S>>,
    /// The one that it replaces. The new one shares its connections, if they have not become outdated too.
    before: Option<Arc<OnceCell<S>>>,
}

impl<S> Clone for Begun<S> {
    fn clone(&self) -> Self {
        let Self { pid, session, before } = self;
        Self { pid: *pid, session: Arc::clone(session), before: before.clone() }
    }
}

impl<S: Renewable> Sessions<S> {
    /// This process's session, which `begin` makes if there is none, or if the one that is there is outdated: it is
    /// told which.
    ///
    /// # Errors
    /// Those of `begin`; who asks next begins again.
    pub(in crate::store) async fn current<F>(&self, begin: impl FnOnce(Begin) -> F) -> Result<SessionRef<S>>
    where
        F: Future<Output = Result<S>>,
    {
        let begun = self.begun();
        let why = if begun.before.is_some() { Begin::Again } else { Begin::First };
        begun.session.get_or_try_init(|| begin(why)).await?;
        Ok(SessionRef(begun.session))
    }

    fn begun(&self) -> Begun<S> {
        let pid = std::process::id();
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match current.take() {
            Some(begun) if begun.pid == pid => {
                if !begun.session.get().is_some_and(S::is_outdated) {
                    return current.insert(begun).clone();
                }
                Some(begun.session)
            }
            // Its connections are the parent's to close.
            inherited => {
                std::mem::forget(inherited);
                None
            }
        };
        current.insert(Begun { pid, session: Arc::default(), before }).clone()
    }
}

/// A session that has begun.
pub(in crate::store) struct SessionRef<S>(Arc<OnceCell<S>>);

impl<S> Clone for SessionRef<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> SessionRef<S> {
    /// Whether both are one session.
    pub(in crate::store) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<S> Deref for SessionRef<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.0.get().expect("BUG: the session has begun")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;
    use crate::error::Error;
    use crate::store::tests::recorder::run;

    struct Numbered(u32, AtomicBool);

    impl Renewable for Numbered {
        fn is_outdated(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_session_begins_once_until_it_is_outdated() {
        let (sessions, count) = (Sessions::default(), AtomicU32::new(0));
        let current = || {
            sessions.current(|why| {
                let made = match (count.fetch_add(1, Ordering::Relaxed), why) {
                    (0, Begin::First) => Err(Error::config("not yet")),
                    (n @ 1, Begin::First) | (n @ 2, Begin::Again) => Ok(Numbered(n, AtomicBool::new(false))),
                    other => panic!("{other:?}"),
                };
                std::future::ready(made)
            })
        };
        run(async {
            assert!(current().await.is_err());
            let first = current().await.unwrap();
            assert_eq!(((*first).0, (*current().await.unwrap()).0), (1, 1));
            first.1.store(true, Ordering::Relaxed);
            assert_eq!((*current().await.unwrap()).0, 2);
        });
    }
}
