//! Pretrained weights of a body: imported from published arrays, stored in a file of dpq.
//!
//! The names of the arrays decide the body, their shapes its size. Caffe's AlexNet is
//! `bvlc_alexnet` as caffe-tensorflow converts it: arrays are named `<layer>.weights` or
//! `<layer>.biases`, kernels are `[h, w, in, out]`, matrices `[in, out]` with inputs in the order
//! (h, w, c). Its images are blue, green, red, 227×227, less Caffe's means. All other bodies are
//! torchvision's state dictionaries, for images of 224×224 from 0 to 1, less ImageNet's means and
//! divided by its deviations.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::body::Layers;
use crate::config::{Alexnet, Block, Body, NetworkConfig};
use crate::header::Header;
use crate::inference::Folded;
use crate::inputs::Batch;
use crate::tensors::{self, Tensors, arrays, bytes};
use crate::{Error, TrainConfig};

/// Pretrained weights of a body, with the scaling of its images.
#[derive(Debug)]
pub struct Weights {
    /// The header of a network of one class. Only the body of its configuration matters.
    header: Header,
    tensors: Tensors,
    folded: Folded,
    fingerprint: String,
    device: Device,
}

/// Arrays of a file, f32, by name: shape and values.
pub type Arrays = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The metadata `config` of a file of weights.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    body: Body,
    image_shape: [usize; 3],
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// The name and the version of the file format.
const FORMAT: &str = "dpq-weights";
const VERSION: &str = "1";

/// Means of ImageNet's red, green and blue from 0 to 255, which the authors of DPQ subtract for
/// Caffe's AlexNet.
const CAFFE_MEAN: [f32; 3] = [123.68, 116.779, 103.939];

/// torchvision's means and deviations of ImageNet's red, green and blue from 0 to 1.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// A network, our name of a layer and torchvision's name of it per line. torchvision numbers layers
/// without arrays, too.
const NAMES: &str = include_str!("weights/torchvision.txt");

