//! `pydpq.Model`.

use std::path::PathBuf;

use numpy::PyUntypedArrayMethods;
use numpy::ndarray::Ix4;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, array, read, values};
use crate::codebooks::Codebooks;
use crate::error::raise;
use crate::threads::in_pieces;

/// A trained network with its codebooks, on the CPU: Model.load(path).
#[pyclass(frozen, module = "pydpq")]
pub(crate) struct Model {
    inner: dpq_model::Model,
    /// The absolute path of its file.
    path: PathBuf,
}

/// Images encoded between two checks for Ctrl-C.
const IMAGES: usize = 512;

#[pymethods]
impl Model {
    /// Loads a model file of `dpq train` and checks every byte.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let inner = py.detach(|| dpq_model::Model::open(&path)).map_err(raise)?;
        Ok(Self { inner, path: std::path::absolute(path)? })
    }

    /// Encodes images, uint8 [n, C, H, W]. Returns (codes, features): uint8 [n, L] and float32 [n,
    /// D].
    ///
    /// C, H, W must equal image_shape. The result for an image does not depend on the other images.
    fn encode<'py>(&self, images: &Bound<'py, PyAny>) -> PyResult<(Array<'py, u8>, Array<'py, f32>)> {
        let py = images.py();
        let pixels = read::<u8, Ix4>("images", images, "[n, C, H, W]")?;
        let shape = self.inner.image_shape();
        if pixels.shape()[1..] != shape {
            let found = &pixels.shape()[1..];
            return Err(PyValueError::new_err(format!(
                "images are {found:?}, the model was trained on {shape:?}, expected that channels, height, width"
            )));
        }
        let codebooks = self.inner.codebooks();
        let (mut codes, mut features) = (Vec::new(), Vec::new());
        in_pieces(py, values(&pixels), IMAGES * shape.iter().product::<usize>(), |images| {
            let output = py.detach(|| self.inner.forward(images)).map_err(raise)?.features;
            codes.extend(py.detach(|| self.inner.encode(&output)).map_err(raise)?);
            features.extend(output);
            Ok(())
        })?;
        let n = pixels.shape()[0];
        Ok((array(py, codes, &[n, codebooks.n_levels()])?, array(py, features, &[n, codebooks.dim()])?))
    }

    /// The codebooks of the codes.
    #[getter]
    fn codebooks(&self) -> Codebooks {
        self.inner.codebooks().clone().into()
    }

    /// Channels, height and width of an image, (C, H, W).
    #[getter]
    fn image_shape(&self) -> (usize, usize, usize) {
        self.inner.image_shape().into()
    }

    /// Pickles the path of its file. Unpickling loads the file that the path then names.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (PathBuf,))> {
        Ok((slf.getattr("load")?, (slf.get().path.clone(),)))
    }

    fn __repr__(&self) -> String {
        format!("<pydpq.Model of images {:?}, {}>", self.image_shape(), self.codebooks().__repr__())
    }
}
