//! A picture as PNG, on white: readable on paper, and in a dark page as a light sheet. A pixel is half a unit, so that it is
//! sharp on dense screens. Letters are those of a font of pixels, which needs no font on the machine.

use std::{convert::Infallible, ops::Range};

use embedded_graphics::{
    Drawable as _, Pixel,
    draw_target::DrawTarget,
    geometry::{OriginDimensions, Point, Size},
    mono_font::{
        MonoFont, MonoTextStyle,
        iso_8859_1::{FONT_9X18, FONT_9X18_BOLD},
    },
    pixelcolor::{Rgb888, RgbColor as _},
    text::{Alignment, Baseline, Text, TextStyleBuilder},
};

use super::{Ink, Picture, Shape};

/// Pixels of a unit.
const SCALE: f64 = 2.0;
/// How much of a column's colour covers what is behind it, as in the SVG.
const OPACITY: f64 = 0.85;

/// The same of a band, whose edges have the colour in full.
const BAND_OPACITY: f64 = 0.25;

const WHITE: Rgb888 = Rgb888::WHITE;
const LETTERS: Rgb888 = Rgb888::new(0x22, 0x22, 0x22);
const FRAME: Rgb888 = Rgb888::new(0x99, 0x99, 0x99);
const GRID: Rgb888 = Rgb888::new(0xdd, 0xdd, 0xdd);

fn colour(ink: Ink) -> Rgb888 {
    match ink {
        Ink::Requests => Rgb888::new(0x2b, 0x6c, 0xb0),
        Ink::Pods => LETTERS,
        Ink::Forecast => Rgb888::new(0x97, 0x5a, 0x16),
        Ink::Nodes => Rgb888::new(0x2f, 0x85, 0x5a),
        Ink::Waiting => Rgb888::new(0xc0, 0x56, 0x21),
        Ink::Cost => Rgb888::new(0x6b, 0x46, 0xc1),
        Ink::Short => Rgb888::new(0xc5, 0x30, 0x30),
    }
}

/// The bytes of the file.
///
/// # Errors
/// A sentence.
pub(super) fn write(picture: &Picture) -> Result<Vec<u8>, String> {
    let mut canvas = Canvas::new(pixel(picture.width), pixel(picture.height));
    for shape in &picture.shapes {
        canvas.put(shape);
    }
    canvas.encode().map_err(|error| error.to_string())
}

/// Units in whole pixels.
fn pixel(units: f64) -> i32 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a picture has some thousand pixels"
    )]
    let pixels = (units * SCALE).round() as i32;
    pixels
}

/// Pixels, row by row.
struct Canvas {
    width: i32,
    height: i32,
    pixels: Vec<Rgb888>,
}

impl Canvas {
    fn new(width: i32, height: i32) -> Self {
        let count = usize::try_from(width.max(0) * height.max(0)).unwrap_or(0);
        Self {
            width,
            height,
            pixels: vec![WHITE; count],
        }
    }

    fn at(&mut self, x: i32, y: i32) -> Option<&mut Rgb888> {
        let is_within = (0..self.width).contains(&x) && (0..self.height).contains(&y);
        let index = usize::try_from(y * self.width + x).ok().filter(|_| is_within)?;
        self.pixels.get_mut(index)
    }

