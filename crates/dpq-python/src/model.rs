//! `pydpq.Model`.

use std::path::PathBuf;

use dpq_model::config::{Body, Feature};
use dpq_model::{Error, Output};
use numpy::PyUntypedArrayMethods;
use numpy::ndarray::Ix4;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Rows, array, read, values};
use crate::codebooks::Codebooks;
use crate::error::raise;
use crate::threads::in_pieces;

/// A trained network with its codebooks, on the CPU: Model.load(path), or what pydpq.train returns.
#[pyclass(frozen, module = "pydpq")]
pub(crate) struct Model {
    inner: dpq_model::Model,
    /// The absolute path of its file.
    path: PathBuf,
}

/// Images, and rows of features, encoded between two checks for Ctrl-C.
const IMAGES: usize = 512;
const ROWS: usize = 1 << 14;

#[pymethods]
impl Model {
    /// Loads a model file of `dpq train` and checks every byte.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner = py.detach(|| dpq_model::Model::open(&path)).map_err(raise)?;
        Ok(Self { inner, path: std::path::absolute(path)? })
    }

    /// Encodes images, uint8 [n, C, H, W], or the features that the model was trained on, float32
    /// [n, F]; of a model of pairs, keys. Returns (codes, features): uint8 [n, L] and float32 [n,
    /// D].
    ///
    /// C, H, W must equal image_shape. The result for an item does not depend on the other items.
    fn encode<'py>(&self, items: &Bound<'py, PyAny>) -> PyResult<(Array<'py, u8>, Array<'py, f32>)> {
        let (py, model) = (items.py(), &self.inner);
        let codebooks = model.codebooks();
        let (mut codes, mut features) = (Vec::new(), Vec::new());
        let mut keep = |output: Result<Output, Error>| {
            let output = output.map_err(raise)?.features;
            codes.extend(py.detach(|| model.encode(&output)).map_err(raise)?);
            features.extend(output);
            Ok(())
        };
        if self.takes() != "images" {
            let rows = self.rows("features", items)?;
            in_pieces(py, rows.values(), ROWS * rows.columns, |rows| {
                keep(py.detach(|| model.forward_features(rows)))
            })?;
            return Ok((rows.result(codes, codebooks.n_levels())?, rows.result(features, codebooks.dim())?));
        }
        let pixels = read::<u8, Ix4>("images", items, "[n, C, H, W]")?;
        let shape = model.image_shape();
        if pixels.shape()[1..] != shape {
            let found = &pixels.shape()[1..];
            return Err(PyValueError::new_err(format!(
                "images are {found:?}, the model was trained on {shape:?}, expected that channels, height, width"
            )));
        }
        in_pieces(py, values(&pixels), IMAGES * shape.iter().product::<usize>(), |images| {
            keep(py.detach(|| model.forward(images)))
        })?;
        let n = pixels.shape()[0];
        Ok((array(py, codes, &[n, codebooks.n_levels()])?, array(py, features, &[n, codebooks.dim()])?))
    }

    /// Maps queries, float32 [n, D], to those that search the codes of keys, float32 [n, D]. Only a
    /// model of pairs does.
    fn encode_queries<'py>(&self, queries: &Bound<'py, PyAny>) -> PyResult<Array<'py, f32>> {
        let py = queries.py();
        if self.takes() != "pairs" {
            return Err(PyValueError::new_err(format!(
                "the model takes {}, expected one of pairs: features of encode are the queries of others",
                self.takes()
            )));
        }
        let rows = self.rows("queries", queries)?;
        let mut mapped = Vec::new();
        in_pieces(py, rows.values(), ROWS * rows.columns, |rows| {
            mapped.extend(py.detach(|| self.inner.forward_queries(rows)).map_err(raise)?);
            Ok(())
        })?;
        rows.result(mapped, self.inner.codebooks().dim())
    }

    /// The codebooks of the codes.
    #[getter]
    fn codebooks(&self) -> Codebooks {
        self.inner.codebooks().clone().into()
    }

    /// The inputs of encode: "images", "features", or features of "pairs".
    #[getter]
    fn takes(&self) -> &'static str {
        let network = &self.inner.config().network;
        match (&network.body, network.feature) {
            (_, Feature::Linear) => "pairs",
            (Body::Features, _) => "features",
            _ => "images",
        }
    }

    /// Channels, height and width of an image, (C, H, W); (F, 1, 1) of features of F numbers.
    #[getter]
    fn image_shape(&self) -> (usize, usize, usize) {
        self.inner.image_shape().into()
    }

    /// Pickles the path of its file. Unpickling loads the file that the path then names.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (PathBuf,))> {
        Ok((slf.getattr("load")?, (slf.get().path.clone(),)))
    }

    fn __repr__(&self) -> String {
        let (takes, shape) = (self.takes(), self.image_shape());
        let shape = if takes == "images" { format!("{shape:?}") } else { format!("[{}]", shape.0) };
        format!("<pydpq.Model of {takes} {shape}, {}>", self.codebooks().__repr__())
    }
}

impl Model {
    /// Reads rows of the numbers that the model takes.
    fn rows<'py>(&self, what: &str, argument: &Bound<'py, PyAny>) -> PyResult<Rows<'py, f32>> {
        let [dim, ..] = self.inner.image_shape();
        Rows::of_columns(what, argument, "[n, F]", dim, "the numbers that the model was trained on")
    }
}
