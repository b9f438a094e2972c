//! Unsigned variable-length integers (LEB128): seven bits a byte, least significant first; the high
//! bit says that another byte follows.

/// The most bytes that one takes.
pub(super) const MAX_LEN: usize = 10;

/// Appends `n` to `out`.
pub(crate) fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes one off the front of `bytes`; `None` if they end early, it exceeds 64 bits, or it is longer
/// than it needs to be.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for (i, &byte) in bytes.iter().take(MAX_LEN).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if i == MAX_LEN - 1 && bits > 1 {
            return None;
        }
        n |= bits << (7 * i);
        if byte & 0x80 == 0 {
            let minimal = byte != 0 || i == 0;
            *bytes = &bytes[i + 1..];
            return minimal.then_some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let powers = (0..64).map(|shift| 1_u64 << shift);
        for n in powers.flat_map(|p| [p - 1, p, p + 1]).chain([u64::MAX]) {
            let mut bytes = Vec::new();
            put(&mut bytes, n);
            bytes.push(0xff);
            let mut rest = &bytes[..];
            assert_eq!(take(&mut rest), Some(n));
            assert_eq!(rest, [0xff]);
            assert_eq!(take(&mut &bytes[..bytes.len() - 2]), None, "cut short: {n}");
        }
    }

    #[test]
    fn overlong_and_overflowing_ones_are_refused() {
        assert_eq!(take(&mut &[0x80, 0x00][..]), None);
        assert_eq!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]), None);
        assert_eq!(take(&mut &[0x80; 11][..]), None);
        assert_eq!(take(&mut &[][..]), None);
    }
}