    fn put(&mut self, shape: &Shape) {
        match shape {
            Shape::Columns { ink, base, columns } => {
                for (x, height) in columns {
                    self.column(x, *base, *height, *ink);
                }
            }
            Shape::Band { ink, columns } => {
                for (x, y) in columns {
                    for y in pixel(y.start)..pixel(y.end) {
                        self.row(x, y, *ink, BAND_OPACITY);
                    }
                }
            }
            Shape::Steps { ink, steps } => self.steps(*ink, steps),
            Shape::Grid { x, y } => self.fill(pixel(x.start)..pixel(x.end), pixel(*y)..pixel(*y) + 1, GRID),
            Shape::Frame { x, y } => {
                let (left, right) = (pixel(x.start), pixel(x.end));
                let (top, bottom) = (pixel(y.start), pixel(y.end));
                for y in [top, bottom] {
                    self.fill(left..right + 1, y..y + 1, FRAME);
                }
                for x in [left, right] {
                    self.fill(x..x + 1, top..bottom + 1, FRAME);
                }
            }
            Shape::Text {
                x,
                y,
                to_left,
                is_title,
                text,
            } => {
                let font = if *is_title { &FONT_9X18_BOLD } else { &FONT_9X18 };
                let alignment = if *to_left {
                    Alignment::Right
                } else {
                    Alignment::Left
                };
                self.text(Point::new(pixel(*x), pixel(*y)), font, alignment, text);
            }
        }
    }

    /// A column whose sides stand between pixels, so that neighbours neither overlap nor leave a gap; its top may be within one.
    fn column(&mut self, x: &Range<f64>, base: f64, height: f64, ink: Ink) {
        let opacity = if ink == Ink::Short { 1.0 } else { OPACITY };
        let top = (base - height) * SCALE;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a picture has some thousand pixels"
        )]
        let first = top.floor() as i32;
        for y in first..pixel(base) {
            let covered = (f64::from(y + 1) - top).clamp(0.0, 1.0);
            self.row(x, y, ink, opacity * covered);
        }
    }

    /// A row of a column's pixels.
    fn row(&mut self, x: &Range<f64>, y: i32, ink: Ink, opacity: f64) {
        for x in pixel(x.start)..pixel(x.end) {
            if let Some(pixel) = self.at(x, y) {
                *pixel = blend(*pixel, colour(ink), opacity);
            }
        }
    }

    /// A line, one unit wide for what was and half a unit for what was expected, as in the SVG.
    fn steps(&mut self, ink: Ink, steps: &[(Range<f64>, f64)]) {
        let wide = if ink == Ink::Forecast { 1 } else { pixel(1.0) };
        let mut last = None;
        for (x, y) in steps {
            let (left, row) = (pixel(x.start), pixel(*y));
            self.fill(left..pixel(x.end), row..row + wide, colour(ink));
            if let Some((_, before)) = last.filter(|(end, _)| *end == x.start) {
                self.fill(
                    left..left + wide,
                    row.min(before)..row.max(before) + wide,
                    colour(ink),
                );
            }
            last = Some((x.end, row));
        }
    }

    fn fill(&mut self, x: Range<i32>, y: Range<i32>, colour: Rgb888) {
        for y in y {
            for x in x.clone() {
                if let Some(pixel) = self.at(x, y) {
                    *pixel = colour;
                }
            }
        }
    }

    fn text(&mut self, at: Point, font: &MonoFont<'_>, alignment: Alignment, text: &str) {
        let style = TextStyleBuilder::new()
            .alignment(alignment)
            .baseline(Baseline::Alphabetic)
            .build();
        let letters = Text::with_text_style(text, at, MonoTextStyle::new(font, LETTERS), style);
        let Ok(_) = letters.draw(self);
    }

    fn encode(&self) -> Result<Vec<u8>, png::EncodingError> {
        let size = self.size();
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, size.width, size.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        let rgb: Vec<u8> = self
            .pixels
            .iter()
            .flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()])
            .collect();
        writer.write_image_data(&rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width.unsigned_abs(), self.height.unsigned_abs())
    }
}

/// For letters.
impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            if let Some(pixel) = self.at(at.x, at.y) {
                *pixel = colour;
            }
        }
        Ok(())
    }
}

