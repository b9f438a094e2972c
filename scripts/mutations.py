#!/usr/bin/env python3
"""Takes each protection out of the write flow, one at a time, in a copy of the tree, and runs seeds of the simulation
until one fails: `scripts/mutations.py`, or `scripts/mutations.py boot` for those whose names begin so.

Prints how many seeds each of them took. One that is not found within `--seeds` is an error.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from simulate import ROOT, build, search  # noqa: E402

DIRTY = "src/primary/dirty/"
SHIPPER = "src/primary/shipper/"
SEALS = "src/primary/seals.rs"


@dataclass
class Mutation:
    """A protection, and the change that takes it out: each text is replaced in its file."""

    name: str
    changes: list[tuple[str, str, str]]


MUTATIONS = [
    Mutation("an end record counts because it is there", [
        (DIRTY + "walk.rs", "end.has_frames() && end.position().is_same_commit(&commit)",
         "end.has_frames() && (end.position().is_same_commit(&commit) "
         "|| end.index.salts.0.wrapping_add(1) == start.before.salts.0)"),
        (DIRTY + "walk.rs", "_ => end.position().checksum != last.position().checksum "
         "|| end.index.change != last.index.change,", "_ => false,"),
    ]),
    Mutation("the cursor's frame is not looked at in the WAL", [
        (DIRTY + "collect.rs", "Some(pages) if is_same => Collected::Pages(pages)",
         "Some(pages) if is_same || found.is_some() => Collected::Pages(pages)"),
    ]),
    Mutation("an end record need not list the cursor's frame", [
        (DIRTY + "walk.rs", "&& end.seen.contains(&(cursor.frame, cursor.checksum))", ""),
    ]),
    Mutation("under mark 0 the header is not read again", [
        (DIRTY + "collect.rs", "None => Collected::ViewChanged,", "None => Collected::Pages(PageSet::default()),"),
    ]),
    Mutation("any close is a link", [
        (DIRTY + "walk.rs", "self.ends(|end| end.closed == Some(file))", "self.ends(|end| end.closed.is_some())"),
    ]),
    Mutation("the stamp of a close is not sealed", [
        ("src/primary/file_fingerprint.rs", ".is_some_and(|age| age >= YOUNG)", ".is_some_and(|age| age >= YOUNG) || true"),
    ]),
    Mutation("pages of a file that landed beyond the cursor are not sent again", [
        (SHIPPER + "begin.rs", "Some(pages) => capture.found_landed(last, &pages),", "Some(_) => Ok(()),"),
    ]),
    Mutation("seals: the pages of a file that landed are not written down", [
        (SHIPPER + "capture/deliver.rs", "self.state.landed(txid);\n        self.remember_all();", "let _ = txid;"),
    ]),
    Mutation("dirty pages are not remembered", [
        (SHIPPER + "state.rs", "self.dirty = (!dirty.is_empty()).then(|| BASE64.encode(dirty.encode()));",
         "self.dirty = None; let _ = dirty;"),
    ]),
    Mutation("boot id: state is believed after a power failure", [
        (SHIPPER + "state.rs", "self.boot.is_some() && self.boot == boot()", "self.boot.is_some()"),
    ]),
    Mutation("conditional PUT: a file is written whatever is there", [
        (SHIPPER + "send.rs", "if_absent: true };\n    let out", "if_absent: false };\n    let out"),
        (SHIPPER + "copy.rs", "if_absent: true", "if_absent: false"),
    ]),
    Mutation("a file is not announced before it is sent", [
        (SHIPPER + "send.rs", "shipper.with_capture(|capture| capture.sends(&out.header, out.cursor.0))?;", ""),
    ]),
    Mutation("a file of ours from before counts as the one that is sent", [
        (SHIPPER + "send.rs", "Landed::Earlier => {", "Landed::Earlier if true => delivered(shipper, &out, sums, 0).await,"
         "\n            Landed::Earlier => {"),
    ]),
    Mutation("what the WAL lost of a file from before is not sent again", [
        (SHIPPER + "capture/deliver.rs", "if !replaces && self.exclusive == Exclusive::No {", "if false {"),
        (SHIPPER + "capture/deliver.rs", "self.landed(published, pages);", "self.landed(published, &PageSet::default());"),
    ]),
    Mutation("what is under way is not kept before newer pages", [
        (SHIPPER + "capture/mod.rs", "Some(out) => out.keep(&mut self.spool),", "Some(_) => Ok(()),"),
    ]),
    Mutation("what exceeds spool_limit is given up without a note of its pages", [
        (SHIPPER + "capture/mod.rs", "self.dirty.extend(&segment.pages);", "let _ = segment;"),
    ]),
    Mutation("page checksums of another transaction are believed", [
        (SHIPPER + "sums.rs", "if header.txid != txid.get() || header.page_size", "if header.page_size"),
    ]),
    Mutation("a broken chain is no reason to compare", [
        (SHIPPER + "capture/view.rs", "Broken(why) => {\n                self.lost(why);", "Broken(_) => {"),
        (SHIPPER + "capture/view.rs", "self.is_behind = true;\n                self.lost(why);", "let _ = why;"),
    ]),
    Mutation("seals: a file has the content key of another", [
        ("src/ltx/seal/file_seal.rs", "let key = ContentKey::generate()?;",
         "static ONE: std::sync::OnceLock<ContentKey> = std::sync::OnceLock::new();\n"
         "        let fresh = ContentKey::generate()?;\n"
         "        let key = ONE.get_or_init(|| fresh).clone();"),
    ]),
    Mutation("seals: a key is kept after its file was merged", [
        (SEALS, "id.level < to.level && is_behind(id)", "id.level < Level::L0 && is_behind(id)"),
    ]),
    Mutation("seals: the key of a snapshot is kept", [
        (SHIPPER + "snapshot.rs", "seals.encoder(out, header, subject, Keep::Nothing)?",
         "seals.encoder(out, header, subject, Keep::Key)?"),
    ]),
    Mutation("seals: a merge that landed before a kill is another writer's", [
        ("src/primary/maintenance/compactor.rs", "into_iter().filter_map(covering).collect();",
         "into_iter().filter_map(covering).collect();\n        let merged: Vec<FileId> = merged.iter().chain(&merged).copied().collect();"),
    ]),
    Mutation("seals: waiting files are not sealed", [
        (SHIPPER + "spool.rs", "let header = self.seals.header(single(header, seq));", "let header = single(header, seq);"),
        (SHIPPER + "spool.rs", "let mut encoder = seals.encoder(create(&temporary)?, header, subject, Keep::Key)?.stored();",
         "let mut encoder = crate::ltx::Encoder::new(create(&temporary)?, header)?.stored();"),
    ]),
]


def stale() -> list[str]:
    """The mutations whose texts are not in the sources, or more than once."""
    return [f"{mutation.name}: {name} has {old!r} {count} times"
            for mutation in MUTATIONS for name, old, _ in mutation.changes
            if (count := (ROOT / name).read_text().count(old)) != 1]


def mutate(tree: Path, mutation: Mutation) -> None:
    """Copies the sources into `tree`, and changes them."""
    texts = {}
    for name in ("src", "Cargo.toml", "Cargo.lock", "build.rs", "benches", "sql", "docs", "clippy.toml",
                 "tests/golden/ltx4"):
        found = [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*"))
        texts |= {str(path.relative_to(ROOT)): path.read_bytes() for path in found if path.is_file()}
    for name, old, new in mutation.changes:
        texts[name] = texts[name].replace(old.encode(), new.encode())
    for name, text in texts.items():
        path = tree / name
        # What stays the same keeps its time, and need not be compiled again.
        if not path.exists() or path.read_bytes() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only those whose names begin so")
    parser.add_argument("--seeds", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--level", type=int, default=1, help="optimisation: a lower one builds sooner")
    arguments = parser.parse_args()
    if texts := stale():
        raise SystemExit("\n".join(texts))
    tree, target = ROOT / "target" / "mutated", ROOT / "target" / "mutations"
    missed = []
    for mutation in MUTATIONS:
        if arguments.names and not any(mutation.name.startswith(name) for name in arguments.names):
            continue
        mutate(tree, mutation)
        done, failed, said = search(build(tree, target, arguments.level), 0, arguments.seeds, None, arguments.workers)
        if failed is None:
            missed.append(mutation.name)
        reason = next((line for line in said.splitlines() if " panicked at " in line), "")
        after = said.split(reason, 1)[-1].strip().splitlines()[:1] if reason else []
        found = "NOT FOUND" if failed is None else f"seed {failed}"
        print(f"{mutation.name}: {found}, {done} seeds; {''.join(after)[:160]}", flush=True)
    if missed:
        raise SystemExit(f"not found: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
