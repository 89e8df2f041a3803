//! A trained network with its codebooks, and its file.

use std::path::Path;

use candle_core::Device;
use dpq_codebook::{Codebooks, Form};

use crate::header::Header;
use crate::inference::{Folded, Output};
use crate::inputs::Batch;
use crate::tensors::{self, Tensors, arrays};
use crate::{Error, TrainConfig, codebook, embeddings};

/// A trained network with its codebooks.
#[derive(Debug)]
pub struct Model {
    pub(crate) header: Header,
    pub(crate) tensors: Tensors,
    pub(crate) folded: Folded,
    pub(crate) codebooks: Codebooks,
    pub(crate) embeddings: Option<String>,
    pub(crate) weights: Option<String>,
    pub(crate) device: Device,
}

/// The network after an epoch of its training.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub(crate) header: &'a Header,
    pub(crate) tensors: Tensors,
    pub(crate) folded: Folded,
    pub(crate) codebooks: Option<&'a Codebooks>,
    pub(crate) device: &'a Device,
}

/// The name of the file format, and its versions: of progressive and of product codebooks.
const FORMAT: &str = "dpq-model";
const VERSIONS: [&str; 2] = ["1", "2"];

fn version(form: Form) -> &'static str {
    VERSIONS[usize::from(form == Form::Product)]
}

