//! What the read flow asks of a store: listings, headers, ranges - counted, and with errors that name
//! the file.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use super::bandwidth::Bandwidth;
use super::pace::Pace;
use super::plan::{Plan, RestorePoint, ends};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{FileId, Header, Keyring, Level, Txid};
use crate::store::{ByteRange, FileInfo, Listing, Replica};

/// A file that says that it is older than when it was stored by more than this may have its time from a clock
/// that was wrong.
const LATE_MS: i64 = 600_000;
/// As many headers are read at the same time.
const HEADERS: usize = 64;
/// The time of a file whose header cannot be read: earlier than any.
const UNREADABLE: Timestamp = Timestamp::from_millis(i64::MIN);

/// Bytes as they arrive.
pub(crate) type Body = BoxStream<'static, Result<Bytes>>;

/// What is in a replica, and what to do with it.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The files of all levels.
    pub(crate) files: Vec<FileInfo>,
    /// Those that make the database.
    pub(crate) plan: Plan,
}

/// What asking for a file by its name comes to.
#[derive(Debug)]
pub(crate) enum Named {
    /// There is no such file.
    Missing,
    /// It, and all its bytes.
    Whole(FileInfo, Bytes),
    /// It is larger than was asked for, or the answer lacks what a listing says of it.
    Unclear,
}

/// Whether a file that came by its name is the one that is `listed`: a listing may tell its time more finely.
fn is_listed(file: &FileInfo, listed: &FileInfo) -> bool {
    let apart = listed.timestamp.as_millis().abs_diff(file.timestamp.as_millis());
    apart < 1000 && (listed.id, listed.size) == (file.id, file.size)
}

/// A replica to read from.
#[derive(Debug)]
pub(crate) struct Source {
    store: Arc<Replica>,
    /// The files that came by their names. Listings show them as they were known first.
    unlisted: Mutex<BTreeMap<FileId, FileInfo>>,
    /// Files that listings do not show.
    left_out: Mutex<Vec<FileInfo>>,
    requests: AtomicU64,
    pace: Pace,
    bandwidth: Option<Bandwidth>,
}

impl Source {
    /// Reads from `store`.
    pub(crate) fn new(store: Arc<Replica>) -> Self {
        Self {
            store,
            unlisted: Mutex::default(),
            left_out: Mutex::default(),
            requests: AtomicU64::new(0),
            pace: Pace::default(),
            bandwidth: None,
        }
    }

    /// The same, no faster than `bandwidth` says.
    pub(crate) fn within(self, bandwidth: Option<Bandwidth>) -> Self {
        Self { bandwidth, ..self }
    }

    /// The replica.
    pub(crate) fn store(&self) -> &Replica {
        &self.store
    }

    /// The replica's URL.
    pub(crate) fn url(&self) -> String {
        self.store.url()
    }

    /// What opens its files, and which it may have that are not sealed.
    pub(crate) fn keyring(&self) -> &Keyring {
        self.store.keyring()
    }

