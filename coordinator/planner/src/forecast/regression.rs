//! How the means of a trend are to be weighed, learnt from how high the minutes after each went.

use super::trend::Features;

const COUNT: usize = 5;
/// How fast older minutes lose weight: half of it within five days.
const MEMORY: f64 = 0.9999;
/// What is believed before anything was seen: the mean of 20 minutes …
const PRIOR: Features = [0.0, 0.0, 1.0, 0.0, 0.0];
/// … with the weight of so many minutes.
const RIDGE: f64 = 0.1;
/// A moment of which something is larger counts for so much less: a history that begins from nothing does not outweigh all
/// that comes later.
const LARGEST: f64 = 2.0;

/// Least squares that forget, drawn towards what was believed at first (ridge regression: Hoerl and Kennard, 1970).
#[derive(Debug, Clone, Copy)]
pub(super) struct Regression {
    products: [[f64; COUNT]; COUNT],
    targets: Features,
    weights: Features,
}

impl Default for Regression {
    fn default() -> Self {
        Self {
            products: [[0.0; COUNT]; COUNT],
            targets: [0.0; COUNT],
            weights: PRIOR,
        }
    }
}

impl Regression {
    /// What comes after these features.
    pub(super) fn of(&self, features: &Features) -> f64 {
        features
            .iter()
            .zip(self.weights)
            .map(|(x, weight)| x * weight)
            .sum()
    }

    /// After these features `came`.
    pub(super) fn learn(&mut self, features: &Features, came: f64) {
        if !came.is_finite() || features.iter().any(|x| !x.is_finite()) {
            return;
        }
        let largest = features.iter().fold(came.abs(), |most, x| most.max(x.abs()));
        let share = (LARGEST / largest).min(1.0);
        let (features, came) = (features.map(|x| x * share), came * share);
        for (row, x) in self.products.iter_mut().zip(features) {
            for (sum, y) in row.iter_mut().zip(features) {
                *sum = *sum * MEMORY + x * y;
            }
        }
        for (sum, x) in self.targets.iter_mut().zip(features) {
            *sum = *sum * MEMORY + x * came;
        }
        let mut products = self.products;
        let mut targets = self.targets;
        for index in 0..COUNT {
            products[index][index] += RIDGE;
            targets[index] += RIDGE * PRIOR[index];
        }
        if let Some(weights) = solve(products, targets) {
            self.weights = weights;
        }
    }
}

/// Solves the equations of a positive definite matrix by elimination. `None`: their digits do not suffice.
fn solve(mut matrix: [[f64; COUNT]; COUNT], mut right: Features) -> Option<Features> {
    for pivot in 0..COUNT {
        let row = matrix[pivot];
        if !(row[pivot].is_finite() && row[pivot] > 0.0) {
            return None;
        }
        for below in pivot + 1..COUNT {
            let factor = matrix[below][pivot] / row[pivot];
            for (value, above) in matrix[below].iter_mut().zip(row) {
                *value -= factor * above;
            }
            right[below] -= factor * right[pivot];
        }
    }
    for index in (0..COUNT).rev() {
        let known: f64 = (index + 1..COUNT)
            .map(|other| matrix[index][other] * right[other])
            .sum();
        right[index] = (right[index] - known) / matrix[index][index];
    }
    right.iter().all(|weight| weight.is_finite()).then_some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_made_what_came_are_found_again() {
        let mut regression = Regression::default();
        for number in 0..2000_u32 {
            let at = |prime: u32| f64::from(number * prime % 101) / 101.0;
            let features = [at(7), at(13), at(29), at(53), 1.0];
            regression.learn(&features, 0.5 * features[0] + 2.0 * features[3] - 0.25);
        }
        let expected = [0.5, 0.0, 0.0, 2.0, -0.25];
        for (weight, expected) in regression.weights.iter().zip(expected) {
            assert!((weight - expected).abs() < 0.01, "{:?}", regression.weights);
        }
    }

    #[test]
    fn what_never_changes_is_expected_to_stay() {
        let mut regression = Regression::default();
        let features = [1.0; COUNT];
        for _ in 0..100_000 {
            regression.learn(&features, 1.0);
        }
        assert!((regression.of(&features) - 1.0).abs() < 1e-6);
    }
}
