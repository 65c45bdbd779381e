//! A distribution of distances from the level.

/// Distances are counted in bins of this width …
const WIDTH: f64 = 0.1;
/// … from here …
const LOWEST: f64 = -10.0;
/// … in so many bins; what lies outside counts in the outermost.
const BINS: usize = 400;
/// How fast older distances lose weight: half of it within 2.4 days of minutes.
const MEMORY: f64 = 0.9998;

/// Distances with their weights, which add up to 1; older ones weigh less.
#[derive(Debug, Clone, Default)]
pub(super) struct Spread {
    /// Weight of each bin, not yet divided by the sum of all. Empty before the first.
    bins: Vec<f64>,
    sum: f64,
    /// What the next distance weighs: the older ones are not made lighter one by one.
    next: f64,
    count: usize,
}

impl Spread {
    /// Distances that all weigh the same.
    pub(super) fn of(distances: impl IntoIterator<Item = f64>) -> Self {
        let mut spread = Self::default();
        for distance in distances {
            spread.put(distance, 1.0);
        }
        spread
    }

    /// How many it has seen.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// One more.
    pub(super) fn add(&mut self, distance: f64) {
        let weight = if self.next > 0.0 { self.next } else { 1.0 };
        self.put(distance, weight);
        self.next = weight / MEMORY;
        // Far from where the sums would lose digits.
        if self.next > 1e12 {
            self.bins.iter_mut().for_each(|bin| *bin /= self.next);
            self.sum /= self.next;
            self.next = 1.0;
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the bins"
    )]
    fn put(&mut self, distance: f64, weight: f64) {
        if !distance.is_finite() {
            return;
        }
        self.bins.resize(BINS, 0.0);
        let last = (BINS - 1) as f64;
        let bin = ((distance - LOWEST) / WIDTH).round().clamp(0.0, last) as usize;
        self.bins[bin] += weight;
        self.sum += weight;
        self.count += 1;
    }

    /// Every distance with its weight.
    pub(super) fn weights(&self) -> impl Iterator<Item = (f64, f64)> {
        let weighs = self.bins.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        weighs.map(|(bin, weight)| (at(bin), weight / self.sum))
    }

    /// The distance below which that share of the weight lies.
    pub(super) fn quantile(&self, quantile: f64) -> Option<f64> {
        let mut below = 0.0;
        for (bin, weight) in self.bins.iter().enumerate() {
            below += weight;
            if below > 0.0 && below >= quantile * self.sum {
                return Some(at(bin));
            }
        }
        None
    }
}

#[allow(clippy::cast_precision_loss, reason = "a few hundred bins")]
fn at(bin: usize) -> f64 {
    LOWEST + bin as f64 * WIDTH
}
