//! What the stores of a process have in common, so that a hundred of them cost little more than one: HTTP
//! clients with their connections, and AWS's configuration.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::fork::PerProcess;

/// Environment variables and their values, in order.
pub(in crate::store) type Environment = Vec<(OsString, OsString)>;

/// The environment variables whose names `wanted` accepts.
pub(in crate::store) fn environment(wanted: impl Fn(&str) -> bool) -> Environment {
    let mut found: Environment =
        std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(&wanted)).collect();
    found.sort();
    found
}

/// Values that those who use them at the same time share, by key. A forked child has none of its
/// parent's.
pub(in crate::store) struct Common<K, V>(PerProcess<Entries<K, V>>);

struct Entries<K, V>(Mutex<Vec<Entry<K, V>>>);

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

struct Entry<K, V> {
    key: K,
    value: Weak<V>,
}

impl<K: PartialEq, V> Common<K, V> {
    pub(in crate::store) const fn new() -> Self {
        Self(PerProcess::new())
    }

    /// The value of `key` that is in use.
    pub(in crate::store) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.entries().iter().find(|entry| entry.key == *key)?.value.upgrade()
    }

    /// Shares `value` with those who will ask for `key`.
    pub(in crate::store) fn share(&self, key: K, value: V) -> Arc<V> {
        Self::share_in(&mut self.entries(), key, value)
    }

    /// The value of `key` that is in use, or else one that `make` makes, and no other thread.
    pub(in crate::store) fn get_or_share(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut entries = self.entries();
        let used = entries.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.upgrade());
        used.unwrap_or_else(|| Self::share_in(&mut entries, key, make()))
    }

    fn share_in(entries: &mut Vec<Entry<K, V>>, key: K, value: V) -> Arc<V> {
        let value = Arc::new(value);
        entries.retain(|entry| entry.value.strong_count() > 0 && entry.key != key);
        entries.push(Entry { key, value: Arc::downgrade(&value) });
        value
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry<K, V>>> {
        self.0.get().0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shared_as_long_as_it_is_used() {
        let common: Common<&str, u32> = Common::new();
        assert_eq!(common.get(&"a"), None);
        let one = common.share("a", 1);
        let _other = common.share("b", 2);
        assert!(Arc::ptr_eq(&one, &common.get(&"a").unwrap()));
        drop(one);
        assert_eq!((common.get(&"a"), common.get(&"b").as_deref()), (None, Some(&2)));
        let again = common.get_or_share("b", || unreachable!());
        let new = common.get_or_share("a", || 3);
        assert_eq!((*again, *new, common.get(&"a").as_deref()), (2, 3, Some(&3)));
    }
}
