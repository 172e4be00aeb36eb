//! Charts as SVG by hand. A chart brings its own background, and follows the reader's colour
//! scheme where the reader's program lets it: either way it can be read.

use std::fmt::Write;

use crate::report::{human, Spread};
use crate::{BILLSTREAM, IDIOMATIC, TUNED};

/// Appends a line of SVG.
macro_rules! put {
    ($body:expr, $($line:tt)*) => {
        // OK because a String takes every write.
        writeln!($body, $($line)*).expect("a String grows")
    };
}

const WIDTH: f64 = 860.0;
/// Of one of two columns of bars: its width, and what its labels and values take of it.
const COLUMN: f64 = 406.0;
const LABEL: f64 = 150.0;
const VALUE: f64 = 66.0;
const BAR: f64 = 20.0;
const HEADING: f64 = 40.0;

const STYLE: &str = "
  text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 18px; font-weight: 600 } .head { font-weight: 600 } .note { fill: #59636e }
  .card { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #d1d9e0 } .whisker { stroke: #1f2328; opacity: .55 }
  .ours { fill: #1f6feb; stroke: #1f6feb } .tuned { fill: #d97706; stroke: #d97706 }
  .idiomatic { fill: #eab676; stroke: #eab676 } .limit { fill: #9aa4af; stroke: #9aa4af }
  .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .note { fill: #9198a1 } .card { fill: #0d1117; stroke: #3d444d }
    .grid { stroke: #3d444d } .whisker { stroke: #f0f6fc } .ours { fill: #4493f8; stroke: #4493f8 }
    .limit { fill: #6e7681; stroke: #6e7681 }
  }";

/// One group of bars, on a scale of its own.
pub struct Panel {
    pub title: String,
    pub bars: Vec<(String, Spread)>,
}

fn class(subject: &str) -> &'static str {
    match subject {
        BILLSTREAM => "ours",
        TUNED => "tuned",
        IDIOMATIC => "idiomatic",
        _ => "limit",
    }
}

/// Panels of horizontal bars in two columns.
pub fn bars(title: &str, note: &str, panels: &[Panel], show: fn(f64) -> String) -> String {
    let mut body = String::new();
    let mut bottoms = [64.0, 64.0];
    for panel in panels {
        let column = usize::from(bottoms[1] < bottoms[0]);
        let left = 24.0 + column as f64 * COLUMN;
        bottoms[column] = draw(&mut body, left, bottoms[column], panel, show);
    }
    page(title, note, bottoms[0].max(bottoms[1]) + 24.0, &body)
}

/// Draws a panel below `y` and returns where it ends.
fn draw(body: &mut String, left: f64, y: f64, panel: &Panel, show: fn(f64) -> String) -> f64 {
    let mut y = y + HEADING;
    text(body, left, y - 8.0, "head", &panel.title);
    let most = panel.bars.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (COLUMN - LABEL - VALUE - 24.0) / most;
    let x = left + LABEL;
    for (subject, spread) in &panel.bars {
        let middle = y + BAR / 2.0;
        text(body, left, middle + 4.5, "", subject.trim_start_matches("limit: "));
        put!(
            body,
            r#"<rect class="{}" x="{x}" y="{:.1}" width="{:.1}" height="{:.1}" rx="2"/>"#,
            class(subject),
            y + 3.0,
            (spread.median * scale).max(1.0),
            BAR - 6.0
        );
        let (from, to) = (x + spread.least * scale, x + spread.most * scale);
        put!(
            body,
            r#"<line class="whisker" x1="{from:.1}" x2="{to:.1}" y1="{middle}" y2="{middle}"/>"#
        );
        text(body, to + 8.0, middle + 4.5, "", &show(spread.median));
        y += BAR;
    }
    y
}

/// A line of a line chart.
pub struct Series {
    pub subject: String,
    pub points: Vec<(f64, f64)>,
}

/// Small line charts side by side in pairs, both axes logarithmic.
pub fn lines(
    title: &str,
    note: &str,
    plots: &[(&str, Vec<Series>)],
    show: fn(f64) -> String,
) -> String {
    let mut body = String::new();
    for (n, (name, series)) in plots.iter().enumerate() {
        let left = 84.0 + (n % 2) as f64 * 400.0;
        let top = 124.0 + (n / 2) as f64 * 250.0;
        plot(&mut body, left, top, name, series, show);
    }
    let bottom = 124.0 + plots.len().div_ceil(2) as f64 * 250.0;
    for (n, subject) in [BILLSTREAM, TUNED, IDIOMATIC].iter().enumerate() {
        let x = 84.0 + n as f64 * 170.0;
        let y = bottom - 28.0;
        put!(
            body,
            r#"<rect class="{}" x="{x}" y="{:.1}" width="14" height="10" rx="2"/>"#,
            class(subject),
            y - 9.0
        );
        text(&mut body, x + 20.0, y, "", subject);
    }
    page(title, note, bottom, &body)
}

fn plot(
    body: &mut String,
    left: f64,
    top: f64,
    name: &str,
    series: &[Series],
    show: fn(f64) -> String,
) {
    let (width, height) = (310.0, 150.0);
    text(body, left, top - 14.0, "head", name);
    let points = || series.iter().flat_map(|series| &series.points);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (least, most) = values.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
        (least.log10().floor(), most.log10().ceil())
    };
    let (x0, x1) = range(&mut points().map(|point| point.0));
    let (y0, y1) = range(&mut points().map(|point| point.1));
    let x = |v: f64| left + (v.log10() - x0) / (x1 - x0).max(1.0) * width;
    let y = |v: f64| top + height - (v.log10() - y0) / (y1 - y0).max(1.0) * height;
    for power in y0 as i32..=y1 as i32 {
        let value = 10f64.powi(power);
        put!(
            body,
            r#"<line class="grid" x1="{left}" x2="{:.1}" y1="{:.1}" y2="{:.1}"/>"#,
            left + width,
            y(value),
            y(value)
        );
        text(body, left - 58.0, y(value) + 4.5, "note", &show(value));
    }
    for power in x0 as i32..=x1 as i32 {
        let value = 10f64.powi(power);
        text(body, x(value) - 12.0, top + height + 20.0, "note", &human(value));
    }
    for Series { subject, points } in series {
        let class = class(subject);
        let path: Vec<_> = points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let style = format!("line {class}");
        put!(body, r#"<polyline class="{style}" style="fill:none" points="{}"/>"#, path.join(" "));
        for point in points {
            put!(
                body,
                r#"<circle class="{class}" cx="{:.1}" cy="{:.1}" r="3.5"/>"#,
                x(point.0),
                y(point.1)
            );
        }
    }
}

fn page(title: &str, note: &str, height: f64, body: &str) -> String {
    let mut svg = String::new();
    put!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">"#
    );
    put!(svg, "<title>{}</title><style>{STYLE}</style>", escaped(title));
    put!(
        svg,
        r#"<rect class="card" x="0.5" y="0.5" width="{}" height="{}" rx="6"/>"#,
        WIDTH - 1.0,
        height - 1.0
    );
    text(&mut svg, 24.0, 38.0, "title", title);
    text(&mut svg, 24.0, 60.0, "note", note);
    svg + body + "</svg>\n"
}

fn text(body: &mut String, x: f64, y: f64, class: &str, words: &str) {
    put!(body, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escaped(words));
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}
