//! What a month cost, from the hours that leaders accounted.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan as _, Zoned, civil::Date, tz::TimeZone};
use smartscale_planner::model::Market;
use smartscale_proto::{
    time::to_wire,
    v1::{CostGap, CostPeak, CostRow, GetCostRequest, GetCostResponse},
};
use tonic::Status;

use super::{AdminDesk, unavailable};
use crate::state::{
    cost::{self, CostHour, HOUR, Peak, add_to},
    records::Record as _,
};

/// More hours than any month has.
const MOST_HOURS: usize = 800;
/// Less than that is missing by the rounding of sums alone.
const NOTHING: f64 = 1.0;
/// The account is written every minute, and made from looks half a minute apart: so far behind it is up to date.
const BEHIND: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

impl AdminDesk {
    pub(super) async fn cost(&self, request: GetCostRequest) -> Result<GetCostResponse, Status> {
        let now = self.now();
        let month = Month::of(&request.month, now)?;
        let prefix = format!("{}{}-", CostHour::PREFIX, month.name);
        let items = self.beside.store.list(&prefix, false, MOST_HOURS).await;
        let items = items.map_err(|error| unavailable(&error))?;
        let mut notes = Vec::new();
        let mut hours = Vec::new();
        for item in &items {
            match CostHour::from_item(item) {
                Ok(hour) => hours.push(hour),
                Err(error) => notes.push(error.to_string()),
            }
        }
        let latest = self.parts.latest.borrow().clone();
        let currency = latest.map_or_else(Default::default, |latest| latest.policy.currency.clone());
        Ok(GetCostResponse {
            cluster_id: self.beside.cluster.clone(),
            currency: currency.code.to_string(),
            currency_per_usd: currency.per_usd,
            notes,
            ..told(&month, &hours, now)
        })
    }
}

/// A month of UTC.
struct Month {
    name: String,
    begins: Timestamp,
    ends: Timestamp,
}

impl Month {
    fn of(name: &str, now: Timestamp) -> Result<Self, Status> {
        let present = now.to_zoned(TimeZone::UTC).date();
        let first = if name.is_empty() {
            present.first_of_month()
        } else {
            Date::strptime("%Y-%m-%d", format!("{name}-01"))
                .ok()
                .filter(|first| name.len() == 7 && *first <= present)
                .ok_or_else(|| {
                    Status::invalid_argument(format!(
                        "month: `{name}` is no month that has begun, for example {}",
                        present.strftime("%Y-%m")
                    ))
                })?
        };
        let begin = |date: Date| date.to_zoned(TimeZone::UTC).map(|zoned: Zoned| zoned.timestamp());
        let next = first.checked_add(1.month()).and_then(begin);
        let (Ok(begins), Ok(ends)) = (begin(first), next) else {
            return Err(Status::invalid_argument(format!(
                "month: `{name}` is too far away"
            )));
        };
        Ok(Self {
            name: first.strftime("%Y-%m").to_string(),
            begins,
            ends,
        })
    }
}

/// What the hours of a month say together.
fn told(month: &Month, hours: &[CostHour], now: Timestamp) -> GetCostResponse {
    let accounted = hours.iter().map(|hour| hour.until).max();
    // Where the account stands, if it goes on; else up to now, of which the last part is then missing.
    let ends = accounted
        .filter(|until| *until <= now && now.duration_since(*until) <= BEHIND)
        .unwrap_or(now)
        .min(month.ends);
    let seconds: f64 = hours.iter().map(|hour| hour.seconds).sum();
    let mut rows = Vec::new();
    for row in hours.iter().flat_map(|hour| &hour.rows) {
        add_to(&mut rows, row);
    }
    rows.sort_by(|a, b| {
        let key = |row: &cost::CostRow| (row.pool.clone(), row.market, row.instance_type.clone());
        key(a).cmp(&key(b))
    });
    let mut total = cost::CostRow::new("".into(), Market::OnDemand, "".into());
    rows.iter().for_each(|row| total.add(row));
    let spot = rows.iter().filter(|row| row.market == Market::Spot);
    let spot_saved_usd = spot.map(|row| row.on_demand_usd - row.usd).sum();
    let peak = hours
        .iter()
        .filter_map(|hour| hour.peak)
        .max_by(|a, b| a.usd_per_hour.total_cmp(&b.usd_per_hour).then(b.at.cmp(&a.at)))
        .map(|peak| fixed(&peak, seconds));
    let saving_percent = peak
        .as_ref()
        .filter(|peak| peak.fixed_usd > 0.0 && total.unpriced_seconds < NOTHING)
        .map(|peak| 100.0 * (1.0 - total.usd / peak.fixed_usd));
    GetCostResponse {
        month: month.name.clone(),
        begins: Some(to_wire(month.begins)),
        ends: Some(to_wire(ends)),
        accounted_hours: seconds / 3600.0,
        gaps: gaps(month.begins, ends, hours),
        rows: rows.iter().map(on_wire).collect(),
        total: Some(CostRow {
            market: String::new(),
            ..on_wire(&total)
        }),
        peak,
        saving_percent,
        spot_saved_usd,
        ..GetCostResponse::default()
    }
}

