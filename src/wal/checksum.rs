//! The cumulative checksum of the WAL.

/// The byte order in which a checksum reads its 32-bit words; the WAL's magic number tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl ByteOrder {
    /// The byte order of this machine.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

/// A running checksum: it covers the WAL header and every frame up to one point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub u32, pub u32);

impl Checksum {
    /// The checksum after `bytes`, whose length is a multiple of 8.
    #[must_use]
    pub fn update(self, order: ByteOrder, bytes: &[u8]) -> Self {
        debug_assert!(bytes.len().is_multiple_of(8));
        match order {
            ByteOrder::Little => self.fold(bytes, u32::from_le_bytes),
            ByteOrder::Big => self.fold(bytes, u32::from_be_bytes),
        }
    }

    #[inline(always)]
    fn fold(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Self {
        let Self(mut s1, mut s2) = self;
        let (pairs, _) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in pairs {
            s1 = s1.wrapping_add(word([a, b, c, d])).wrapping_add(s2);
            s2 = s2.wrapping_add(word([e, f, g, h])).wrapping_add(s1);
        }
        Self(s1, s2)
    }

    /// Reads a checksum as the WAL file stores it.
    pub fn from_be_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self(u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
    }
}
