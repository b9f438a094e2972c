//! The pages that were changed between a cursor and a view.

use crate::error::Result;
use crate::primary::dirty::journal::end_of;
use crate::primary::dirty::record::End;
use crate::primary::dirty::walk::{Walk, walk};
use crate::primary::dirty::{Cursor, Journal, Position};
use crate::primary::file_fingerprint::Stamp;
use crate::primary::hooks::PinnedView;
use crate::primary::page_set::PageSet;
use crate::wal::{Checksum, FrameNo, IndexHeader};

/// What became of the look for changed pages.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::primary) enum Collected {
    /// The pages of the database that were changed after the cursor, and maybe more. When they are covered, the cursor
    /// is [`cursor_at`] the view.
    Pages(PageSet),
    /// The view uses no frame of the WAL, which was restarted meanwhile: another view is to be pinned.
    ViewChanged,
    /// What was changed is not known, for this reason: all pages are to be compared.
    Broken(&'static str),
    /// The same, and the WAL lost a commit that the cursor covers: the database may be older than what was published.
    Lost(&'static str),
}

/// Finds the pages that were changed after `from` up to `view`. `file` is the stamp of the database file, taken after
/// the view was pinned.
///
/// # Errors
/// `Io`, `Corrupt`.
pub(in crate::primary) fn collect(
    view: &mut dyn PinnedView,
    from: &Cursor,
    journal: &Journal,
    file: Option<Stamp>,
) -> Result<Collected> {
    let collected = match from {
        Cursor::At(cursor) if is_same_generation(view, cursor) => in_generation(view, cursor)?,
        Cursor::At(cursor) if cursor.is_before_generation(view.header().salts) => {
            view.pages_after(FrameNo::ZERO)?.map_or(Collected::ViewChanged, Collected::Pages)
        }
        _ => across_generations(view, from, journal, file)?,
    };
    Ok(match collected {
        Collected::Pages(mut pages) => {
            pages.retain_in(view.commit(), view.page_size());
            Collected::Pages(pages)
        }
        other => other,
    })
}

/// The cursor that says that all up to `view` is covered. `file` is the stamp of the database file, sealed while the
/// view was pinned.
///
/// A view of a WAL without a commit gives the end of the generation before, if it has a record: that generation comes
/// back if all processes end before the next commit. `None` if there was no commit and there is no stamp: no later look
/// could find what was changed.
///
/// # Errors
/// `Io`, `Denied`.
pub(in crate::primary) fn cursor_at(
    view: &IndexHeader,
    journal: &Journal,
    file: Option<Stamp>,
) -> Result<Option<Cursor>> {
    let position = Position::end_of(view);
    if view.mx_frame > FrameNo::ZERO {
        return Ok(Some(Cursor::At(position)));
    }
    if view.frame_checksum == Checksum::default() {
        return Ok(file.map(Cursor::File));
    }
    let records = journal.records()?;
    let mut ends = records.iter().filter_map(end_of).map(End::position);
    let end = ends.find(|end| end.frame > FrameNo::ZERO && end.is_same_commit(&position));
    Ok(Some(Cursor::At(end.unwrap_or(position))))
}

fn is_same_generation(view: &dyn PinnedView, cursor: &Position) -> bool {
    cursor.frame > FrameNo::ZERO && view.header().salts == cursor.salts
}

/// The pages of the frames after the cursor, whose own frame must be what it was: a recovery may have dropped commits
/// that were published, and the generation gone on with others.
fn in_generation(view: &mut dyn PinnedView, cursor: &Position) -> Result<Collected> {
    if view.header().mx_frame < cursor.frame {
        return Ok(Collected::Lost("the WAL lost commits that it had"));
    }
    let found = view.frame(cursor.frame)?;
    // SQLite did not seal it: nothing says that it is another one.
    let is_unsealed = found.is_some_and(|frame| frame.checksum == Checksum::default());
    let is_same = found.is_some_and(|frame| {
        frame.salts == cursor.salts
            && frame.checksum == cursor.checksum
            && frame.checksum != Checksum::default()
    });
    // The index is looked at after the frame: it tells whether the WAL was restarted before.
    Ok(match view.pages_after(cursor.frame)? {
        None => Collected::ViewChanged,
        Some(pages) if is_same => Collected::Pages(pages),
        Some(_) if is_unsealed => Collected::Broken("the last frame that was covered has no checksum"),
        Some(_) => Collected::Lost("the last frame that was covered is not in the WAL"),
    })
}

fn across_generations(
    view: &mut dyn PinnedView,
    from: &Cursor,
    journal: &Journal,
    file: Option<Stamp>,
) -> Result<Collected> {
    let header = view.header();
    let own = if header.mx_frame == FrameNo::ZERO {
        PageSet::default()
    } else {
        let Some(own) = view.pages_after(FrameNo::ZERO)? else { return Ok(Collected::ViewChanged) };
        own
    };
    Ok(match walk(&header, file, from, &journal.records()?) {
        Walk::Broken(why) => Collected::Broken(why),
        Walk::Arrived(mut pages) => {
            pages.extend(&own);
            Collected::Pages(pages)
        }
    })
}
