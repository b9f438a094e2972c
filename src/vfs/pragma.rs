//! PRAGMAs of ours that a database does not know.

use crate::sqlite::PragmaAnswer;

/// All of them, with whether each is for a replica only.
const KNOWN: [(&str, bool); 6] = [
    ("litestream_txid", false),
    ("litestream_time", false),
    ("litestream_lag", false),
    ("litestream_poll", true),
    ("litestream_hydration_progress", true),
    ("litestream_hydration_file", true),
];

/// Refuses a PRAGMA of our name that the database did not answer: SQLite would do nothing, and say nothing. Any
/// other name is SQLite's.
pub(super) fn unknown(name: &str) -> PragmaAnswer {
    let name = name.to_ascii_lowercase();
    if !name.starts_with("litestream") {
        return PragmaAnswer::NotMine;
    }
    if KNOWN.iter().any(|(known, replicas)| *known == name && *replicas) {
        return PragmaAnswer::Error(format!("{name} is for a replica, which is opened with mode=ro"));
    }
    if KNOWN.iter().any(|(known, _)| *known == name) {
        return PragmaAnswer::Error(format!(
            "{name} of a primary cannot be set; open its replica with mode=ro"
        ));
    }
    let distance = |(known, _): &&(&str, bool)| strsim::osa_distance(known, &name);
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
        assert_eq!(unknown("page_size"), PragmaAnswer::NotMine);
    }
}
