//! What a disk, a cable or a file system does to a mirror: whole pages, pieces of them, single bits.

use fastrand::Rng;

/// What `connect` gives every mirror.
const PAGE_BYTES: usize = 8192;

/// What a disk writes in one piece.
const SECTOR_BYTES: usize = 512;

/// One kind of damage to `file`, of which `older` are images; `None` where the draw changes nothing.
pub(crate) type Damage = fn(&mut Vec<u8>, older: &[Vec<u8>], &mut Rng) -> Option<String>;

pub(crate) const KINDS: [(&str, Damage); 5] = [
    ("a page never written", |file, older, rng| {
        put_back(file, older, rng, |_| true)
    }),
    ("a page half written", |file, older, rng| {
        let mut torn = Rng::with_seed(rng.u64(..));
        put_back(file, older, rng, |_| torn.bool())
    }),
    ("a page of zeros", |file, _, rng| {
        let page = rng.usize(0..file.len() / PAGE_BYTES);
        file[page * PAGE_BYTES..][..PAGE_BYTES].fill(0);
        Some(format!("page {}", page + 1))
    }),
    ("a bit of the file", |file, _, rng| {
        let place = rng.usize(0..file.len());
        file[place] ^= 1 << rng.u8(0..8);
        Some(format!("byte {place}"))
    }),
    ("two pages swapped", |file, _, rng| {
        let n_pages = file.len() / PAGE_BYTES;
        let (one, other) = (rng.usize(0..n_pages), rng.usize(0..n_pages));
        for place in 0..PAGE_BYTES {
            file.swap(one * PAGE_BYTES + place, other * PAGE_BYTES + place);
        }
        Some(format!("pages {} and {}", one + 1, other + 1))
    }),
];

/// Puts sectors of one page back to an older image of it.
fn put_back(
    file: &mut [u8],
    older: &[Vec<u8>],
    rng: &mut Rng,
    mut is_lost: impl FnMut(usize) -> bool,
) -> Option<String> {
    let place = rng.usize(0..older.len());
    let image = &older[place];
    let differs = |page: &usize| {
        let bytes = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        file[bytes.clone()] != image[bytes]
    };
    let n_pages = file.len().min(image.len()) / PAGE_BYTES;
    let pages: Vec<usize> = (0..n_pages).filter(differs).collect();
    let page = *pages.get(rng.usize(0..pages.len().max(1)))?;
    for sector in (0..PAGE_BYTES / SECTOR_BYTES).filter(|sector| is_lost(*sector)) {
        let from = page * PAGE_BYTES + sector * SECTOR_BYTES;
        file[from..from + SECTOR_BYTES].copy_from_slice(&image[from..from + SECTOR_BYTES]);
    }
    Some(format!("page {} of image {place}", page + 1))
}
