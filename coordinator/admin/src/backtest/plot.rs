//! The policy's run as an SVG: demand, nodes, waiting and cost over time, one panel below the other on one axis.
//!
//! Colours are classes of a style sheet, so that the picture is readable in print and follows the viewer's dark mode. A long run has
//! more minutes than pixels: a column shows the highest of its minutes, so that no peak is lost.

use std::fmt::Write as _;

use smartscale_backtest::{Minute, Series};

/// Left of the panels, for the scale.
const LEFT: f64 = 70.0;
/// A panel's width; also the most columns.
const WIDTH: usize = 900;
/// A panel's height, and that of its title.
const HEIGHT: f64 = 120.0;
const TITLE: f64 = 26.0;
/// Below the last panel, for the dates.
const BOTTOM: f64 = 34.0;
/// Marks on the axis of time.
const MARKS: usize = 8;

const STYLE: &str = "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.frame{fill:none;stroke:#999}\
.grid{stroke:#ddd}.area{stroke:none;fill-opacity:.85}.a{fill:#2b6cb0}.b{fill:#2f855a}.c{fill:#c05621}.d{fill:#6b46c1}\
.short{fill:#c53030}.back{fill:#fff}\
@media (prefers-color-scheme:dark){text{fill:#ddd}.back{fill:#181a1b}.grid{stroke:#333}.frame{stroke:#777}\
.a{fill:#63b3ed}.b{fill:#68d391}.c{fill:#f6ad55}.d{fill:#b794f4}.short{fill:#fc8181}}";

/// One panel: its title, its colour, and what it shows of a minute.
type Panel = (&'static str, &'static str, fn(&Minute) -> f64);

const PANELS: [Panel; 4] = [
    ("requests a minute", "a", |minute| minute.requests),
    ("nodes billed", "b", |minute| minute.nodes_billed),
    (
        "pods without a node; red: minutes short of capacity",
        "c",
        |minute| f64::from(minute.pods_pending),
    ),
    ("USD an hour", "d", |minute| minute.cost_per_hour),
];

/// The picture.
pub(super) fn of(series: &Series) -> String {
    let minutes = &series.minutes;
    let columns = minutes.len().clamp(1, WIDTH);
    #[allow(clippy::cast_precision_loss, reason = "a number of pixels")]
    let (width, step) = (WIDTH as f64, WIDTH as f64 / columns as f64);
    #[allow(clippy::cast_precision_loss, reason = "a number of panels")]
    let height = PANELS.len() as f64 * (HEIGHT + TITLE) + BOTTOM;
    let mut svg = String::new();
    // A string takes whatever is written.
    let mut put = |text: std::fmt::Arguments<'_>| {
        let _ = svg.write_fmt(text);
    };
    let all = LEFT + width + 20.0;
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all} {height}\" role=\"img\">\n<title>backtest</title>\n\
         <style>{STYLE}</style>\n<rect class=\"back\" width=\"{all}\" height=\"{height}\"/>\n"
    ));
    let mut top = TITLE;
    for (title, class, of) in PANELS {
        let most = minutes.iter().map(of).fold(0.0_f64, f64::max);
        let scale = if most > 0.0 { HEIGHT / most } else { 0.0 };
        let base = top + HEIGHT;
        put(format_args!(
            "<text class=\"title\" x=\"{LEFT}\" y=\"{:.1}\">{title}</text>\n\
             <line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">0</text>\n<path class=\"area {class}\" d=\"",
            top - 6.0,
            LEFT + width,
            top + HEIGHT / 2.0,
            top + HEIGHT / 2.0,
            LEFT - 6.0,
            top + 10.0,
            figure(most),
            LEFT - 6.0,
        ));
        for (index, column) in in_columns(minutes, columns).enumerate() {
            let high = column.iter().map(of).fold(0.0_f64, f64::max);
            #[allow(clippy::cast_precision_loss, reason = "a number of pixels")]
            let x = LEFT + index as f64 * step;
            put(format_args!(
                "M{x:.1} {base:.1}V{:.1}H{:.1}V{base:.1}Z",
                base - high * scale,
                x + step
            ));
        }
        put(format_args!("\"/>\n"));
        if class == "c" {
            shortfalls(&mut put, minutes, columns, step, base);
        }
        put(format_args!(
            "<rect class=\"frame\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width}\" height=\"{HEIGHT}\"/>\n"
        ));
        top += HEIGHT + TITLE;
    }
    for mark in 0..MARKS {
        let index = mark * minutes.len() / MARKS;
        let Some(minute) = minutes.get(index) else {
            continue;
        };
        #[allow(clippy::cast_precision_loss, reason = "a number of minutes")]
        let x = LEFT + index as f64 / minutes.len() as f64 * width;
        let time = series.offset.to_datetime(minute.time);
        put(format_args!(
            "<text x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n",
            top - TITLE + 18.0,
            time.strftime("%Y-%m-%d %H:%M")
        ));
    }
    put(format_args!("</svg>\n"));
    svg
}

/// Marks the columns that have a minute short of capacity.
fn shortfalls(
    put: &mut impl FnMut(std::fmt::Arguments<'_>),
    minutes: &[Minute],
    columns: usize,
    step: f64,
    base: f64,
) {
    put(format_args!("<path class=\"short\" d=\""));
    for (index, column) in in_columns(minutes, columns).enumerate() {
        if column.iter().any(|minute| minute.short) {
            #[allow(clippy::cast_precision_loss, reason = "a number of pixels")]
            let x = LEFT + index as f64 * step;
            put(format_args!("M{x:.1} {base:.1}v-6h{:.1}v6Z", step.max(1.0)));
        }
    }
    put(format_args!("\"/>\n"));
}

fn in_columns(minutes: &[Minute], columns: usize) -> impl Iterator<Item = &[Minute]> {
    (0..columns).map(move |column| {
        let at = |column: usize| column * minutes.len() / columns;
        &minutes[at(column)..at(column + 1)]
    })
}

/// A figure of a scale, short.
fn figure(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
