//! Which parts of an LTX file were read, and their checksums.

use serde::{Deserialize, Serialize};

use crate::ltx::PartChecksum;

/// A range of a file in bytes, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) sum: PartChecksum,
}

/// Parts of one file: ascending, and joined where they meet, so that there are only a few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Stored>", into = "Vec<Stored>")]
pub(super) struct Parts(Vec<Part>);

/// A part as the record has it: start, end, CRC and uncompressed size.
type Stored = (u64, u64, u64, u64);

impl From<Vec<Stored>> for Parts {
    fn from(stored: Vec<Stored>) -> Self {
        let part = |(start, end, crc, len)| Part { start, end, sum: PartChecksum { crc, len } };
        Self(stored.into_iter().map(part).collect())
    }
}

impl From<Parts> for Vec<Stored> {
    fn from(parts: Parts) -> Self {
        parts.0.into_iter().map(|part| (part.start, part.end, part.sum.crc, part.sum.len)).collect()
    }
}

impl Parts {
    /// Adds a part that is not there yet.
    pub(super) fn add(&mut self, part: Part) {
        let at = self.0.partition_point(|other| other.start < part.start);
        self.0.insert(at, part);
        let mut joined: Vec<Part> = Vec::with_capacity(self.0.len());
        for part in self.0.drain(..) {
            match joined.last_mut() {
                Some(last) if last.end == part.start => {
                    (last.end, last.sum) = (part.end, last.sum.then(part.sum));
                }
                _ => joined.push(part),
            }
        }
        self.0 = joined;
    }

    /// Whether the byte at `offset` is in a part.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.0.iter().any(|part| (part.start..part.end).contains(&offset))
    }

    /// The checksum of a file of `size` bytes, if all of it is there.
    pub(super) fn of_file(&self, size: u64) -> Option<u64> {
        match self.0[..] {
            [Part { start: 0, end, sum }] if end == size => Some(sum.of_file()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::PartHasher;

    fn part(bytes: &[u8], start: usize, end: usize) -> Part {
        let mut hasher = PartHasher::default();
        hasher.update(&bytes[start..end]);
        Part { start: start as u64, end: end as u64, sum: hasher.finish() }
    }

    #[test]
    fn parts_in_any_order_make_the_file() {
        let bytes: Vec<u8> = (0..100).collect();
        let cuts = [0, 7, 20, 21, 60, 100];
        let expected = part(&bytes, 0, 100).sum.of_file();
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 3, 1]] {
            let mut parts = Parts::default();
            for n in order {
                assert_eq!(parts.of_file(100), None);
                parts.add(part(&bytes, cuts[n], cuts[n + 1]));
                assert!(parts.has(cuts[n] as u64) && parts.has(cuts[n + 1] as u64 - 1));
            }
            assert_eq!((parts.of_file(100), parts.of_file(101)), (Some(expected), None));
            assert_eq!(parts.0.len(), 1);
            assert!(!parts.has(100));
            let text = serde_json::to_string(&parts).unwrap();
            assert_eq!(serde_json::from_str::<Parts>(&text).unwrap(), parts);
        }
    }
}
