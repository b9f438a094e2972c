//! The way back from a view to a cursor, along the records of generations.
//!
//! Each generation began upon the last commit of the one before: the index that SQLite emptied kept its checksum and
//! its change counter, and the record of the beginning names them.

use crate::primary::dirty::journal::{begin_of, end_of};
use crate::primary::dirty::record::{Begin, End, Record};
use crate::primary::dirty::{Cursor, Position};
use crate::primary::file_fingerprint::Stamp;
use crate::primary::page_set::PageSet;
use crate::wal::{Checksum, FrameNo, IndexHeader, Salts};

/// Where the way back led.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Walk {
    /// At the cursor: the pages, and maybe more, that were changed after it and before the generation of the view.
    Arrived(PageSet),
    /// Nowhere, for this reason: what was changed is not known.
    Broken(&'static str),
}

/// Goes back from the generation of `view` to `from`, which is not in that generation. `file` is the stamp of the
/// database file now; it counts only if the view has no frames. The records are read after the view was pinned.
pub(super) fn walk(view: &IndexHeader, file: Option<Stamp>, from: &Cursor, records: &[Record]) -> Walk {
    let way = Way { from, records };
    let mut pages = PageSet::default();
    let mut start = if view.mx_frame == FrameNo::ZERO {
        Ok(Start { before: *view, file })
    } else {
        way.start_of(view.salts)
    };
    // Records that are damaged or very old could lead round in a circle.
    for _ in 0..=records.len() {
        let step = start.and_then(|start| way.step(&start, &mut pages));
        match step {
            Ok(Step::Arrived) => return Walk::Arrived(pages),
            Ok(Step::To(earlier)) => start = Ok(earlier),
            Err(Broken(why)) => return Walk::Broken(why),
        }
    }
    Walk::Broken("the records of generations lead round in a circle")
}

/// Why the way ends.
struct Broken(&'static str);

/// What a generation began upon.
struct Start {
    /// The index just before, which has no frames.
    before: IndexHeader,
    /// The stamp of the database file then.
    file: Option<Stamp>,
}

impl Start {
    /// The last commit before.
    const fn commit(&self) -> Position {
        Position::end_of(&self.before)
    }

    /// Whether the index knew no commit: there was no WAL, or only the beginning of one.
    fn is_without_commit(&self) -> bool {
        self.before.frame_checksum == Checksum::default()
    }

    /// Whether that is only an index with these salts.
    fn names(&self, salts: Salts) -> bool {
        self.before.salts == salts && self.is_without_commit()
    }

    fn is_like(&self, other: &Self) -> bool {
        self.commit().is_same_commit(&other.commit())
            || (self.is_without_commit()
                && other.is_without_commit()
                && self.before.salts == other.before.salts
                && self.file == other.file)
    }
}

impl From<&Begin> for Start {
    fn from(begin: &Begin) -> Self {
        Self { before: begin.before, file: begin.file }
    }
}

enum Step {
    Arrived,
    To(Start),
}

struct Way<'a> {
    from: &'a Cursor,
    records: &'a [Record],
}

