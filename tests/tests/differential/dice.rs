//! Chance from a seed: the same numbers on every machine and with every version of any library.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `from..=to`.
    pub(crate) fn number(&mut self, from: usize, to: usize) -> usize {
        from + usize::try_from(self.next() % (to - from + 1) as u64).unwrap_or(0)
    }

    /// Yes in so many of a hundred cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.number(0, 99) < percent
    }

    pub(crate) fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.number(0, items.len() - 1)]
    }

    /// One of some names.
    pub(crate) fn name<'a>(&mut self, names: &'a [String]) -> &'a str {
        &names[self.number(0, names.len() - 1)]
    }

    /// Some of them, at least `least`, in their order.
    pub(crate) fn some_of<'a, T>(&mut self, items: &'a [T], least: usize) -> Vec<&'a T> {
        let mut left = self.number(least, items.len());
        let mut chosen = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let remaining = items.len() - index;
            if self.number(1, remaining) <= left {
                chosen.push(item);
                left -= 1;
            }
        }
        chosen
    }
}
