//! The paths of Litestream 0.3's objects.

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The generation.
    pub(super) generation: String,
    /// What of it.
    pub(super) part: Part,
}

/// A part of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The database at the beginning of a WAL file, or later.
    Snapshot {
        /// The index of the WAL file.
        index: u32,
    },
    /// A piece of a WAL file.
    Segment {
        /// The index of the WAL file.
        index: u32,
        /// Where in it the piece begins, in bytes.
        offset: u64,
    },
}

impl Name {
    /// The object at `path`, if it is one of Litestream 0.3's.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut folders = path.strip_prefix(super::FOLDER)?.strip_prefix('/')?.split('/');
        let (generation, kind, file) = (folders.next()?, folders.next()?, folders.next()?);
        if folders.next().is_some() || hex(generation, 16..=16).is_none() {
            return None;
        }
        let part = match kind {
            "snapshots" => {
                let index = hex(file.strip_suffix(".snapshot.lz4")?, 8..=8)?;
                Part::Snapshot { index: index as u32 }
            }
            "wal" => {
                let (index, offset) = file.strip_suffix(".wal.lz4")?.split_once('_')?;
                Part::Segment { index: hex(index, 8..=8)? as u32, offset: hex(offset, 8..=16)? }
            }
            _ => return None,
        };
        Some(Self { generation: generation.to_owned(), part })
    }
}

/// The number that lower-case hexadecimal digits say, if there are as many as may be.
fn hex(digits: &str, count: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let sound =
        count.contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if sound { u64::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_litestream_writes_them() {
        let name = |part| Some(Name { generation: "0123456789abcdef".to_owned(), part });
        for (path, expected) in [
            ("snapshots/0000000a.snapshot.lz4", name(Part::Snapshot { index: 10 })),
            ("wal/00000001_00001038.wal.lz4", name(Part::Segment { index: 1, offset: 4152 })),
            ("wal/00000001_100001038.wal.lz4", name(Part::Segment { index: 1, offset: 0x1_0000_1038 })),
            ("snapshots/0000000A.snapshot.lz4", None),
            ("snapshots/a.snapshot.lz4", None),
            ("snapshots/0000000a.snapshot.lz4.tmp", None),
            ("wal/00000001.wal.lz4", None),
            ("other/0000000a.snapshot.lz4", None),
            ("snapshots/deeper/0000000a.snapshot.lz4", None),
        ] {
            assert_eq!(Name::parse(&format!("generations/0123456789abcdef/{path}")), expected, "{path}");
        }
        assert_eq!(Name::parse("generations/short/snapshots/0000000a.snapshot.lz4"), None);
        assert_eq!(Name::parse("0000/0000000000000001-0000000000000001.ltx"), None);
    }
}
