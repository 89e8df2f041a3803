//! A trained network with its codebooks, and the file that holds them.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use dpq_codebook::Codebooks;
use dpq_file::{Container, Dtype, Section};
use serde::{Deserialize, Serialize};

use crate::body::layers;
use crate::inputs::Batch;
use crate::network::{self, Tensors};
use crate::{Error, TrainConfig, embeddings};

/// A trained network and codebooks.
#[derive(Debug)]
pub struct Model {
    pub(crate) header: Header,
    pub(crate) tensors: Tensors,
    pub(crate) codebooks: Codebooks,
    pub(crate) embeddings: Option<String>,
    pub(crate) weights: Option<String>,
    pub(crate) device: Device,
}

/// A network between two epochs of its training.
pub struct Snapshot<'a> {
    pub(crate) header: &'a Header,
    pub(crate) tensors: Tensors,
    pub(crate) codebooks: Option<&'a Codebooks>,
    pub(crate) device: &'a Device,
}

/// What a file's metadata says under `config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) train: TrainConfig,
    /// `[C, H, W]`; of features that something else made, `[D, 1, 1]`.
    pub(crate) image_shape: [usize; 3],
    pub(crate) n_classes: usize,
    /// Mean and standard deviation of each channel over the training inputs, pixels from 0 to 1.
    pub(crate) mean: Vec<f32>,
    pub(crate) deviation: Vec<f32>,
}

/// What inputs become.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Features, f32 `[n, D]`.
    pub features: Vec<f32>,
    /// Class logits, f32 `[n, C]`.
    pub logits: Vec<f32>,
}

/// The version of the file format.
const VERSION: &str = "1";

