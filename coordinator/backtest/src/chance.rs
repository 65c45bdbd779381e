//! Chance, derived from one seed: a stream of its own for every node, so that what is decided about one changes nothing for
//! another.

/// The streams of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// The draw called `draw` of a node, in [0, 1): SplitMix64 (Steele, Lea and Flood, 2014), whose output depends on
    /// nothing but its state.
    pub(crate) fn of(self, node: u32, draw: Draw) -> f64 {
        let stream = mix(self.0.wrapping_add(GAMMA).wrapping_add(u64::from(node)));
        uniform(stream, draw as u64)
    }
}

/// The draw number `draw` of a stream, in [0, 1).
pub(crate) fn uniform(stream: u64, draw: u64) -> f64 {
    let bits = mix(stream.wrapping_add(GAMMA.wrapping_mul(draw + 1)));
    #[allow(clippy::cast_precision_loss, reason = "53 bits are all that the fraction has")]
    let fraction = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}

/// What is drawn for a node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Draw {
    /// How long it boots.
    Boot,
    /// How long it lives as spot.
    Life,
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64) -> u64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_over_the_unit_interval_and_the_same_each_time() {
        let draws: Vec<f64> = (0..10_000).map(|node| Chance(7).of(node, Draw::Life)).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        assert_eq!(Chance(7).of(3, Draw::Boot), Chance(7).of(3, Draw::Boot));
        assert_ne!(Chance(7).of(3, Draw::Boot), Chance(7).of(3, Draw::Life));
        assert_ne!(Chance(7).of(3, Draw::Boot), Chance(8).of(3, Draw::Boot));
    }
}
