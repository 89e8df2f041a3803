//! `dpq demo`: from images to the page in one command.
//!
//! - `build`: the steps that make a gallery
//! - `plain`: features of images without labels, and their codebooks

mod build;
mod plain;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dpq_data::{Dataset, sha256};
use dpq_model::Model;
use dpq_server::{Gallery, Limits, Options};

use crate::gallery::writer;
use crate::pictures::{Pictures, SHAPE, draw_map};
use crate::serve::{MAX_PIXELS, bind, model_features, serve};
use crate::{images, output};
use build::Build;
use plain::Plain;

/// Show dpq on images: train, encode, index and serve, with a page to look at
///
/// Takes Fashion-MNIST, or your images. Images in class folders train a network, from pretrained
/// weights if there are some. Images without classes are compared by the network of the weights or,
/// without weights, by their pixels. A second start serves what the first one made.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq demo\n  dpq demo --images photos\n  dpq demo --images photos.zip --weights resnet18.safetensors"
)]
pub(crate) struct Args {
    /// A folder or archive of images, flat or with one sub-folder per class [default:
    /// Fashion-MNIST, in a clone of dpq]
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// Pretrained weights for a better network (`dpq weights import`)
    #[arg(long, value_name = "SAFETENSORS", requires = "images")]
    weights: Option<PathBuf>,
    /// Folder for what is made, one folder inside per set of images
    #[arg(long, value_name = "DIR", default_value = "dpq-demo")]
    out: PathBuf,
    /// Address to listen at; port 0 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

/// The data set of a demo without `--images`.
const FASHION: &str = "datasets/fashion-mnist";

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let input = self.images.as_deref().unwrap_or(Path::new(FASHION));
        ensure!(
            self.images.is_some() || input.is_dir(),
            "there is no folder {FASHION} here, start the demo in a clone of dpq, or give --images"
        );
        // Not after the training.
        ensure!(
            self.listen.ip().is_loopback(),
            "the demo has no token and listens at this machine only: take 127.0.0.1, or give its gallery \
                to dpq serve"
        );
        // Held from here, so that no other program takes the port; a browser waits until the end.
        let listener = bind(self.listen)?;
        let dataset = match &self.images {
            Some(images) => Dataset::from_folder(images, SHAPE)?,
            None => Dataset::open(input)?,
        };
        images::report_skipped(&dataset);
        let folder = self.out.join(self.folder_name(input, &dataset)?);
        let build = Build::new(&folder, input, self.weights.as_deref(), self.images.is_some());
        let _dir = output::ResultDir::create(&folder)?;
        let (features, beam, method) = if build.trains(&dataset) {
            build.train(&dataset, json)?;
            let model = Model::open(folder.join("run/model.safetensors"))?;
            build.add_by_model(json)?;
            let beam = model.config().quantizer.beam;
            (model_features(model, MAX_PIXELS)?, beam, build.network())
        } else {
            let plain = Plain::new(self.weights.as_deref())?;
            build.add_plain(dataset, &plain)?;
            (plain.features(MAX_PIXELS), 1, plain.name())
        };
        let live = writer(&build.gallery())?;
        output::note(&format!("{} items in {}, {method}", live.len(), folder.display()));
        let pictures = Pictures::open(Some(input), None, MAX_PIXELS)?;
        let limits = Limits { body: 32 << 20, ..Limits::default() };
        let options = Options {
            features: Some(features),
            beam,
            catalog: Some(Box::new(pictures)),
            map: Some(draw_map()),
            limits,
            ..Options::new(rayon::current_num_threads())
        };
        serve(json, Gallery::Live(Box::new(live)), options, listener)
    }

    /// Returns the name of the folder of these images and weights: other ones have another.
    fn folder_name(&self, input: &Path, dataset: &Dataset) -> Result<String> {
        let path = input.canonicalize().with_context(|| format!("cannot open {}", input.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut key = format!("{} {:?} ", env!("CARGO_PKG_VERSION"), self.images.as_ref().map(|_| &path));
        // A file that cannot be read, such as a link to nowhere, is reported when its turn comes.
        let mut add = |path: &Path| match std::fs::metadata(path) {
            Ok(of) => key += &format!("{} {:?} ", of.len(), of.modified().ok()),
            Err(error) => key += &format!("{} ", error.kind()),
        };
        match &self.images {
            Some(images) if images.is_file() => add(images),
            Some(_) => (0..dataset.len()).filter_map(|row| dataset.path(row)).for_each(&mut add),
            None => {}
        }
        self.weights.as_deref().into_iter().for_each(add);
        key += &dataset.names_sha256(input).unwrap_or_default();
        Ok(format!("{name}-{}", &sha256(key.as_bytes())[..8]))
    }
}
