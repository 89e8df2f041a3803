//! `pydpq.Codebooks`.

use std::path::PathBuf;

use dpq_codebook::{Assignment, Beam, CodeLength, FitOptions, Form, ResidualKMeans};
use numpy::ndarray::{Ix2, Ix3};
use numpy::{PyArray1, PyArray3, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Array, Rows, read, values};
use crate::error::raise;
use crate::threads::{in_pieces, interruptible};

/// Codebooks of L levels with K codewords of D values each: Codebooks(values,
/// assignment="euclidean", form="progressive").
///
/// values: float32 [L, K, D], finite, 1 <= K <= 256. assignment: how a level chooses its codeword,
/// "euclidean" (the nearest one) or "cosine" (the largest cosine). The first l bytes of a code are
/// the code of l levels, 8 l bits. form: "product" is for codebooks whose level l covers the
/// dimensions l D / L to (l + 1) D / L alone; their values are [L, K, D / L], and their codes have
/// one length, 8 L bits.
#[pyclass(frozen, module = "pydpq")]
pub(crate) struct Codebooks {
    pub(crate) inner: dpq_codebook::Codebooks,
}

/// Rows encoded between two checks for Ctrl-C.
const ROWS: usize = 1 << 14;

#[pymethods]
impl Codebooks {
    #[new]
    #[pyo3(signature = (values, assignment = "euclidean", form = "progressive"))]
    fn new(values: &Bound<'_, PyAny>, assignment: &str, form: &str) -> PyResult<Self> {
        let array = read::<f32, Ix3>("values", values, "[L, K, D]")?;
        let assignment: Assignment = assignment.parse().map_err(raise)?;
        let form: Form = form.parse().map_err(raise)?;
        let &[levels, codewords, width] = array.shape() else {
            unreachable!("the array has three dimensions")
        };
        let dim = if form == Form::Product { levels * width } else { width };
        let values = crate::array::values(&array).to_vec();
        dpq_codebook::Codebooks::with_form(form, values, levels, codewords, dim, assignment)
            .map(Self::from)
            .map_err(raise)
    }

    /// Trains codebooks on x by residual k-means: level 0 fits x, and each further level fits the
    /// residuals of the levels before it.
    ///
    /// x: float32 [n, D], n >= codewords. iterations: maximum rounds of Lloyd's algorithm per
    /// level. init_size: with more rows than this, codewords grow on so many, evenly spaced, and
    /// then fit all rows in half of the rounds, which move codewords further. None: grow on
    /// all rows. beam, length_weights: train for codes that encode finds with the same beam and
    /// weights. refine: maximum rounds that then refine all levels together. form: "product" fits
    /// each level to its part of the dimensions, without beam and refine. The result does not
    /// depend on the number of threads. Ctrl-C ends the call.
    #[staticmethod]
    #[pyo3(signature = (x, levels, *, codewords = 256, iterations = 25, refine = 0, beam = 1, length_weights = None, init_size = 16384, form = "progressive"))]
    #[expect(clippy::too_many_arguments, reason = "all but two are keywords with defaults")]
    fn train(
        x: &Bound<'_, PyAny>,
        levels: usize,
        codewords: usize,
        iterations: usize,
        refine: usize,
        beam: usize,
        length_weights: Option<Vec<f32>>,
        init_size: Option<usize>,
        form: &str,
    ) -> PyResult<Self> {
        let form: Form = form.parse().map_err(raise)?;
        let array = read::<f32, Ix2>("x", x, "[n, D]")?;
        let (features, dim) = (values(&array), array.shape()[1]);
        let config = ResidualKMeans { n_levels: levels, n_codewords: codewords, n_iterations: iterations };
        if length_weights.is_some() && beam == 1 && refine == 0 {
            return Err(PyValueError::new_err(
                "length_weights are of a beam and of refinement: give beam or refine, or no weights",
            ));
        }
        if form == Form::Product && refine > 0 {
            return Err(raise(dpq_codebook::Error::Product));
        }
        CodeLength::from_levels(levels).map_err(raise)?;
        let weights = length_weights.unwrap_or_else(|| vec![1.0; levels]);
        let beam = Beam { width: beam, weights: &weights };
        interruptible(x.py(), |interrupt| {
            let options = || FitOptions {
                beam: Some(beam),
                init_size: Some(init_size.unwrap_or(usize::MAX)),
                interrupt: Some(interrupt),
                ..FitOptions::default()
            };
            let codebooks = match form {
                Form::Progressive => config.train_with(features, dim, options())?,
                Form::Product => config.train_product(features, dim, options())?,
            };
            if refine > 0 { codebooks.refine(features, refine, options()) } else { Ok(codebooks) }
        })?
        .map(Self::from)
        .map_err(raise)
    }

