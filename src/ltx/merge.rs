//! Several files become one: of every page, the newest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io::{Read, Write};

use super::{Decoder, Encoder, Header, IndexEntry, Summary};
use crate::error::{Error, Result};
use crate::page::{PageCount, Pgno};

/// The pages of several files, ascending, of each the newest; pages beyond the end of the database
/// are left out.
///
/// Memory: one page and one small buffer per input.
pub struct Merger<R: Read> {
    inputs: Vec<Input<R>>,
    /// The page that each input holds; the lowest page first, of those the newest input first.
    heads: BinaryHeap<(Reverse<Pgno>, usize)>,
    commit: PageCount,
    /// The input whose page was given out last.
    given: Option<usize>,
}

struct Input<R: Read> {
    decoder: Decoder<R>,
    page: Vec<u8>,
}

impl<R: Read> Merger<R> {
    /// Merges `inputs`, oldest first. Each goes on where those before it end, and may begin before
    /// that.
    ///
    /// # Errors
    /// `Corrupt` if there is no input, there is a gap between two, they are out of order, or their
    /// page sizes differ; what reading says.
    pub fn new(inputs: Vec<Decoder<R>>) -> Result<Self> {
        let headers: Vec<&Header> = inputs.iter().map(Decoder::header).collect();
        headers.windows(2).try_for_each(|pair| check_contiguous(pair[0], pair[1]))?;
        let last = headers.last().ok_or_else(|| Error::corrupt("there are no LTX files to merge"))?;
        let (commit, page_size) = (last.commit, last.page_size);
        let inputs: Vec<_> =
            inputs.into_iter().map(|decoder| Input { decoder, page: vec![0; page_size.bytes()] }).collect();
        let mut merger = Self { heads: BinaryHeap::with_capacity(inputs.len()), inputs, commit, given: None };
        (0..merger.inputs.len()).try_for_each(|i| merger.advance(i))?;
        Ok(merger)
    }

    /// The next page and its content; `None` after the last one.
    ///
    /// # Errors
    /// What reading an input says.
    pub fn next_page(&mut self) -> Result<Option<(Pgno, &[u8])>> {
        if let Some(i) = self.given.take() {
            self.advance(i)?;
        }
        let Some((Reverse(pgno), newest)) = self.heads.pop() else {
            return Ok(None);
        };
        while let Some(&(Reverse(other), older)) = self.heads.peek() {
            if other != pgno {
                break;
            }
            self.heads.pop();
            self.advance(older)?;
        }
        if !self.commit.contains(pgno) {
            // All that is left is beyond the end too: `finish` reads and verifies it.
            self.heads.clear();
            return Ok(None);
        }
        self.given = Some(newest);
        Ok(Some((pgno, &self.inputs[newest].page)))
    }

    /// Verifies every input to its end.
    ///
    /// # Errors
    /// What finishing an input says.
    pub fn finish(self) -> Result<()> {
        self.inputs.into_iter().try_for_each(|input| finish_input(input.decoder))
    }

    /// Reads the next page of an input.
    fn advance(&mut self, i: usize) -> Result<()> {
        let Input { decoder, page } = &mut self.inputs[i];
        let next = decoder.next_page(page).map_err(|e| e.context(decoder.header().name()))?;
        self.heads.extend(next.map(|pgno| (Reverse(pgno), i)));
        Ok(())
    }
}

impl<R: Read> fmt::Debug for Merger<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merger")
            .field("inputs", &self.inputs.len())
            .field("commit", &self.commit)
            .finish_non_exhaustive()
    }
}

/// Writes the merge of `inputs`, contiguous and oldest first, as one file by `encoder`, which has written the header.
///
/// Of every page the newest wins; pages beyond the size in the header are left out; every input is verified
/// to its end. `watch` sees each page that is written: its content, where it is in the file, and its frame.
///
/// # Errors
/// `Corrupt` if the inputs do not fit together, the header does not say what they make, or one of them
/// is broken; what reading and writing say. What was written then is no LTX file.
pub fn merge<R: Read, W: Write>(
    inputs: Vec<Decoder<R>>,
    mut encoder: Encoder<W>,
    mut watch: impl FnMut(&[u8], IndexEntry, &[u8]),
) -> Result<(W, Summary)> {
    if let [first, .., last] | [first @ last] = inputs.iter().map(Decoder::header).collect::<Vec<_>>()[..] {
        check_result(first, last, encoder.header())?;
    }
    let mut merger = Merger::new(inputs)?;
    while let Some((pgno, page)) = merger.next_page()? {
        encoder.page(pgno, page)?;
        if let Some((entry, frame)) = encoder.last_frame() {
            watch(page, entry, frame);
        }
    }
    merger.finish()?;
    encoder.finish()
}

fn finish_input<R: Read>(decoder: Decoder<R>) -> Result<()> {
    let name = decoder.header().name();
    decoder.finish().map(drop).map_err(|e| e.context(name))
}

fn check_contiguous(older: &Header, newer: &Header) -> Result<()> {
    let (before, after) = (older.name(), newer.name());
    if older.page_size != newer.page_size {
        let (a, b) = (older.page_size, newer.page_size);
        return Err(Error::corrupt(format!("{before} has pages of {a} bytes and {after} of {b}")));
    }
    if newer.min > older.max.next() || newer.max <= older.max {
        return Err(Error::corrupt(format!("{after} does not go on where {before} ends")));
    }
    Ok(())
}

fn check_result(first: &Header, last: &Header, result: &Header) -> Result<()> {
    let made = (first.min, last.max, last.commit, last.page_size);
    if made != (result.min, result.max, result.commit, result.page_size) {
        let (name, min, max) = (result.name(), first.min, last.max);
        return Err(Error::corrupt(format!("{name} is not what the files from {min} to {max} make")));
    }
    Ok(())
}
