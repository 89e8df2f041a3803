//! The benches of all crates: tables, changes since a baseline, and limits.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::files::read;
use crate::table::{Table, line};

/// The measurements of `cargo xtask bench`.
#[derive(Debug, Deserialize, Serialize)]
pub struct Measured {
    /// The commit of the repository.
    pub commit: String,
    /// The processor.
    pub cpu: String,
    /// The version of the operating system's kernel.
    pub kernel: String,
    /// The version of the compiler.
    pub compiler: String,
    /// Wall time by bench.
    pub times: BTreeMap<String, Time>,
    /// Instructions by kernel.
    pub instructions: BTreeMap<String, u64>,
    /// mAP of the quick reproduction by bits; empty if there was none.
    pub map: BTreeMap<u32, f64>,
    /// Bytes per item of the quick reproduction.
    pub bytes_per_item: Option<f64>,
}

/// The nanoseconds of one iteration and their 95 % confidence interval.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Time {
    /// The estimate: the slope, or the mean if all samples have one length.
    pub ns: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

/// Times differ if their intervals do not overlap and the estimates differ by more than this share.
/// Two runs of one executable on a shared machine often differ by a few per cent with narrow
/// intervals.
const NOISE: f64 = 0.05;
/// Limits: instructions and bytes as a share of the baseline, mAP as a difference.
const MORE_INSTRUCTIONS: f64 = 0.05;
const MORE_BYTES: f64 = 0.01;
const LESS_MAP: f64 = 0.005;

impl Measured {
    /// Reads a `bench.json`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Json`] name the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        read(path.as_ref())
    }

    /// Returns tables, with changes since a baseline if there is one.
    pub fn markdown(&self, baseline: Option<&Self>) -> String {
        let mut text = format!(
            "# Benchmarks\n\n{}, Linux {}, {}, commit {}",
            self.cpu, self.kernel, self.compiler, self.commit
        );
        if let Some(baseline) = baseline {
            let other =
                if baseline.cpu == self.cpu { String::new() } else { format!(" on {}", baseline.cpu) };
            text += &format!("; baseline {}{other}", baseline.commit);
        }
        text += "\n\n";
        let mut section = |title: &str, note: &str, table: Table| {
            if !table.rows.is_empty() {
                text += &format!("## {title}\n\n{note}\n\n{table}\n\n");
            }
        };

        let rows = self.map.iter().map(|(bits, &map)| {
            let before = baseline.and_then(|baseline| baseline.map.get(bits));
            let change = before.map_or(String::new(), |before| format!("{:+.4}", map - before));
            line(&format!("mAP at {bits} bits"), [format!("{map:.4}"), change])
        });
        let bytes = self.bytes_per_item.map(|bytes| {
            let before = baseline.and_then(|baseline| baseline.bytes_per_item);
            line("bytes per vector", [format!("{bytes:.2}"), change(before, bytes)])
        });
        let note = "From the last `cargo xtask reproduce-paper --quick`.";
        section("Quality", note, Table::new("", ["now", "change"], rows.chain(bytes)));

        let rows = self.instructions.iter().map(|(name, &count)| {
            let before = baseline.and_then(|baseline| baseline.instructions.get(name));
            line(name, [count.to_string(), change(before.map(|&count| count as f64), count as f64)])
        });
        let note = "Counted by valgrind; a busy machine does not change them.";
        section("Instructions", note, Table::new("kernel", ["instructions", "change"], rows));

        let rows = self.times.iter().map(|(name, time)| {
            let before = baseline.and_then(|baseline| baseline.times.get(name));
            let interval = format!("{} to {}", duration(time.low), duration(time.high));
            let change = before.map_or(String::new(), |before| time_change(before, time));
            line(name, [duration(time.ns), interval, change])
        });
        let note = format!(
            "One iteration, with a 95 % confidence interval. Bold changes exceed {:.0} % and have intervals that do not \
             overlap.",
            100.0 * NOISE
        );
        section("Wall time", &note, Table::new("bench", ["time", "interval", "change"], rows));
        text
    }

    /// Returns what either side lacks for [`Self::worse_than`], and how to measure it.
    pub fn missing(&self, baseline: &Self) -> Vec<String> {
        let mut lacks = Vec::new();
        for (side, measured) in [("this run", self), ("the baseline", baseline)] {
            if measured.instructions.is_empty() {
                lacks.push(format!("{side} has no instructions, measure with `--instructions`"));
            }
            if measured.map.is_empty() || measured.bytes_per_item.is_none() {
                lacks.push(format!(
                    "{side} has no mAP or no bytes per vector, run `cargo xtask reproduce-paper --quick` before it"
                ));
            }
        }
        lacks
    }

    /// Returns what is worse than the baseline by more than the limits, or no longer measured.
    /// Ignores wall time.
    pub fn worse_than(&self, baseline: &Self) -> Vec<String> {
        let mut worse = Vec::new();
        for (name, &before) in &baseline.instructions {
            match self.instructions.get(name) {
                None => worse.push(format!("{name} is not measured, it took {before} instructions before")),
                Some(&count) if count as f64 >= before as f64 * (1.0 + MORE_INSTRUCTIONS) => {
                    worse.push(format!("{name} takes {count} instructions, {before} before"));
                }
                Some(_) => {}
            }
        }
        if let (Some(bytes), Some(before)) = (self.bytes_per_item, baseline.bytes_per_item)
            && bytes > before * (1.0 + MORE_BYTES)
        {
            worse.push(format!("a vector takes {bytes:.2} bytes, {before:.2} before"));
        }
        for (bits, &before) in &baseline.map {
            match self.map.get(bits) {
                None => worse.push(format!("mAP at {bits} bits is not measured, it was {before:.4} before")),
                Some(&map) if map < before - LESS_MAP => {
                    worse.push(format!("mAP at {bits} bits is {map:.4}, {before:.4} before"));
                }
                Some(_) => {}
            }
        }
        worse
    }
}

