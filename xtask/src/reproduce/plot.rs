//! The one plotter: curves over two axes as SVG, and the colours that all figures share.
//!
//! Figures need no font and no script, and follow the reader's light or dark mode.

use std::fmt::Write as _;

/// Curves over two axes.
pub(crate) struct Chart {
    /// For those who hear the page instead of seeing it.
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) curves: Vec<Curve>,
}

/// Where numbers lie along an axis.
pub(crate) struct Axis {
    label: &'static str,
    range: [f64; 2],
    ticks: Vec<f64>,
    logarithmic: bool,
}

/// A line through points, with a mark at each where they are few.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<[f64; 2]>,
    /// Half the height of the bar at each point; empty for none.
    pub(crate) spread: Vec<f64>,
    /// Which of [`STYLE`]'s lines: 0 to 3 by code length, 4 and 5 for what codes are compared with.
    pub(crate) line: usize,
}

/// Of a chart, in units that a page scales; small, so that text stays readable on a phone.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 304.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 50.0;

/// A row of the legend.
const ROW: f64 = 20.0;

/// What all figures share. `l0` to `l3` go from the shortest code to the longest, from faint to strong.
const STYLE: &str = "\
.fig{--paper:#fff;--ink:#1f2328;--soft:#59636e;--grid:#e3e6ea;--good:#1a7f37;\
--l0:#8fbfe0;--l1:#4292c6;--l2:#08519c;--l3:#08264d;--l4:#d9480f;--l5:#868e96;font:13px system-ui,sans-serif}\
@media(prefers-color-scheme:dark){.fig{--paper:#0d1117;--ink:#e6edf3;--soft:#9198a1;--grid:#262c36;--good:#3fb950;\
--l0:#2f6690;--l1:#4292c6;--l2:#8fc1e3;--l3:#e3f1fc;--l4:#ff922b;--l5:#868e96}}\
.fig text{fill:var(--ink)}.fig .soft{fill:var(--soft)}.fig .grid{stroke:var(--grid)}.fig .mid{text-anchor:middle}\
.fig .end{text-anchor:end}.fig .line{fill:none;stroke-width:2}.fig .l4{stroke-dasharray:7 3}\
.fig .l5{stroke-dasharray:2 3}";

/// An SVG of `width` by `height` units around `body`.
pub(crate) fn svg(width: f64, height: f64, title: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"fig\" role=\"img\" viewBox=\"0 0 {width} {height}\" \
         width=\"{}\" height=\"{}\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" style=\"fill:var(--paper)\"/>\n{body}</svg>\n",
        width * 1.5,
        height * 1.5,
        escape(title)
    )
}

/// Text inside SVG and HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// About how wide a text is drawn.
pub(crate) fn text_width(text: &str) -> f64 {
    7.0 * text.chars().count() as f64
}

impl Axis {
    /// From `low` to `high` and on to the next round numbers.
    pub(crate) fn linear(label: &'static str, low: f64, high: f64) -> Self {
        let high = high.max(low + 1e-3);
        let rough = (high - low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].map(|n| n * power).into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        let (first, last) = ((low / step + 1e-6).floor(), (high / step - 1e-6).ceil());
        let ticks: Vec<f64> = (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Self { label, range: [first * step, last * step], ticks, logarithmic: false }
    }

    /// From the power of ten below `low` to the one above `high`.
    pub(crate) fn logarithmic(label: &'static str, low: f64, high: f64) -> Self {
        let (first, last) = ((low.log10() + 1e-6).floor() as i32, (high.log10() - 1e-6).ceil() as i32);
        let ticks: Vec<f64> = (first..=last).map(|power| 10f64.powi(power)).collect();
        Self { label, range: [10f64.powi(first), 10f64.powi(last)], ticks, logarithmic: true }
    }

    /// Ticks at these numbers and nowhere else.
    pub(crate) fn steps(label: &'static str, ticks: Vec<f64>) -> Self {
        let (first, last) = (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0));
        let margin = 0.08 * (last - first).max(1.0);
        Self { label, range: [first - margin, last + margin], ticks, logarithmic: false }
    }

    /// The share of the axis before `value`.
    fn at(&self, value: f64) -> f64 {
        let scale = |x: f64| if self.logarithmic { x.max(1e-300).log10() } else { x };
        let [low, high] = self.range.map(scale);
        ((scale(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// As many decimals as the ticks need to differ.
    fn tick(&self, value: f64) -> String {
        let least = match self.ticks[..] {
            [a, b, ..] if !self.logarithmic => b - a,
            _ => value,
        };
        let mut decimals = 0;
        while decimals < 8
            && (least * 10f64.powi(decimals) - (least * 10f64.powi(decimals)).round()).abs() > 1e-6
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

    /// The names of the curves under the chart, and how many rows they take.
    fn legend(&self) -> (String, usize) {
        let (mut x, mut row, mut text) = (LEFT, 0, String::new());
        for Curve { name, line, .. } in &self.curves {
            let width = 28.0 + text_width(name) + 12.0;
            if x > LEFT && x + width > WIDTH {
                (x, row) = (LEFT, row + 1);
            }
            let y = HEIGHT + ROW * row as f64;
            let _ = writeln!(
                text,
                "<path class=\"line l{line}\" style=\"stroke:var(--l{line})\" d=\"M{x} {y}h22\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text>",
                x + 28.0,
                y + 4.5,
                escape(name)
            );
            x += width;
        }
        (text, row + 1)
    }
}

/// The most points that each get a mark.
const MARKED: usize = 12;

/// Tenths of a unit are finer than a screen.
fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let texts = |axis: Axis| axis.ticks.iter().map(|&tick| axis.tick(tick)).collect::<Vec<_>>();
        assert_eq!(texts(Axis::linear("", 0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(Axis::linear("", 0.8765, 0.8891)), ["0.875", "0.880", "0.885", "0.890"]);
        assert_eq!(texts(Axis::linear("", 0.0, 256.0)), ["0", "100", "200", "300"]);
        assert_eq!(texts(Axis::logarithmic("", 0.004, 0.3)), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(texts(Axis::steps("", vec![8.0, 16.0])), ["8", "16"]);
        // A number that does not vary has an axis, too.
        assert!(texts(Axis::linear("", 0.5, 0.5)).len() > 1);
    }

    #[test]
    fn places_follow_their_axis() {
        let axis = Axis::logarithmic("", 1.0, 100.0);
        assert_eq!([1.0, 10.0, 100.0, 1000.0, 0.0].map(|x| axis.at(x)), [0.0, 0.5, 1.0, 1.0, 0.0]);
        assert_eq!(Axis::linear("", 0.0, 2.0).at(0.5), 0.25);
    }

    #[test]
    fn charts_have_all_their_parts() {
        let curve = Curve {
            name: "a & b".to_owned(),
            points: vec![[0.0, 1.0], [1.0, 0.5]],
            spread: vec![0.1, 0.0],
            line: 4,
        };
        let (x, y) = (Axis::linear("across", 0.0, 1.0), Axis::linear("up", 0.0, 1.0));
        let svg = Chart { title: "<title>".to_owned(), x, y, curves: vec![curve] }.svg();
        for part in ["across", "up", "a &amp; b", "&lt;title&gt;", "prefers-color-scheme", "M66 12L458 133"] {
            assert!(svg.contains(part), "{part} is missing from {svg}");
        }
        // A mark at each point, one bar.
        assert_eq!((svg.matches("<circle").count(), svg.matches("h8M").count()), (2, 1));
    }
}
