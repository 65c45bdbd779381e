//! A run as a picture: demand, what was expected of it, nodes, waiting and cost over time, one panel below the other on one axis.
//!
//! ```text
//!   series ─▶ shapes (what stands where) ─▶ svg: colours by a style sheet, as the viewer likes them
//!                                       └─▶ png: pixels on white
//! ```
//! A long run has more minutes than pixels: a column shows the highest of its minutes, so that no peak is lost.

mod forecast;
mod png;
mod svg;

use std::{ffi::OsStr, ops::Range, path::Path};

use smartscale_backtest::{Minute, Series};

/// Left of the panels, for the scale.
const LEFT: f64 = 70.0;
/// A panel's width; also the most columns.
const WIDTH: usize = 900;
/// Right of the panels.
const RIGHT: f64 = 20.0;
/// A panel's height, and that of its title.
const HEIGHT: f64 = 120.0;
const TITLE: f64 = 26.0;
/// Below the last panel, for the dates.
const BOTTOM: f64 = 34.0;
/// Marks on the axis of time.
const MARKS: usize = 8;
/// Height of what marks a minute that is short.
const SHORT: f64 = 6.0;

/// How a picture is written: by its file's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Svg,
    Png,
}

impl Kind {
    /// By the ending, in any case.
    ///
    /// # Errors
    /// A sentence: it is another.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let ending = path.extension().map(OsStr::to_ascii_lowercase);
        match ending.as_ref().and_then(|ending| ending.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err("expected a file that ends in .svg or .png".to_owned()),
        }
    }
}

/// Draws a run, as a file's bytes.
///
/// # Errors
/// A sentence.
pub(super) fn draw(kind: Kind, series: &Series) -> Result<Vec<u8>, String> {
    let picture = Picture::of(series);
    match kind {
        Kind::Svg => Ok(svg::write(&picture).into_bytes()),
        Kind::Png => png::write(&picture),
    }
}

/// What a colour is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    Requests,
    Pods,
    Forecast,
    Nodes,
    Waiting,
    Cost,
    Short,
}

/// Something to draw, in units of which the picture has [`Picture::width`]; y grows downwards.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// Filled columns that stand on `base`: from where to where, and how high.
    Columns {
        ink: Ink,
        base: f64,
        columns: Vec<(Range<f64>, f64)>,
    },
    /// Filled lightly, edges aside: from where to where, and from which y to which.
    Band {
        ink: Ink,
        columns: Vec<(Range<f64>, Range<f64>)>,
    },
    /// A line of steps: from where to where, and at which y. It breaks where one does not begin at the end of another.
    Steps { ink: Ink, steps: Vec<(Range<f64>, f64)> },
    /// A thin line from left to right.
    Grid { x: Range<f64>, y: f64 },
    /// The outline of a panel.
    Frame { x: Range<f64>, y: Range<f64> },
    /// Letters on a base line at `y`, which begin or, `to_left`, end at `x`.
    Text {
        x: f64,
        y: f64,
        to_left: bool,
        is_title: bool,
        text: String,
    },
}

