//! The configuration of a training, from the options of `dpq train`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use dpq_model::{TrainConfig, Weights};
use serde::Deserialize;

use super::Args;
use crate::weights;

impl Args {
    /// Returns the configuration that the options describe, and the weights that training starts
    /// from.
    pub(super) fn configuration(&self) -> Result<(TrainConfig, Option<Weights>)> {
        self.device.check()?;
        let weights = self.weights.as_deref().map(weights::open).transpose()?;
        let mut config = match &self.config {
            Some(path) => read_config(path)?,
            None => TrainConfig::preset(&self.preset)?,
        };
        let changes = self.changes();
        if let Some(weights) = &weights {
            config.network.body = weights.body_config().clone();
            // The size of images, which `--set` may change, decides the crops of a preset.
            let input = changed(&config, &changes)?.network.input.unwrap_or(weights.image_shape()[1]);
            config.network.input = Some(input);
            if self.config.is_none() {
                config = config.fine_tuned(input);
            }
        }
        config = changed(&config, &changes)?;
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        let weights = match (weights, config.network.input) {
            (Some(weights), Some(input)) => Some(weights.with_input(input)?),
            (weights, _) => weights,
        };
        Ok((config, weights))
    }

    /// Returns the lines that change a preset or a file.
    pub(super) fn changes(&self) -> Vec<String> {
        let freeze = self.freeze.map(|n| format!("network.freeze={n}"));
        self.set.iter().cloned().chain(freeze).collect()
    }
}

fn read_config(path: &Path) -> Result<TrainConfig> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        anyhow!("{}, line {line}: {}", path.display(), error.message().replace('\n', " "))
    })
}

/// Keys whose value is one of several kinds, with the keys of the kind below its name.
const CHOICES: [&str; 6] = ["schedule", "body", "feature", "method", "objective", "rate_schedule"];

/// Changes a configuration by lines of TOML.
fn changed(config: &TrainConfig, lines: &[String]) -> Result<TrainConfig> {
    fn merge(into: &mut toml::Table, from: toml::Table) {
        for (key, value) in from {
            match (into.get_mut(&key), value) {
                (Some(toml::Value::Table(into)), toml::Value::Table(from)) => {
                    if CHOICES.contains(&key.as_str()) {
                        into.retain(|kind, _| from.contains_key(kind));
                    }
                    merge(into, from);
                }
                (_, value) => _ = into.insert(key, value),
            }
        }
    }
    let mut table = toml::Table::try_from(config)?;
    for line in lines {
        let refused = |error: toml::de::Error| {
            anyhow!(
                "--set {line}: {}, expected a line of TOML for a key that `--print-config` prints",
                error.message()
            )
        };
        merge(&mut table, line.parse().map_err(refused)?);
        TrainConfig::deserialize(table.clone()).map_err(refused)?;
    }
    Ok(table.try_into()?)
}