impl Way<'_> {
    /// Goes over the generation before `start`, and adds its pages.
    fn step(&self, start: &Start, pages: &mut PageSet) -> Result<Step, Broken> {
        if self.is_at_cursor(start) {
            return Ok(Step::Arrived);
        }
        if !start.is_without_commit() {
            let commit = start.commit();
            let ends = self.ends(|end| end.has_frames() && end.position().is_same_commit(&commit));
            return self.over(&ends, "a generation of the WAL ended without a record", pages);
        }
        if self.had_commits(start.before.salts) {
            return Err(Broken("the WAL lost commits that it had"));
        }
        if self.begins_of(start.before.salts).next().is_some() {
            return self.start_of(start.before.salts).map(Step::To);
        }
        // There was no WAL; a checkpoint that finds none gives the index salts all the same.
        let Some(file) = start.file else { return Err(Broken("no stamp of the database file is known")) };
        let ends = self.ends(|end| end.closed == Some(file));
        self.over(&ends, "the database file was changed while there was no WAL", pages)
    }

    fn is_at_cursor(&self, start: &Start) -> bool {
        match self.from {
            Cursor::At(cursor) => {
                cursor.is_same_commit(&start.commit()) && !self.goes_beyond(cursor, &start.commit())
            }
            Cursor::File(stamp) => start.is_without_commit() && start.file == Some(*stamp),
        }
    }

    /// Whether the generation of the cursor went on to a commit with the same checksum and counter: after a recovery,
    /// by frames that SQLite did not seal.
    fn goes_beyond(&self, cursor: &Position, commit: &Position) -> bool {
        cursor.frame > FrameNo::ZERO
            && self.records.iter().filter_map(end_of).any(|end| {
                end.index.salts == cursor.salts
                    && end.index.mx_frame > cursor.frame
                    && end.position().is_same_commit(commit)
            })
    }

    fn ends(&self, is_it: impl Fn(&End) -> bool) -> Vec<&End> {
        self.records.iter().filter_map(end_of).filter(|end| is_it(end)).collect()
    }

    /// Goes over a generation whose end the records `ends` are, all of them.
    fn over(&self, ends: &[&End], missing: &'static str, pages: &mut PageSet) -> Result<Step, Broken> {
        if ends.is_empty() {
            return Err(Broken(missing));
        }
        let told = self.telling(ends);
        let ends = if told.is_empty() { ends } else { &told[..] };
        let with_frames = ends.iter().rfind(|end| end.has_frames());
        let Some(last) = with_frames.or(ends.last()) else { return Err(Broken(missing)) };
        let is_other = |end: &&End| match (end.has_frames(), last.has_frames()) {
            (true, true) => end.index.salts != last.index.salts,
            // The WAL was emptied once more after the same commit.
            _ => end.position().checksum != last.position().checksum || end.index.change != last.index.change,
        };
        if ends.iter().any(is_other) {
            return Err(Broken("two generations of the WAL cannot be told apart"));
        }
        if ends.iter().any(|end| self.is_end_cursor(end)) {
            return Ok(Step::Arrived);
        }
        if let Some(end) = ends.iter().find(|end| self.lists_cursor(end)) {
            pages.extend(&end.recent);
            return Ok(Step::Arrived);
        }
        ends.iter().for_each(|end| pages.extend(&end.pages));
        if matches!(self.from, Cursor::At(cursor) if cursor.is_before_generation(last.index.salts)) {
            return Ok(Step::Arrived);
        }
        if last.has_frames() {
            self.start_of(last.index.salts).map(Step::To)
        } else {
            // A close that found the WAL emptied.
            Ok(Step::To(Start { before: last.index, file: None }))
        }
    }

    /// Those of `ends` that say most of what was before. One that knew no commit says of the file only that it was looked
    /// at, under salts that may lead nowhere: a checkpoint that finds no WAL gives the index those that its connection then
    /// begins with, upon the file.
    fn telling<'e>(&self, ends: &[&'e End]) -> Vec<&'e End> {
        let that =
            |is_it: &dyn Fn(&End) -> bool| ends.iter().copied().filter(|end| is_it(end)).collect::<Vec<_>>();
        let knowing = that(&End::knows_commit);
        if knowing.is_empty() {
            that(&|end| end.has_frames() || self.leads_on(end.index.salts))
        } else {
            knowing
        }
    }

    /// Whether a generation with these salts began upon something else than the file, and had no commits.
    fn leads_on(&self, salts: Salts) -> bool {
        let leads = self.begins_of(salts).any(|begin| !Start::from(begin).names(salts));
        leads && !self.had_commits(salts)
    }

    /// Whether the cursor is the very end, which a close left.
    fn is_end_cursor(&self, end: &End) -> bool {
        matches!(self.from, Cursor::At(cursor) if cursor.is_same_commit(&end.position())
            && !self.goes_beyond(cursor, &end.position()))
    }

    /// Whether the cursor is in the generation, and its frame was in the WAL when that ended.
    fn lists_cursor(&self, end: &End) -> bool {
        matches!(self.from, Cursor::At(cursor) if cursor.salts == end.index.salts
            && cursor.checksum != Checksum::default()
            && end.seen.contains(&(cursor.frame, cursor.checksum)))
    }

    /// Whether the generation with these salts had commits when it ended.
    fn had_commits(&self, salts: Salts) -> bool {
        self.records.iter().filter_map(end_of).any(|end| end.has_frames() && end.index.salts == salts)
    }

    /// The records of the beginning of the generation with these salts.
    fn begins_of(&self, salts: Salts) -> impl Iterator<Item = &Begin> {
        self.records.iter().filter_map(begin_of).filter(move |begin| begin.salts == salts)
    }

    /// What the generation with these salts began upon.
    fn start_of(&self, salts: Salts) -> Result<Start, Broken> {
        // One that names itself was written again before its first commit, after a recovery; or a checkpoint that found
        // no WAL gave the index the salts that its connection then began with, upon the file as it was.
        let upon_file = |mut start: Start| {
            start.before.salts = Salts::default();
            start
        };
        let (selves, others): (Vec<Start>, Vec<Start>) =
            self.begins_of(salts).map(Start::from).partition(|start| start.names(salts));
        let starts = if others.is_empty() { selves.into_iter().map(upon_file).collect() } else { others };
        let mut starts = starts.into_iter();
        let Some(start) = starts.next() else {
            return Err(Broken("a generation of the WAL began without a record"));
        };
        if starts.all(|other| start.is_like(&other)) {
            Ok(start)
        } else {
            Err(Broken("two generations of the WAL have the same salts"))
        }
    }
}

impl End {
    /// Whether the index remembered a commit.
    fn knows_commit(&self) -> bool {
        self.index.frame_checksum != Checksum::default()
    }

    /// Whether the generation had commits when this was written.
    fn has_frames(&self) -> bool {
        self.index.mx_frame > FrameNo::ZERO
    }
}
