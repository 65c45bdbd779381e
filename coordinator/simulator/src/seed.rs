//! Chance, derived from one number.
//!
//! Every use draws from a stream of its own, named for what it is for (`boot/i-…`), never from a shared one: then the
//! order in which concurrent tasks happen to draw changes nothing, and the same seed is the same world.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The number that a whole simulation is derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream called `name`; the same name gives the same stream, from its beginning.
    #[must_use]
    pub fn stream(self, name: &str) -> StdRng {
        StdRng::seed_from_u64(self.number(name))
    }

    /// One number out of the stream called `name`.
    #[must_use]
    pub fn number(self, name: &str) -> u64 {
        // FNV-1a over the name, mixed with the seed by the finaliser of splitmix64.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut mixed = hash ^ self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number between 0 and 1 (exclusive) out of the stream called `name`.
    #[must_use]
    pub fn fraction(self, name: &str) -> f64 {
        self.stream(name).random_range(0.0..1.0)
    }

    /// A factor around 1: 0.2 gives 0.8 to 1.2.
    #[must_use]
    pub fn around_one(self, name: &str, spread: f64) -> f64 {
        1.0 + spread * (2.0 * self.fraction(name) - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_stream_and_another_is_not() {
        assert_eq!(Seed(7).fraction("boot/a"), Seed(7).fraction("boot/a"));
        assert_ne!(Seed(7).fraction("boot/a"), Seed(7).fraction("boot/b"));
        assert_ne!(Seed(7).fraction("boot/a"), Seed(8).fraction("boot/a"));
    }

    #[test]
    fn a_factor_stays_within_its_spread() {
        for seed in 0..200 {
            let factor = Seed(seed).around_one("x", 0.2);
            assert!((0.8..=1.2).contains(&factor), "{factor}");
        }
    }
}
