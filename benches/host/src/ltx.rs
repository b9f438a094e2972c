//! LTX files, written as their format says and without the library that is measured.

use std::io::{self, Write};

use crc_fast::{CrcAlgorithm, Digest};

/// The size of a page in bytes.
pub const PAGE: usize = 4096;

/// An LTX file, format version 3, without checksums of the database.
///
/// ```text
/// header    "LTX1" flags u32 page size u32 commit u32 min u64 max u64 timestamp i64, zeros to 100 bytes
/// frames    pgno u32 flags u16 = 1 size u32, LZ4 block of one page; then 6 zero bytes
/// index     varints pgno, offset, size of each frame; varint 0; u64 size of the varints
/// trailer   u64 0, u64 checksum of all, pages uncompressed
/// ```
pub struct Ltx<W> {
    out: W,
    at: u64,
    index: Vec<u8>,
    crc: Digest,
}

impl<W: Write> Ltx<W> {
    pub fn new(out: W, min: u64, max: u64, commit: u32) -> io::Result<Self> {
        const NO_CHECKSUM: u32 = 2;
        const EPOCH_MS: u64 = 1_700_000_000_000;
        let mut bytes = b"LTX1".to_vec();
        for field in [NO_CHECKSUM, PAGE as u32, commit] {
            bytes.extend(field.to_be_bytes());
        }
        for field in [min, max, EPOCH_MS + max * 1000] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.resize(100, 0);
        let mut file = Self { out, at: 0, index: Vec::new(), crc: Digest::new(CrcAlgorithm::Crc64GoIso) };
        file.crc.update(&bytes);
        file.put(&bytes)?;
        Ok(file)
    }

    /// Adds a page. Returns where its frame begins, and the frame.
    pub fn page(&mut self, pgno: u32, page: &[u8]) -> io::Result<(u64, Vec<u8>)> {
        let at = self.at;
        let block = lz4_flex::block::compress(page);
        let mut frame = pgno.to_be_bytes().to_vec();
        frame.extend(1u16.to_be_bytes());
        frame.extend((block.len() as u32).to_be_bytes());
        self.crc.update(&frame);
        self.crc.update(page);
        frame.extend(block);
        for number in [u64::from(pgno), self.at, frame.len() as u64] {
            varint(&mut self.index, number);
        }
        self.put(&frame)?;
        Ok((at, frame))
    }

    /// Ends the file. Returns where its frames end, its size, and its checksum.
    pub fn finish(mut self) -> io::Result<(u64, u64, u64)> {
        let end = self.at;
        varint(&mut self.index, 0);
        let size = self.index.len() as u64;
        let mut tail = vec![0; 6];
        tail.append(&mut self.index);
        tail.extend(size.to_be_bytes());
        tail.extend(0u64.to_be_bytes());
        self.crc.update(&tail);
        self.put(&tail)?;
        let checksum = self.crc.finalize() | 1 << 63;
        self.put(&checksum.to_be_bytes())?;
        self.out.flush()?;
        Ok((end, self.at, checksum))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Appends `n`, seven bits a byte, the lowest first.
pub fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}
