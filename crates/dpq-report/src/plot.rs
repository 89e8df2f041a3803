//! Draws curves over two axes.

use crate::svg::{escape, svg};

/// Curves over two axes.
pub(crate) struct Chart {
    /// For screen readers.
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) curves: Vec<Curve>,
}

/// The range, scale and ticks of an axis.
pub(crate) struct Axis {
    label: &'static str,
    range: [f64; 2],
    ticks: Vec<f64>,
    logarithmic: bool,
}

/// A line through points. A few points are marked.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<[f64; 2]>,
    /// Half the height of the error bar at each point; empty for none.
    pub(crate) spread: Vec<f64>,
    /// The line style: see [`length_line`], [`REFERENCE`] and [`BASELINE`].
    pub(crate) line: usize,
}

impl Curve {
    /// Returns a curve without error bars.
    pub(crate) fn new(
        name: impl Into<String>,
        points: impl IntoIterator<Item = [f64; 2]>,
        line: usize,
    ) -> Self {
        Self { name: name.into(), points: points.into_iter().collect(), spread: Vec::new(), line }
    }
}

/// Draws the recall among the best `k` hits by time per query in microseconds: an SVG of at most
/// four named curves of points [time, recall].
pub fn recall_by_time<'a>(k: usize, curves: impl IntoIterator<Item = (&'a str, Vec<[f64; 2]>)>) -> String {
    let curves = curves.into_iter().enumerate();
    let curves: Vec<Curve> = curves.map(|(i, (name, points))| Curve::new(name, points, 1 + i)).collect();
    let times = curves.iter().flat_map(|curve| &curve.points).map(|point| point[0]);
    Chart {
        title: format!("Recall@{k} by time per query"),
        x: Axis::logarithmic("time per query, µs", range(times)),
        y: Axis::linear("recall", heights(&curves)),
        curves,
    }
    .svg()
}

/// Returns the minimum and the maximum.
pub(crate) fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.fold([f64::MAX, f64::MIN], |[low, high], x| [low.min(x), high.max(x)])
}

/// Returns the range of curves along the vertical axis.
pub(crate) fn heights(curves: &[Curve]) -> [f64; 2] {
    range(curves.iter().flat_map(|curve| &curve.points).map(|point| point[1]))
}

/// Line styles for what codes are compared with.
pub(crate) const REFERENCE: usize = 4;
pub(crate) const BASELINE: usize = 5;

/// Returns the line style, 0 to 3, of the code length at place `i` of `n`.
pub(crate) fn length_line(i: usize, n: usize) -> usize {
    if n <= 4 { i } else { 4 * i / n }
}

/// Size and margins in units that a page scales. Small, so that text stays readable on a phone.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 304.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 50.0;

/// The height of a row of the legend.
const ROW: f64 = 20.0;

/// Estimates the width of a text.
fn text_width(text: &str) -> f64 {
    7.0 * text.chars().count() as f64
}

impl Axis {
    /// Extends `low` to `high` to round numbers.
    pub(crate) fn linear(label: &'static str, [low, high]: [f64; 2]) -> Self {
        let high = high.max(low + 1e-3);
        let rough = (high - low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].map(|n| n * power).into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        let (first, last) = ((low / step + 1e-6).floor(), (high / step - 1e-6).ceil());
        let ticks: Vec<f64> = (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Self { label, range: [first * step, last * step], ticks, logarithmic: false }
    }

    /// Extends `low` to `high` to powers of ten.
    pub(crate) fn logarithmic(label: &'static str, [low, high]: [f64; 2]) -> Self {
        let (first, last) = ((low.log10() + 1e-6).floor() as i32, (high.log10() - 1e-6).ceil() as i32);
        let ticks: Vec<f64> = (first..=last).map(|power| 10f64.powi(power)).collect();
        Self { label, range: [10f64.powi(first), 10f64.powi(last)], ticks, logarithmic: true }
    }

    /// Has ticks at these numbers only.
    pub(crate) fn steps(label: &'static str, ticks: Vec<f64>) -> Self {
        let (first, last) = (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0));
        let margin = 0.08 * (last - first).max(1.0);
        Self { label, range: [first - margin, last + margin], ticks, logarithmic: false }
    }

