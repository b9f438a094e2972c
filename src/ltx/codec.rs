//! How the frames of a file become pages.

use std::fmt;
use std::sync::Arc;

use super::bytes::u32_at;
use super::frame::{self, FRAME_HEADER_SIZE, HAS_SIZE, Wanted};
use super::seal::{Cipher, ContentKey, OVERHEAD, PackCipher, SealId, TAG, head_size};
use super::source::{Slice, Source};
use super::{Header, Shape, lz4};
use crate::error::{Error, Result};
use crate::page::{PageSize, Pgno};

/// How the frames of one file become pages: the page size, and for a sealed file what opens it.
#[derive(Clone, Debug)]
pub struct FrameCodec {
    page_size: PageSize,
    shape: Shape,
    cover: Cover,
}

/// What is around the LZ4 blocks.
#[derive(Clone)]
enum Cover {
    /// Nothing.
    Plain,
    /// A seal, which this opens.
    Opened(Arc<Cipher>),
    /// A seal that nothing opens: only that bytes are whole can be told.
    Closed,
}

impl FrameCodec {
    /// The codec of files that are not sealed.
    pub const fn plain(page_size: PageSize) -> Self {
        Self { page_size, shape: Shape::PLAIN, cover: Cover::Plain }
    }

    /// The codec of the sealed file with this `header`, which `cipher` opens.
    pub(super) fn opened(header: &Header, cipher: Cipher) -> Self {
        Self { page_size: header.page_size, shape: header.shape(), cover: Cover::Opened(Arc::new(cipher)) }
    }

    /// The codec of the sealed file with this `header`, stored as `bytes`, that has this content `key`.
    pub(super) fn by_content_key(header: &Header, bytes: &[u8; Header::SIZE], key: &ContentKey) -> Self {
        Self::opened(header, Cipher::new(key, bytes))
    }

    /// The size of what [`FrameCodec::kept`] needs of a file with this `header`.
    pub const fn head_size(header: &Header) -> usize {
        head_size(header)
    }

    /// The codec of the sealed file that begins with `head`, which was written here, by the content key that `find` gives;
    /// `None` if there is none.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported` if `head` is not the beginning of a sealed file.
    pub fn kept(head: &[u8], find: impl FnOnce(&SealId) -> Option<ContentKey>) -> Result<Option<Self>> {
        let cut = || Error::corrupt("LTX header: it is cut short");
        let bytes = head.first_chunk::<{ Header::SIZE }>().ok_or_else(cut)?;
        let header = Header::decode(bytes)?;
        let head = head.get(..head_size(&header)).ok_or_else(cut)?;
        Ok(find(&SealId::of_head(head)).map(|key| Self::by_content_key(&header, bytes, &key)))
    }

    /// The codec of the sealed file with this `header`, which decodes nothing.
    pub(super) const fn closed(header: &Header) -> Self {
        Self { page_size: header.page_size, shape: header.shape(), cover: Cover::Closed }
    }

    /// Whether the file is sealed.
    pub const fn is_sealed(&self) -> bool {
        self.shape.is_sealed()
    }

    /// Where the parts of the file are.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// What opens the pack of the file that has these random bytes; `None` if the file is not sealed, or nothing opens it.
    pub fn pack_cipher(&self, salt: [u8; PackCipher::SALT]) -> Option<PackCipher> {
        match &self.cover {
            Cover::Opened(cipher) => Some(cipher.pack(salt)),
            Cover::Plain | Cover::Closed => None,
        }
    }

    /// Whether pages come of frames.
    pub(super) const fn decodes(&self) -> bool {
        !matches!(self.cover, Cover::Closed)
    }

    /// Reads the frame of one page, as the page index locates it, into `buf`; returns which page it is.
    ///
    /// A frame that is not sealed carries no checksum of its own: that the page is the one which was asked for is the
    /// caller's to see.
    ///
    /// # Errors
    /// `Corrupt` if `bytes` are not exactly one frame of the file, or `buf` does not have the page size.
    pub fn decode(&self, bytes: &[u8], buf: &mut [u8]) -> Result<Pgno> {
        self.decode_hashed(bytes, buf, |_| ())
    }

