//! Pretrained weights of a body: taken from the arrays that others publish, and kept in a file of our own.
//!
//! Whose arrays they are follows from the body. Caffe's AlexNet is `bvlc_alexnet` as caffe-tensorflow converts it: each
//! array under `<layer>.weights` or `<layer>.biases`, kernels `[h, w, in, out]`, matrices `[in, out]` with inputs in
//! the order (h, w, c), for blue, green, red images of 227×227 less Caffe's means. All others are torchvision's state
//! dictionaries, for images of 224×224 from 0 to 1, less ImageNet's means and divided by its deviations.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use dpq_file::Container;
use serde::{Deserialize, Serialize};

use crate::body::{Layer, layers};
use crate::config::{Alexnet, Body, NetworkConfig};
use crate::inputs::Batch;
use crate::model::{Header, arrays, read_tensors, write};
use crate::network::Tensors;
use crate::{Error, TrainConfig};

/// Pretrained weights of a body, with what its images are scaled by.
#[derive(Debug)]
pub struct Weights {
    /// Of a network of one class. Of its configuration nothing but the body counts.
    pub(crate) header: Header,
    pub(crate) tensors: Tensors,
    fingerprint: String,
    device: Device,
}

/// Arrays of a file, f32, by name: shape and values.
pub type Arrays = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// What a file of weights says of itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    body: Body,
    image_shape: [usize; 3],
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// The version of the file format.
const VERSION: &str = "1";

/// Means of ImageNet's red, green and blue from 0 to 255, as the authors of DPQ subtract them before Caffe's AlexNet.
const CAFFE_MEAN: [f32; 3] = [123.68, 116.779, 103.939];

/// Means and deviations of ImageNet's red, green and blue from 0 to 1: torchvision's.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// torchvision's names of our layers. Layers without arrays count, too.
const ALEXNET: [(&str, &str); 7] = [
    ("conv1", "features.0"),
    ("conv2", "features.3"),
    ("conv3", "features.6"),
    ("conv4", "features.8"),
    ("conv5", "features.10"),
    ("fc6", "classifier.1"),
    ("fc7", "classifier.4"),
];
const VGG16: [(&str, &str); 15] = [
    ("conv1_1", "features.0"),
    ("conv1_2", "features.2"),
    ("conv2_1", "features.5"),
    ("conv2_2", "features.7"),
    ("conv3_1", "features.10"),
    ("conv3_2", "features.12"),
    ("conv3_3", "features.14"),
    ("conv4_1", "features.17"),
    ("conv4_2", "features.19"),
    ("conv4_3", "features.21"),
    ("conv5_1", "features.24"),
    ("conv5_2", "features.26"),
    ("conv5_3", "features.28"),
    ("fc6", "classifier.0"),
    ("fc7", "classifier.3"),
];