    /// Returns the share of the axis before `value`.
    fn at(&self, value: f64) -> f64 {
        let scale = |x: f64| if self.logarithmic { x.max(1e-300).log10() } else { x };
        let [low, high] = self.range.map(scale);
        ((scale(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Writes a tick with as many decimals as ticks need to differ.
    fn tick(&self, value: f64) -> String {
        let step = match self.ticks[..] {
            [a, b, ..] if !self.logarithmic => b - a,
            _ => value,
        };
        let mut decimals = 0;
        while decimals < 8
            && (step * 10f64.powi(decimals) - (step * 10f64.powi(decimals)).round()).abs() > 1e-6
        {
            decimals += 1;
        }
        format!("{value:.*}", decimals as usize)
    }
}

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let (legend, n_rows) = self.legend();
        let mut body = String::new();
        self.axes(&mut body);
        for curve in &self.curves {
            self.curve(&mut body, curve);
        }
        svg(WIDTH, HEIGHT + ROW * n_rows as f64, &self.title, &(body + &legend))
    }

    fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let place_x = LEFT + self.x.at(x) * (WIDTH - LEFT - RIGHT);
        [round(place_x), round(HEIGHT - BOTTOM - self.y.at(y) * (HEIGHT - TOP - BOTTOM))]
    }

    fn axes(&self, body: &mut String) {
        let (right, bottom, middle) = (WIDTH - RIGHT, HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2.0);
        for &tick in &self.y.ticks {
            let [_, y] = self.place([self.x.range[0], tick]);
            let text = self.y.tick(tick);
            *body += &format!(
                "<path class=\"grid\" d=\"M{LEFT} {y}H{right}\"/><text class=\"end soft\" x=\"{}\" y=\"{}\">{text}</text>\n",
                LEFT - 7.0,
                y + 4.5
            );
        }
        for &tick in &self.x.ticks {
            let [x, _] = self.place([tick, self.y.range[0]]);
            let text = self.x.tick(tick);
            *body += &format!(
                "<path class=\"grid\" d=\"M{x} {TOP}V{}\"/><text class=\"mid soft\" x=\"{x}\" y=\"{}\">{text}</text>\n",
                bottom + 4.0,
                bottom + 18.0
            );
        }
        *body += &format!(
            "<text class=\"mid\" x=\"{}\" y=\"{}\">{}</text>\n\
             <text class=\"mid\" transform=\"translate(16 {middle})rotate(-90)\">{}</text>\n",
            (LEFT + right) / 2.0,
            bottom + 36.0,
            escape(self.x.label),
            escape(self.y.label)
        );
    }

    fn curve(&self, body: &mut String, curve: &Curve) {
        let line = curve.line;
        let points: Vec<_> = curve.points.iter().map(|&point| self.place(point)).collect();
        let path: Vec<String> = points.iter().map(|[x, y]| format!("{x} {y}")).collect();
        *body += &format!(
            "<path class=\"line l{line}\" style=\"stroke:var(--l{line})\" d=\"M{}\"/>\n",
            path.join("L")
        );
        for (&[x, y], spread) in curve.points.iter().zip(&curve.spread).filter(|(_, spread)| **spread > 0.0) {
            let ([x, low], [_, high]) = (self.place([x, y - spread]), self.place([x, y + spread]));
            *body += &format!(
                "<path class=\"line\" style=\"stroke:var(--l{line})\" d=\"M{x} {low}V{high}m-4 0h8M{} {low}h8\"/>\n",
                x - 4.0
            );
        }
        if points.len() <= MARKED {
            for [x, y] in points {
                *body += &format!("<circle style=\"fill:var(--l{line})\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/>");
            }
            *body += "\n";
        }
    }

    /// Returns the names of the curves under the chart, and how many rows they take.
    fn legend(&self) -> (String, usize) {
        let (mut x, mut row, mut text) = (LEFT, 0, String::new());
        for Curve { name, line, .. } in &self.curves {
            let width = 28.0 + text_width(name) + 12.0;
            if x > LEFT && x + width > WIDTH {
                (x, row) = (LEFT, row + 1);
            }
            let y = HEIGHT + ROW * row as f64;
            text += &format!(
                "<path class=\"line l{line}\" style=\"stroke:var(--l{line})\" d=\"M{x} {y}h22\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text>\n",
                x + 28.0,
                y + 4.5,
                escape(name)
            );
            x += width;
        }
        (text, row + 1)
    }
}

/// A curve with at most this many points has a mark at each.
const MARKED: usize = 12;

/// Rounds to tenths, finer than a screen.
fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let texts = |axis: Axis| axis.ticks.iter().map(|&tick| axis.tick(tick)).collect::<Vec<_>>();
        assert_eq!(texts(Axis::linear("", [0.0, 1.0])), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(Axis::linear("", [0.8765, 0.8891])), ["0.875", "0.880", "0.885", "0.890"]);
        assert_eq!(texts(Axis::linear("", [0.0, 256.0])), ["0", "100", "200", "300"]);
        assert_eq!(texts(Axis::logarithmic("", [0.004, 0.3])), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(texts(Axis::steps("", vec![8.0, 16.0])), ["8", "16"]);
        assert!(texts(Axis::linear("", [0.5, 0.5])).len() > 1);
    }

    #[test]
    fn values_lie_along_their_axis() {
        let axis = Axis::logarithmic("", [1.0, 100.0]);
        assert_eq!([1.0, 10.0, 100.0, 1000.0, 0.0].map(|x| axis.at(x)), [0.0, 0.5, 1.0, 1.0, 0.0]);
        assert_eq!(Axis::linear("", [0.0, 2.0]).at(0.5), 0.25);
    }

    #[test]
    fn charts_have_all_their_parts() {
        let curve = Curve {
            name: "a & b".to_owned(),
            points: vec![[0.0, 1.0], [1.0, 0.5]],
            spread: vec![0.1, 0.0],
            line: 4,
        };
        let (x, y) = (Axis::linear("across", [0.0, 1.0]), Axis::linear("up", [0.0, 1.0]));
        let svg = Chart { title: "<title>".to_owned(), x, y, curves: vec![curve] }.svg();
        for part in ["across", "up", "a &amp; b", "&lt;title&gt;", "prefers-color-scheme", "M66 12L458 133"] {
            assert!(svg.contains(part), "{part} is missing from {svg}");
        }
        // A mark at each point, one bar.
        assert_eq!((svg.matches("<circle").count(), svg.matches("h8M").count()), (2, 1));
    }
}
