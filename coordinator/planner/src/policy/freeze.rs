//! Times in which something is not done: they begin as a crontab says, in a time zone, and last for a while.

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::{SignedDuration, Timestamp};

/// What a freeze stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Nothing is launched, for pods or for anything else.
    ScaleUp,
    /// No node is removed without a new one.
    ScaleDown,
    /// No node is replaced by a new one.
    Replace,
}

/// A window that comes again and again.
#[derive(Clone, Debug)]
pub struct Freeze {
    /// When it begins: minute, hour, day of month, month, day of week, and the time zone.
    pub begins: String,
    /// How long it lasts.
    pub duration: SignedDuration,
    /// What is not done meanwhile.
    pub stops: Vec<Stop>,
    crontab: Crontab,
}

impl PartialEq for Freeze {
    fn eq(&self, other: &Self) -> bool {
        (&self.begins, self.duration, &self.stops) == (&other.begins, other.duration, &other.stops)
    }
}

impl Freeze {
    /// A window that begins as `cron` says in `time_zone` (a name of the IANA database, which the machine must have).
    ///
    /// # Errors
    /// What is wrong with one of the two.
    pub(super) fn new(
        cron: &str,
        time_zone: &str,
        duration: SignedDuration,
        stops: Vec<Stop>,
    ) -> Result<Self, Invalid> {
        let fields = cron.split_whitespace().count();
        if fields != 5 {
            return Err(Invalid::Cron(format!(
                "`{cron}` has {fields} fields: expected minute, hour, day of month, month and day of week"
            )));
        }
        jiff::tz::TimeZone::get(time_zone)
            .map_err(|_| Invalid::TimeZone(format!("`{time_zone}` is no time zone that is known here: expected a name such as Europe/Berlin or UTC")))?;
        let begins = format!("{cron} {time_zone}");
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::None;
        let said = |error: cronexpr::Error| {
            // Its message draws an arrow on lines of its own.
            let line = error.to_string().replace('\n', " ");
            Invalid::Cron(line.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let crontab = cronexpr::parse_crontab_with(&begins, options).map_err(said)?;
        let freeze = Self {
            begins,
            duration,
            stops,
            crontab,
        };
        if freeze.next(Timestamp::UNIX_EPOCH).is_none() {
            return Err(Invalid::Cron(format!("`{cron}` never comes")));
        }
        Ok(freeze)
    }

    /// Until when it holds, if it holds at `now`; another of its windows may begin before that and last longer.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let began = self.next(now.checked_sub(self.duration).ok()?)?;
        (began <= now).then(|| began.saturating_add(self.duration).unwrap_or(Timestamp::MAX))
    }

    /// Whether it stops that.
    pub fn stops(&self, what: Stop) -> bool {
        self.stops.contains(&what)
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let next = self.crontab.find_next(MakeTimestamp(after)).ok()?;
        Some(next.timestamp())
    }
}

/// Which of the two is wrong, and how.
pub(super) enum Invalid {
    Cron(String),
    TimeZone(String),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    fn weekend() -> Freeze {
        let hours = SignedDuration::from_hours(62);
        Freeze::new("0 18 * * FRI", "Europe/Berlin", hours, vec![Stop::ScaleDown])
            .ok()
            .unwrap()
    }

    fn until(at: &str) -> Option<String> {
        let until = weekend().until(at.parse().unwrap());
        until.map(|until| until.to_string())
    }

    #[test]
    fn a_window_holds_from_its_first_moment_to_before_its_last_in_its_own_time_zone() {
        // Friday 18:00 in Berlin, in winter; 62 hours later it is Monday 08:00.
        assert_eq!(until("2026-01-09T16:59:59.999Z"), None);
        let end = Some("2026-01-12T07:00:00Z".to_owned());
        for at in [
            "2026-01-09T17:00:00Z",
            "2026-01-10T03:04:05Z",
            "2026-01-12T06:59:59Z",
        ] {
            assert_eq!(until(at), end, "{at}");
        }
        assert_eq!(until("2026-01-12T07:00:00Z"), None);
        // In summer it begins an hour earlier by UTC.
        assert_eq!(
            until("2026-07-10T16:00:00Z"),
            Some("2026-07-13T06:00:00Z".to_owned())
        );
    }
}
