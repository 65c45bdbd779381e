//! What a month cost, for people.

use smartscale_proto::v1::{CostRow, GetCostResponse};

use super::{
    render::Answer,
    show::{Time, hanging, or_dash, read},
    table::table,
};

/// Gaps that are named; more are summed.
const MOST_GAPS: usize = 8;
/// The column in which the figures below the table begin.
const FIGURES: usize = 15;

/// What amounts are shown in.
struct Money<'a> {
    currency: &'a str,
    per_usd: f64,
    decimals: usize,
}

impl Money<'_> {
    fn amount(&self, usd: f64) -> String {
        format!("{:.*}", self.decimals, usd * self.per_usd)
    }

    fn named(&self, usd: f64) -> String {
        format!("{} {}", self.amount(usd), self.currency)
    }
}

impl Answer for GetCostResponse {
    const NAME: &'static str = "GetCostResponse";

    fn table(&self) -> String {
        let none = CostRow::default();
        let total = self.total.as_ref().unwrap_or(&none);
        let largest = total.on_demand_usd.max(total.usd) * self.currency_per_usd;
        let money = Money {
            currency: &self.currency,
            per_usd: self.currency_per_usd,
            // Of a few cents the hundredths say nothing.
            decimals: if largest < 10.0 { 4 } else { 2 },
        };
        let mut text = format!(
            "{}, {} (UTC) up to {}",
            self.cluster_id,
            self.month,
            moment(&self.ends)
        );
        if self.currency != "USD" {
            text.push_str(&format!("; {} {} a USD", self.currency_per_usd, self.currency));
        }
        text.push_str("\n\n");
        text.push_str(&rows(self, total, &money));
        text.push('\n');
        for line in figures(self, total, &money) {
            text.push('\n');
            text.push_str(&hanging(&line, FIGURES));
        }
        for warning in warnings(self, total) {
            text.push('\n');
            text.push_str(&hanging(&format!("warning: {warning}"), 9));
        }
        text
    }
}

fn rows(cost: &GetCostResponse, total: &CostRow, money: &Money<'_>) -> String {
    let header = ["NODE-HOURS", "PAID", "ON DEMAND", "EMPTY HOURS"];
    let figures = |row: &CostRow| {
        // What is not known in full is marked, and no amount where none of it is.
        let part = if row.unpriced_hours > 0.0 { "?" } else { "" };
        let amount = |usd: f64| match row.node_hours - row.unpriced_hours {
            priced if priced <= 0.0 && !part.is_empty() => "?".to_owned(),
            _ => format!("{}{part}", money.amount(usd)),
        };
        [
            format!("{:.2}", row.node_hours),
            amount(row.usd),
            amount(row.on_demand_usd),
            format!("{:.2}", row.empty_hours),
        ]
    };
    let mut all: Vec<([String; 3], [String; 4])> = cost
        .rows
        .iter()
        .map(|row| {
            let names = [or_dash(&row.pool), row.market.clone(), row.instance_type.clone()];
            (names, figures(row))
        })
        .collect();
    if all.is_empty() {
        return "no machine was billed in the time that is accounted".to_owned();
    }
    all.push((["all".to_owned(), String::new(), String::new()], figures(total)));
    let widths: [usize; 4] = std::array::from_fn(|column| {
        let cells = all.iter().map(|(_, figures)| figures[column].len());
        cells.max().unwrap_or_default().max(header[column].len())
    });
    let right = |cell: &str, width: usize| format!("{cell:>width$}");
    let titles: Vec<String> = header
        .iter()
        .zip(widths)
        .map(|(title, width)| right(title, width))
        .collect();
    let mut columns = vec!["POOL", "MARKET", "TYPE"];
    columns.extend(titles.iter().map(String::as_str));
    let lines: Vec<Vec<String>> = all
        .iter()
        .map(|(names, figures)| {
            let figures = figures.iter().zip(widths);
            let figures = figures.map(|(cell, width)| right(cell, width));
            names.iter().cloned().chain(figures).collect()
        })
        .collect();
    table(&columns, &lines).trim_end().to_owned()
}

