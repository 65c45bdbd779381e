//! What demand did at the same minute of earlier hours, days and weeks.

use super::{history::History, spread::Spread};

/// What an expectation was learnt from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// All minutes of the last days.
    #[default]
    Lately,
    /// The same minute of the last 24 hours.
    Hour,
    /// The same minute of the last 14 days.
    Day,
    /// The same minute of the last 8 weeks.
    Week,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lately, Self::Hour, Self::Day, Self::Week];

    /// Its name in metrics and explanations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lately => "lately",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// Minutes after which it comes again, how often that is looked at, and how often it must have been seen.
    fn period(self) -> Option<(u64, u64, usize)> {
        match self {
            Self::Lately => None,
            Self::Hour => Some((60, 24, 6)),
            Self::Day => Some((24 * 60, 14, 3)),
            Self::Week => Some((7 * 24 * 60, 8, 3)),
        }
    }
}

/// What came after the minute `number`'s like, as a season saw it. `None`: it is no season, or was not seen often enough.
pub(super) fn spread(history: &History, source: Source, number: u64, horizon: u64) -> Option<Spread> {
    let (period, times, fewest) = source.period()?;
    let rises = (1..=times).filter_map(|back| history.rise(number.checked_sub(back * period)?, horizon));
    let spread = Spread::of(rises);
    (spread.len() >= fewest).then_some(spread)
}