/// `over` on `under`, by its share of 0 to 1.
fn blend(under: Rgb888, over: Rgb888, share: f64) -> Rgb888 {
    let mix = |under: u8, over: u8| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between two bytes"
        )]
        let mixed = (f64::from(under) * (1.0 - share) + f64::from(over) * share).round() as u8;
        mixed
    };
    Rgb888::new(
        mix(under.r(), over.r()),
        mix(under.g(), over.g()),
        mix(under.b(), over.b()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use smartscale_backtest::Forecast;

    use super::*;
    use crate::backtest::plot::{
        HEIGHT, LEFT, TITLE,
        tests::{foreseen, run},
    };

    /// The width and the pixels of a file.
    fn read(bytes: &[u8]) -> (usize, Vec<[u8; 3]>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        let pixels = rgb.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
        (info.width as usize, pixels.collect())
    }

    #[test]
    fn a_run_is_drawn_in_its_colours_on_white_with_letters_beside_it() {
        let (width, pixels) = read(&write(&Picture::of(&run(50, 3))).unwrap());
        assert_eq!((width, pixels.len() / width), (1980, 1236));
        let at = |x: f64, y: f64| {
            let index = |units: f64| usize::try_from(pixel(units)).unwrap();
            pixels[index(y) * width + index(x)]
        };
        // The middle of the first panel is full, with the colour of requests.
        let blue = blend(WHITE, colour(Ink::Requests), OPACITY);
        assert_eq!(at(LEFT + 450.0, TITLE + 20.0), [blue.r(), blue.g(), blue.b()]);
        // Minutes that are short are red at the base of the third.
        let third = TITLE + 2.0 * (HEIGHT + TITLE) + HEIGHT;
        assert_eq!(at(LEFT + 450.0, third - 3.0), [0xc5, 0x30, 0x30]);
        assert_eq!(at(2.0, 2.0), [0xff; 3]);
        let letters = |y: Range<usize>| pixels[y.start * width..y.end * width].contains(&[0x22; 3]);
        assert!(letters(0..50) && letters(1200..1236));
    }

    #[test]
    fn the_band_lies_behind_the_line_from_where_there_is_a_forecast() {
        let forecast = Forecast {
            median: 4.0,
            high: 8.0,
        };
        let (width, pixels) = read(&write(&Picture::of(&foreseen(60, 2, 30, forecast))).unwrap());
        assert_eq!((width, pixels.len() / width), (1980, 1528));
        let top = 2.0 * TITLE + HEIGHT;
        let at = |x: f64, y: f64| {
            let index = |units: f64| usize::try_from(pixel(units)).unwrap();
            pixels[index(y) * width + index(x)]
        };
        let rgb = |colour: Rgb888| [colour.r(), colour.g(), colour.b()];
        let (ink, light) = (
            colour(Ink::Forecast),
            blend(WHITE, colour(Ink::Forecast), BAND_OPACITY),
        );
        let later = LEFT + 700.0;
        // 8 pods are the panel's height, so the median is at its middle and what was wanted at three quarters.
        assert_eq!(at(later, top + HEIGHT / 4.0), rgb(light));
        assert_eq!(at(later, top + HEIGHT / 2.0), rgb(ink));
        assert_eq!(at(later, top + HEIGHT * 0.75), rgb(LETTERS));
        assert_eq!(at(later, top + HEIGHT * 0.6), [0xff; 3]);
        let before = LEFT + 200.0;
        assert_eq!(at(before, top + HEIGHT / 4.0), [0xff; 3]);
        assert_eq!(at(before, top + HEIGHT * 0.75), rgb(LETTERS));
    }

    #[test]
    fn neighbouring_columns_leave_no_gap_whatever_their_width() {
        for minutes in [7, 13, 611] {
            let (width, pixels) = read(&write(&Picture::of(&run(minutes, 3))).unwrap());
            let row = usize::try_from(pixel(TITLE + 100.0)).unwrap() * width;
            let panel = &pixels[row + 142..row + 1938];
            assert!(panel.iter().all(|pixel| *pixel == panel[0]), "{minutes}");
        }
    }

    #[test]
    fn a_run_without_minutes_or_figures_is_drawn_too() {
        for (minutes, figure) in [(0, 0), (1, 0), (1, 1)] {
            assert!(!write(&Picture::of(&run(minutes, figure))).unwrap().is_empty());
        }
    }
}