/// Writes a change in per cent if there is a baseline.
fn change(before: Option<f64>, now: f64) -> String {
    before.map_or(String::new(), |before| format!("{:+.2} %", 100.0 * (now / before - 1.0)))
}

/// Writes a change of times, bold if it exceeds noise.
fn time_change(before: &Time, now: &Time) -> String {
    let ratio = now.ns / before.ns;
    let text = format!("{:+.1} %", 100.0 * (ratio - 1.0));
    let apart = now.low > before.high || now.high < before.low;
    if apart && (ratio - 1.0).abs() > NOISE { format!("**{text}**") } else { text }
}

fn duration(ns: f64) -> String {
    let (value, unit) = match ns {
        ..1e3 => (ns, "ns"),
        ..1e6 => (ns / 1e3, "µs"),
        ..1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{value:.2} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(scale: f64) -> Measured {
        let time = |ns: f64| Time { ns: ns * scale, low: ns * scale - 1.0, high: ns * scale + 1.0 };
        Measured {
            commit: format!("commit-{scale}"),
            cpu: "a CPU".to_owned(),
            kernel: "6.1".to_owned(),
            compiler: "rustc 1.95.0".to_owned(),
            times: [("encode".to_owned(), time(100.0)), ("steady".to_owned(), time(2.5e6 / scale))].into(),
            instructions: [("search".to_owned(), (1000.0 * scale) as u64)].into(),
            map: [(16, 0.5 / scale)].into(),
            bytes_per_item: Some(7.0 * scale),
        }
    }

    #[test]
    fn changes_that_exceed_noise_are_bold() {
        let text = measured(1.1).markdown(Some(&measured(1.0)));
        assert!(text.contains("commit commit-1.1; baseline commit-1\n"), "{text}");
        for cell in ["**+10.0 %**", "+10.00 %", "-0.0455", "2.50 ms", "+0.0 %"] {
            assert!(text.contains(cell), "{cell} is not in\n{text}");
        }
        let text = measured(1.04).markdown(Some(&measured(1.0)));
        assert!(text.contains("+4.0 %") && !text.contains("**"), "{text}");
        assert!(!measured(1.0).markdown(None).contains('+'));
    }

    #[test]
    fn limits_ignore_wall_time() {
        assert_eq!(measured(1.0).worse_than(&measured(1.0)), [""; 0]);
        assert_eq!(measured(1.1).worse_than(&measured(1.0)).len(), 3);
        assert_eq!(measured(0.9).worse_than(&measured(1.0)), [""; 0]);
        let faster = Measured { times: measured(2.0).times, ..measured(1.0) };
        assert_eq!(faster.worse_than(&measured(1.0)), [""; 0]);
    }

    #[test]
    fn a_lost_measurement_is_worse_and_a_new_one_is_not() {
        let renamed = Measured {
            instructions: [("seek".to_owned(), 1000)].into(),
            map: [(24, 0.5)].into(),
            ..measured(1.0)
        };
        let worse = renamed.worse_than(&measured(1.0));
        assert_eq!(
            worse,
            [
                "search is not measured, it took 1000 instructions before",
                "mAP at 16 bits is not measured, it was 0.5000 before"
            ]
        );
    }

    #[test]
    fn missing_numbers_are_named_with_advice() {
        assert_eq!(measured(1.0).missing(&measured(1.0)), [""; 0]);
        let uncounted = || Measured { instructions: BTreeMap::new(), ..measured(1.0) };
        let unranked = [
            Measured { map: BTreeMap::new(), ..measured(1.0) },
            Measured { bytes_per_item: None, ..measured(1.0) },
        ];
        for (lacks, says) in [
            (uncounted().missing(&measured(1.0)), ["this run", "--instructions"]),
            (measured(1.0).missing(&uncounted()), ["the baseline", "--instructions"]),
            (unranked[0].missing(&measured(1.0)), ["this run", "reproduce-paper --quick"]),
            (measured(1.0).missing(&unranked[1]), ["the baseline", "reproduce-paper --quick"]),
        ] {
            assert!(lacks.len() == 1 && says.iter().all(|says| lacks[0].contains(says)), "{lacks:?}");
        }
    }
}
