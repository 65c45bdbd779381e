//! A history of requests: read from CSV, and handed out one tick after the other.
//!
//! Rows may be of any length. A row lasts until the next one, but never longer than the first two are apart; what is left is
//! a gap in which nobody asked for anything.

use std::{io::Read, time::Duration};

use jiff::{
    Timestamp,
    fmt::temporal::Pieces,
    tz::{Offset, TimeZone},
};

use crate::tick::TICK;

/// The longest history: ten years.
const LONGEST: i64 = 10 * 366 * 86_400 * NANOS;
const NANOS: i64 = 1_000_000_000;

/// Requests over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    start: Timestamp,
    offset: Offset,
    rows: Vec<Row>,
    /// Nanoseconds that a row lasts at most.
    length: i64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    /// Nanoseconds after the start.
    at: i64,
    /// In the row's interval.
    requests: f64,
}

/// Why a history is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line cannot be used.
    #[error("line {line}: {message}")]
    Line {
        /// Which, from 1; the header is one.
        line: u64,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The whole cannot.
    #[error("{0}")]
    Whole(String),
}

impl TraceError {
    fn line(line: u64, message: impl Into<String>) -> Self {
        Self::Line {
            line,
            message: message.into(),
        }
    }
}

impl Trace {
    /// Reads CSV with a header that names at least `time` (RFC 3339 with an offset) and `requests`; columns may be in any
    /// order, others are passed over.
    ///
    /// # Errors
    /// [`TraceError`] with the line: a column that is missing, requests that are no number, negative or not finite, a time
    /// without offset or not after the one before; fewer than two rows; more than ten years.
    pub fn from_csv(mut file: impl Read) -> Result<Self, TraceError> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| TraceError::Whole(format!("cannot be read: {error}")))?;
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(&*bytes);
        let header = reader.headers().map_err(|error| unreadable(&error))?.clone();
        let named = |name: &str| {
            let is_it = |field: &str| field.trim_start_matches('\u{feff}').eq_ignore_ascii_case(name);
            header.iter().position(is_it)
        };
        if header.is_empty() || header.iter().all(str::is_empty) {
            return Err(TraceError::Whole(
                "is empty: expected a header with `time` and `requests`, and rows".to_owned(),
            ));
        }
        let column = |name: &str| {
            named(name).ok_or_else(|| {
                let present: Vec<&str> = header.iter().collect();
                let message = format!(
                    "there is no column `{name}`, only {}: expected a header with `time` and `requests`",
                    present.join(", ")
                );
                TraceError::line(1, message)
            })
        };
        let (time, requests) = (column("time")?, column("requests")?);
        let mut rows = Rows::default();
        let mut record = csv::StringRecord::new();
        while reader
            .read_record(&mut record)
            .map_err(|error| unreadable(&error))?
        {
            let line = record.position().map_or(0, |position| line_of(position, &bytes));
            let field = |index: usize, name: &str| {
                record
                    .get(index)
                    .filter(|text| !text.is_empty())
                    .ok_or_else(|| TraceError::line(line, format!("`{name}` is missing")))
            };
            rows.add(line, field(time, "time")?, field(requests, "requests")?)?;
        }
        let [first, second, ..] = &rows.rows[..] else {
            let message = match rows.rows.len() {
                0 => "has a header and no rows: expected two at least",
                _ => "has one row, which does not tell how long rows are: expected two at least",
            };
            return Err(TraceError::Whole(message.to_owned()));
        };
        let length = second.at - first.at;
        rows.finish(length)
            .ok_or_else(|| TraceError::Whole("has no rows".to_owned()))
    }

    /// A history that is in memory: when each row begins, and the requests in its interval. A row lasts until the next one, but
    /// never longer than `length`; what is left is a gap. Times are written in UTC.
    ///
    /// # Errors
    /// [`TraceError::Whole`]: no row; requests that are negative or not finite, a time that is not after the one before, with
    /// that time; no length; more than ten years.
    pub fn from_rows(
        rows: impl IntoIterator<Item = (Timestamp, f64)>,
        length: Duration,
    ) -> Result<Self, TraceError> {
        let mut read = Rows::default();
        for (at, requests) in rows {
            let wrong = |what: String| TraceError::Whole(format!("{at}: {what}"));
            checked(requests).map_err(|what| wrong(format!("{requests} {what}")))?;
            read.push(at, Offset::UTC, requests)
                .map_err(|what| wrong(what.to_owned()))?;
        }
        let length = i64::try_from(length.as_nanos())
            .ok()
            .filter(|length| (1..=LONGEST).contains(length))
            .ok_or_else(|| TraceError::Whole(format!("rows cannot last {length:?}")))?;
        read.finish(length)
            .ok_or_else(|| TraceError::Whole("has no rows".to_owned()))
    }

    /// Requests of one minute after the other.
    pub(crate) fn by_minutes(start: Timestamp, offset: Offset, requests: &[f64]) -> Self {
        const MINUTE: i64 = 60 * NANOS;
        let starts = (0_i64..).map(|minute| minute * MINUTE);
        let rows = starts.zip(requests);
        Self {
            start,
            offset,
            rows: rows
                .map(|(at, requests)| Row {
                    at,
                    requests: *requests,
                })
                .collect(),
            length: MINUTE,
        }
    }

    /// When it begins.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The offset from UTC in which its times are written: the first row's.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// How many ticks it has.
    pub fn ticks(&self) -> u32 {
        let last = self.rows.last().map_or(0, |row| row.at);
        let ticks = (last + self.length).div_euclid(tick_nanos())
            + i64::from((last + self.length).rem_euclid(tick_nanos()) > 0);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// The requests of each tick. Nothing after a tick can be learnt from what was handed out before it.
    pub(crate) fn arrivals(&self) -> Arrivals<'_> {
        Arrivals {
            trace: self,
            row: 0,
            tick: 0,
        }
    }

    /// How long a row lasts, in nanoseconds.
    fn lasts(&self, row: usize) -> i64 {
        let next = self.rows.get(row + 1).map(|next| next.at - self.rows[row].at);
        next.map_or(self.length, |until| until.min(self.length))
    }

    /// The history's first part, of so many rows. For tests of what may not look ahead.
    #[cfg(test)]
    pub(crate) fn prefix(&self, rows: usize) -> Self {
        Self {
            rows: self.rows[..rows].to_vec(),
            ..self.clone()
        }
    }
}