    /// As [`FrameCodec::decode`]; what the file checksum covers goes to `hash`.
    pub(super) fn decode_hashed(
        &self,
        bytes: &[u8],
        buf: &mut [u8],
        hash: impl FnMut(&[u8]),
    ) -> Result<Pgno> {
        frame::check_buffer(buf, self.page_size)?;
        let mut source = Slice(bytes);
        let pgno = self
            .read(&mut source, buf, hash)?
            .ok_or_else(|| Error::corrupt("LTX page frame: the page block ends where a frame should be"))?;
        if !source.0.is_empty() {
            let message = format!("LTX frame of page {pgno}: {} bytes follow it", source.0.len());
            return Err(Error::corrupt(message));
        }
        Ok(pgno)
    }

    /// Reads one frame into `page`, or the end of the page block as `None`. What the file checksum covers goes to
    /// `hash`: of a plain file all but the page as it is compressed, then the page; of a sealed one the bytes as they
    /// are stored.
    pub(super) fn read(
        &self,
        source: &mut impl Source,
        page: &mut [u8],
        hash: impl FnMut(&[u8]),
    ) -> Result<Option<Pgno>> {
        self.read_wanted(source, page, Wanted::Page, hash)
    }

    /// As [`FrameCodec::read`], up to the end of the frame: the page is not decoded. `page` holds anything afterwards.
    pub(super) fn skip(&self, source: &mut impl Source, page: &mut [u8]) -> Result<Option<Pgno>> {
        self.read_wanted(source, page, Wanted::End, |_| ())
    }

    fn read_wanted(
        &self,
        source: &mut impl Source,
        page: &mut [u8],
        wanted: Wanted,
        mut hash: impl FnMut(&[u8]),
    ) -> Result<Option<Pgno>> {
        if self.is_sealed() {
            self.read_sealed(source, page, wanted, &mut hash)
        } else {
            frame::read_frame(source, page, wanted, hash)
        }
    }

    fn read_sealed(
        &self,
        source: &mut impl Source,
        page: &mut [u8],
        wanted: Wanted,
        hash: &mut impl FnMut(&[u8]),
    ) -> Result<Option<Pgno>> {
        let head: [u8; FRAME_HEADER_SIZE] =
            source.take(FRAME_HEADER_SIZE)?.try_into().expect("BUG: the frame's head was taken");
        hash(&head);
        if head == frame::END_OF_PAGES {
            return Ok(None);
        }
        let pgno = frame::pgno_of(&head)?;
        let named = |e: Error| e.context(format_args!("LTX frame of page {pgno}"));
        let flags = u16::from_be_bytes([head[4], head[5]]);
        if flags != HAS_SIZE {
            return Err(named(Error::corrupt(format!("the flags {flags:#x} are none of a sealed file"))));
        }
        let size = source.take(4)?;
        hash(size);
        let size = u32_at(size, 0) as usize;
        let limits = OVERHEAD + 1..=OVERHEAD + lz4::max_compressed(page.len());
        if !limits.contains(&size) {
            return Err(named(Error::corrupt(format!("a sealed page has no {size} bytes"))));
        }
        let sealed = source.take(size)?;
        hash(sealed);
        if let (Cover::Opened(cipher), Wanted::Page) = (&self.cover, wanted) {
            let block = cipher.open(&head, sealed).map_err(named)?;
            lz4::decompress(&block, page).map_err(named)?;
        }
        Ok(Some(pgno))
    }

    /// Checks that `index`, the page index with its size field, is that of the file. Nothing proves that of a plain one.
    ///
    /// # Errors
    /// `Corrupt` if `tag`, which follows it in a sealed file, does not prove it.
    pub(super) fn check_index(&self, index: &[u8], tag: &[u8; TAG]) -> Result<()> {
        match &self.cover {
            Cover::Opened(cipher) => cipher.check_index(index, tag),
            Cover::Plain | Cover::Closed => Ok(()),
        }
    }
}

impl fmt::Debug for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Opened(_) => "Opened",
            Self::Closed => "Closed",
        })
    }
}
