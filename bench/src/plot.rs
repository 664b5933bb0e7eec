//! Small line plots as SVG, side by side, readable on light and on dark ground.

use std::fmt::Write;

/// One plot: what of the second numbers becomes as the first grow.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

const COLUMNS: usize = 2;
/// Of a panel, and of what is above all of them.
const WIDTH: f64 = 370.0;
const HEIGHT: f64 = 200.0;
const HEAD: f64 = 84.0;
/// Around the plot in a panel: left, top, right, bottom.
const MARGINS: [f64; 4] = [20.0, 40.0, 34.0, 26.0];
/// Characters of the note in one line.
const LINE: usize = 110;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:17px;font-weight:600}\
.name{font-weight:600}.axis{stroke:#bbb}.line{fill:none;stroke:#0969da;stroke-width:2}.dot{fill:#0969da}\
.ground{fill:#fff}.small{fill:#777;font-size:11px}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.axis{stroke:#555}.line{stroke:#58a6ff}.dot{fill:#58a6ff}\
.ground{fill:#0d1117}.small{fill:#999}}";

/// All panels under a title and a note, which must be free of markup.
pub(crate) fn page(title: &str, note: &str, panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEAD + HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"20\" y=\"28\">{title}</text>\n"
    );
    for (n, line) in wrapped(note).iter().enumerate() {
        let y = 48 + 16 * n;
        let _ = writeln!(svg, "<text class=\"small\" x=\"20\" y=\"{y}\">{line}</text>");
    }
    for (n, panel) in panels.iter().enumerate() {
        let (x, y) = ((n % COLUMNS) as f64 * WIDTH, HEAD + (n / COLUMNS) as f64 * HEIGHT);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">\n{}</g>", panel.svg());
    }
    svg + "</svg>\n"
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| !line.is_empty() && line.len() + word.len() >= LINE) {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            let space = if line.is_empty() { "" } else { " " };
            *line += &format!("{space}{word}");
        }
    }
    lines
}

impl Panel {
    fn svg(&self) -> String {
        let [left, top, right, bottom] = MARGINS;
        let (across, down) = (WIDTH - left - right, HEIGHT - top - bottom);
        let most = |of: fn(&(f64, f64)) -> f64| self.points.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
        // Both axes begin at 0: what doubles looks twice as high.
        let (most_x, most_y) = (most(|p| p.0), most(|p| p.1));
        let place = |(x, y): (f64, f64)| (left + x / most_x * across, top + down - y / most_y * down);
        let unit = if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) };
        let (base, end) = (top + down, left + across);
        let mut svg = format!(
            "<text class=\"name\" x=\"{left}\" y=\"16\">{}{unit}</text>\n\
             <path class=\"axis\" d=\"M{left} {top}V{base}H{end}\" fill=\"none\"/>\n",
            self.title
        );
        let path: Vec<_> =
            self.points.iter().map(|p| place(*p)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", path.join(" "));
        for point in &self.points {
            let ((x, y), below) = (place(*point), base + 15.0);
            let _ = writeln!(
                svg,
                "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
                 <text class=\"small\" x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
                y - 7.0,
                short(point.1),
                point.0
            );
        }
        svg
    }
}

/// Three digits, more or less.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_dot_and_its_value_and_nothing_lies_outside() {
        let points = vec![(10.0, 0.5), (50.0, 12.25), (200.0, 1234.0)];
        let svg = page("title", "a note", &[Panel { title: "cost", unit: "s", points }]);
        assert_eq!(svg.matches("<circle").count(), 3);
        for text in ["cost, s", ">0.50<", ">12.2<", ">1234<", ">200<"] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        for place in svg.split("cx=\"").skip(1) {
            let x: f64 = place.split('"').next().unwrap().parse().unwrap();
            assert!((0.0..=WIDTH).contains(&x), "{x}");
        }
        // Without points there is an empty plot, and no division by zero.
        assert!(!page("title", "", &[Panel { title: "none", unit: "", points: vec![] }]).contains("NaN"));
    }
}