    /// The number of requests that were made; those that a store repeats by itself count once.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The files of one level from `from` on.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn list(&self, level: Level, from: Txid) -> Result<Vec<FileInfo>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.store.list(level, from).await.map(|files| self.as_known(files))
    }

    /// Whether a file that may not be there is better asked for by its name than by a listing.
    pub(crate) fn misses_cheaply(&self) -> bool {
        self.store.misses_cheaply()
    }

    /// The file with the name `id`, of which no listing told, if it has at most `most` bytes.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn get_by_name(&self, id: FileId, most: u64) -> Result<Named> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let content = match self.store.get(id, ByteRange::All).await {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Named::Missing),
            answer => answer?,
        };
        let (size, timestamp) = (content.file_size, content.timestamp);
        let Some(timestamp) = timestamp.filter(|_| size <= most) else { return Ok(Named::Unclear) };
        let file = FileInfo { id, size, timestamp };
        let bytes = content.bytes().await?;
        if let Some(bandwidth) = &self.bandwidth {
            bandwidth.spend(bytes.len()).await;
        }
        match bytes.len() {
            len if len as u64 == size => Ok(Named::Whole(file, bytes)),
            len => Err(wrong_length(&file, len, size as usize)),
        }
    }

    /// The bytes of `range` of the pack of a file, whatever they are.
    ///
    /// # Errors
    /// Those of the store; `NotFound`; `WrongAnswer` if other bytes come.
    pub(crate) fn pack(&self, id: FileId, range: ByteRange) -> impl Future<Output = Result<Bytes>> + use<> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let store = Arc::clone(&self.store);
        async move {
            let mut content = store.get_pack(id, range).await?;
            let wrong =
                || Error::wrong_answer(format!("other bytes of the pack of {id} came than {range:?}"));
            let (start, end) = range.within(content.file_size).ok_or_else(wrong)?;
            let mut bytes = BytesMut::new();
            while let Some(chunk) = content.body.next().await.transpose()? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > end - start {
                    break;
                }
            }
            let is_asked = content.offset == start && bytes.len() as u64 == end - start;
            if is_asked { Ok(bytes.freeze()) } else { Err(wrong()) }
        }
    }

    /// From now on listings show a file that came by its name as `file`.
    pub(crate) fn remember(&self, file: &FileInfo) {
        self.unlisted().insert(file.id, file.clone());
    }

    /// Remembers of these files only those that are `used`.
    pub(crate) fn forget_unless(&self, used: &HashSet<FileId>) {
        self.unlisted().retain(|id, _| used.contains(id));
    }

    /// What a listing has, without the files that are left out, and with those that came by their names as they were known
    /// first.
    fn as_known(&self, mut files: Vec<FileInfo>) -> Vec<FileInfo> {
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| !left_out.iter().any(|out| (out.id, out.size) == (file.id, file.size)));
        let unlisted = self.unlisted();
        for file in files.iter_mut().filter(|_| !unlisted.is_empty()) {
            if let Some(known) = unlisted.get(&file.id).filter(|known| is_listed(known, file)) {
                *file = known.clone();
            }
        }
        files
    }

    fn unlisted(&self) -> MutexGuard<'_, BTreeMap<FileId, FileInfo>> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on listings do not show `file`, unless one of another size has taken its place.
    pub(crate) fn leave_out(&self, file: &FileInfo) {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).push(file.clone());
    }

    /// The files that listings do not show.
    pub(crate) fn left_out(&self) -> Vec<FileId> {
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.iter().map(|file| file.id).collect()
    }

    /// The files of all levels, in as few round trips as the store allows.
    ///
    /// A file that compaction is just moving up may be seen on neither level.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn list_all(&self) -> Result<Vec<FileInfo>> {
        let (files, rest) = self.list_at_once().await?;
        let rest = try_join_all(rest.map(|(level, from)| self.list(level, from))).await?;
        Ok([files, rest.concat()].concat())
    }

    /// The files of all levels, as they are one after the other from below: what is moved up meanwhile is
    /// seen.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn list_all_upwards(&self) -> Result<Vec<FileInfo>> {
        let (mut files, rest) = self.list_at_once().await?;
        for (level, from) in rest {
            files.extend(self.list(level, from).await?);
        }
        Ok(files)
    }

    /// The files that one answer has, and from where on each level is still to be listed.
    async fn list_at_once(&self) -> Result<(Vec<FileInfo>, impl Iterator<Item = (Level, Txid)>)> {
        let Listing { files, rest } = self.store.list_at_once().await?;
        if rest != Some((Level::L0, Txid::ONE)) {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        let levels = Level::all().filter_map(move |level| {
            let (first, from) = rest?;
            (level >= first).then_some((level, if level == first { from } else { Txid::ONE }))
        });
        Ok((self.as_known(files), levels))
    }

    /// How much came from the store so far, as [`Store::heard`] counts it.
    pub(crate) fn heard(&self) -> Option<u64> {
        self.store.heard()
    }

    /// Why the last attempt to read failed, if none has succeeded since.
    pub(crate) fn last_failure(&self) -> Option<Error> {
        self.store.last_failure()
    }

    /// How the store answers.
    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Bytes of a file, as they arrive, and how many there are.
    ///
    /// # Errors
    /// Those of the store; `NotFound` also if the file is no longer the one that was listed.
    pub(crate) async fn stream(&self, file: &FileInfo, range: ByteRange) -> Result<(Body, usize)> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let content = match self.store.get_listed(file, range).await {
            Err(e) if e.kind() == ErrorKind::WrongAnswer => return Err(self.replaced_or(file, e).await),
            answer => answer?,
        };
        match range.within(file.size) {
            Some((start, end)) if start == content.offset => {
                let body = match &self.bandwidth {
                    Some(bandwidth) => bandwidth.limited(content.body),
                    None => content.body,
                };
                Ok((body, (end - start) as usize))
            }
            _ => Err(Error::wrong_answer(format!(
                "the store answered another part of {} than {range:?}",
                file.id
            ))),
        }
    }

    /// Why an answer does not fit a file: the file is another one by now, or else `wrong` stands.
    async fn replaced_or(&self, file: &FileInfo, wrong: Error) -> Error {
        match self.list(file.id.level, file.id.name.min()).await {
            Ok(files) if !files.contains(file) => Error::new(
                ErrorKind::NotFound,
                format!("{} had {} bytes when it was listed: it was replaced", file.id, file.size),
            ),
            _ => wrong,
        }
    }

    /// Bytes of a file.
    ///
    /// # Errors
    /// As [`Source::stream`].
    pub(crate) async fn read(&self, file: &FileInfo, range: ByteRange) -> Result<Bytes> {
        // In memory of just that size: a buffer that grows would take twice as much.
        let mut all =
            BytesMut::with_capacity(range.within(file.size).map_or(0, |(start, end)| end - start) as usize);
        let take = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            bytes.len()
        };
        self.read_in_parts(file, range, take).await?;
        Ok(all.freeze())
    }

    /// Bytes of a file: whenever more have come, `take` is shown those that it has not taken yet, and says how
    /// many of them it takes now. They are not kept any longer.
    ///
    /// # Errors
    /// As [`Source::stream`].
    pub(crate) async fn read_in_parts(
        &self,
        file: &FileInfo,
        range: ByteRange,
        take: impl FnMut(&[u8]) -> usize,
    ) -> Result<()> {
        let asked = Instant::now();
        let (body, len) = self.stream(file, range).await?;
        let begun = Instant::now();
        hand_over(file, body, len, take).await?;
        self.pace.note(begun - asked, begun.elapsed(), len);
        Ok(())
    }

    /// Bytes of a file, in the parts that they came in: they are not copied once more.
    ///
    /// # Errors
    /// As [`Source::stream`].
    pub(crate) async fn parts(&self, file: &FileInfo, range: ByteRange) -> Result<Vec<Bytes>> {
        let asked = Instant::now();
        let (mut body, len) = self.stream(file, range).await?;
        let begun = Instant::now();
        let (mut parts, mut come) = (Vec::new(), 0);
        while let Some(part) = body.next().await.transpose()? {
            come += part.len();
            if come > len {
                break;
            }
            parts.push(part);
        }
        if come != len {
            return Err(wrong_length(file, come, len));
        }
        self.pace.note(begun - asked, begun.elapsed(), len);
        Ok(parts)
    }

    /// The header of a file, checked against its name.
    ///
    /// # Errors
    /// Those of the store; `Corrupt`.
    pub(crate) async fn header(&self, file: &FileInfo) -> Result<Header> {
        if file.size < Header::SIZE as u64 {
            return Err(truncated(file));
        }
        let bytes = self.read(file, ByteRange::Bounded { offset: 0, len: Header::SIZE as u64 }).await?;
        header_of(file, &bytes)
    }

    /// What is in the replica, and the plan for `point`; `None` if the replica is empty.
    ///
    /// # Errors
    /// Those of the store and of [`Plan::new`].
    pub(crate) async fn survey(&self, point: RestorePoint) -> Result<Option<Survey>> {
        let files = self.timed(self.list_all().await?, point).await?;
        if files.is_empty() {
            return Ok(None);
        }
        match Plan::new(&files, point) {
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                let files = self.timed(self.list_all_upwards().await?, point).await?;
                self.surveyed(files, point).await.map(Some)
            }
            Ok(plan) => Ok(Some(Survey { files, plan })),
            Err(_) => self.surveyed(files, point).await.map(Some),
        }
    }

    /// `files` with the plan for `point`. The error about one that is out of reach tells the times of commits, as far as headers
    /// can be read.
    async fn surveyed(&self, mut files: Vec<FileInfo>, point: RestorePoint) -> Result<Survey> {
        let plan = match Plan::new(&files, point) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                for end in ends(&files).into_iter().flatten() {
                    let Ok(header) = self.header(&end).await else { continue };
                    let same = files.iter_mut().filter(|file| file.id == end.id);
                    same.for_each(|file| file.timestamp = header.timestamp);
                }
                Plan::new(&files, point)?
            }
            planned => planned?,
        };
        Ok(Survey { files, plan })
    }

    /// The plan that continues a database which holds everything up to `after`.
    ///
    /// # Errors
    /// Those of the store and of [`Plan::after`].
    pub(crate) async fn plan_after(&self, point: RestorePoint, after: Txid) -> Result<Option<Plan>> {
        let files = self.timed(self.list_all_upwards().await?, point).await?;
        Plan::after(&files, point, after)
    }

    /// The files with the times of their commits as far as `point` needs them: listings tell only
    /// when a file was stored.
    ///
    /// Within a level times rise with transactions, so that reading the headers of a few files tells
    /// which are not later than the point. Where they seem not to, all headers are read: a clock was wrong. Those of sealed
    /// files are not proven here: what is applied or shown then is.
    async fn timed(&self, files: Vec<FileInfo>, point: RestorePoint) -> Result<Vec<FileInfo>> {
        let RestorePoint::Timestamp(time) = point else { return Ok(files) };
        let mut levels: BTreeMap<Level, Vec<FileInfo>> = BTreeMap::new();
        for file in files {
            levels.entry(file.id.level).or_default().push(file);
        }
        let levels = levels.into_values().map(|files| self.timed_level(files, time));
        let mut files = try_join_all(levels).await?.concat();
        // A file that cannot be read is later than the point if another one is that ends no later. Else it counts as not later:
        // a plan that needs it names it.
        let late = files.iter().filter(|file| file.timestamp > time);
        let first_late = late.map(|file| (file.id.name.max(), file.timestamp)).min();
        for file in files.iter_mut().filter(|file| file.timestamp == UNREADABLE) {
            let late = first_late.filter(|(first, _)| *first <= file.id.name.max());
            file.timestamp = late.map_or(time, |(_, late)| late);
        }
        Ok(files)
    }

    async fn timed_level(&self, mut files: Vec<FileInfo>, time: Timestamp) -> Result<Vec<FileInfo>> {
        files.sort_unstable_by_key(|f| (f.id.name.max(), f.id.name.min()));
        let (mut low, mut high) = (0, files.len());
        // The latest and the earliest time that was read on either side of the point.
        let (mut before, mut after) = (None, None);
        while low < high {
            let middle = low + (high - low) / 2;
            let exact = match self.header(&files[middle]).await {
                Err(e) if e.kind() == ErrorKind::Corrupt => return self.timed_one_by_one(files).await,
                header => header?.timestamp,
            };
            let is_early = files[middle].timestamp.as_millis() - exact.as_millis() > LATE_MS;
            if is_early || before.is_some_and(|before| exact < before) || after.is_some_and(|a| exact > a) {
                return self.timed_one_by_one(files).await;
            }
            *if exact <= time { &mut before } else { &mut after } = Some(exact);
            files[middle].timestamp = exact;
            if exact <= time {
                files[..middle].iter_mut().for_each(|f| f.timestamp = f.timestamp.min(exact));
                low = middle + 1;
            } else {
                files[middle..].iter_mut().for_each(|f| f.timestamp = f.timestamp.max(exact));
                high = middle;
            }
        }
        Ok(files)
    }

    /// The files with the times that their headers tell; `UNREADABLE` where one is damaged.
    async fn timed_one_by_one(&self, files: Vec<FileInfo>) -> Result<Vec<FileInfo>> {
        let one = |file: FileInfo| async move {
            let timestamp = match self.header(&file).await {
                Err(e) if e.kind() == ErrorKind::Corrupt => UNREADABLE,
                header => header?.timestamp,
            };
            Ok(FileInfo { timestamp, ..file })
        };
        stream::iter(files).map(one).buffered(HEADERS).try_collect().await
    }
}

