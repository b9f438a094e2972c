//! The format once more, written down as plainly as possible.

use twox_hash::XxHash32;

use super::Pages;
use crate::ltx::Header;

const FLAG: u64 = 1 << 63;

/// CRC-64/GO-ISO, one bit at a time: polynomial x^64 + x^4 + x^3 + x + 1, reflected.
pub(in crate::ltx) fn crc(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xd800_0000_0000_0000 } else { crc >> 1 };
        }
    }
    !crc
}

/// The checksum of a whole database.
pub(super) fn database_checksum(pages: &Pages) -> u64 {
    pages.iter().fold(FLAG, |sum, (pgno, page)| FLAG | (sum ^ crc(&[&pgno.to_be_bytes()[..], page].concat())))
}

/// How pages are compressed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Block,
    Frame(FrameStyle),
}

/// What an LZ4 frame may or may not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameStyle {
    pub(super) blocks: usize,
    pub(super) stored: bool,
    pub(super) block_checksum: bool,
    pub(super) content_size: bool,
    pub(super) content_checksum: bool,
}

/// A whole file.
pub(super) fn encode(header: &Header, pages: &Pages, form: Form, post_apply: u64) -> Vec<u8> {
    let mut file = header.encode().to_vec();
    let mut hashed = file.clone();
    let mut index = Vec::new();
    for (pgno, page) in pages {
        let offset = file.len();
        let (head, data) = frame(*pgno, page, form);
        hashed.extend([&head[..], page].concat());
        file.extend([head, data].concat());
        for n in [*pgno as usize, offset, file.len() - offset] {
            put_varint(&mut index, n as u64);
        }
    }
    index.push(0);
    let tail = [&[0; 6][..], &index, &(index.len() as u64).to_be_bytes(), &post_apply.to_be_bytes()].concat();
    hashed.extend_from_slice(&tail);
    file.extend(tail);
    file.extend((FLAG | crc(&hashed)).to_be_bytes());
    file
}

/// What of a frame is hashed as it is, and what is hashed uncompressed.
fn frame(pgno: u32, page: &[u8], form: Form) -> (Vec<u8>, Vec<u8>) {
    let pgno = pgno.to_be_bytes();
    match form {
        Form::Block => {
            let block = lz4_flex::block::compress(page);
            ([&pgno[..], &[0, 1], &(block.len() as u32).to_be_bytes()].concat(), block)
        }
        Form::Frame(style) => ([&pgno[..], &[0, 0]].concat(), lz4_frame(page, style)),
    }
}

pub(super) fn lz4_frame(page: &[u8], style: FrameStyle) -> Vec<u8> {
    let flags = 0b0110_0000
        | u8::from(style.block_checksum) << 4
        | u8::from(style.content_size) << 3
        | u8::from(style.content_checksum) << 2;
    let mut descriptor = vec![flags, 0x40];
    if style.content_size {
        descriptor.extend((page.len() as u64).to_le_bytes());
    }
    let mut frame = 0x184d_2204_u32.to_le_bytes().to_vec();
    frame.extend(&descriptor);
    frame.push((XxHash32::oneshot(0, &descriptor) >> 8) as u8);
    for part in page.chunks(page.len().div_ceil(style.blocks)) {
        let block = if style.stored { part.to_vec() } else { lz4_flex::block::compress(part) };
        frame.extend((block.len() as u32 | u32::from(style.stored) << 31).to_le_bytes());
        frame.extend(&block);
        if style.block_checksum {
            frame.extend(XxHash32::oneshot(0, &block).to_le_bytes());
        }
    }
    frame.extend([0; 4]);
    if style.content_checksum {
        frame.extend(XxHash32::oneshot(0, page).to_le_bytes());
    }
    frame
}

fn put_varint(out: &mut Vec<u8>, n: u64) {
    if n < 128 {
        out.push(n as u8);
    } else {
        out.push((n % 128 + 128) as u8);
        put_varint(out, n / 128);
    }
}
