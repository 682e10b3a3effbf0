//! The inside of a JSON string, eight bytes at a time: most of a page is that.

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte.
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The place of the first byte from `from` on that a JSON string does not simply contain: a quote, a backslash or a control
/// character (RFC 8259 section 7). `None` when there is none.
pub(crate) fn first_special(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let eight = u64::from_le_bytes(*eight);
        // A byte below `n` (at most 128) gets its highest bit here; what is above it may get one, too, by a borrow, so that only
        // the lowest one counts.
        let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
        let equal = |byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
        let found = (below(eight, 0x20) | equal(b'"') | equal(b'\\')) & HIGHS;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    let place = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
    Some(at + place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_first_one(bytes in proptest::collection::vec(prop_oneof![
            8 => any::<u8>(),
            2 => proptest::sample::select(&b"\"\\\x1f \x7f\x80\x21\x23\x5b\x5d"[..]),
            30 => b'a'..=b'z',
        ], 0..60), from in 0_usize..70) {
            let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
            let expected = (from..bytes.len()).find(|at| is_special(bytes[*at]));
            prop_assert_eq!(first_special(&bytes, from), expected);
        }
    }
}