impl Weights {
    /// Imports weights from the arrays of a published network, whose names and shapes tell which
    /// network it is. Arrays of its classifier are skipped.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the arrays are of no network known here, or names arrays that are
    /// missing or unexpected, or the first array of another shape or with numbers that are not
    /// finite. [`Error::Config`] for sizes that no network has.
    pub fn import(mut found: Arrays) -> Result<Self, Error> {
        let other = |found, expected: &str| Error::unfit("weights", found, expected);
        let Some((body, layout)) = Layout::of(&found) else {
            let found =
                found.keys().next().map_or("found no array".to_owned(), |name| format!("found `{name}`"));
            return Err(other(found, PUBLISHED));
        };
        let origin = layout.origin;
        found.retain(|name, _| !name.starts_with(layout.classifier));
        let header = layout.config(body).header()?;
        let [shapes, _] = header.shapes()?;
        let missing: Vec<String> =
            shapes.keys().map(|ours| layout.name(ours)).filter(|name| !found.contains_key(name)).collect();
        if !missing.is_empty() {
            return Err(other(format!("found no `{}`", missing.join("`, `")), &format!("all of {origin}")));
        }
        let mut tensors = Tensors::new();
        for (ours, shape) in shapes {
            let theirs = layout.name(&ours);
            let (found, values) = found.remove(&theirs).expect("none is missing");
            let expected = layout.shape(&shape);
            if found != expected || values.len() != shape.iter().product::<usize>() {
                return Err(other(format!("`{theirs}` has shape {found:?}"), &format!("{expected:?}")));
            }
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                return Err(other(format!("`{theirs}` holds {value}"), "finite numbers"));
            }
            let tensor = Tensor::from_vec(values, expected, &Device::Cpu)?;
            let tensor = layout.convert(&ours, &tensor)?;
            tensors.insert(ours, tensor);
        }
        if !found.is_empty() {
            let names: Vec<String> = found.into_keys().collect();
            return Err(other(format!("found `{}` too", names.join("`, `")), &format!("{origin} alone")));
        }
        Self::new(header, tensors)
    }

    fn new(header: Header, tensors: Tensors) -> Result<Self, Error> {
        let mut crc = dpq_file::crc32c(&[]);
        for (name, _, values) in arrays(&tensors, "")? {
            crc = dpq_file::crc32c_append(dpq_file::crc32c_append(crc, name.as_bytes()), &bytes(&values));
        }
        let (folded, fingerprint) = (Folded::default(), format!("{crc:08x}"));
        Ok(Self { header, tensors, folded, fingerprint, device: Device::Cpu })
    }

    /// Opens a file of weights and checks every byte. The body runs on the CPU until
    /// [`Weights::on`] moves it.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Content`] report a file that cannot be read, that does not hold
    /// weights, or that is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let expected = "`dpq-weights` of version `1`, made by `dpq weights import`";
        let file = tensors::open(path, FORMAT, &[VERSION], expected)?;
        let config: Config = tensors::config(&file)?;
        let header = config.header().map_err(|error| Error::content(path, error.to_string()))?;
        let [body, _] = header.shapes()?;
        let tensors = tensors::read(&file, "", body, &Device::Cpu)?;
        Self::new(header, tensors)
    }

    /// Writes a file of weights.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let Header { train, image_shape, mean, deviation, .. } = self.header.clone();
        let config = Config { body: train.network.body, image_shape, mean, deviation };
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("fingerprint", self.fingerprint.clone()),
            ("config", serde_json::to_string(&config).expect("a configuration is JSON")),
        ];
        tensors::write(path.as_ref(), &metadata, &arrays(&self.tensors, "")?)
    }

    /// Sets the side of the images, in pixels.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the body has linear layers, which fix the size of images, and another
    /// side; [`Error::TooSmall`] if a layer does not fit.
    pub fn with_input(mut self, side: usize) -> Result<Self, Error> {
        let [channels, height, _] = self.header.image_shape;
        let [before, _] = self.header.shapes()?;
        self.header.image_shape = [channels, side, side];
        let [after, _] = self.header.shapes()?;
        if before != after {
            let expected = format!("{height}, for which the linear layers of the weights are made");
            return Err(Error::unfit("network.input", format!("found {side}"), expected));
        }
        Ok(self)
    }

    /// Moves the weights to a device.
    ///
    /// # Errors
    /// [`Error::Device`] if the device cannot be used.
    pub fn on(mut self, device: crate::Device) -> Result<Self, Error> {
        self.device = device.open()?;
        self.tensors = self.tensors_on(&self.device)?;
        self.folded = Folded::default();
        Ok(self)
    }

    pub(crate) fn tensors_on(&self, device: &Device) -> Result<Tensors, Error> {
        let on_device = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(device)?));
        self.tensors.iter().map(on_device).collect()
    }

    /// The mean and the standard deviation of each channel of an image.
    pub(crate) fn moments(&self) -> [Vec<f32>; 2] {
        [self.header.mean.clone(), self.header.deviation.clone()]
    }

    /// The configuration of the body.
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

    /// The dimension of the result of the body, F.
    pub fn body_dim(&self) -> usize {
        let layers = Layers::new(&self.header.train.network, self.header.image_shape);
        layers.expect("checked when the weights were read").dim
    }

    /// Runs images u8 `[n, C, H, W]` through the body, f32 `[n, F]`.
    ///
    /// # Errors
    /// [`Error::Unfit`] if `images` is not whole images.
    pub fn body(&self, images: &[u8]) -> Result<Vec<f32>, Error> {
        self.header.body((&self.tensors, &self.folded), &Batch::Images(images.into()), &self.device)
    }
}