/// Hands the `len` bytes of `body` to `take`; what it does not take at once is shown again with what comes next.
async fn hand_over(
    file: &FileInfo,
    mut body: Body,
    len: usize,
    mut take: impl FnMut(&[u8]) -> usize,
) -> Result<()> {
    let (mut left, mut come) = (BytesMut::new(), 0);
    while let Some(chunk) = body.next().await.transpose()? {
        come += chunk.len();
        if come > len {
            break;
        }
        if left.is_empty() {
            let taken = take(&chunk);
            left.extend_from_slice(&chunk[taken..]);
        } else {
            left.extend_from_slice(&chunk);
            let taken = take(&left);
            left.advance(taken);
        }
    }
    if come == len { Ok(()) } else { Err(wrong_length(file, come, len)) }
}

/// The error about an answer of another length than was asked for.
pub(crate) fn wrong_length(file: &FileInfo, found: usize, expected: usize) -> Error {
    Error::wrong_answer(format!("the store answered {found} bytes of {} instead of {expected}", file.id))
}

/// Reads the header of a file from its first bytes and checks it against the name.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn header_of(file: &FileInfo, bytes: &[u8]) -> Result<Header> {
    let first: &[u8; Header::SIZE] = bytes.first_chunk().ok_or_else(|| truncated(file))?;
    let header = Header::decode(first).map_err(|e| e.context(file.id))?;
    check_name(file, &header)?;
    Ok(header)
}

