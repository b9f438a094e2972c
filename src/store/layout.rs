//! Where LTX files are below a replica's root, as Litestream 0.5 places them.

use crate::ltx::{FileId, FileName, Level, Txid};

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