/// Rows as they are read.
#[derive(Default)]
struct Rows {
    start: Option<(Timestamp, Offset)>,
    rows: Vec<Row>,
}

impl Rows {
    fn add(&mut self, line: u64, time: &str, requests: &str) -> Result<(), TraceError> {
        let (at, offset) = moment(time).ok_or_else(|| {
            let message = format!(
                "`{time}` is not a time with an offset: expected RFC 3339, for example 2026-01-02T03:04:00Z or \
                 2026-01-02T03:04:00-04:00"
            );
            TraceError::line(line, message)
        })?;
        let wrong = |what: &str| {
            let message =
                format!("`{requests}` {what}: expected the number of requests in this row's interval");
            TraceError::line(line, message)
        };
        let parsed: f64 = requests.parse().map_err(|_| wrong("is no number"))?;
        checked(parsed).map_err(wrong)?;
        self.push(at, offset, parsed).map_err(|what| match what {
            NOT_AFTER => TraceError::line(line, format!("`{time}` {what}: expected times that ascend")),
            _ => TraceError::line(line, what),
        })
    }

    /// A row that is known to be a number of requests.
    fn push(&mut self, at: Timestamp, offset: Offset, requests: f64) -> Result<(), &'static str> {
        let (start, _) = *self.start.get_or_insert((at, offset));
        let since = i64::try_from(at.as_nanosecond() - start.as_nanosecond())
            .ok()
            .filter(|since| *since <= LONGEST)
            .ok_or("is more than ten years after the first row")?;
        if self.rows.last().is_some_and(|last| since <= last.at) {
            return Err(NOT_AFTER);
        }
        self.rows.push(Row { at: since, requests });
        Ok(())
    }

    /// Rows that last so long at most; `None` without any.
    fn finish(self, length: i64) -> Option<Trace> {
        let (start, offset) = self.start?;
        Some(Trace {
            start,
            offset,
            length,
            rows: self.rows,
        })
    }
}

