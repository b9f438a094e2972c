//! Arrows between the rooms of `src/` go one way, and `unsafe` stays in its room.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What every room may use.
const LEAVES: [&str; 12] = [
    "page", "error", "clock", "fork", "files", "runtime", "signals", "secret", "logging", "failures",
    "metrics", "events",
];

/// Each room, and the rooms that it may use beside itself and the leaves.
const ARROWS: [(&str, &[&str]); 27] = [
    ("events", &[]),
    ("page", &[]),
    ("metrics", &[]),
    ("error", &[]),
    ("clock", &[]),
    ("runtime", &[]),
    ("signals", &[]),
    ("secret", &[]),
    ("logging", &[]),
    ("failures", &[]),
    ("files", &[]),
    ("fork", &[]),
    ("ltx", &[]),
    ("wal", &[]),
    ("sqlite", &[]),
    ("store", &["ltx"]),
    ("primary", &["wal", "ltx", "store", "replica", "restore", "verify"]),
    ("replica", &["ltx", "store"]),
    ("restore", &["wal", "ltx", "store", "replica"]),
    ("verify", &["ltx", "store", "replica"]),
    ("follow", &["ltx", "sqlite", "store", "replica", "restore"]),
    ("monitor", &["ltx", "store", "primary", "replica", "follow", "mcp"]),
    ("mcp", &[]),
    ("config", &["ltx", "store", "primary", "replica", "monitor"]),
    ("vfs", &["ltx", "wal", "sqlite", "store", "primary", "replica", "restore", "config", "monitor"]),
    (
        "functions",
        &[
            "ltx", "wal", "sqlite", "store", "primary", "replica", "restore", "verify", "follow", "config",
            "monitor", "mcp",
        ],
    ),
    (
        "extension",
        &[
            "ltx",
            "wal",
            "sqlite",
            "store",
            "primary",
            "replica",
            "restore",
            "verify",
            "follow",
            "config",
            "monitor",
            "mcp",
            "vfs",
            "functions",
        ],
    ),
];

/// What every room of `primary` may use.
const PRIMARY_LEAVES: [&str; 6] =
    ["file_fingerprint", "page_set", "frame_cache", "time", "streaming_upload", "seals"];

/// Each room of `primary`, and those that it may use beside itself and the leaves.
const PRIMARY: [(&str, &[&str]); 16] = [
    ("page_set", &[]),
    ("file_fingerprint", &[]),
    ("frame_cache", &[]),
    ("time", &[]),
    ("streaming_upload", &[]),
    ("seals", &["streaming_upload"]),
    ("hooks", &[]),
    ("dirty", &["hooks"]),
    ("wal_sync", &["hooks"]),
    ("context", &["hooks", "dirty", "wal_sync"]),
    ("maintenance", &[]),
    ("options", &["maintenance"]),
    ("shipper", &["hooks", "dirty", "wal_sync", "context", "maintenance", "options"]),
    ("ownership", &["hooks", "dirty", "wal_sync", "context", "maintenance", "options", "shipper"]),
    ("mark", &["shipper", "ownership"]),
    (
        "database",
        &["hooks", "dirty", "wal_sync", "context", "maintenance", "options", "shipper", "ownership"],
    ),
];

/// The floors of `replica`: a module may use those of its own floor and of the floors before.
const REPLICA: [&[&str]; 9] = [
    &[
        "bandwidth",
        "beside",
        "btree",
        "direction",
        "disk",
        "keep",
        "pace",
        "plan",
        "record",
        "trouble",
        "verdict",
    ],
    &["blocks", "file_end", "map", "pack", "source"],
    &["cache", "snapshot", "span", "load", "history"],
    &["flight"],
    &["index_prefetch", "schema", "trees", "read_ahead"],
    &["by_name", "fetch", "files", "followed", "hydration", "options", "pasts", "poller", "status"],
    &["core", "tail"],
    // What a core does, in files of their own.
    &["ask_next", "follow", "hydrate", "past", "poll", "relocation"],
    &["open", "pages", "shared", "view", "wait"],
];

