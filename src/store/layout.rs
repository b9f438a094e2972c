//! Where LTX files are below a replica's root, as Litestream 0.5 places them.

use crate::ltx::{FileId, FileName, Level, Txid};

/// The folder of packs below a replica's root, in each layout. Litestream never looks there.
pub(super) const PACKS: &str = "vfs";

/// How the folders of levels are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `{level:04x}/<name>`: S3 and OSS.
    Numbered,
    /// `ltx/{level}/<name>`, level in decimal: all other stores.
    Ltx,
}

impl Layout {
    /// The folder of `level` below the root, without slashes at either end.
    pub fn folder(self, level: Level) -> String {
        match self {
            Self::Numbered => format!("{:04x}", level.get()),
            Self::Ltx => format!("ltx/{level}"),
        }
    }

    /// What the paths of all files begin with, and hardly anything else.
    pub fn prefix_of_all(self) -> &'static str {
        match self {
            Self::Numbered => "000",
            Self::Ltx => "ltx/",
        }
    }

    /// The path of a file below the root.
    pub fn path(self, id: FileId) -> String {
        format!("{}/{}", self.folder(id.level), id.name)
    }

    /// A path below the root that sorts before all files of `level` whose first transaction is `from` or later, and
    /// after all that begin earlier.
    pub fn before(self, level: Level, from: Txid) -> String {
        format!("{}/{from}", self.folder(level))
    }

    /// The file that is at `path` below the root, if that is where a file would be.
    pub fn file(self, path: &str) -> Option<FileId> {
        let (folder, name) = path.rsplit_once('/')?;
        let level = match self {
            Self::Numbered => (folder.len() == 4).then(|| u8::from_str_radix(folder, 16).ok())?,
            Self::Ltx => folder.strip_prefix("ltx/")?.parse().ok(),
        };
        let level = Level::new(level?)?;
        let id = FileId::new(level, name.parse::<FileName>().ok()?);
        (self.folder(level) == folder).then_some(id)
    }
}

/// Whether there may be a pack of the file `id`: it is read for long, if it is large.
pub fn may_have_pack(id: FileId) -> bool {
    const FIRST: u8 = 2;
    id.name.is_snapshot() || id.level.get() >= FIRST
}

/// The path of the pack of a file below the root.
pub(super) fn path_of_pack(id: FileId) -> String {
    format!("{PACKS}/{}-{}-{}.pack", id.level, id.name.min(), id.name.max())
}

/// The file whose pack is at `path` below the root, if that is where a pack would be.
pub(super) fn file_of_pack(path: &str) -> Option<FileId> {
    let (level, name) =
        path.strip_prefix(PACKS)?.strip_prefix('/')?.strip_suffix(".pack")?.split_once('-')?;
    let (min, max) = name.split_once('-')?;
    let name = FileName::new(min.parse().ok()?, max.parse().ok()?)?;
    let id = FileId::new(Level::new(level.parse().ok()?)?, name);
    (path_of_pack(id) == path).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_where_no_level_is() {
        let name = FileName::new(Txid::ONE, Txid::new(42).unwrap()).unwrap();
        let id = FileId::new(Level::SNAPSHOT, name);
        let path = path_of_pack(id);
        assert_eq!(path, "vfs/9-0000000000000001-000000000000002a.pack");
        assert_eq!(file_of_pack(&path), Some(id));
        for layout in [Layout::Numbered, Layout::Ltx] {
            assert!(layout.file(&path).is_none() && !path.starts_with(layout.prefix_of_all()));
        }
        for other in ["vfs/9-1-2.pack", "vfs/x/9-0000000000000001-000000000000002a.pack", "vfs/notes", "vfs"]
        {
            assert_eq!(file_of_pack(other), None, "{other}");
        }
    }
}