/// One panel: its title, its colour, and what it shows of a minute.
type Panel = (&'static str, Ink, fn(&Minute) -> f64);

const PANELS: [Panel; 4] = [
    ("requests a minute", Ink::Requests, |minute| minute.requests),
    ("nodes billed", Ink::Nodes, |minute| minute.nodes_billed),
    (
        "pods without a node; red: minutes short of capacity",
        Ink::Waiting,
        |minute| f64::from(minute.pods_pending),
    ),
    ("USD an hour", Ink::Cost, |minute| minute.cost_per_hour),
];

/// All that is drawn, in this order.
#[derive(Debug, Clone, PartialEq)]
struct Picture {
    width: f64,
    height: f64,
    shapes: Vec<Shape>,
}

impl Picture {
    fn of(series: &Series) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "numbers of units and panels")]
        let (width, panels) = (
            WIDTH as f64,
            (PANELS.len() + usize::from(forecast::is_in(&series.minutes))) as f64,
        );
        let mut picture = Self {
            width: LEFT + width + RIGHT,
            height: panels * (HEIGHT + TITLE) + BOTTOM,
            shapes: Vec::new(),
        };
        let mut top = TITLE;
        for panel in &PANELS {
            picture.panel(panel, top, LEFT..LEFT + width, &series.minutes);
            top += HEIGHT + TITLE;
            if panel.1 == Ink::Requests && forecast::is_in(&series.minutes) {
                forecast::draw(&mut picture, top, LEFT..LEFT + width, &series.minutes);
                top += HEIGHT + TITLE;
            }
        }
        picture.dates(series, width, top - TITLE + 18.0);
        picture
    }

    fn panel(&mut self, (title, ink, of): &Panel, top: f64, x: Range<f64>, minutes: &[Minute]) {
        let most = minutes.iter().map(of).fold(0.0_f64, f64::max);
        let scale = self.scale(title, top, &x, most);
        let base = top + HEIGHT;
        let highest = |column: &[Minute]| column.iter().map(of).fold(0.0_f64, f64::max);
        self.shapes.push(Shape::Columns {
            ink: *ink,
            base,
            columns: columns(minutes)
                .map(|(x, column)| (x, highest(column) * scale))
                .collect(),
        });
        if *ink == Ink::Waiting {
            let is_short = |column: &[Minute]| column.iter().any(|minute| minute.short);
            self.shapes.push(Shape::Columns {
                ink: Ink::Short,
                base,
                columns: columns(minutes)
                    .filter(|(_, column)| is_short(column))
                    .map(|(x, _)| (x, SHORT))
                    .collect(),
            });
        }
        self.shapes.push(Shape::Frame { x, y: top..base });
    }

    /// What is behind a panel's figures: its title and its scale. Units for each of what it shows, the most of which is `most`.
    fn scale(&mut self, title: &str, top: f64, x: &Range<f64>, most: f64) -> f64 {
        self.shapes.push(Shape::Text {
            x: LEFT,
            y: top - 6.0,
            to_left: false,
            is_title: true,
            text: title.to_owned(),
        });
        self.shapes.push(Shape::Grid {
            x: x.clone(),
            y: top + HEIGHT / 2.0,
        });
        self.text(LEFT - 6.0, top + 10.0, true, &figure(most));
        self.text(LEFT - 6.0, top + HEIGHT, true, "0");
        if most > 0.0 { HEIGHT / most } else { 0.0 }
    }

    fn dates(&mut self, series: &Series, width: f64, y: f64) {
        let count = series.minutes.len();
        for index in (0..MARKS).map(|mark| mark * count / MARKS) {
            let Some(minute) = series.minutes.get(index) else {
                continue;
            };
            #[allow(clippy::cast_precision_loss, reason = "a number of minutes")]
            let x = LEFT + index as f64 / count as f64 * width;
            let time = series.offset.to_datetime(minute.time);
            self.text(x, y, false, &time.strftime("%Y-%m-%d %H:%M").to_string());
        }
    }

    fn text(&mut self, x: f64, y: f64, to_left: bool, text: &str) {
        self.shapes.push(Shape::Text {
            x,
            y,
            to_left,
            is_title: false,
            text: text.to_owned(),
        });
    }
}

/// The minutes of each column and where it stands: a minute each or, where there are too many, as many as are needed.
fn columns(minutes: &[Minute]) -> impl Iterator<Item = (Range<f64>, &[Minute])> {
    let count = minutes.len().clamp(1, WIDTH);
    (0..count).map(move |column| {
        let at = |column: usize| column * minutes.len() / count;
        #[allow(clippy::cast_precision_loss, reason = "a number of units")]
        let x = |column: usize| LEFT + (column * WIDTH) as f64 / count as f64;
        (x(column)..x(column + 1), &minutes[at(column)..at(column + 1)])
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

#[cfg(test)]
mod tests {
    use smartscale_backtest::Forecast;

    use super::*;

    /// A run whose figures all are `figure`.
    pub(super) fn run(minutes: usize, figure: u32) -> Series {
        let minute = |_| Minute {
            time: jiff::Timestamp::UNIX_EPOCH,
            requests: f64::from(figure),
            pods_wanted: figure,
            pods_serving: figure,
            pods_pending: figure,
            nodes_ready: figure,
            nodes_billed: f64::from(figure),
            cost_per_hour: f64::from(figure),
            short: figure > 0,
            forecast: None,
        };
        Series {
            offset: jiff::tz::Offset::UTC,
            minutes: (0..minutes).map(minute).collect(),
        }
    }

    /// The same, with a forecast from the `from`th minute on.
    pub(super) fn foreseen(minutes: usize, figure: u32, from: usize, forecast: Forecast) -> Series {
        let mut series = run(minutes, figure);
        for minute in series.minutes.iter_mut().skip(from) {
            minute.forecast = Some(forecast);
        }
        series
    }

    #[test]
    fn no_minute_is_left_out_however_many_there_are() {
        for count in [0, 1, 7, 899, 900, 901, 44_640] {
            let series = run(count, 1);
            let all: Vec<_> = columns(&series.minutes).collect();
            assert_eq!(all.iter().map(|(_, minutes)| minutes.len()).sum::<usize>(), count);
            assert!(all.windows(2).all(|pair| pair[0].0.end == pair[1].0.start));
            assert_eq!(all.first().map(|(x, _)| x.start), Some(LEFT));
            assert_eq!(all.last().map(|(x, _)| x.end), Some(970.0));
        }
    }

    #[test]
    fn the_ending_tells_the_kind_in_any_case_and_others_are_refused() {
        assert_eq!(Kind::of(Path::new("a/b.svg")), Ok(Kind::Svg));
        assert_eq!(Kind::of(Path::new("b.x.PNG")), Ok(Kind::Png));
        for bad in ["a.pdf", "svg", ".png", "a.svg/b", "a.png."] {
            assert!(Kind::of(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
