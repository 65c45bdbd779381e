//! The panel of a run that looked ahead: the pods that were wanted as a line, and behind it how many were expected.

use std::ops::Range;

use smartscale_backtest::{Forecast, Minute};

use super::{HEIGHT, Ink, Picture, Shape, columns};

const TITLE: &str = "line: pods wanted; band: forecast of the most while a node boots, median to quantile";

/// Whether there is something for the panel to show.
pub(super) fn is_in(minutes: &[Minute]) -> bool {
    minutes.iter().any(|minute| minute.forecast.is_some())
}

pub(super) fn draw(picture: &mut Picture, top: f64, x: Range<f64>, minutes: &[Minute]) {
    let wanted = |minutes: &[Minute]| {
        minutes
            .iter()
            .map(|minute| f64::from(minute.pods_wanted))
            .fold(0.0, f64::max)
    };
    let forecast = |minutes: &[Minute]| {
        minutes
            .iter()
            .filter_map(|minute| minute.forecast)
            .reduce(highest)
    };
    let most = forecast(minutes)
        .map_or(0.0, |all| all.median.max(all.high))
        .max(wanted(minutes));
    let scale = picture.scale(TITLE, top, &x, most);
    let base = top + HEIGHT;
    let y = |pods: f64| base - pods * scale;
    // A quantile below one half is below the median.
    let band: Vec<_> = columns(minutes)
        .filter_map(|(x, column)| {
            let Forecast { median, high } = forecast(column)?;
            Some((x, y(median.max(high))..y(median.min(high))))
        })
        .collect();
    let edge = |of: fn(&Range<f64>) -> f64| Shape::Steps {
        ink: Ink::Forecast,
        steps: band.iter().map(|(x, y)| (x.clone(), of(y))).collect(),
    };
    let edges = [edge(|y| y.start), edge(|y| y.end)];
    picture.shapes.push(Shape::Band {
        ink: Ink::Forecast,
        columns: band,
    });
    picture.shapes.extend(edges);
    picture.shapes.push(Shape::Steps {
        ink: Ink::Pods,
        steps: columns(minutes)
            .map(|(x, column)| (x, y(wanted(column))))
            .collect(),
    });
    picture.shapes.push(Shape::Frame { x, y: top..base });
}

/// The highest of both, as of what is wanted: a band that is compared with a peak reaches as far.
fn highest(one: Forecast, other: Forecast) -> Forecast {
    Forecast {
        median: one.median.max(other.median),
        high: one.high.max(other.high),
    }
}

#[cfg(test)]
mod tests {
    use smartscale_backtest::Series;

    use super::super::tests::{foreseen, run};
    use super::*;

    fn bands(series: &Series) -> Vec<Vec<(Range<f64>, Range<f64>)>> {
        let shapes = Picture::of(series).shapes.into_iter();
        let bands = shapes.filter_map(|shape| match shape {
            Shape::Band { columns, .. } => Some(columns),
            _ => None,
        });
        bands.collect()
    }

    #[test]
    fn a_run_without_a_forecast_has_neither_band_nor_panel() {
        let (with, without) = (foreseen(9, 1, 0, TWO), run(9, 1));
        assert_eq!(bands(&without), Vec::<Vec<_>>::new());
        assert!(Picture::of(&with).height > Picture::of(&without).height);
    }

    const TWO: Forecast = Forecast {
        median: 1.0,
        high: 2.0,
    };

    #[test]
    fn the_band_has_a_column_for_each_minute_with_a_forecast_whichever_quantile_is_the_higher() {
        let upside_down = Forecast {
            median: 2.0,
            high: 1.0,
        };
        for forecast in [TWO, upside_down] {
            let [band] = &bands(&foreseen(9, 1, 6, forecast))[..] else {
                panic!("one band");
            };
            assert_eq!(band.len(), 3);
            assert!(
                band.iter()
                    .all(|(_, y)| (y.end - y.start - HEIGHT / 2.0).abs() < 1e-9)
            );
            assert_eq!(band.last().map(|(x, _)| x.end), Some(970.0));
        }
    }

    #[test]
    fn a_column_of_many_minutes_shows_the_highest_forecast_of_them() {
        let mut series = foreseen(9_000, 1, 0, TWO);
        series.minutes[5].forecast = Some(Forecast {
            median: 3.0,
            high: 4.0,
        });
        let band = bands(&series).remove(0);
        let height = |column: usize| band[column].1.end - band[column].1.start;
        assert!((band[0].1.start - band[1].1.start + HEIGHT / 2.0).abs() < 1e-9);
        assert!((height(0) - HEIGHT / 4.0).abs() < 1e-9 && (height(1) - HEIGHT / 4.0).abs() < 1e-9);
    }
}
