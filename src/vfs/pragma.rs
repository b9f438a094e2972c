//! PRAGMAs of ours that a database does not know.

use crate::sqlite::PragmaAnswer;

/// What a PRAGMA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// It shows something of a primary, and of a replica.
    Both,
    Primary,
    Replica,
}

/// All of them.
const KNOWN: [(&str, Of); 7] = [
    ("litestream_txid", Of::Both),
    ("litestream_time", Of::Both),
    ("litestream_lag", Of::Both),
    ("litestream_commit", Of::Primary),
    ("litestream_poll", Of::Replica),
    ("litestream_hydration_progress", Of::Replica),
    ("litestream_hydration_file", Of::Replica),
];

/// Refuses a PRAGMA of our name that the database did not answer: SQLite would do nothing, and say nothing. Any
/// other name is SQLite's.
pub(super) fn unknown(name: &str) -> PragmaAnswer {
    let name = name.to_ascii_lowercase();
    if !name.starts_with("litestream") {
        return PragmaAnswer::NotMine;
    }
    let known = KNOWN.iter().find(|(known, _)| *known == name);
    if let Some((_, of)) = known {
        return PragmaAnswer::Error(match of {
            Of::Both => format!("{name} of a primary cannot be set; open its replica with mode=ro"),
            Of::Primary => format!("{name} is for a primary, and a replica commits nothing"),
            Of::Replica => format!("{name} is for a replica, which is opened with mode=ro"),
        });
    }
    let distance = |(known, _): &&(&str, Of)| strsim::osa_distance(known, &name);
    let nearest = KNOWN.iter().min_by_key(distance).filter(|known| distance(known) <= 4);
    PragmaAnswer::Error(match nearest {
        Some((nearest, _)) => format!("unknown PRAGMA {name}; did you mean {nearest}?"),
        None => format!("unknown PRAGMA {name}; known are {}", KNOWN.map(|(known, _)| known).join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> String {
        match unknown(name) {
            PragmaAnswer::Error(message) => message,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn the_nearest_name_is_told() {
        assert_eq!(
            refusal("litestream_settime"),
            "unknown PRAGMA litestream_settime; did you mean litestream_time?"
        );
        assert!(refusal("Litestream_Set_Time").contains("did you mean litestream_time?"));
        assert!(refusal("litestream_tixd").contains("did you mean litestream_txid?"));
        assert!(refusal("litestream_anything_else").contains("known are litestream_txid, "));
        assert!(refusal("litestream_poll").contains("mode=ro"));
        assert!(refusal("litestream_commit").contains("for a primary"));
        assert_eq!(unknown("page_size"), PragmaAnswer::NotMine);
    }
}