impl Model {
    /// Opens a model file, to be run on the CPU; see [`Model::on`].
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Content`] say what is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = Container::open(path)?;
        // Every byte is read anyway, and a weight that changed would give wrong features without a word.
        file.verify()?;
        let content = |reason: String| Error::Content { path: path.to_owned(), reason };
        let format = file.metadata("format")?;
        if format != "dpq-model" {
            return Err(content(format!("the file holds a `{format}`, expected a model that `train` made")));
        }
        let version = file.metadata("version")?;
        if version != VERSION {
            return Err(content(format!(
                "the file has version {version}, this program reads version {VERSION}"
            )));
        }
        let header: Header = serde_json::from_str(file.metadata("config")?)
            .map_err(|error| content(format!("the configuration cannot be read ({error})")))?;
        header.check().map_err(|error| content(error.to_string()))?;
        let tensors = header.read_tensors(&file, "", &Device::Cpu)?;
        let codebooks = Codebooks::from_container(&file)?;
        let quantizer = &header.train.quantizer;
        let found = [codebooks.n_levels(), codebooks.n_codewords(), codebooks.dim()];
        let expected = [quantizer.levels, quantizer.codewords, header.train.network.dim];
        if found != expected || codebooks.assignment() != quantizer.assignment {
            return Err(content(format!(
                "codebooks {found:?} of {} assignment, the configuration says {expected:?} and {}",
                codebooks.assignment(),
                quantizer.assignment
            )));
        }
        file.metadata("fingerprint")?;
        let [embeddings, weights] =
            ["embeddings", "weights"].map(|key| file.metadata(key).ok().map(str::to_owned));
        Ok(Self { header, tensors, codebooks, embeddings, weights, device: Device::Cpu })
    }

    /// The same model on another device.
    ///
    /// # Errors
    /// [`Error::Invalid`] says why the device cannot be used.
    pub fn on(mut self, device: crate::Device) -> Result<Self, Error> {
        self.device = device.open()?;
        for tensor in self.tensors.values_mut() {
            *tensor = tensor.to_device(&self.device)?;
        }
        Ok(self)
    }

    /// The same model with [`TrainConfig::mirror_average`] as given. Its codebooks stay, which were fitted to features of
    /// the other kind.
    #[must_use]
    pub fn with_mirror_average(mut self, average: bool) -> Self {
        self.header.train.mirror_average = average;
        self
    }

    /// Writes a model file.
    ///
    /// # Errors
    /// [`Error::File`] if the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut arrays = arrays(&self.tensors, "")?;
        let shape = [self.codebooks.n_levels(), self.codebooks.n_codewords(), self.codebooks.dim()];
        arrays.push(("codebook".to_owned(), shape.to_vec(), self.codebooks.values().to_vec()));
        let mut metadata = vec![
            ("format", "dpq-model".to_owned()),
            ("version", VERSION.to_owned()),
            ("assignment", self.codebooks.assignment().to_string()),
            ("fingerprint", self.codebooks.fingerprint()),
            ("config", self.header.to_json()),
        ];
        for (key, value) in [("embeddings", &self.embeddings), ("weights", &self.weights)] {
            metadata.extend(value.iter().map(|value| (key, value.clone())));
        }
        write(path, &metadata, &arrays)
    }

    /// The configuration of the training.
    pub fn config(&self) -> &TrainConfig {
        &self.header.train
    }

    /// The codebooks.
    pub fn codebooks(&self) -> &Codebooks {
        &self.codebooks
    }

    /// The label embeddings it was trained with: `seeded`, or `given` and the CRC32C of their values. None for a model that
    /// does not say.
    pub fn embeddings(&self) -> Option<&str> {
        self.embeddings.as_deref()
    }

    /// The fingerprint of the weights that its body started from; none if they were random.
    pub fn weights(&self) -> Option<&str> {
        self.weights.as_deref()
    }

    /// The shape of an image, `[C, H, W]`; `[D, 1, 1]` where the input is features of D numbers.
    pub fn image_shape(&self) -> [usize; 3] {
        self.header.image_shape
    }

    /// The classes that logits are of.
    pub fn n_classes(&self) -> usize {
        self.header.n_classes
    }

    /// Runs images u8 `[n, C, H, W]` through the network. An image gives the same bytes at any number of threads and
    /// whatever images come with it; another device rounds in another way.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `images` is whole images.
    pub fn forward(&self, images: &[u8]) -> Result<Output, Error> {
        self.header.forward(&self.tensors, &Batch::images(images), &self.device)
    }

    /// The same for features that something else made, f32 `[n, D]`, if the network was trained on such.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `features` is whole rows of finite numbers.
    pub fn forward_features(&self, features: &[f32]) -> Result<Output, Error> {
        self.header.forward(&self.tensors, &Batch::vectors(features), &self.device)
    }

    /// How many numbers the heads are given, F.
    pub fn body_dim(&self) -> usize {
        self.tensors["embed.weight"].dims()[1]
    }

    /// What the network makes of images below its heads, f32 `[n, F]`: what heads of another model can be trained on.
    ///
    /// # Errors
    /// Those of [`Model::forward`].
    pub fn body(&self, images: &[u8]) -> Result<Vec<f32>, Error> {
        self.header.body(&self.tensors, &Batch::images(images), &self.device)
    }

    /// Another feature of the same network, f32 `[n, D]`: softmax(logits / `temperature`) as weights of unit vectors, one a
    /// class, that the seed of the training draws; orthogonal while n_classes ≤ D.
    ///
    /// It is the classifier in a form that can be indexed: it tells classes apart, nothing within a class, and nothing of
    /// classes that were not trained. For images of several labels it is no posterior.
    /// Shapes: logits `[n, C]`.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `logits` is whole rows and `temperature` a finite number above 0.
    pub fn posterior_features(&self, logits: &[f32], temperature: f32) -> Result<Vec<f32>, Error> {
        let (n_classes, train) = (self.header.n_classes, &self.header.train);
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::invalid(
                "temperature",
                format!("found {temperature}, expected a finite number above 0"),
            ));
        }
        if !logits.len().is_multiple_of(n_classes) {
            let reason = format!("found {} values, expected rows of {n_classes}", logits.len());
            return Err(Error::invalid("logits", reason));
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
    /// The codebooks; none before they start.
    pub fn codebooks(&self) -> Option<&Codebooks> {
        self.codebooks
    }

    /// Runs images through the network as it is now; see [`Model::forward`].
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `images` is whole images.
    pub fn forward(&self, images: &[u8]) -> Result<Output, Error> {
        self.header.forward(&self.tensors, &Batch::images(images), self.device)
    }

    /// Runs features that something else made through the network as it is now; see [`Model::forward_features`].
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `features` is whole rows of finite numbers.
    pub fn forward_features(&self, features: &[f32]) -> Result<Output, Error> {
        self.header.forward(&self.tensors, &Batch::vectors(features), self.device)
    }
}

impl Header {
    /// Refuses what no training writes, so that a damaged file cannot ask for absurd tensors.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.train.check()?;
        let [channels, height, width] = self.image_shape;
        let finite = |values: &[f32]| values.len() == channels && values.iter().all(|x| x.is_finite());
        let sizes = [channels, height, width, self.n_classes];
        if finite(&self.mean)
            && finite(&self.deviation)
            && self.deviation.iter().all(|&x| x > 0.0)
            && sizes.iter().all(|size| (1..=1 << 16).contains(size))
            && layers(&self.train.network.body, self.image_shape).is_ok()
        {
            Ok(())
        } else {
            Err(Error::invalid("config", "found shapes or moments that no training writes"))
        }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a configuration is JSON")
    }

    /// Reads the network's tensors, each in the shape that the configuration gives it.
    pub(crate) fn read_tensors(
        &self,
        file: &Container,
        prefix: &str,
        device: &Device,
    ) -> Result<Tensors, Error> {
        let shapes = network::shapes(&self.train.network, self.image_shape, self.n_classes)?;
        read_tensors(file, prefix, shapes, device)
    }
}

/// Reads tensors of these names behind `prefix`, each in its shape.
pub(crate) fn read_tensors(
    file: &Container,
    prefix: &str,
    shapes: BTreeMap<String, Vec<usize>>,
    device: &Device,
) -> Result<Tensors, Error> {
    let mut tensors = Tensors::new();
    for (name, shape) in shapes {
        let values = file.floats(&format!("{prefix}{name}"), &shape)?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            let reason = format!("`{name}` holds {value}, expected finite numbers");
            return Err(Error::Content { path: file.path().to_owned(), reason });
        }
        tensors.insert(name, Tensor::from_vec(values, shape, device)?);
    }
    Ok(tensors)
}

/// A named array of f32: name, shape, values.
pub(crate) type Array = (String, Vec<usize>, Vec<f32>);

/// Tensors as arrays, their names behind `prefix`.
pub(crate) fn arrays(tensors: &Tensors, prefix: &str) -> Result<Vec<Array>, Error> {
    let array = |(name, tensor): (&String, &Tensor)| {
        Ok((format!("{prefix}{name}"), tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1::<f32>()?))
    };
    tensors.iter().map(array).collect()
}

/// Writes arrays into a container.
pub(crate) fn write(path: &Path, metadata: &[(&str, String)], arrays: &[Array]) -> Result<(), Error> {
    let metadata: BTreeMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let bytes: Vec<Vec<u8>> =
        arrays.iter().map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let sections: Vec<_> = arrays
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), Section { dtype: Dtype::F32, shape, bytes }))
        .collect();
    Ok(dpq_file::write(path, &metadata, &sections)?)
}
