//! What tells in a microsecond that a resource is the one that was applied last time.

use sha2::{Digest, Sha256};

use super::mapping::MAPPING_VERSION;
use crate::model::Fingerprint;

/// The fingerprint of a resource as it arrived: SHA-256 over the mapping's version and the raw
/// text, cut to 16 bytes. A hash whose collisions can be built would let an instance hide a change.
#[must_use]
pub fn fingerprint(raw: &[u8]) -> Fingerprint {
    let digest = Sha256::new()
        .chain_update(MAPPING_VERSION.to_le_bytes())
        .chain_update(raw)
        .finalize();
    std::array::from_fn(|place| digest[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let raw = br#"{"id":"a"}"#;
        let print = fingerprint(raw);
        assert_eq!(fingerprint(raw), print);
        for place in 0..raw.len() {
            let mut other = *raw;
            other[place] ^= 1;
            assert_ne!(fingerprint(&other), print);
        }
        assert_ne!(fingerprint(b""), print);
    }
}