/// A fleet that is all the time what was at work at the peak, bought on demand.
fn fixed(peak: &Peak, seconds: f64) -> CostPeak {
    CostPeak {
        at: Some(to_wire(peak.at)),
        nodes: peak.nodes,
        usd_per_hour: peak.usd_per_hour,
        fixed_usd: peak.usd_per_hour * seconds / 3600.0,
    }
}

fn on_wire(row: &cost::CostRow) -> CostRow {
    CostRow {
        pool: row.pool.to_string(),
        market: row.market.to_string(),
        instance_type: row.instance_type.to_string(),
        node_hours: row.node_seconds / 3600.0,
        usd: row.usd,
        on_demand_usd: row.on_demand_usd,
        unpriced_hours: row.unpriced_seconds / 3600.0,
        assumed_hours: row.assumed_seconds / 3600.0,
        empty_hours: row.empty_seconds / 3600.0,
        empty_usd: row.empty_usd,
        unseen_hours: row.unseen_seconds / 3600.0,
    }
}

/// The hours between two moments of which something is not accounted, those in a row as one.
fn gaps(begins: Timestamp, ends: Timestamp, hours: &[CostHour]) -> Vec<CostGap> {
    let accounted: BTreeMap<Timestamp, f64> = hours.iter().map(|hour| (hour.begins, hour.seconds)).collect();
    let mut gaps: Vec<(Timestamp, Timestamp, f64)> = Vec::new();
    let mut hour = begins;
    while hour < ends {
        let next = hour.checked_add(HOUR).unwrap_or(ends).min(ends);
        let missing = next.duration_since(hour).as_secs_f64() - accounted.get(&hour).copied().unwrap_or(0.0);
        if missing > NOTHING {
            match gaps.last_mut().filter(|gap| gap.1 == hour) {
                Some(gap) => (gap.1, gap.2) = (next, gap.2 + missing),
                None => gaps.push((hour, next, missing)),
            }
        }
        hour = next;
    }
    let on_wire = |(begins, ends, missing): (Timestamp, Timestamp, f64)| CostGap {
        begins: Some(to_wire(begins)),
        ends: Some(to_wire(ends)),
        missing_hours: missing / 3600.0,
    };
    gaps.into_iter().map(on_wire).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_proto::time::from_wire;

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn row(kind: &str, market: Market, node_seconds: f64, usd: f64, on_demand_usd: f64) -> cost::CostRow {
        cost::CostRow {
            node_seconds,
            usd,
            on_demand_usd,
            ..cost::CostRow::new("workers".into(), market, kind.into())
        }
    }

    fn hour(begins: &str, seconds: f64, peak: Option<(u32, f64)>, rows: &[cost::CostRow]) -> CostHour {
        let begins = time(begins);
        CostHour {
            until: begins + HOUR,
            seconds,
            peak: peak.map(|(nodes, usd_per_hour)| Peak {
                at: begins,
                nodes,
                usd_per_hour,
            }),
            rows: rows.to_vec(),
            ..CostHour::new(begins)
        }
    }

    fn month(name: &str) -> Month {
        Month::of(name, time("2026-12-01T10:00:00Z")).unwrap()
    }

    /// Two hours of four accounted: 2 nodes, then 1, of 0.10 USD on demand and 0.04 as spot.
    fn hours() -> Vec<CostHour> {
        let spot = |seconds: f64| {
            row(
                "small",
                Market::Spot,
                seconds,
                seconds * 0.04 / 3600.0,
                seconds * 0.1 / 3600.0,
            )
        };
        vec![
            hour("2026-11-01T01:00:00Z", 3600.0, Some((2, 0.2)), &[spot(7200.0)]),
            hour(
                "2026-11-01T03:00:00Z",
                1800.0,
                Some((1, 0.1)),
                &[row("small", Market::OnDemand, 1800.0, 0.05, 0.05), spot(900.0)],
            ),
        ]
    }

    fn close(figure: f64, expected: f64) {
        assert!(
            (figure - expected).abs() < 1e-9,
            "{figure} where {expected} is right"
        );
    }

    #[test]
    fn a_month_is_summed_as_by_hand() {
        let cost = told(&month("2026-11"), &hours(), time("2026-11-01T04:00:00Z"));
        let rows: Vec<_> = cost
            .rows
            .iter()
            .map(|row| (row.market.as_str(), row.node_hours))
            .collect();
        assert_eq!(rows.len(), 2);
        for (market, hours) in rows {
            close(hours, if market == "spot" { 2.25 } else { 0.5 });
        }
        let total = cost.total.unwrap();
        close(total.usd, 2.25 * 0.04 + 0.05);
        close(total.on_demand_usd, 0.275);
        close(cost.spot_saved_usd, 2.25 * 0.06);
        close(cost.accounted_hours, 1.5);
        let peak = cost.peak.unwrap();
        assert_eq!(peak.nodes, 2);
        // 0.2 USD an hour for the hour and a half that is accounted.
        close(peak.fixed_usd, 0.3);
        close(cost.saving_percent.unwrap(), 100.0 * (1.0 - 0.14 / 0.3));
    }

    #[test]
    fn time_that_is_not_accounted_is_told_and_guessed_nowhere() {
        let gaps = |now: &str| -> Vec<(String, String, f64)> {
            let cost = told(&month("2026-11"), &hours(), time(now));
            let text = |at: &Option<prost_types::Timestamp>| {
                let at = from_wire(at.as_ref().unwrap()).unwrap();
                at.strftime("%d %H:%M").to_string()
            };
            let gaps = cost.gaps.iter();
            gaps.map(|gap| (text(&gap.begins), text(&gap.ends), gap.missing_hours))
                .collect()
        };
        let told = |gaps: &[(&str, &str, f64)]| -> Vec<(String, String, f64)> {
            let owned = gaps.iter();
            owned
                .map(|(from, to, hours)| ((*from).to_owned(), (*to).to_owned(), *hours))
                .collect()
        };
        let first = [("01 00:00", "01 01:00", 1.0), ("01 02:00", "01 04:00", 1.5)];
        // The account goes on: what is younger than it is not missing yet.
        assert_eq!(gaps("2026-11-01T04:03:00Z"), told(&first));
        // It does not.
        let later = [("01 00:00", "01 01:00", 1.0), ("01 02:00", "01 05:30", 3.0)];
        assert_eq!(gaps("2026-11-01T05:30:00Z"), told(&later));
        let whole = &gaps("2026-12-01T10:00:00Z");
        assert_eq!(whole.last().map(|gap| gap.1.as_str()), Some("01 00:00"));
    }

    #[test]
    fn with_an_unknown_price_nothing_is_said_of_a_saving() {
        let mut hours = hours();
        hours[0].rows[0].unpriced_seconds = 60.0;
        let cost = told(&month("2026-11"), &hours, time("2026-11-01T04:00:00Z"));
        assert_eq!(cost.saving_percent, None);
        assert!(cost.total.unwrap().unpriced_hours > 0.0);
    }

    #[test]
    fn a_month_is_named_by_year_and_month_and_has_begun() {
        let now = time("2026-12-01T10:00:00Z");
        assert_eq!(month("").name, "2026-12");
        let february = month("2024-02");
        assert_eq!(february.ends.duration_since(february.begins).as_hours(), 29 * 24);
        for wrong in ["2027-01", "2026-13", "2026-1", "november", "2026-11-01", "-"] {
            let refused = Month::of(wrong, now).err().unwrap();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{wrong}");
        }
    }
}
