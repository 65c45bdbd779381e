//! Windows of time that come again and again: they begin as a crontab says, in a time zone, and last for a while.
//!
//! The crontab is read against the wall clock of the zone. Where clocks change, a time that does not exist begins as much
//! later as the clocks are put forward, and one that exists twice begins once, the first time (RFC 5545 §3.3.5).

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// No clock is put forward by more, but where a country changed sides of the date line.
const LONGEST_GAP: SignedDuration = SignedDuration::from_hours(3);

/// A window.
#[derive(Clone, Debug)]
pub struct Window {
    /// When it begins: minute, hour, day of month, month, day of week, and the time zone.
    pub begins: String,
    /// How long it lasts.
    pub duration: SignedDuration,
    /// It already holds for so long before it begins.
    pub lead: SignedDuration,
    /// Of the wall clock, taken for UTC.
    crontab: Crontab,
    zone: TimeZone,
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        (&self.begins, self.duration, self.lead) == (&other.begins, other.duration, other.lead)
    }
}

impl Window {
    /// A window that begins as `cron` says in `time_zone`, a name of the IANA database.
    ///
    /// # Errors
    /// What is wrong with one of the two.
    pub fn new(
        cron: &str,
        time_zone: &str,
        duration: SignedDuration,
        lead: SignedDuration,
    ) -> Result<Self, Invalid> {
        let fields = cron.split_whitespace().count();
        if fields != 5 {
            return Err(Invalid::Cron(format!(
                "`{cron}` has {fields} fields: expected minute, hour, day of month, month and day of week"
            )));
        }
        let zone = TimeZone::get(time_zone)
            .map_err(|_| Invalid::TimeZone(format!("`{time_zone}` is no time zone that is known here: expected a name such as Europe/Berlin or UTC")))?;
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let said = |error: cronexpr::Error| {
            // Its message draws an arrow on lines of its own.
            let line = error.to_string().replace('\n', " ");
            Invalid::Cron(line.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let window = Self {
            begins: format!("{cron} {time_zone}"),
            duration,
            lead,
            crontab: cronexpr::parse_crontab_with(cron, options).map_err(said)?,
            zone,
        };
        if window.next(Timestamp::UNIX_EPOCH).is_none() {
            return Err(Invalid::Cron(format!("`{cron}` never comes")));
        }
        Ok(window)
    }

    /// Until when it holds, if it holds at `now`; another one of its like may begin before that and last longer.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let begins = self.next(now.checked_sub(self.duration).ok()?)?;
        let holds = begins.saturating_sub(self.lead).is_ok_and(|from| from <= now);
        holds.then(|| begins.saturating_add(self.duration).unwrap_or(Timestamp::MAX))
    }

    /// When it begins next, after that moment.
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // What does not exist today may begin only now, though the wall clock is past it.
        let before = after.checked_sub(LONGEST_GAP).unwrap_or(after);
        let clocks_changed = self.zone.to_offset(before) != self.zone.to_offset(after);
        let mut wall = self.zone.to_datetime(if clocks_changed { before } else { after });
        loop {
            let as_utc = TimeZone::UTC.to_timestamp(wall).ok()?;
            wall = self.crontab.find_next(MakeTimestamp(as_utc)).ok()?.datetime();
            let begins = self.zone.to_timestamp(wall).ok()?;
            if begins > after {
                return Some(begins);
            }
        }
    }
}

/// Which of the two is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The crontab.
    #[error("{0}")]
    Cron(String),
    /// The time zone.
    #[error("{0}")]
    TimeZone(String),
}

impl Invalid {
    /// The key by which it is configured.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Cron(_) => "cron",
            Self::TimeZone(_) => "time_zone",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    fn window(cron: &str, zone: &str, minutes: i64, lead: i64) -> Window {
        let (duration, lead) = (
            SignedDuration::from_mins(minutes),
            SignedDuration::from_mins(lead),
        );
        Window::new(cron, zone, duration, lead).ok().unwrap()
    }

    fn until(window: &Window, at: &str) -> Option<String> {
        let until = window.until(at.parse().unwrap());
        until.map(|until| until.to_string())
    }

    /// All beginnings from a day on.
    fn begins(cron: &str, zone: &str, from: &str, number: usize) -> Vec<String> {
        let window = window(cron, zone, 1, 0);
        let mut at: Timestamp = from.parse().unwrap();
        let mut next = || {
            at = window.next(at).unwrap();
            at.to_zoned(window.zone.clone())
                .strftime("%a %F %R%:z")
                .to_string()
        };
        (0..number).map(|_| next()).collect()
    }