const NOT_AFTER: &str = "is not after the row before";

/// Whether so many requests can be.
fn checked(requests: f64) -> Result<(), &'static str> {
    if !requests.is_finite() {
        return Err("is not finite");
    }
    if requests < 0.0 {
        return Err("is negative");
    }
    Ok(())
}

/// A time and the offset that it is written with.
fn moment(text: &str) -> Option<(Timestamp, Offset)> {
    let at: Timestamp = text.parse().ok()?;
    let offset = Pieces::parse(text)
        .ok()?
        .to_numeric_offset()
        .unwrap_or(Offset::UTC);
    // Its times are printed with it.
    TimeZone::fixed(offset)
        .to_datetime(at)
        .date()
        .year()
        .is_positive()
        .then_some((at, offset))
}

/// The line of a record. Its position is where the one before ended: blank lines may come first.
fn line_of(position: &csv::Position, bytes: &[u8]) -> u64 {
    let from = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = bytes.get(from..).unwrap_or_default().iter();
    let blank = rest.take_while(|byte| matches!(byte, b'\n' | b'\r'));
    position.line() + blank.filter(|byte| **byte == b'\n').count() as u64
}

fn unreadable(error: &csv::Error) -> TraceError {
    match error.position() {
        Some(position) => TraceError::line(position.line(), error.to_string()),
        None => TraceError::Whole(format!("cannot be read: {error}")),
    }
}

fn tick_nanos() -> i64 {
    i64::try_from(TICK.as_nanos()).unwrap_or(i64::MAX)
}

/// Hands out the requests of one tick after the other.
pub(crate) struct Arrivals<'t> {
    trace: &'t Trace,
    row: usize,
    tick: u32,
}