impl Weights {
    /// Takes the weights of `body` from the arrays of a published network. Those of its classifier are left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] names all arrays that are missing, all that the network does not have, or one of another
    /// shape or with a number that is not finite.
    pub fn import(body: &Body, mut found: Arrays) -> Result<Self, Error> {
        let invalid = |reason: String| Error::invalid("weights", reason);
        let layout = Layout::of(body).ok_or_else(|| {
            invalid(format!("found the body {body:?}, expected AlexNet, VGG-16 or ResNet-50"))
        })?;
        found.retain(|name, _| !layout.is_left_out(name));
        let header = layout.config(body).header()?;
        let shapes = header.body_shapes()?;
        let missing: Vec<String> =
            shapes.keys().map(|ours| layout.name(ours)).filter(|name| !found.contains_key(name)).collect();
        if missing.len() == shapes.len() {
            let other = found.keys().next().map_or("no array".to_owned(), |name| format!("`{name}`"));
            let reason = format!("found {other}, expected those of {}: `{}`…", layout.origin(), missing[0]);
            return Err(invalid(reason));
        }
        if !missing.is_empty() {
            let reason = format!("found no `{}`, expected all of {}", missing.join("`, `"), layout.origin());
            return Err(invalid(reason));
        }
        let mut tensors = Tensors::new();
        for (ours, shape) in shapes {
            let theirs = layout.name(&ours);
            let (found, values) = found.remove(&theirs).expect("none is missing");
            let expected = layout.shape(&shape);
            if found != expected || values.len() != shape.iter().product::<usize>() {
                return Err(invalid(format!("`{theirs}` has shape {found:?}, expected {expected:?}")));
            }
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(invalid(format!("`{theirs}` holds {value}, expected finite numbers")));
            }
            let tensor = Tensor::from_vec(values, expected, &Device::Cpu)?;
            let tensor = layout.convert(&ours, &tensor)?;
            tensors.insert(ours, tensor);
        }
        if !found.is_empty() {
            let names: Vec<String> = found.into_keys().collect();
            let reason = format!("found `{}` too, expected {} alone", names.join("`, `"), layout.origin());
            return Err(invalid(reason));
        }
        Self::new(header, tensors)
    }

    fn new(header: Header, tensors: Tensors) -> Result<Self, Error> {
        let mut crc = dpq_file::crc32c(&[]);
        for (name, _, values) in arrays(&tensors, "")? {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            crc = dpq_file::crc32c_append(dpq_file::crc32c_append(crc, name.as_bytes()), &bytes);
        }
        Ok(Self { header, tensors, fingerprint: format!("{crc:08x}"), device: Device::Cpu })
    }

    /// Opens a file of weights, to be run on the CPU; see [`Weights::on`].
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Content`] say what is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = Container::open(path)?;
        let content = |reason: String| Error::Content { path: path.to_owned(), reason };
        let format = ["format", "version"].map(|key| file.metadata(key).unwrap_or("none"));
        if format != ["dpq-weights", VERSION] {
            let [format, version] = format;
            return Err(content(format!(
                "its format is `{format}`, version {version}, expected weights of version {VERSION} that \
                 `dpq weights import` made"
            )));
        }
        file.verify()?;
        let config: Config = serde_json::from_str(file.metadata("config")?)
            .map_err(|error| content(format!("the configuration cannot be read ({error})")))?;
        let header = config.header().map_err(|error| content(error.to_string()))?;
        let tensors = read_tensors(&file, "", header.body_shapes()?, &Device::Cpu)?;
        Self::new(header, tensors)
    }

    /// Writes a file of weights.
    ///
    /// # Errors
    /// [`Error::File`] if the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let Header { image_shape, mean, deviation, .. } = &self.header;
        let config = Config {
            body: self.body_config().clone(),
            image_shape: *image_shape,
            mean: mean.clone(),
            deviation: deviation.clone(),
        };
        let metadata = [
            ("format", "dpq-weights".to_owned()),
            ("version", VERSION.to_owned()),
            ("fingerprint", self.fingerprint.clone()),
            ("config", serde_json::to_string(&config).expect("a configuration is JSON")),
        ];
        write(path, &metadata, &arrays(&self.tensors, "")?)
    }

    /// The same weights on another device.
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

    /// The body that they are of.
    pub fn body_config(&self) -> &Body {
        &self.header.train.network.body
    }

    /// The shape of an image, `[C, H, W]`.
    pub fn image_shape(&self) -> [usize; 3] {
        self.header.image_shape
    }

    /// The CRC32C of all names and values, as eight hex digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How many numbers the body makes of an image, F.
    pub fn body_dim(&self) -> usize {
        layers(self.body_config(), self.header.image_shape).expect("checked when the weights were read").1
    }

    /// What the body makes of images u8 `[n, C, H, W]`: f32 `[n, F]`.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `images` is whole images.
    pub fn body(&self, images: &[u8]) -> Result<Vec<f32>, Error> {
        self.header.body(&self.tensors, &Batch::images(images), &self.device)
    }
}

impl Config {
    /// As of a network of one class.
    fn header(self) -> Result<Header, Error> {
        let Self { body, image_shape, mean, deviation } = self;
        let best = TrainConfig::best();
        let network = NetworkConfig { body, ..best.network };
        let train = TrainConfig { mirror_average: false, network, ..best };
        let header = Header { train, image_shape, n_classes: 1, mean, deviation };
        header.check()?;
        Ok(header)
    }
}

impl Header {
    /// The names and shapes of the body's tensors.
    fn body_shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, Error> {
        let (layers, _) = layers(&self.train.network.body, self.image_shape)?;
        Ok(layers.iter().flat_map(Layer::shapes).collect())
    }
}

/// Where names and orders of numbers come from.
#[derive(Clone, Copy)]
enum Layout {
    /// The fifth convolution puts out so many channels.
    CaffeAlexnet {
        channels: usize,
    },
    Alexnet,
    Vgg16,
    Resnet50,
}

impl Layout {
    /// None for a body that nobody else has.
    fn of(body: &Body) -> Option<Self> {
        match *body {
            Body::Alexnet { variant: Alexnet::Caffe, channels: [.., channels], .. } => {
                Some(Self::CaffeAlexnet { channels })
            }
            Body::Alexnet { variant: Alexnet::Torchvision, .. } => Some(Self::Alexnet),
            Body::Vgg16 { .. } => Some(Self::Vgg16),
            Body::Resnet50 { .. } => Some(Self::Resnet50),
            Body::Features | Body::Small { .. } => None,
        }
    }

    fn origin(self) -> &'static str {
        match self {
            Self::CaffeAlexnet { .. } => "Caffe's bvlc_alexnet",
            Self::Alexnet => "torchvision's alexnet",
            Self::Vgg16 => "torchvision's vgg16",
            Self::Resnet50 => "torchvision's resnet50",
        }
    }

    fn config(self, body: &Body) -> Config {
        let (side, [mean, deviation]) = match self {
            Self::CaffeAlexnet { .. } => (227, [CAFFE_MEAN.map(|mean| mean / 255.0), [1.0 / 255.0; 3]]),
            _ => (224, IMAGENET),
        };
        Config {
            body: body.clone(),
            image_shape: [3, side, side],
            mean: mean.to_vec(),
            deviation: deviation.to_vec(),
        }
    }

    /// Whether an array is of the classifier.
    fn is_left_out(self, theirs: &str) -> bool {
        let classifier = match self {
            Self::CaffeAlexnet { .. } => "fc8.",
            Self::Alexnet | Self::Vgg16 => "classifier.6.",
            Self::Resnet50 => "fc.",
        };
        theirs.starts_with(classifier)
    }

    /// What this layout calls our tensor `ours`.
    fn name(self, ours: &str) -> String {
        let ours = ours.strip_prefix("backbone.").expect("a tensor of a body");
        let (layer, kind) = ours.rsplit_once('.').expect("a layer and a kind");
        let torchvision = |table: &[(&str, &str)]| {
            let (_, theirs) =
                table.iter().find(|(ours, _)| *ours == layer).expect("the table has all layers");
            format!("{theirs}.{kind}")
        };
        match self {
            Self::CaffeAlexnet { .. } => {
                format!("{layer}.{}", if kind == "weight" { "weights" } else { "biases" })
            }
            Self::Alexnet => torchvision(&ALEXNET),
            Self::Vgg16 => torchvision(&VGG16),
            Self::Resnet50 => {
                let kind = match kind {
                    "gamma" => "weight",
                    "beta" => "bias",
                    "mean" => "running_mean",
                    "var" => "running_var",
                    kind => kind,
                };
                format!("{layer}.{kind}")
            }
        }
    }

    /// The shape that an array of our `shape` has.
    fn shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::CaffeAlexnet { .. }, &[n_out, n_in, h, w]) => vec![h, w, n_in, n_out],
            (Self::CaffeAlexnet { .. }, &[n_out, n_in]) => vec![n_in, n_out],
            _ => shape.to_vec(),
        }
    }

    /// Their array as our tensor `ours`.
    fn convert(self, ours: &str, array: &Tensor) -> candle_core::Result<Tensor> {
        let Self::CaffeAlexnet { channels } = self else { return Ok(array.clone()) };
        let tensor = match (array.rank(), ours) {
            (4, "backbone.conv1.weight") => {
                // Blue, green, red → red, green, blue.
                let reversed = Tensor::new(&[2u32, 1, 0], &Device::Cpu)?;
                array.permute((3, 2, 0, 1))?.contiguous()?.index_select(&reversed, 1)?
            }
            (4, _) => array.permute((3, 2, 0, 1))?,
            (2, "backbone.fc6.weight") => {
                // Inputs (h, w, c) → (c, h, w).
                let (n_in, n_out) = array.dims2()?;
                let array = array.reshape((n_in / channels, channels, n_out))?;
                array.permute((2, 1, 0))?.reshape((n_out, n_in))?
            }
            (2, _) => array.t()?,
            _ => array.clone(),
        };
        tensor.contiguous()
    }
}

#[cfg(test)]
mod tests;
