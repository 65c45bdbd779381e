//! Where demand is, seen from several distances at once, and how far from there it goes at present. All of it is in roots of
//! demand: events that come independently scatter by the root of their number, so that roots scatter alike by day and by night.

/// How much of the newest minute each mean takes over: they look back 2, 5, 20 and 100 minutes.
const MEANS: [f64; 4] = [0.5, 0.2, 0.05, 0.01];
/// The mean that minutes are held against.
const MIDDLE: usize = 1;
/// How much of the newest distance the present scatter takes over: 10 and 30 minutes, half of each.
const PRESENT: [f64; 2] = [0.1, 0.03];
/// How much of it the usual scatter takes over.
const USUAL: f64 = 0.0001;
/// A minute that lies further below the mean than so many usual distances counts as if it lay there: what has stopped all at
/// once comes back all at once …
const DEEPEST: f64 = 3.0;
/// … until so many minutes in a row have lain there.
const BELIEVED: u32 = 10;
/// Distances after which it is known what is usual.
const KNOWN: u32 = 30;

/// What is said of a moment: the means, and 1.
pub(super) type Features = [f64; MEANS.len() + 1];

/// The means so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trend {
    means: [f64; MEANS.len()],
    present: [f64; PRESENT.len()],
    usual: f64,
    /// What roots usually are.
    size: f64,
    /// Minutes in a row that lay far below.
    low: u32,
    /// Minutes that it has seen.
    count: u32,
}

impl Trend {
    /// With one more minute.
    pub(super) fn with(mut self, signal: f64) -> Self {
        let root = signal.max(0.0).sqrt();
        let share = |share: f64| share.max(1.0 / f64::from(self.count.max(1)));
        if self.count == 0 {
            self.means = [root; MEANS.len()];
            self.size = root;
        }
        let distance = (root - self.means[MIDDLE]).abs();
        for (present, of) in self.present.iter_mut().zip(PRESENT) {
            *present += share(of) * (distance - *present);
        }
        self.usual += share(USUAL) * (distance - self.usual);
        self.size += share(USUAL) * (root - self.size);
        let lowest = self.means[MIDDLE] - DEEPEST * self.usual;
        self.low = if root < lowest {
            self.low.saturating_add(1)
        } else {
            0
        };
        let is_believed = self.count < KNOWN || self.low > BELIEVED;
        let root = if is_believed { root } else { root.max(lowest) };
        for (mean, of) in self.means.iter_mut().zip(MEANS) {
            *mean += of * (root - *mean);
        }
        self.count = self.count.saturating_add(1);
        self
    }

    /// In units of what roots usually are, so that no number depends on what demand is counted in.
    pub(super) fn features(&self) -> Features {
        let size = self.size();
        let [a, b, c, d] = self.means.map(|mean| mean / size);
        [a, b, c, d, 1.0]
    }

    /// What roots usually are.
    pub(super) fn size(&self) -> f64 {
        self.size.max(1e-6)
    }

    /// How far from the mean minutes lie at present.
    pub(super) fn scatter(&self) -> f64 {
        let mean = (self.present[0] + self.present[1]) / 2.0;
        mean.max(1e-6 * (1.0 + self.means[MIDDLE]))
    }
}