impl Config {
    /// Returns the header of a network of one class.
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

/// The published networks, by arrays that tell them.
const PUBLISHED: &str = "arrays of Caffe's bvlc_alexnet (`conv1.weights`), of torchvision's alexnet or vgg16 \
    (`features.0.weight`) or of a torchvision resnet (`layer1.0.conv1.weight`)";

/// The layout of published arrays: their names and the order of their numbers.
struct Layout {
    /// The published network.
    origin: &'static str,
    /// The start of the names of its classifier.
    classifier: &'static str,
    /// Output channels of the fifth convolution of Caffe's AlexNet, `None` for torchvision.
    caffe: Option<usize>,
}

impl Layout {
    /// Returns the body of arrays and their layout, or `None` if they are of no published network.
    fn of(arrays: &Arrays) -> Option<(Body, Self)> {
        let shape = |name: &str| arrays.get(name).map(|(shape, _)| shape.as_slice());
        // An import names an array that is missing. Until then two channels stand for it.
        let n_out = |name: String| shape(&name).and_then(|shape| shape.first()).map_or(2, |&n| n);
        if shape("conv1.weights").is_some() {
            let n_out = |layer| n_out(format!("{layer}.biases"));
            let channels = ["conv1", "conv2", "conv3", "conv4", "conv5"].map(n_out);
            let body = Body::Alexnet { variant: Alexnet::Caffe, channels, hidden: n_out("fc6") };
            let caffe = Some(channels[4]);
            return Some((body, Self { origin: "Caffe's bvlc_alexnet", classifier: "fc8.", caffe }));
        }
        let torchvision = |body, origin, classifier| Some((body, Self { origin, classifier, caffe: None }));
        let of_part = |part: &str, layer: usize| n_out(format!("{part}.{layer}.bias"));
        match shape("features.0.weight") {
            Some([.., 11]) => {
                let channels = [0, 3, 6, 8, 10].map(|layer| of_part("features", layer));
                let (variant, hidden) = (Alexnet::Torchvision, of_part("classifier", 1));
                let body = Body::Alexnet { variant, channels, hidden };
                return torchvision(body, "torchvision's alexnet", "classifier.6.");
            }
            Some(_) => {
                let channels = [0, 5, 10, 17, 24].map(|layer| of_part("features", layer));
                let body = Body::Vgg16 { channels, hidden: of_part("classifier", 0) };
                return torchvision(body, "torchvision's vgg16", "classifier.6.");
            }
            None => {}
        }
        shape("layer1.0.conv1.weight")?;
        let is_block = |stage: usize, i: usize| shape(&format!("layer{stage}.{i}.conv1.weight")).is_some();
        let blocks = [1, 2, 3, 4].map(|stage| (0..).take_while(|&i| is_block(stage, i)).count().max(1));
        let is_bottleneck = shape("layer1.0.conv3.weight").is_some();
        let block = if is_bottleneck { Block::Bottleneck } else { Block::Basic };
        let body = Body::Resnet { block, blocks, width: n_out("bn1.weight".to_owned()) };
        torchvision(body, "a torchvision resnet", "fc.")
    }

    fn config(&self, body: Body) -> Config {
        let (side, [mean, deviation]) = match self.caffe {
            Some(_) => (227, [CAFFE_MEAN.map(|mean| mean / 255.0), [1.0 / 255.0; 3]]),
            None => (224, IMAGENET),
        };
        let (mean, deviation) = (mean.to_vec(), deviation.to_vec());
        Config { body, image_shape: [3, side, side], mean, deviation }
    }

    /// Returns the name of tensor `ours` in this layout.
    fn name(&self, ours: &str) -> String {
        let ours = ours.strip_prefix("backbone.").expect("a tensor of a body");
        let (layer, kind) = ours.rsplit_once('.').expect("a layer and a kind");
        let named = format!("{} {layer} ", self.origin.trim_start_matches("torchvision's "));
        let layer = NAMES.lines().find_map(|line| line.strip_prefix(&named)).unwrap_or(layer);
        let kind = match kind {
            "weight" if self.caffe.is_some() => "weights",
            "bias" if self.caffe.is_some() => "biases",
            "gamma" => "weight",
            "beta" => "bias",
            "mean" => "running_mean",
            "var" => "running_var",
            kind => kind,
        };
        format!("{layer}.{kind}")
    }

    /// Returns the shape of a tensor in this layout.
    fn shape(&self, shape: &[usize]) -> Vec<usize> {
        match (self.caffe, shape) {
            (Some(_), &[n_out, n_in, h, w]) => vec![h, w, n_in, n_out],
            (Some(_), &[n_out, n_in]) => vec![n_in, n_out],
            _ => shape.to_vec(),
        }
    }

    /// Converts an array to tensor `ours`.
    fn convert(&self, ours: &str, array: &Tensor) -> candle_core::Result<Tensor> {
        let Some(channels) = self.caffe else { return Ok(array.clone()) };
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
