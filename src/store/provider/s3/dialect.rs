//! Words that differ between stores which have the requests of S3.

/// Whose words a store understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::store::provider) enum Dialect {
    /// Those of Amazon, which most others have taken.
    Amazon,
    /// Those of Alibaba Cloud's Object Storage Service.
    /// Source: <https://www.alibabacloud.com/help/en/oss/developer-reference/list-of-operations-by-function>.
    Aliyun,
}

impl Dialect {
    /// The scheme of replica URLs.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::Amazon => "s3",
            Self::Aliyun => "oss",
        }
    }

    /// The user metadata that holds a file's timestamp, RFC 3339.
    pub(super) fn timestamp(self) -> &'static str {
        match self {
            Self::Amazon => "x-amz-meta-litestream-timestamp",
            Self::Aliyun => "x-oss-meta-litestream-timestamp",
        }
    }

    /// The condition that an object is not there yet.
    pub(super) fn if_absent(self) -> (&'static str, &'static str) {
        match self {
            Self::Amazon => ("if-none-match", "*"),
            Self::Aliyun => ("x-oss-forbid-overwrite", "true"),
        }
    }

    /// What a request for a range needs so that it is answered as HTTP says, and not with the whole object.
    pub(super) fn strict_range(self) -> Option<(&'static str, String)> {
        match self {
            Self::Amazon => None,
            Self::Aliyun => Some(("x-oss-range-behavior", "standard".to_owned())),
        }
    }

    /// Whether a deletion of several objects that has nothing to say is answered with nothing.
    pub(super) fn deletes_without_a_word(self) -> bool {
        self == Self::Aliyun
    }
}