    /// Loads a codebook file, or the codebooks of a model or index file.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| dpq_codebook::Codebooks::open(&path)).map(Self::from).map_err(raise)
    }

    /// Writes a codebook file atomically.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.save(&path)).map_err(raise)
    }

    /// Encodes x, float32 [n, D], into codes, uint8 [n, L]: each level takes the best codeword for
    /// the residual of the levels before it. One row, [D], gives [L].
    ///
    /// beam: the number of candidates kept per level. With more than 1, encode searches for the
    /// code of minimum error over all lengths, weighted by length_weights, L numbers (None: equal
    /// weights; 0, …, 0, 1: the longest length alone).
    #[pyo3(signature = (x, *, beam = 1, length_weights = None))]
    fn encode<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        beam: usize,
        length_weights: Option<Vec<f32>>,
    ) -> PyResult<Array<'py, u8>> {
        let py = x.py();
        if beam == 1 && length_weights.is_some() {
            return Err(PyValueError::new_err(
                "length_weights are of a beam, and beam is 1, which is greedy: give a wider one, or no weights",
            ));
        }
        let weights = length_weights.unwrap_or_else(|| vec![1.0; self.inner.n_levels()]);
        let beam = Beam { width: beam, weights: &weights };
        let (dim, n_levels) = (self.inner.dim(), self.inner.n_levels());
        let all = Rows::of_columns("x", x, "[n, D]", dim, "the dimension of the codebooks")?;
        let mut codes = Vec::with_capacity(all.n * n_levels);
        in_pieces(py, all.values(), ROWS * self.inner.dim(), |rows| {
            codes.extend(py.detach(|| self.inner.encode_beam(rows, beam)).map_err(raise)?);
            Ok(())
        })?;
        all.result(codes, n_levels)
    }

    /// Decodes codes, uint8 [n, L], into float32 [n, D]: the sum of the codewords of the first bits
    /// / 8 levels. One code, [L], gives [D].
    ///
    /// bits: a multiple of 8, at most 8 L; None for all levels.
    #[pyo3(signature = (codes, bits = None))]
    fn decode<'py>(&self, codes: &Bound<'py, PyAny>, bits: Option<usize>) -> PyResult<Array<'py, f32>> {
        let n_levels = self.inner.n_levels();
        let rows = Rows::of_columns("codes", codes, "[n, L]", n_levels, "the levels of the codebooks")?;
        let length = bits.map_or(Ok(self.inner.max_length()), CodeLength::from_bits).map_err(raise)?;
        let bytes = rows.values();
        let features = codes.py().detach(|| self.inner.decode(bytes, length)).map_err(raise)?;
        rows.result(features, self.inner.dim())
    }

    /// Returns all codewords, float32 [L, K, D], or [L, K, D / L] in product form, as a copy.
    fn as_array<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray3<f32>>> {
        PyArray1::from_slice(py, self.inner.values()).reshape(self.inner.shape())
    }

    /// The number of levels, L: the bytes of a code.
    #[getter]
    fn n_levels(&self) -> usize {
        self.inner.n_levels()
    }

    /// The number of codewords per level, K.
    #[getter]
    fn n_codewords(&self) -> usize {
        self.inner.n_codewords()
    }

    /// The dimensions of a feature, D.
    #[getter]
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    /// "euclidean" or "cosine".
    #[getter]
    fn assignment(&self) -> String {
        self.inner.assignment().to_string()
    }

    /// "progressive" or "product".
    #[getter]
    fn form(&self) -> String {
        self.inner.form().to_string()
    }

    /// Eight hex digits that identify these codebooks. Codes and indexes carry them.
    #[getter]
    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let this = slf.get();
        let arguments = (this.as_array(slf.py())?, this.assignment(), this.form());
        let arguments = arguments.into_bound_py_any(slf.py())?;
        Ok((slf.get_type().into_any(), arguments))
    }

    pub(crate) fn __repr__(&self) -> String {
        let [levels, codewords, width] = self.inner.shape();
        let (assignment, fingerprint) = (self.assignment(), self.fingerprint());
        let form = if self.inner.form() == Form::Product { ", product" } else { "" };
        format!("<pydpq.Codebooks [{levels}, {codewords}, {width}]{form}, {assignment}, {fingerprint}>")
    }
}

impl From<dpq_codebook::Codebooks> for Codebooks {
    fn from(inner: dpq_codebook::Codebooks) -> Self {
        Self { inner }
    }
}
