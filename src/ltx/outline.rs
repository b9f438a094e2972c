//! What must be known of a file before pages are read from it.

use super::decoder::recipients_differ;
use super::seal::ENTRY;
use super::{FrameCodec, Header, Keyring, PageIndex, TailRead, Trailer};
use crate::error::{Error, Result};

/// Header, page index and codec of a file.
///
/// Of a sealed file all of it is proven: the index by its tag, the header by the last frame, which opened with it.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The header.
    pub header: Header,
    /// The page index.
    pub index: PageIndex,
    /// How frames become pages.
    pub codec: FrameCodec,
}

/// What head and tail of a file told.
#[derive(Debug)]
pub enum OutlineRead {
    /// All of it.
    Outline(Box<Outline>),
    /// The tail is too short: the last this many bytes of the file are needed.
    NeedMore(u64),
}

impl Outline {
    /// The outline of a plain file.
    ///
    /// # Errors
    /// `Denied` if it is not sealed where it must be.
    pub fn plain(header: Header, index: PageIndex, keyring: &Keyring) -> Result<Self> {
        Ok(Self { codec: keyring.plain_codec(&header)?, header, index })
    }

    /// How frames become pages in a file with this `header`, with which `head` begins, and whose last bytes are `tail`: those
    /// behind its page index at least. Nothing proves the header of a sealed file yet.
    ///
    /// # Errors
    /// As [`Outline::read`].
    pub fn codec(header: &Header, head: &[u8], tail: &[u8], keyring: &Keyring) -> Result<FrameCodec> {
        match head.first_chunk() {
            _ if !header.is_sealed() => keyring.plain_codec(header),
            Some(bytes) if tail.len() > Trailer::SIZE + header.shape().recipients() => {
                codec_of(header, bytes, head, tail, keyring)
            }
            _ => Err(Error::corrupt("LTX header: it is cut short")),
        }
    }

    /// Reads the outline of a file of `file_size` bytes: `head` are its first bytes, the header at least, and `tail` its
    /// last ones. Whether the file's checksum holds is not seen from here.
    ///
    /// # Errors
    /// `Corrupt`, `Unsupported`; `Denied` if nothing of `keyring` opens the file, or if it is not sealed where it must be.
    pub fn read(head: &[u8], tail: &[u8], file_size: u64, keyring: &Keyring) -> Result<OutlineRead> {
        let bytes = head.first_chunk::<{ Header::SIZE }>();
        let bytes = bytes.ok_or_else(|| Error::corrupt("LTX header: it is cut short"))?;
        let header = Header::decode(bytes)?;
        let index = match PageIndex::from_tail(tail, file_size, header.shape())? {
            TailRead::Index(index) => index,
            TailRead::NeedMore(len) => return Ok(OutlineRead::NeedMore(len)),
        };
        if !header.is_sealed() {
            return Ok(OutlineRead::Outline(Box::new(Self::plain(header, index, keyring)?)));
        }
        let last = index.iter().last().expect("BUG: a sealed file has pages");
        let needed = file_size - last.offset;
        let Some(start) = usize::try_from(needed).ok().and_then(|needed| tail.len().checked_sub(needed))
        else {
            return Ok(OutlineRead::NeedMore(needed));
        };
        let codec = codec_of(&header, bytes, head, tail, keyring)?;
        PageIndex::check_tail(tail, &codec)?;
        let frame = &tail[start..start + last.size as usize];
        let mut page = vec![0; header.page_size.bytes()];
        if codec.decode(frame, &mut page)? != last.pgno {
            return Err(Error::corrupt("LTX page index: another page is where it puts the last one"));
        }
        Ok(OutlineRead::Outline(Box::new(Self { header, index, codec })))
    }
}

/// The codec of a sealed file, by what its tail has for its recipients.
fn codec_of(
    header: &Header,
    bytes: &[u8; Header::SIZE],
    head: &[u8],
    tail: &[u8],
    keyring: &Keyring,
) -> Result<FrameCodec> {
    let end = tail.len() - Trailer::SIZE;
    let recipients = &tail[end - header.shape().recipients()..end];
    let first = head.get(Header::SIZE..Header::SIZE + recipients.len());
    if first.is_some_and(|first| first != recipients) {
        return Err(recipients_differ());
    }
    let mut opener = keyring.opener()?;
    let (entries, _) = recipients.as_chunks::<ENTRY>();
    entries.iter().for_each(|entry| opener.entry(entry));
    opener.finish(header, bytes)
}