    #[test]
    fn a_window_holds_from_its_first_moment_to_before_its_last_in_its_own_time_zone() {
        let weekend = window("0 18 * * FRI", "Europe/Berlin", 62 * 60, 0);
        // Friday 18:00 in Berlin, in winter; 62 hours later it is Monday 08:00.
        assert_eq!(until(&weekend, "2026-01-09T16:59:59.999Z"), None);
        let end = Some("2026-01-12T07:00:00Z".to_owned());
        for at in [
            "2026-01-09T17:00:00Z",
            "2026-01-10T03:04:05Z",
            "2026-01-12T06:59:59Z",
        ] {
            assert_eq!(until(&weekend, at), end, "{at}");
        }
        assert_eq!(until(&weekend, "2026-01-12T07:00:00Z"), None);
        // In summer it begins an hour earlier by UTC.
        assert_eq!(
            until(&weekend, "2026-07-10T16:00:00Z"),
            Some("2026-07-13T06:00:00Z".to_owned())
        );
    }

    #[test]
    fn a_lead_lets_it_hold_sooner_and_end_as_it_would_have() {
        let morning = window("0 8 * * *", "UTC", 60, 10);
        assert_eq!(until(&morning, "2026-01-09T07:49:59Z"), None);
        let end = Some("2026-01-09T09:00:00Z".to_owned());
        assert_eq!(until(&morning, "2026-01-09T07:50:00Z"), end);
        assert_eq!(until(&morning, "2026-01-09T08:59:59Z"), end);
        assert_eq!(until(&morning, "2026-01-09T09:00:00Z"), None);
    }

    #[test]
    fn a_lead_longer_than_the_pause_between_windows_never_lets_go() {
        let hourly = window("0 * * * *", "UTC", 30, 30);
        for minute in 0..60 {
            let at = format!("2026-01-09T07:{minute:02}:30Z");
            assert!(until(&hourly, &at).is_some(), "{at}");
        }
    }

    #[test]
    fn sunday_is_zero_or_seven_and_names_ranges_lists_and_steps_are_understood() {
        let sundays = ["Sun 2026-01-04 00:00+00:00", "Sun 2026-01-11 00:00+00:00"];
        for cron in ["0 0 * * 0", "0 0 * * 7", "0 0 * * sun"] {
            assert_eq!(begins(cron, "UTC", "2026-01-01T00:00:00Z", 2), sundays, "{cron}");
        }
        assert_eq!(
            begins("*/30 8-9 * Feb-mar,NOV 1-5", "UTC", "2026-01-01T00:00:00Z", 5),
            [
                "Mon 2026-02-02 08:00+00:00",
                "Mon 2026-02-02 08:30+00:00",
                "Mon 2026-02-02 09:00+00:00",
                "Mon 2026-02-02 09:30+00:00",
                "Tue 2026-02-03 08:00+00:00"
            ]
        );
    }

    #[test]
    fn of_a_day_of_the_month_and_one_of_the_week_either_will_do() {
        assert_eq!(
            begins("0 0 10 * FRI", "UTC", "2026-01-01T00:00:00Z", 3),
            [
                "Fri 2026-01-02 00:00+00:00",
                "Fri 2026-01-09 00:00+00:00",
                "Sat 2026-01-10 00:00+00:00"
            ]
        );
    }

    #[test]
    fn a_time_that_does_not_exist_begins_when_it_would_have_been() {
        // At 02:00 the clocks are put forward to 03:00.
        let expected = [
            "Sat 2026-03-28 02:30+01:00",
            "Sun 2026-03-29 03:30+02:00",
            "Mon 2026-03-30 02:30+02:00",
        ];
        let found = begins("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3);
        assert_eq!(found, expected);
        // The same where one asks in between.
        let found = begins("30 2 * * *", "Europe/Berlin", "2026-03-29T01:10:00Z", 1);
        assert_eq!(found, expected[1..2]);
    }

    #[test]
    fn a_time_that_exists_twice_begins_once() {
        // At 03:00 the clocks are put back to 02:00.
        let expected = ["Sun 2026-10-25 02:30+02:00", "Mon 2026-10-26 02:30+01:00"];
        let found = begins("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(found, expected);
        // Between the two.
        let found = begins("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1);
        assert_eq!(found, expected[1..]);
    }
}
