//! An epoch as a line of `epochs.jsonl`, as numbers for TensorBoard, and as text for people.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use dpq_model::{CodewordUsage, EpochReport};
use serde::Serialize;

use super::validation::Validation;

#[derive(Serialize)]
pub(super) struct Epoch<'a> {
    #[serde(flatten)]
    pub(super) report: &'a EpochReport,
    /// If the epoch ended with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) validation: Option<Validation>,
    /// The peak so far.
    pub(super) peak_memory_bytes: Option<u64>,
}

impl Epoch<'_> {
    /// Returns named numbers; TensorBoard groups them by the part before the slash.
    pub(super) fn scalars(&self) -> Vec<(String, f64)> {
        let report = self.report;
        let mut scalars = vec![
            ("rate".to_owned(), report.rate),
            ("images_per_second".to_owned(), report.images_per_second),
            ("revived".to_owned(), report.revived as f64),
        ];
        scalars.extend(report.losses.iter().map(|(name, &loss)| (format!("loss/{name}"), loss)));
        // Product codes have a distortion at their whole length alone.
        let first = report.usage.len() - report.relative_distortion.len();
        for (level, usage) in report.usage.iter().enumerate() {
            let bits = 8 * (level + 1);
            let distortion = level.checked_sub(first).map(|at| report.relative_distortion[at]);
            scalars.extend(distortion.map(|value| (format!("distortion/{bits}_bits"), value)));
            let of = if first > 0 { format!("part_{}", level + 1) } else { format!("{bits}_bits") };
            scalars.push((format!("perplexity/{of}"), usage.perplexity));
            scalars.push((format!("dead/{of}"), usage.dead as f64));
        }
        if let Some(validation) = &self.validation {
            let by_bits = validation.map_by_bits.iter();
            scalars.extend(by_bits.map(|(bits, &map)| (format!("validation_map/{bits}_bits"), map)));
            scalars.push(("validation_map/features".to_owned(), validation.map_features));
        }
        scalars
    }

    /// Formats one line, with slashes between the numbers of the code lengths.
    pub(super) fn line(&self, n_epochs: usize) -> String {
        let report = self.report;
        let mut line = format!("epoch {:>3} of {n_epochs}", report.epoch + 1);
        let mut add = |text: String| line += &format!("  {text}");
        report.losses.iter().for_each(|(name, loss)| add(format!("{name} {loss:.4}")));
        for (name, values) in self.by_length(self.validation.as_ref()) {
            add(format!("{name} {}", values.join("/")));
        }
        if let Some(validation) = &self.validation {
            add(format!("unquantised {:.4}", validation.map_features));
        }
        add(format!("{:.0} images/s", report.images_per_second));
        line
    }

    /// Formats several lines with a table by code length. `latest` is the latest validation, of
    /// this epoch or an earlier one.
    pub(super) fn block(&self, n_epochs: usize, latest: Option<&Validation>) -> String {
        let report = self.report;
        let mut block = format!(
            "epoch {} of {n_epochs}   rate {:.1e}   {:.0} images/s   {:.0} s per epoch\n",
            report.epoch + 1,
            report.rate,
            report.images_per_second,
            report.seconds
        );
        let losses: Vec<_> = report.losses.iter().map(|(name, loss)| format!("{name} {loss:.4}")).collect();
        block += &losses.join("   ");
        let rows = self.by_length(latest);
        if !rows.is_empty() {
            let bits = (1..=report.usage.len()).map(|level| format!("{} bits", 8 * level)).collect();
            for (name, values) in [("", bits)].into_iter().chain(rows) {
                block += &format!("\n{name:<14}");
                // Product codes have one length, the last.
                block.extend((values.len()..report.usage.len()).map(|_| " ".repeat(9)));
                block.extend(values.iter().map(|value| format!(" {value:>8}")));
            }
        }
        if let Some(validation) = latest {
            block += &format!("\nvalidation mAP of unquantised features {:.4}", validation.map_features);
        }
        block
    }

    fn by_length(&self, validation: Option<&Validation>) -> Vec<(&'static str, Vec<String>)> {
        let report = self.report;
        if report.usage.is_empty() {
            return Vec::new();
        }
        let usage = |text: fn(&CodewordUsage) -> String| report.usage.iter().map(text).collect();
        let mut rows = vec![
            ("distortion", report.relative_distortion.iter().map(|x| format!("{x:.4}")).collect()),
            ("perplexity", usage(|level| format!("{:.0}", level.perplexity))),
            ("dead", usage(|level| level.dead.to_string())),
        ];
        if let Some(validation) = validation {
            let map = validation.map_by_bits.values().map(|map| format!("{map:.4}")).collect();
            rows.push(("validation mAP", map));
        }
        rows
    }
}

/// `epochs.jsonl`: one JSON line per epoch, written when the epoch ends.
pub(super) struct EpochLog {
    path: PathBuf,
    lines: Vec<String>,
}

