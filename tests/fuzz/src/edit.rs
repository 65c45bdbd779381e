//! One edit of an input: what senders get wrong, and what attackers try.

use rand::{RngExt as _, rngs::SmallRng};

/// Numbers at which readers stumble, as bytes of lengths and counts.
const EDGES: [u8; 9] = [0, 1, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xfe, 0xff];
/// Texts at which readers of texts stumble.
const TEXTS: [&str; 14] = [
    "",
    "0",
    "-1",
    "1e999",
    "NaN",
    "18446744073709551616",
    "null",
    "\u{0}",
    "\u{202e}",
    "../../../etc/passwd",
    "9999-12-31T23:59:59Z",
    "-009999-01-02T01:59:59Z",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
];

/// Edits `input` once. `pool` lends pieces.
pub(crate) fn one(input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&str], random: &mut SmallRng) {
    let at = random.random_range(0..=input.len());
    let end = (at + random.random_range(0..=32)).min(input.len());
    match random.random_range(0..11) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.random();
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = pick(&EDGES, random);
            }
        }
        3 => drop(input.drain(at..end)),
        4 => input.truncate(at),
        5 => {
            let piece = input.get(at..end).unwrap_or_default().to_vec();
            let times = random.random_range(1..=64);
            insert(input, at, &piece.repeat(times));
        }
        6 => insert(input, at, pick(&TEXTS, random).as_bytes()),
        7 if !words.is_empty() => insert(input, at, pick_str(words, random).as_bytes()),
        8 if !words.is_empty() => {
            let word = pick_str(words, random);
            input.splice(at..end, word.bytes());
        }
        9 => {
            let other = pool.get(random.random_range(0..pool.len().max(1)));
            let other = other.map(Vec::as_slice).unwrap_or_default();
            let from = random.random_range(0..=other.len());
            let to = (from + random.random_range(0..=256)).min(other.len());
            let piece = other.get(from..to).unwrap_or_default().to_vec();
            input.splice(at..end, piece);
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add(random.random_range(1..=3));
            }
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

fn pick<T: Copy + Default>(from: &[T], random: &mut SmallRng) -> T {
    from.get(random.random_range(0..from.len().max(1)))
        .copied()
        .unwrap_or_default()
}

fn pick_str<'w>(from: &[&'w str], random: &mut SmallRng) -> &'w str {
    pick(from, random)
}