/// Checks that a file holds what its name says.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn check_name(file: &FileInfo, header: &Header) -> Result<()> {
    if header.name() == file.id.name {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{} holds what belongs into {}: it was stored under a wrong name",
        file.id,
        header.name()
    )))
}

fn truncated(file: &FileInfo) -> Error {
    Error::corrupt(format!("{} has only {} bytes: it was cut off", file.id, file.size))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::replica::tests::fixtures::{History, id};
    use crate::runtime;

    /// A replica of sixty transactions, a second each, of which 20 to 40 were made by a clock that stood in 1970. The
    /// store lists them with the right times.
    fn with_wrong_times() -> (History, Source) {
        let mut history = History::new(512, 3);
        history.commit(3, &[]);
        for _ in 1..60 {
            history.commit(3, &[2]);
        }
        for n in 1..=60 {
            let mut bytes = history.encode(n, n).to_vec();
            if (20..=40).contains(&n) {
                // The time of the header; only that is read here.
                bytes[32..40].copy_from_slice(&n.to_be_bytes());
            }
            let options = crate::store::PutOptions { timestamp: history.time(n), if_absent: true };
            let store = history.store.clone();
            runtime::block_on(async move { store.put(id(0, n, n), bytes.into(), options).await }).unwrap();
        }
        let source = Source::new(history.store());
        (history, source)
    }

    #[test]
    fn headers_that_are_older_than_their_files_are_all_read() {
        let (history, source) = with_wrong_times();
        let source = Arc::new(source);
        for (n, expected) in [(1, 1), (10, 10), (18, 18), (19, 40), (30, 40), (40, 40), (41, 41), (60, 60)] {
            let (source, point) = (Arc::clone(&source), RestorePoint::Timestamp(history.time(n)));
            let survey = runtime::block_on(async move { source.survey(point).await }).unwrap().unwrap();
            assert_eq!(survey.plan.txid().get(), expected, "at the time of {n}");
        }
    }

    #[test]
    fn what_was_taken_is_not_shown_again() {
        let file = FileInfo { id: id(0, 1, 1), size: 10, timestamp: Timestamp::from_millis(0) };
        let parts = ["abc", "d", "efgh", "ij"];
        let body = |parts: &[&'static str]| -> Body {
            let parts: Vec<Result<Bytes>> =
                parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
            stream::iter(parts).boxed()
        };
        let (mut shown, all, longer) = (Vec::new(), body(&parts), body(&["abc", "defghijklm"]));
        let expected = ["abc", "cd", "cdefgh", "hij"];
        let (shown, error) = runtime::block_on(async move {
            // Takes two bytes of each pair, and leaves the rest.
            let take = |bytes: &[u8]| {
                shown.push(String::from_utf8_lossy(bytes).into_owned());
                match bytes.len() {
                    2 => 0,
                    n => n - 1,
                }
            };
            hand_over(&file, all, 10, take).await?;
            Ok((shown, hand_over(&file, longer, 10, <[u8]>::len).await.unwrap_err()))
        })
        .unwrap();
        assert_eq!(shown, expected);
        assert!(error.to_string().contains("13 bytes"), "{error}");
    }
}
