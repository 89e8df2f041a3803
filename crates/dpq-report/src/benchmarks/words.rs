//! Sections and numbers in the words that all comparisons share.

use super::results::{Machine, Run};

/// A section of `docs/benchmarks.md`.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) text: String,
    /// The name and value of every ratio in the text.
    pub(super) ratios: Vec<(String, f64)>,
}

impl Section {
    pub(super) fn new(title: &'static str, paragraphs: &[String], ratios: Vec<(String, f64)>) -> Self {
        Self { title, text: paragraphs.join("\n\n"), ratios }
    }
}

impl<T> Run<T> {
    /// Lists when and on what the comparison ran, and further `notes`.
    pub(super) fn how(&self, notes: &[String]) -> String {
        let Machine { cpu, cores, memory_bytes, instructions, kernel } = &self.machine;
        let versions = self.versions.iter().map(|(name, version)| format!("; {name} {version}"));
        let lines = [
            format!(
                "`{}`; {}; commit `{}`; {} s",
                self.command,
                self.date,
                self.commit,
                count(self.seconds.round() as u64)
            ),
            format!(
                "{cpu}, {cores} cores, {:.0} GiB, {kernel}; relevant instruction sets: {}",
                *memory_bytes as f64 / 1073741824.0,
                instructions.join(", ")
            ),
            self.compiler.clone() + &versions.collect::<String>(),
        ];
        lines.iter().chain(notes).map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// Writes how many times faster dpq is.
pub(super) fn ratio(ours: f64) -> String {
    match ours {
        ..1.995 => format!("{ours:.2}×"),
        ..9.95 => format!("{ours:.1}×"),
        _ => format!("{ours:.0}×"),
    }
}

pub(super) fn microseconds(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    if us < 99.5 { format!("{us:.1}") } else { count(us.round() as u64) }
}

/// Writes a whole number with commas between thousands.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join(",")
}

/// Returns the first of equal values, in order.
pub(super) fn unique<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut unique, value| {
        if !unique.contains(&value) {
            unique.push(value);
        }
        unique
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_significant_digits() {
        assert_eq!([999, 1000, 1_234_567].map(count), ["999", "1,000", "1,234,567"]);
        assert_eq!([1_240, 99_480, 99_500, 33_123_456].map(microseconds), ["1.2", "99.5", "100", "33,123"]);
        assert_eq!([9.96, 9.94, 1.5, 0.555].map(ratio), ["10×", "9.9×", "1.50×", "0.56×"]);
    }
}