impl EpochLog {
    pub(super) fn open(path: &Path, resume: bool) -> Result<Self> {
        let lines = match fs::read_to_string(path) {
            Ok(text) if resume => text.lines().map(str::to_owned).collect(),
            Err(error) if resume && error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            _ => Vec::new(),
        };
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Adds an epoch. It replaces the lines of epochs that an interrupted run logged after its
    /// checkpoint.
    pub(super) fn push(&mut self, epoch: &Epoch<'_>) -> Result<()> {
        self.lines.truncate(epoch.report.epoch);
        self.lines.push(serde_json::to_string(epoch)?);
        let text = self.lines.join("\n") + "\n";
        dpq_file::write_atomic(&self.path, |out| out.write_all(text.as_bytes()))?;
        Ok(())
    }

    /// Returns the total seconds of all epochs, those before an interruption included.
    pub(super) fn seconds(&self) -> Result<f64> {
        let seconds = |line: &String| {
            let epoch: Option<serde_json::Value> = serde_json::from_str(line).ok();
            epoch
                .and_then(|epoch| epoch["seconds"].as_f64())
                .with_context(|| format!("{} is damaged, train into another folder", self.path.display()))
        };
        self.lines.iter().map(seconds).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;

    use super::*;

    fn report(levels: usize) -> EpochReport {
        EpochReport {
            epoch: 11,
            losses: BTreeMap::from([("classification".to_owned(), 0.3784), ("margin".to_owned(), 0.04211)]),
            images_per_second: 1043.4,
            seconds: 4.8,
            rate: 9.76e-4,
            relative_distortion: (1..=levels).map(|level| 0.1 / level as f64).collect(),
            usage: vec![CodewordUsage { used: 253, perplexity: 201.4, dead: 3 }; levels],
            revived: 0,
        }
    }

    #[test]
    fn an_epoch_is_a_line_or_a_block() {
        let validation = |by_bits: &[(usize, f64)]| {
            let map_by_bits = by_bits.iter().copied().collect();
            Some(Validation { map_rule: String::new(), images: 500, map_by_bits, map_features: 0.8512 })
        };
        let (none, two) = (report(0), report(2));
        let epochs = [
            Epoch { report: &none, validation: None, peak_memory_bytes: None },
            Epoch { report: &none, validation: validation(&[]), peak_memory_bytes: None },
            Epoch {
                report: &two,
                validation: validation(&[(8, 0.8123), (16, 0.85)]),
                peak_memory_bytes: None,
            },
        ];
        let lines = epochs.each_ref().map(|epoch| epoch.line(96)).join("\n");
        expect![[r#"
            epoch  12 of 96  classification 0.3784  margin 0.0421  1043 images/s
            epoch  12 of 96  classification 0.3784  margin 0.0421  unquantised 0.8512  1043 images/s
            epoch  12 of 96  classification 0.3784  margin 0.0421  distortion 0.1000/0.0500  perplexity 201/201  dead 3/3  validation mAP 0.8123/0.8500  unquantised 0.8512  1043 images/s"#]].assert_eq(&lines);
        let blocks = epochs.each_ref().map(|epoch| epoch.block(96, epoch.validation.as_ref())).join("\n\n");
        expect![[r#"
            epoch 12 of 96   rate 9.8e-4   1043 images/s   5 s per epoch
            classification 0.3784   margin 0.0421

            epoch 12 of 96   rate 9.8e-4   1043 images/s   5 s per epoch
            classification 0.3784   margin 0.0421
            validation mAP of unquantised features 0.8512

            epoch 12 of 96   rate 9.8e-4   1043 images/s   5 s per epoch
            classification 0.3784   margin 0.0421
                             8 bits  16 bits
            distortion       0.1000   0.0500
            perplexity          201      201
            dead                  3        3
            validation mAP   0.8123   0.8500
            validation mAP of unquantised features 0.8512"#]]
        .assert_eq(&blocks);
        let scalars = epochs[2].scalars().into_iter().map(|(name, value)| format!("{name} {value}"));
        expect![[r#"
            rate 0.000976
            images_per_second 1043.4
            revived 0
            loss/classification 0.3784
            loss/margin 0.04211
            distortion/8_bits 0.1
            perplexity/8_bits 201.4
            dead/8_bits 3
            distortion/16_bits 0.05
            perplexity/16_bits 201.4
            dead/16_bits 3
            validation_map/8_bits 0.8123
            validation_map/16_bits 0.85
            validation_map/features 0.8512"#]]
        .assert_eq(&scalars.collect::<Vec<_>>().join("\n"));
        // Product codes of two parts.
        let product = EpochReport { relative_distortion: vec![0.05], ..two };
        let scalars = Epoch { report: &product, validation: None, peak_memory_bytes: None }.scalars();
        let names = scalars.iter().map(|(name, _)| name.as_str()).skip(5).collect::<Vec<_>>().join(" ");
        assert_eq!(names, "perplexity/part_1 dead/part_1 distortion/16_bits perplexity/part_2 dead/part_2");
    }
}