#[test]
fn arrows_inside_the_primary_go_one_way() {
    let may = |from: &str, to: &str| {
        let allowed = PRIMARY.iter().find(|(name, _)| *name == from).map(|(_, to)| *to);
        allowed.is_some_and(|allowed| {
            PRIMARY_LEAVES.contains(&to) && !PRIMARY_LEAVES.contains(&from) || allowed.contains(&to)
        })
    };
    let wrong = wrong_inner_arrows("primary", &PRIMARY.map(|(name, _)| name), may);
    assert!(wrong.is_empty(), "arrows the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn arrows_inside_the_replica_go_one_way() {
    let floor = |name: &str| REPLICA.iter().position(|names| names.contains(&name));
    let may = |from: &str, to: &str| floor(from).is_some_and(|from| floor(to).is_some_and(|to| to <= from));
    let wrong = wrong_inner_arrows("replica", &REPLICA.concat(), may);
    assert!(wrong.is_empty(), "arrows the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn a_wrong_arrow_inside_a_room_is_found() {
    let found = |path: &str, text: &str| inner_arrows("primary", Path::new(path), text);
    let to = |names: &[&str]| {
        names.iter().map(|name| ("hooks".to_owned(), (*name).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(found("primary/hooks/host.rs", "use crate::primary::shipper::Shipper;"), to(&["shipper"]));
    assert_eq!(
        found("primary/hooks/host.rs", "use crate::primary::{dirty::X, Phase};"),
        to(&["dirty", "Phase"])
    );
    assert_eq!(found("primary/hooks/host.rs", "use super::super::shipper::Shipper;"), to(&["shipper"]));
    assert_eq!(found("primary/hooks/mod.rs", "fn f() { super::shipper::f(); }"), to(&["shipper"]));
    assert_eq!(found("primary/hooks/host.rs", "use super::commits::Commits;\nuse crate::store::Store;"), []);
    assert_eq!(found("primary/hooks/host.rs", "pub(in crate::primary) struct X;"), []);
    assert_eq!(
        found("primary/hooks/host.rs", "#[cfg(test)]\nmod tests {\nuse crate::primary::shipper::X;\n}"),
        []
    );
}

#[test]
fn arrows_go_one_way() {
    let wrong: Vec<String> = sources().iter().flat_map(|(path, text)| wrong_arrows(path, text)).collect();
    assert!(wrong.is_empty(), "arrows the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_its_room() {
    let wrong: Vec<String> = sources().iter().flat_map(|(path, text)| stray_unsafe(path, text)).collect();
    assert!(wrong.is_empty(), "unsafe outside src/sqlite:\n{}", wrong.join("\n"));
}

/// What only the room of stores may name.
const PROVIDERS: [&str; 8] = ["s3", "gcs", "gs", "azure", "sftp", "webdav", "nats", "oss"];

/// The rooms that work on any replica.
const ANY_REPLICA: [&str; 4] = ["primary", "replica", "restore", "verify"];

#[test]
fn no_provider_is_named_by_those_who_work_on_any() {
    let wrong: Vec<String> = sources().iter().flat_map(|(path, text)| named_providers(path, text)).collect();
    assert!(wrong.is_empty(), "providers that are named:\n{}", wrong.join("\n"));
}

#[test]
fn a_named_provider_is_found() {
    let found = |path: &str, text: &str| named_providers(Path::new(path), text).len();
    assert_eq!(found("primary/send.rs", "use crate::store::provider::s3::S3Bucket;"), 2);
    assert_eq!(found("restore/mod.rs", "fn f(location: &SftpLocation) {}"), 1);
    assert_eq!(found("verify/mod.rs", "// S3 lists so\nfn f() { absent(possible); s3.x() }"), 1);
    assert_eq!(found("store/mod.rs", "use provider::s3;"), 0);
    assert_eq!(found("replica/mod.rs", "fn oss_like(lossy: bool) {}"), 1);
}

/// The providers that the code of a file names: words of an identifier, in snake_case or CamelCase. Tests may, where
/// they give URLs; comments may, where they say why.
fn named_providers(path: &Path, text: &str) -> Vec<String> {
    let room = room_of(path).unwrap_or_default();
    if !ANY_REPLICA.contains(&room.as_str()) {
        return Vec::new();
    }
    let code = code_of(text);
    let mut words: Vec<String> = vec![String::new()];
    let mut before = ' ';
    for c in code.chars() {
        let begins = !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && !before.is_ascii_uppercase());
        if begins {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric() {
            words.last_mut().expect("there is one").push(c.to_ascii_lowercase());
        }
        before = c;
    }
    let named = words.into_iter().filter(|word| PROVIDERS.contains(&word.as_str()));
    named.map(|word| format!("{}: {word}", path.display())).collect()
}

#[test]
fn the_map_knows_every_room() {
    let rooms: BTreeSet<String> = sources().iter().filter_map(|(path, _)| room_of(path)).collect();
    let known: BTreeSet<String> = ARROWS.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(rooms, known);
}

#[test]
fn a_wrong_arrow_is_found() {
    let found = |path: &str, text: &str| wrong_arrows(Path::new(path), text).len();
    assert_eq!(found("ltx/name.rs", "use crate::store::Store;"), 1);
    assert_eq!(found("ltx/name.rs", "use crate::{error::Error, store::{Store, Target}, page};"), 1);
    assert_eq!(found("ltx/name.rs", "fn f() { crate::vfs::new(); }"), 1);
    assert_eq!(found("ltx/name.rs", "use crate::nowhere::X;"), 1);
    assert_eq!(found("ltx/name.rs", "use super::super::store::Store;"), 1);
    assert_eq!(found("ltx/mod.rs", "use super::store::Store;"), 1);
    assert_eq!(found("page.rs", "#[cfg(test)]\nmod tests {\nuse super::super::store::Store;\n}"), 1);
    assert_eq!(found("vfs/mod.rs", "use crate::functions::register;"), 1);
    assert_eq!(found("sqlite/load.rs", "use crate::{vfs, functions};"), 2);
}

#[test]
fn a_right_arrow_is_none() {
    let found = |path: &str, text: &str| wrong_arrows(Path::new(path), text);
    let none: Vec<String> = Vec::new();
    assert_eq!(found("store/s3.rs", "use crate::{ltx::{FileId, Level}, error::Result};"), none);
    assert_eq!(found("ltx/name.rs", "// crate::store is for others\nuse super::page;\n"), none);
    assert_eq!(found("ltx/name.rs", r#"const X: &str = "crate::store";"#), none);
    assert_eq!(found("page.rs", "#[cfg(test)]\nmod tests {\nuse super::*;\n}"), none);
    assert_eq!(
        found("extension.rs", "use crate::sqlite::{self, Wiring};\nuse crate::{functions, vfs};"),
        none
    );
}

#[test]
fn stray_unsafe_is_found() {
    let found = |path: &str, text: &str| stray_unsafe(Path::new(path), text).len();
    assert_eq!(found("vfs/mod.rs", "fn f() { unsafe { g() } }"), 1);
    assert_eq!(found("vfs/mod.rs", "#[unsafe(no_mangle)]"), 1);
    assert_eq!(found("extension.rs", "#[unsafe(no_mangle)]\nfn f() {}"), 0);
    assert_eq!(found("extension.rs", "fn f() { unsafe { g() } }"), 1);
    assert_eq!(found("sqlite/base.rs", "fn f() { unsafe { g() } }"), 0);
    assert_eq!(
        found("vfs/mod.rs", "// unsafe\nconst X: &str = \"unsafe\"; const UNSAFE_HEADER: u8 = b'\\'';"),
        0
    );
}

/// Every source file below `src/`: its path from there, and its text.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path.strip_prefix(root).expect("below the root").to_owned(), text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 10, "the sources are not where they should be");
    found
}

/// The room of a file; none for `lib.rs`, which is the map.
fn room_of(path: &Path) -> Option<String> {
    let first = path.iter().next()?.to_str()?.trim_end_matches(".rs");
    (first != "lib").then(|| first.to_owned())
}

/// How many modules deep a file is: `page.rs` and `ltx/mod.rs` are 1, `ltx/name.rs` is 2.
fn depth_of(path: &Path) -> usize {
    path.iter().count() - usize::from(path.ends_with("mod.rs"))
}

fn wrong_arrows(path: &Path, text: &str) -> Vec<String> {
    let Some(room) = room_of(path) else { return Vec::new() };
    let allowed = ARROWS.iter().find(|(name, _)| *name == room).map(|(_, to)| *to);
    let may =
        |to: &str| to == room || allowed.is_some_and(|allowed| LEAVES.contains(&to) || allowed.contains(&to));
    let code = code_of(text);
    let targets = uses_of_crate(&code).into_iter().chain(escapes(&code, depth_of(path)));
    targets.filter(|to| !may(to)).map(|to| format!("{}: {room} -> {to}", path.display())).collect()
}

/// The arrows in the room `room` that are not as `may` has them between its parts, of which there are these. Tests and
/// the simulation go where they like.
fn wrong_inner_arrows(room: &str, parts: &[&str], may: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (path, text) in sources() {
        if room_of(&path).as_deref() != Some(room)
            || path.iter().any(|part| ["tests", "tests.rs", "simulation"].iter().any(|of| part == *of))
        {
            continue;
        }
        seen.extend(part_of(&path));
        let arrows = inner_arrows(room, &path, &text).into_iter().filter(|(from, to)| !may(from, to));
        wrong.extend(arrows.map(|(from, to)| format!("{}: {from} -> {to}", path.display())));
    }
    let known: BTreeSet<String> = parts.iter().map(|part| (*part).to_owned()).collect();
    assert_eq!(seen, known, "the map knows every part of {room}");
    wrong
}

/// The part of its room that a file is in; none for the `mod.rs` of the room.
fn part_of(path: &Path) -> Option<String> {
    let part = path.iter().nth(1)?.to_str()?.trim_end_matches(".rs");
    (part != "mod").then(|| part.to_owned())
}

/// The parts of the room `room` that a file of it uses beside its own, functions of the room itself aside.
fn inner_arrows(room: &str, path: &Path, text: &str) -> Vec<(String, String)> {
    let Some(from) = part_of(path) else { return Vec::new() };
    let code = code_of(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
    let absolute = format!("crate::{room}::");
    let named = code.match_indices(&absolute).flat_map(|(at, found)| first_names(&code[at + found.len()..]));
    let relative = escapes(&code, depth_of(path) - 1);
    let is_part = |to: &String| !to.starts_with(|c: char| c.is_lowercase()) || is_module(room, to);
    named.chain(relative).filter(|to| *to != from && is_part(to)).map(|to| (from.clone(), to)).collect()
}

/// Whether the room has a module of this name.
fn is_module(room: &str, name: &str) -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
    folder.join(format!("{name}.rs")).exists() || folder.join(name).is_dir()
}

fn stray_unsafe(path: &Path, text: &str) -> Vec<String> {
    match room_of(path).as_deref() {
        Some("sqlite") => return Vec::new(),
        Some("extension") => {
            return stray_unsafe(Path::new("entry points"), &text.replace("#[unsafe(no_mangle)]", ""));
        }
        _ => {}
    }
    let code = code_of(text);
    let word = |line: &str| line.split(|c: char| !is_word(c)).any(|word| word == "unsafe");
    code.lines()
        .filter(|line| word(line))
        .map(|line| format!("{}: {}", path.display(), line.trim()))
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The rooms that follow `crate::`, each time.
fn uses_of_crate(code: &str) -> Vec<String> {
    code.match_indices("crate::")
        .filter(|(at, _)| !code[..*at].ends_with(is_word))
        .flat_map(|(at, found)| first_names(&code[at + found.len()..]))
        .collect()
}

/// The rooms that are reached with more `super::` than the module is deep.
fn escapes(code: &str, depth: usize) -> Vec<String> {
    let inline = code.match_indices("mod ").find(|(at, _)| {
        let rest = &code[*at..];
        rest.find('{').is_some_and(|open| rest.find(';').is_none_or(|end| open < end))
    });
    let inline_from = inline.map_or(code.len(), |(at, _)| at);
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("super::").map(|at| at + from) {
        let rest = code[at..].trim_start_matches("super::");
        let count = (code.len() - at - rest.len()) / "super::".len();
        if count >= depth + usize::from(at > inline_from) {
            found.extend(first_names(rest));
        }
        from = code.len() - rest.len();
    }
    found
}

/// The first names of a path or of a group of paths: `a::b` gives `a`; `{a::b, c::{d, e}}` gives `a`, `c`.
fn first_names(path: &str) -> Vec<String> {
    let name = |s: &str| s.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut nested = 0;
    let mut names = vec![name(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => nested += 1,
            '}' if nested == 0 => break,
            '}' => nested -= 1,
            ',' if nested == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The text without comments and without what is between quotes.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest, &code),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(c);
        }
        rest = &rest[skipped.max(c.len_utf8())..];
    }
    code
}

/// The length of the string that begins here; `before` tells whether it is a raw one.
fn quoted(text: &str, before: &str) -> usize {
    let hashes = before.len() - before.trim_end_matches('#').len();
    if before.trim_end_matches('#').ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return text[1..].find(&end).map_or(text.len(), |at| at + 1 + end.len());
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the character literal that begins here; 0 if it is a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), Some(_)) => text[3..].find('\'').map_or(0, |at| at + 4),
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}