impl Iterator for Arrivals<'_> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        if self.tick >= self.trace.ticks() {
            return None;
        }
        let from = i64::from(self.tick) * tick_nanos();
        let to = from + tick_nanos();
        self.tick += 1;
        let mut requests = 0.0;
        while let Some(row) = self.trace.rows.get(self.row) {
            if row.at >= to {
                break;
            }
            let lasts = self.trace.lasts(self.row);
            let end = row.at + lasts;
            let overlap = end.min(to) - row.at.max(from);
            if overlap > 0 {
                #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a tick and of a row")]
                let share = overlap as f64 / lasts as f64;
                requests += row.requests * share;
            }
            if end > to {
                break;
            }
            self.row += 1;
        }
        Some(requests)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    fn read(text: &str) -> Result<Trace, TraceError> {
        Trace::from_csv(text.as_bytes())
    }

    fn arrivals(text: &str) -> Vec<f64> {
        read(text).unwrap().arrivals().collect()
    }

    #[test]
    fn columns_may_be_in_any_order_among_others_and_the_first_offset_is_kept() {
        let trace =
            read("host,requests,time\nx,42,1995-07-01T00:00:00-04:00\ny,61,1995-07-01T00:01:00-04:00\n")
                .unwrap();
        assert_eq!(trace.start(), "1995-07-01T04:00:00Z".parse().unwrap());
        assert_eq!(trace.offset(), Offset::constant(-4));
        assert_eq!(trace.ticks(), 8);
        assert_eq!(trace.arrivals().sum::<f64>(), 103.0);
    }

    #[test]
    fn a_tick_takes_the_exact_share_of_the_rows_it_overlaps() {
        // Rows of 20 s: the second tick has 5 s of the first and 10 s of the second.
        let text =
            "time,requests\n2026-01-01T00:00:00Z,20\n2026-01-01T00:00:20Z,40\n2026-01-01T00:00:40Z,0\n";
        assert_eq!(arrivals(text), [15.0, 25.0, 20.0, 0.0]);
        // Rows shorter than a tick.
        let text = "time,requests\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:05Z,2\n2026-01-01T00:00:10Z,4\n";
        assert_eq!(arrivals(text), [7.0]);
    }

    #[test]
    fn a_row_never_lasts_longer_than_the_first_two_are_apart_and_the_rest_is_a_gap() {
        let text = "time,requests\n2026-01-01T00:00:00Z,4\n2026-01-01T00:00:30Z,8\n2026-01-01T00:02:00Z,2\n";
        assert_eq!(arrivals(text), [2.0, 2.0, 4.0, 4.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn rows_in_memory_last_as_long_as_is_said_also_where_the_first_two_are_further_apart() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let rows = [(at(60), 4.0), (at(180), 8.0)];
        let trace = Trace::from_rows(rows, Duration::from_secs(60)).unwrap();
        let arrivals: Vec<f64> = trace.arrivals().collect();
        assert_eq!(
            arrivals,
            [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0]
        );
        assert_eq!((trace.start(), trace.offset()), (at(60), Offset::UTC));
        let one = Trace::from_rows([(at(0), 3.0)], Duration::from_secs(15)).unwrap();
        assert_eq!(one.arrivals().collect::<Vec<_>>(), [3.0]);
    }

    #[test]
    fn rows_in_memory_that_cannot_be_used_are_named_with_their_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let minute = Duration::from_secs(60);
        for (rows, length, said) in [
            (vec![], minute, "has no rows"),
            (vec![(at(0), 1.0)], Duration::ZERO, "cannot last"),
            (vec![(at(0), 1.0)], Duration::MAX, "cannot last"),
            (
                vec![(at(0), -1.0)],
                minute,
                "1970-01-01T00:00:00Z: -1 is negative",
            ),
            (
                vec![(at(60), f64::NAN)],
                minute,
                "1970-01-01T00:01:00Z: NaN is not finite",
            ),
            (vec![(at(60), 1.0), (at(60), 1.0)], minute, "is not after"),
            (vec![(at(0), 1.0), (at(1 << 32), 1.0)], minute, "ten years"),
        ] {
            let error = Trace::from_rows(rows, length).unwrap_err().to_string();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        let row = "2026-01-01T00:00:00Z,1\n";
        for (text, line, word) in [
            (format!("time,count\n{row}"), Some(1), "requests"),
            (format!("when,requests\n{row}"), Some(1), "time"),
            (
                format!("time,requests\n{row}2026-01-01T00:01:00Z,x\n"),
                Some(3),
                "no number",
            ),
            (
                format!("time,requests\n{row}2026-01-01T00:01:00Z,-1\n"),
                Some(3),
                "negative",
            ),
            (
                format!("time,requests\n{row}2026-01-01T00:01:00Z,NaN\n"),
                Some(3),
                "not finite",
            ),
            (
                format!("time,requests\n{row}2026-01-01T00:01:00Z,inf\n"),
                Some(3),
                "not finite",
            ),
            (
                format!("time,requests\n{row}2026-01-01T00:01:00Z\n"),
                Some(3),
                "`requests` is missing",
            ),
            (
                format!("time,requests\n{row}2026-01-01T00:01:00,1\n"),
                Some(3),
                "offset",
            ),
            (format!("time,requests\n{row}yesterday,1\n"), Some(3), "offset"),
            (format!("time,requests\n{row}\n{row}"), Some(4), "not after"),
            (
                format!("time,requests\n{row}2025-12-31T00:00:00Z,1\n"),
                Some(3),
                "not after",
            ),
            (
                format!("time,requests\n{row}2126-01-01T00:00:00Z,1\n"),
                Some(3),
                "ten years",
            ),
            (String::new(), None, "empty"),
            ("\n".to_owned(), None, "empty"),
            ("time,requests\n".to_owned(), None, "no rows"),
            (format!("time,requests\n{row}"), None, "one row"),
        ] {
            let error = read(&text).unwrap_err();
            let found = match &error {
                TraceError::Line { line, .. } => Some(*line),
                TraceError::Whole(_) => None,
            };
            assert_eq!(found, line, "{text:?}: {error}");
            assert!(error.to_string().contains(word), "{text:?}: {error}");
        }
        assert!(read("time,requests\n\u{0},\u{0}\n").is_err());
        assert!(Trace::from_csv(&b"time,requests\n\xff,1\n"[..]).is_err());
    }
}
