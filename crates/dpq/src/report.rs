//! `dpq report`: evaluates one or more trainings on their data set and writes one page.
//!
//! - `measure`: encodes, indexes, searches and evaluates with one model
//! - `figures`: example queries and t-SNE

mod figures;
mod measure;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dpq_data::{Dataset, Source, Split, sha256};
use dpq_eval::MapRule;
use dpq_model::{Device, Model};
use dpq_report::results::{About, Items, Machine};
use dpq_report::{Report, Results};

use crate::train::{RECORD, Trained};
use crate::{eval, output};
use measure::Measured;

/// Evaluate trainings on their data set and write a page
///
/// Encodes queries and gallery, searches at every code length, and reports mean average precision,
/// curves, distortion, use of codewords, latency, t-SNE and example queries. Several runs, which
/// differ in their seeds, become mean and standard deviation. The page report.html needs no other
/// file. Markdown, CSV, JSON and SVG lie beside it.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq report runs/a runs/b --out runs/report")]
pub(crate) struct Args {
    /// Run folders of `dpq train --data`
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The data set folder [default: the folder that the runs were trained on]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for the page and its files [default: print the main tables only]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Maximum number of gallery items in the t-SNE figure
    #[arg(long, default_value_t = 5000, value_name = "N", requires = "out")]
    tsne_items: usize,
    /// Also rank by other codes of the same features, fitted to the training images: residual
    /// k-means, product quantization and OPQ; and by the classifier's posterior, exact and in as
    /// many bytes
    #[arg(long)]
    baselines: bool,
    /// Device of the network: cpu, or cuda:N in a program built with --features cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
}

impl Trained {
    /// Opens the model and checks that the record describes it.
    fn model(&self, run: &Path, device: Device) -> Result<Model> {
        let path = run.join("model.safetensors");
        let model = Model::open(&path)?.on(device)?;
        let found = model.codebooks().fingerprint();
        let (path, expected) = (path.display(), &self.fingerprint);
        ensure!(
            found == *expected,
            "{path} has codebooks {found}, {RECORD} beside it describes {expected}: train again"
        );
        Ok(model)
    }
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let trainings = self.runs.iter().map(|run| Trained::read(run)).collect::<Result<Vec<_>>>()?;
        let folder = self.folder(&trainings)?;
        let dataset = Dataset::open(&folder).context("give --data if the data set has moved")?;
        trainings.iter().try_for_each(|training| training.check_split(&dataset, &folder))?;
        // All models are opened before the work, so that a missing one is not found after minutes.
        let models = self.runs.iter().zip(&trainings);
        let models =
            models.map(|(run, training)| training.model(run, self.device)).collect::<Result<Vec<_>>>()?;
        let _dir = self.out.as_deref().map(output::ResultDir::create).transpose()?;

        let measure = |(model, training)| Measured::new(model, training, &folder, self.baselines);
        let measured = models.iter().zip(&trainings).map(measure).collect::<Result<Vec<_>>>()?;
        let runs: Vec<_> = measured.iter().map(|measured| measured.run.clone()).collect();
        let about = self.about(&folder, &dataset, &trainings[0], &models[0], &measured[0])?;
        let mut report = Report { results: Results::new(about, &runs)?, tsne: None, queries: None };
        let mut text = report.summary();
        if let Some(out) = &self.out {
            report.queries = Some(figures::examples(&measured[0], &folder)?);
            report.tsne = figures::tsne(&measured[0], &models[0], &folder, self.tsne_items)?;
            let paths = report.write(out)?;
            paths.iter().for_each(|path| text += &format!("wrote {}\n", path.display()));
        }
        output::print(json, &report.results, &text)
    }

    /// Returns the one data set of all runs.
    fn folder(&self, trainings: &[Trained]) -> Result<PathBuf> {
        if let Some(folder) = &self.data {
            return Ok(folder.clone());
        }
        let first = self.runs[0].display();
        for (run, training) in self.runs.iter().map(|run| run.display()).zip(trainings) {
            ensure!(
                training.data.is_some(),
                "{run} was trained on features, a report needs a data set with queries and gallery: use `dpq encode` and \
                 `dpq eval`, or give --data"
            );
            ensure!(
                training.data == trainings[0].data,
                "{first} and {run} were trained on different data sets, report on each separately or give --data"
            );
        }
        trainings[0].data.clone().context("the loop above found a data set")
    }

    fn about(
        &self,
        folder: &Path,
        dataset: &Dataset,
        training: &Trained,
        model: &Model,
        measured: &Measured,
    ) -> Result<About> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let n_items = |split| dataset.split(split).len();
        let source = Source::open(folder)?;
        let other = source.files.first().filter(|_| dataset.name() != source.name);
        let images = other.map(|file| -> Result<String> {
            Ok(format!("{}, sha256 {}", name(&file.path), sha256(&file.read()?)))
        });
        let (query, gallery) = (measured.query.rows.len(), measured.gallery.rows.len());
        Ok(About {
            dataset: name(&fs::canonicalize(folder)?),
            images: images.transpose()?,
            preset: training.preset.clone(),
            changes: training.changes.clone(),
            commit: format!("dpq {}", env!("CARGO_PKG_VERSION")),
            machine: Machine::this(),
            device: self.device.to_string(),
            weights: model.weights().map(str::to_owned),
            embeddings: model.embeddings().map(str::to_owned),
            embeddings_file: training.embeddings_file.as_deref().map(name),
            classification_loss: Some(training.classification_loss.clone()),
            config: serde_json::to_value(model.config())?,
            items: Items { train: training.images, query, gallery },
            left_out: Items {
                train: training.left_out,
                query: n_items(Split::Query) - query,
                gallery: n_items(Split::Gallery) - gallery,
            },
            map_rule: serde_json::to_value(eval::Rule::new("dpq", MapRule::dpq()))?,
        })
    }
}