/// What there is to say of all of it, a line each, its name in the first columns.
fn figures(cost: &GetCostResponse, total: &CostRow, money: &Money<'_>) -> Vec<String> {
    let line = |name: &str, text: String| format!("{name:<FIGURES$}{text}");
    let mut lines = vec![line("paid", money.named(total.usd))];
    match &cost.peak {
        Some(peak) => lines.push(line(
            "fixed at peak",
            format!(
                "{}: {} nodes as at {}, {} an hour on demand, for {:.1} h",
                money.named(peak.fixed_usd),
                peak.nodes,
                moment(&peak.at),
                money.named(peak.usd_per_hour),
                cost.accounted_hours
            ),
        )),
        None => lines.push(line(
            "fixed at peak",
            "unknown: no node was seen at work".to_owned(),
        )),
    }
    lines.push(line(
        "saved",
        match (cost.saving_percent, &cost.peak) {
            (Some(percent), Some(peak)) => {
                format!("{percent:.1} %, {}", money.named(peak.fixed_usd - total.usd))
            }
            _ => "unknown".to_owned(),
        },
    ));
    lines.push(line("spot saved", money.named(cost.spot_saved_usd)));
    let mut wasted = format!(
        "{:.0} empty node-minutes, {}",
        total.empty_hours * 60.0,
        money.named(total.empty_usd)
    );
    if total.unseen_hours > 0.0 {
        wasted.push_str(&format!("; of {:.1} node-hours nobody knows", total.unseen_hours));
    }
    lines.push(line("wasted", wasted));
    let missing: f64 = cost.gaps.iter().map(|gap| gap.missing_hours).sum();
    let mut accounted = format!("{:.1} h", cost.accounted_hours);
    if missing > 0.0 {
        accounted.push_str(&format!(
            " of {:.1}; not accounted, and in no figure:",
            cost.accounted_hours + missing
        ));
    }
    lines.push(line("accounted", accounted));
    for gap in cost.gaps.iter().take(MOST_GAPS) {
        let (from, to) = (moment(&gap.begins), moment(&gap.ends));
        lines.push(line(
            "",
            format!("{:.1} h from {from} to {to}", gap.missing_hours),
        ));
    }
    let more = cost.gaps.get(MOST_GAPS..).unwrap_or_default();
    if !more.is_empty() {
        let hours: f64 = more.iter().map(|gap| gap.missing_hours).sum();
        lines.push(line("", format!("{hours:.1} h in {} more places", more.len())));
    }
    lines
}

fn warnings(cost: &GetCostResponse, total: &CostRow) -> Vec<String> {
    let mut warnings = Vec::new();
    if total.unpriced_hours > 0.0 {
        warnings.push(format!(
            "nobody knew a price for {:.1} node-hours: they are in no amount, and what was saved is not known",
            total.unpriced_hours
        ));
    }
    if total.assumed_hours > 0.0 {
        warnings.push(format!(
            "for {:.1} node-hours the prices of the built-in catalogue were assumed",
            total.assumed_hours
        ));
    }
    warnings.extend(cost.notes.iter().cloned());
    warnings
}

