//! A picture as SVG. Colours are classes of a style sheet, so that it follows a viewer's dark mode and is dark on white in print.

use std::fmt::Write as _;

use super::{Ink, Picture, Shape};

const STYLE: &str = "text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.frame{fill:none;stroke:#999}\
.grid{stroke:#ddd}.area{stroke:none;fill-opacity:.85}.a{fill:#2b6cb0}.b{fill:#2f855a}.c{fill:#c05621}.d{fill:#6b46c1}\
.short{fill:#c53030}.back{fill:#fff}\
.band{fill:#d69e2e;fill-opacity:.35}.edge{fill:none;stroke:#975a16;stroke-width:.5}.line{fill:none;stroke:#222}\
@media screen and (prefers-color-scheme:dark){text{fill:#ddd}.back{fill:#181a1b}.grid{stroke:#333}.frame{stroke:#777}\
.a{fill:#63b3ed}.b{fill:#68d391}.c{fill:#f6ad55}.d{fill:#b794f4}.short{fill:#fc8181}\
.band{fill:#ecc94b}.edge{stroke:#ecc94b}.line{stroke:#eee}}";

fn class(ink: Ink) -> &'static str {
    match ink {
        Ink::Requests => "area a",
        Ink::Pods => "line",
        Ink::Forecast => "edge",
        Ink::Nodes => "area b",
        Ink::Waiting => "area c",
        Ink::Cost => "area d",
        Ink::Short => "short",
    }
}

/// The text of the file.
pub(super) fn write(picture: &Picture) -> String {
    let (width, height) = (picture.width, picture.height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>backtest</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    for shape in &picture.shapes {
        // A string takes whatever is written.
        let _ = put(&mut svg, shape);
    }
    svg.push_str("</svg>\n");
    svg
}

fn put(svg: &mut String, shape: &Shape) -> std::fmt::Result {
    match shape {
        Shape::Columns { ink, base, columns } => {
            write!(svg, "<path class=\"{}\" d=\"", class(*ink))?;
            for (x, height) in columns {
                let top = base - height;
                write!(svg, "M{:.1} {base:.1}V{top:.1}H{:.1}V{base:.1}Z", x.start, x.end)?;
            }
            writeln!(svg, "\"/>")
        }
        Shape::Band { columns, .. } => {
            svg.push_str("<path class=\"band\" d=\"");
            for (x, y) in columns {
                let (top, bottom) = (y.start, y.end);
                write!(
                    svg,
                    "M{:.1} {bottom:.1}V{top:.1}H{:.1}V{bottom:.1}Z",
                    x.start, x.end
                )?;
            }
            writeln!(svg, "\"/>")
        }
        Shape::Steps { ink, steps } => {
            write!(svg, "<path class=\"{}\" d=\"", class(*ink))?;
            let mut end = None;
            for (x, y) in steps {
                if end == Some(x.start) {
                    write!(svg, "V{y:.1}H{:.1}", x.end)?;
                } else {
                    write!(svg, "M{:.1} {y:.1}H{:.1}", x.start, x.end)?;
                }
                end = Some(x.end);
            }
            writeln!(svg, "\"/>")
        }
        Shape::Grid { x, y } => writeln!(
            svg,
            "<line class=\"grid\" x1=\"{}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            x.start, x.end
        ),
        Shape::Frame { x, y } => writeln!(
            svg,
            "<rect class=\"frame\" x=\"{}\" y=\"{:.1}\" width=\"{}\" height=\"{}\"/>",
            x.start,
            y.start,
            x.end - x.start,
            y.end - y.start
        ),
        Shape::Text {
            x,
            y,
            to_left,
            is_title,
            text,
        } => {
            let class = if *is_title { " class=\"title\"" } else { "" };
            let anchor = if *to_left { " text-anchor=\"end\"" } else { "" };
            writeln!(
                svg,
                "<text{class} x=\"{x:.1}\" y=\"{y:.1}\"{anchor}>{text}</text>"
            )
        }
    }
}
