//! The inside of a JSON string, many bytes at a time: most of a page is that.

/// Whether a JSON string does not simply contain this byte: a quote, a backslash or a control character (RFC 8259 section 7).
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// Finds the special bytes of a text one after the other. Each block is looked at once, however many strings are in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Specials<'a> {
    bytes: &'a [u8],
    /// The block that was looked at last, and a bit for each special byte of it, the lowest for its first.
    block: usize,
    bits: u64,
}

impl<'a> Specials<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            block: 0,
            bits: bits_of(bytes, 0),
        }
    }

    /// The place of the first special byte from `from` on. `None` when there is none.
    #[inline]
    pub(crate) fn next(&mut self, from: usize) -> Option<usize> {
        let (mut block, within) = (from / BLOCK, from % BLOCK);
        let mut bits = self.bits_of(block) >> within << within;
        while bits == 0 {
            block += 1;
            if block * BLOCK >= self.bytes.len() {
                return None;
            }
            bits = self.bits_of(block);
        }
        Some(block * BLOCK + bits.trailing_zeros() as usize)
    }

    #[inline]
    fn bits_of(&mut self, block: usize) -> u64 {
        if block != self.block {
            self.block = block;
            self.bits = bits_of(self.bytes, block);
        }
        self.bits
    }
}

/// A bit for each special byte of a block.
fn bits_of(bytes: &[u8], block: usize) -> u64 {
    let rest = bytes.get(block * BLOCK..).unwrap_or_default();
    if let Some(whole) = rest.first_chunk::<BLOCK>() {
        // Without a branch, so that the compiler looks at many bytes at a time.
        let special = whole.map(|byte| u8::from(is_special(byte)));
        let (eights, _) = special.as_chunks::<8>();
        return (0..)
            .step_by(8)
            .zip(eights)
            .fold(0, |bits, (place, eight)| {
                // The lowest bit of each byte goes to the highest byte, in their order.
                let gathered = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
                bits | gathered << place
            });
    }
    (0..).zip(rest).fold(0, |bits, (place, byte)| {
        bits | u64::from(is_special(*byte)) << place
    })
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
            60 => b'a'..=b'z',
        ], 0..300), places in proptest::collection::vec(0_usize..310, 1..20)) {
            let mut specials = Specials::of(&bytes);
            for from in places {
                let expected = (from..bytes.len()).find(|at| is_special(bytes[*at]));
                prop_assert_eq!(specials.next(from), expected);
            }
        }
    }

    #[test]
    fn each_byte_at_each_place() {
        for byte in 0..=u8::MAX {
            for place in 0..2 * BLOCK {
                let mut bytes = vec![b'a'; 2 * BLOCK + 3];
                bytes[place] = byte;
                let found = Specials::of(&bytes).next(0);
                assert_eq!(
                    found,
                    is_special(byte).then_some(place),
                    "{byte} at {place}"
                );
            }
        }
    }
}
