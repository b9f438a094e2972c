//! A set of pages: one bit for each.

use crate::page::{PageCount, Pgno};

/// Pages, of a database of a certain size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u8>);

impl Bits {
    /// The set that `bytes` are: page 1 is the lowest bit of the first.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As [`Bits::from_bytes`] takes them.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes pages beyond `commit` out, and makes room for those up to it.
    pub(super) fn resize(&mut self, commit: PageCount) {
        let pages = commit.get() as usize;
        self.0.resize(pages.div_ceil(8), 0);
        if let Some(last) = self.0.last_mut().filter(|_| !pages.is_multiple_of(8)) {
            *last &= (1 << (pages % 8)) - 1;
        }
    }

    pub(super) fn has(&self, pgno: Pgno) -> bool {
        self.0.get(pgno.index() / 8).is_some_and(|byte| byte >> (pgno.index() % 8) & 1 == 1)
    }

    /// Whether there is no page.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// # Panics
    /// If there is no room for `pgno`.
    pub(super) fn add(&mut self, pgno: Pgno) {
        self.0[pgno.index() / 8] |= 1 << (pgno.index() % 8);
    }

    pub(super) fn remove(&mut self, pgno: Pgno) {
        if let Some(byte) = self.0.get_mut(pgno.index() / 8) {
            *byte &= !(1 << (pgno.index() % 8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_and_go_and_those_beyond_the_end_are_forgotten() {
        let page = |n| Pgno::new(n).unwrap();
        let mut bits = Bits::default();
        bits.resize(PageCount::new(20));
        for n in [1, 8, 9, 17, 20] {
            bits.add(page(n));
        }
        bits.remove(page(9));
        bits.remove(page(500));
        assert!(!bits.is_empty() && Bits::from_bytes(vec![0; 9]).is_empty());
        let those = |bits: &Bits| (1..30).filter(|n| bits.has(page(*n))).collect::<Vec<_>>();
        assert_eq!(those(&bits), [1, 8, 17, 20]);
        assert_eq!(Bits::from_bytes(bits.as_bytes().to_vec()), bits);
        bits.resize(PageCount::new(18));
        bits.resize(PageCount::new(24));
        assert_eq!(those(&bits), [1, 8, 17]);
        bits.resize(PageCount::new(8));
        assert_eq!(those(&bits), [1, 8]);
    }
}