impl Model {
    /// Opens a model file and checks every byte. The model runs on the CPU until [`Model::on`]
    /// moves it.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Content`] report a file that cannot be read, that is not a
    /// model, or that is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let expected = "`dpq-model` of version `1` or `2`, made by `dpq train`; codebooks alone go to `dpq encode --codebook`";
        let file = tensors::open(path, FORMAT, &VERSIONS, expected)?;
        let content = |what: String| Error::content(path, what);
        let header: Header = tensors::config(&file)?;
        header.check().map_err(|error| content(error.to_string()))?;
        let tensors = header.read_tensors(&file, "", &Device::Cpu)?;
        let codebooks = Codebooks::from_container(&file)?;
        let quantizer = &header.train.quantizer;
        let found = [codebooks.n_levels(), codebooks.n_codewords(), codebooks.dim()];
        let expected = [quantizer.levels, quantizer.codewords, header.train.network.dim];
        let (form, assignment) = (codebooks.form(), codebooks.assignment());
        if found != expected || (form, assignment) != (quantizer.form, quantizer.assignment) {
            return Err(content(format!(
                "{form} codebooks {found:?} of {assignment} assignment, the configuration says {} {expected:?} and {}",
                quantizer.form, quantizer.assignment
            )));
        }
        let (version, expected) = (file.metadata("version")?, version(form));
        if version != expected {
            return Err(content(format!(
                "{form} codebooks in a file of version {version}, expected {expected}"
            )));
        }
        file.metadata("fingerprint")?;
        let [embeddings, weights] =
            ["embeddings", "weights"].map(|key| file.metadata(key).ok().map(str::to_owned));
        let folded = Folded::default();
        Ok(Self { header, tensors, folded, codebooks, embeddings, weights, device: Device::Cpu })
    }

    /// Moves the model to a device.
    ///
    /// # Errors
    /// [`Error::Device`] if the device cannot be used.
    pub fn on(mut self, device: crate::Device) -> Result<Self, Error> {
        self.device = device.open()?;
        for tensor in self.tensors.values_mut() {
            *tensor = tensor.to_device(&self.device)?;
        }
        self.folded = Folded::default();
        Ok(self)
    }

    /// Sets [`TrainConfig::mirror_average`] of the model. The codebooks stay as they were fitted.
    #[must_use]
    pub fn with_mirror_average(mut self, average: bool) -> Self {
        self.header.train.mirror_average = average;
        self
    }

    /// Writes a model file.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut arrays = arrays(&self.tensors, "")?;
        let shape = self.codebooks.shape().to_vec();
        arrays.push(("codebook".to_owned(), shape, self.codebooks.values().to_vec()));
        let mut metadata = vec![
            ("format", FORMAT.to_owned()),
            ("version", version(self.codebooks.form()).to_owned()),
            ("config", self.header.to_json()),
        ];
        metadata.extend(self.codebooks.metadata());
        for (key, value) in [("embeddings", &self.embeddings), ("weights", &self.weights)] {
            metadata.extend(value.iter().map(|value| (key, value.clone())));
        }
        tensors::write(path.as_ref(), &metadata, &arrays)
    }

    /// The configuration of the training.
    pub fn config(&self) -> &TrainConfig {
        &self.header.train
    }

    /// The codebooks.
    pub fn codebooks(&self) -> &Codebooks {
        &self.codebooks
    }

    /// Encodes features f32 `[n, D]` of the network, `[n, L]`: by the beam search that the
    /// codebooks were fitted for, see
    /// [`QuantizerConfig::beam`](crate::config::QuantizerConfig::beam).
    ///
    /// # Errors
    /// [`Error::Codebooks`] if `features` is not whole rows or a number is not finite.
    pub fn encode(&self, features: &[f32]) -> Result<Vec<u8>, Error> {
        codebook::encode(&self.header.train.quantizer, &self.codebooks, features)
    }

    /// The label embeddings of the training: `seeded`, or `given` and the CRC32C of their values.
    /// `None` if the file does not state them.
    pub fn embeddings(&self) -> Option<&str> {
        self.embeddings.as_deref()
    }

    /// The fingerprint of the pretrained weights of the body, or `None` if the body started at
    /// random.
    pub fn weights(&self) -> Option<&str> {
        self.weights.as_deref()
    }

    /// The shape of an image, `[C, H, W]`. `[D, 1, 1]` if the model takes features of D numbers.
    pub fn image_shape(&self) -> [usize; 3] {
        self.header.image_shape
    }

    /// The number of classes, C; 0 of a model of pairs.
    pub fn n_classes(&self) -> usize {
        self.header.n_classes
    }

    /// Runs images u8 `[n, C, H, W]` through the network.
    ///
    /// The outputs for an image do not depend on the number of threads or on the other images. They
    /// differ by rounding between devices.
    ///
    /// # Errors
    /// [`Error::Unfit`] if `images` is not whole images, [`Error::TakesFeatures`] if the model was
    /// trained on features.
    pub fn forward(&self, images: &[u8]) -> Result<Output, Error> {
        self.header.forward((&self.tensors, &self.folded), &Batch::Images(images.into()), &self.device)
    }

    /// Runs stored features f32 `[n, D]` through a network that was trained on features.
    ///
    /// # Errors
    /// [`Error::Unfit`] if `features` is not whole rows or a number is not finite,
    /// [`Error::TakesImages`] if the model was trained on images.
    pub fn forward_features(&self, features: &[f32]) -> Result<Output, Error> {
        self.header.forward((&self.tensors, &self.folded), &Batch::Vectors(features.into()), &self.device)
    }

    /// Maps queries f32 `[n, D]` to those that search the codes of keys, `[n, D]`. The model was
    /// trained on pairs; [`Model::forward_features`] maps keys.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the model was trained on labels, if `queries` is not whole rows, or if a
    /// number is not finite.
    pub fn forward_queries(&self, queries: &[f32]) -> Result<Vec<f32>, Error> {
        self.header.queries(&self.tensors, &Batch::Vectors(queries.into()), &self.device)
    }

    /// The dimension of the result of the body, F.
    pub fn body_dim(&self) -> usize {
        self.tensors["embed.weight"].dims()[1]
    }

    /// Runs images u8 `[n, C, H, W]` through the body alone, f32 `[n, F]`. Heads of another model
    /// can be trained on the result.
    ///
    /// # Errors
    /// Those of [`Model::forward`].
    pub fn body(&self, images: &[u8]) -> Result<Vec<f32>, Error> {
        self.header.body((&self.tensors, &self.folded), &Batch::Images(images.into()), &self.device)
    }

    /// Returns features made of the classifier, f32 `[n, D]`: the sum of one unit vector per class,
    /// weighted by softmax(logits / `temperature`). The seed of the training draws the vectors,
    /// which are orthogonal if n_classes ≤ D.
    ///
    /// They separate the trained classes and nothing else. For images with several labels they are
    /// not a posterior.
    /// Shapes: logits `[n, C]`.
    ///
    /// # Errors
    /// [`Error::Unfit`] if `logits` is not whole rows, or unless `temperature` is finite and above
    /// 0.
    pub fn posterior_features(&self, logits: &[f32], temperature: f32) -> Result<Vec<f32>, Error> {
        let (n_classes, train) = (self.header.n_classes, &self.header.train);
        if !(temperature > 0.0 && temperature.is_finite()) {
            let found = format!("found {temperature}");
            return Err(Error::unfit("temperature", found, "a finite number above 0"));
        }
        if n_classes == 0 || !logits.len().is_multiple_of(n_classes) {
            return Err(Error::rows("logits", logits.len(), n_classes));
        }
        let vectors = embeddings::label_embeddings(n_classes, train.network.dim, train.seed);
        let feature = |row: &[f32]| {
            let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            let weights: Vec<f32> = row.iter().map(|x| ((x - largest) / temperature).exp()).collect();
            let total: f32 = weights.iter().sum();
            let mut feature = vec![0.0; train.network.dim];
            for (weight, vector) in weights.iter().zip(vectors.chunks_exact(train.network.dim)) {
                feature.iter_mut().zip(vector).for_each(|(x, v)| *x += weight / total * v);
            }
            feature
        };
        Ok(logits.chunks_exact(n_classes).flat_map(feature).collect())
    }
}

impl Snapshot<'_> {
    /// Encodes features as [`Model::encode`], or returns `None` before codebooks start.
    ///
    /// # Errors
    /// Those of [`Model::encode`].
    pub fn encode(&self, features: &[f32]) -> Result<Option<Vec<u8>>, Error> {
        let quantizer = &self.header.train.quantizer;
        self.codebooks.map(|codebooks| codebook::encode(quantizer, codebooks, features)).transpose()
    }

    /// The codebooks, or `None` before they start.
    pub fn codebooks(&self) -> Option<&Codebooks> {
        self.codebooks
    }

    /// Runs images through the network, see [`Model::forward`].
    ///
    /// # Errors
    /// Those of [`Model::forward`].
    pub fn forward(&self, images: &[u8]) -> Result<Output, Error> {
        self.header.forward((&self.tensors, &self.folded), &Batch::Images(images.into()), self.device)
    }

    /// Runs stored features through the network, see [`Model::forward_features`].
    ///
    /// # Errors
    /// Those of [`Model::forward_features`].
    pub fn forward_features(&self, features: &[f32]) -> Result<Output, Error> {
        self.header.forward((&self.tensors, &self.folded), &Batch::Vectors(features.into()), self.device)
    }
}