fn moment(time: &Time) -> String {
    read(time).map_or_else(
        || "-".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_proto::{
        time::to_wire,
        v1::{CostGap, CostPeak},
    };

    use super::*;

    fn at(text: &str) -> Time {
        Some(to_wire(text.parse().unwrap()))
    }

    fn row(market: &str, instance_type: &str, node_hours: f64, usd: f64, on_demand_usd: f64) -> CostRow {
        CostRow {
            pool: "workers".to_owned(),
            market: market.to_owned(),
            instance_type: instance_type.to_owned(),
            node_hours,
            usd,
            on_demand_usd,
            empty_hours: node_hours / 100.0,
            empty_usd: usd / 100.0,
            ..CostRow::default()
        }
    }

    fn november() -> GetCostResponse {
        GetCostResponse {
            cluster_id: "k3s-demo".to_owned(),
            month: "2026-11".to_owned(),
            begins: at("2026-11-01T00:00:00Z"),
            ends: at("2026-12-01T00:00:00Z"),
            accounted_hours: 720.0,
            gaps: vec![],
            rows: vec![
                row("on-demand", "t3.small", 720.0, 14.976, 14.976),
                row("spot", "m6i.4xlarge", 310.5, 71.415, 238.464),
            ],
            total: Some(CostRow {
                pool: String::new(),
                ..row("", "", 1030.5, 86.391, 253.44)
            }),
            peak: Some(CostPeak {
                at: at("2026-11-12T14:00:30Z"),
                nodes: 4,
                usd_per_hour: 2.3248,
                fixed_usd: 1673.856,
            }),
            saving_percent: Some(94.8387),
            spot_saved_usd: 167.049,
            currency: "USD".to_owned(),
            currency_per_usd: 1.0,
            notes: vec![],
        }
    }

    fn fits(text: &str) {
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_month_is_shown_by_pool_market_and_type_with_what_was_saved() {
        let text = november().table();
        fits(&text);
        assert_eq!(
            text,
            "\
k3s-demo, 2026-11 (UTC) up to 2026-12-01 00:00

POOL     MARKET     TYPE         NODE-HOURS   PAID  ON DEMAND  EMPTY HOURS
workers  on-demand  t3.small         720.00  14.98      14.98         7.20
workers  spot       m6i.4xlarge      310.50  71.42     238.46         3.10
all                                 1030.50  86.39     253.44        10.30

paid           86.39 USD
fixed at peak  1673.86 USD: 4 nodes as at 2026-11-12 14:00, 2.32 USD an hour on
               demand, for 720.0 h
saved          94.8 %, 1587.46 USD
spot saved     167.05 USD
wasted         618 empty node-minutes, 0.86 USD
accounted      720.0 h"
        );
    }

    #[test]
    fn another_currency_gaps_and_unknown_prices_are_said() {
        let mut cost = november();
        (cost.currency, cost.currency_per_usd) = ("BDT".to_owned(), 121.5);
        cost.accounted_hours = 700.0;
        cost.gaps = vec![CostGap {
            begins: at("2026-11-03T04:00:00Z"),
            ends: at("2026-11-04T01:00:00Z"),
            missing_hours: 20.0,
        }];
        cost.rows[0].unpriced_hours = 720.0;
        (cost.rows[0].usd, cost.rows[0].on_demand_usd) = (0.0, 0.0);
        cost.saving_percent = None;
        let total = cost.total.as_mut().unwrap();
        (total.unpriced_hours, total.assumed_hours, total.unseen_hours) = (720.0, 310.5, 12.0);
        (total.usd, total.on_demand_usd) = (71.415, 238.464);
        cost.notes = vec!["item `cost#x` cannot be read: no".to_owned()];
        let text = cost.table();
        fits(&text);
        assert_eq!(
            text,
            "\
k3s-demo, 2026-11 (UTC) up to 2026-12-01 00:00; 121.5 BDT a USD

POOL     MARKET     TYPE         NODE-HOURS      PAID  ON DEMAND  EMPTY HOURS
workers  on-demand  t3.small         720.00         ?          ?         7.20
workers  spot       m6i.4xlarge      310.50   8676.92   28973.38         3.10
all                                 1030.50  8676.92?  28973.38?        10.30

paid           8676.92 BDT
fixed at peak  203373.50 BDT: 4 nodes as at 2026-11-12 14:00, 282.46 BDT an hour
               on demand, for 700.0 h
saved          unknown
spot saved     20296.45 BDT
wasted         618 empty node-minutes, 104.97 BDT; of 12.0 node-hours nobody
               knows
accounted      700.0 h of 720.0; not accounted, and in no figure:
               20.0 h from 2026-11-03 04:00 to 2026-11-04 01:00
warning: nobody knew a price for 720.0 node-hours: they are in no amount, and
         what was saved is not known
warning: for 310.5 node-hours the prices of the built-in catalogue were assumed
warning: item `cost#x` cannot be read: no"
        );
    }

    #[test]
    fn cents_are_shown_with_their_hundredths_and_nothing_is_shown_as_nothing() {
        let mut cost = november();
        cost.total = Some(row("", "", 0.1, 0.001, 0.002));
        assert!(
            cost.table().contains("paid           0.0010 USD"),
            "{}",
            cost.table()
        );
        cost.rows.clear();
        cost.peak = None;
        let text = cost.table();
        assert!(text.contains("no machine was billed"), "{text}");
        assert!(text.contains("unknown: no node was seen at work"), "{text}");
        fits(&text);
    }
}
