//! Spoils bytes and makes up texts: the one place that knows how.

use fastrand::Rng;

/// No input grows beyond this by being spoiled.
const MOST_BYTES: usize = 1 << 16;

/// Bytes that mean something to some reader.
const TELLING: &[u8] = b"\0\x01\x08\t\n\x0b\x0c\r\x1b \"#%&'()*+,-./0189:;<=>?@ATZ[\\]^_`aetuz{|}~\x7f\x80\x85\x9b\xa0\xbf\xc0\xc2\xe2\xed\xef\xf4\xff";

/// Spoils `input` in one to four places. `words` are of the input's language, `other` is another
/// input of it.
pub(super) fn spoil(rng: &mut Rng, input: &mut Vec<u8>, words: &[&str], other: &[u8]) {
    for _ in 0..rng.u8(1..=4) {
        once(rng, input, words, other);
    }
    input.truncate(MOST_BYTES);
}

fn once(rng: &mut Rng, input: &mut Vec<u8>, words: &[&str], other: &[u8]) {
    let (start, end) = piece(rng, input.len());
    match rng.u8(..12) {
        0 if start < input.len() => input[start] ^= 1 << rng.u8(..8),
        1 if start < input.len() => input[start] = telling(rng),
        2 => input.insert(start, telling(rng)),
        3 if start < input.len() => drop(input.remove(start)),
        4 => drop(input.drain(start..end)),
        5 => {
            let twice = input[start..end].to_vec();
            let place = rng.usize(..=input.len());
            drop(input.splice(place..place, twice));
        }
        6 => input.truncate(start),
        7 => {
            let (from, to) = piece(rng, other.len());
            drop(input.splice(start..end, other[from..to].iter().copied()));
        }
        8 => {
            // Of one thing too much.
            let many = vec![telling(rng); 1 << rng.u8(..12)];
            drop(input.splice(start..start, many));
        }
        9 if start < input.len() => {
            input[start] = match input[start] {
                digit @ b'0'..=b'9' => b'0' + (digit - b'0' + rng.u8(1..10)) % 10,
                letter if letter.is_ascii_alphabetic() => letter ^ 0x20,
                other => other.wrapping_add(1),
            };
        }
        _ => {
            if let Some(word) = rng.choice(words) {
                let end = if rng.bool() { start } else { end };
                drop(input.splice(start..end, word.bytes()));
            }
        }
    }
}

/// A piece of so many bytes, short as a rule.
fn piece(rng: &mut Rng, len: usize) -> (usize, usize) {
    let start = rng.usize(..=len);
    let most = if rng.u8(..4) == 0 { len } else { 16 };
    (start, (start + rng.usize(..=most)).min(len))
}

fn telling(rng: &mut Rng) -> u8 {
    TELLING[rng.usize(..TELLING.len())]
}

/// What some grammar or other takes for its own.
const SYNTAX: [char; 31] = [
    '"', '\\', '/', '%', '?', '#', '&', '=', '+', ';', ':', '@', '.', '*', '\'', '`', '^', '|',
    '<', '>', '[', ']', '{', '}', '(', ')', '$', '!', '~', ',', ' ',
];

/// What a terminal takes for an order beyond the control characters, or does not show at all.
const UNSEEN: [char; 12] = [
    '\u{61c}',
    '\u{200b}',
    '\u{200d}',
    '\u{200f}',
    '\u{2028}',
    '\u{2029}',
    '\u{202e}',
    '\u{2066}',
    '\u{2069}',
    '\u{feff}',
    '\u{fff9}',
    '\u{e0041}',
];

/// Letters of other lengths, cases and planes, and the last ones of each range.
const FOREIGN: [char; 12] = [
    'é',
    '東',
    'Ω',
    'ß',
    '\u{301}',
    '\u{1f600}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{ffff}',
    '\u{10ffff}',
    'İ',
    'ı',
];

/// A text of at most so many characters, of letters and of all that is special somewhere.
pub(super) fn text(rng: &mut Rng, most_chars: usize) -> String {
    let n_chars = rng.usize(..=most_chars);
    let plain = rng.bool();
    (0..n_chars)
        .map(|_| match rng.u8(..16) {
            0..7 if plain => rng.alphanumeric(),
            0 => SYNTAX[rng.usize(..SYNTAX.len())],
            1 => char::from(rng.u8(..0x20)),
            2 => char::from(rng.u8(0x7f..=0xa0)),
            3 => UNSEEN[rng.usize(..UNSEEN.len())],
            4 => FOREIGN[rng.usize(..FOREIGN.len())],
            5 => rng.char(..),
            6 => '.',
            7 => '%',
            _ => char::from(rng.u8(0x20..0x7f)),
        })
        .collect()
}
