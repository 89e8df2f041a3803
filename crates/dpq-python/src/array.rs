//! Borrows NumPy arrays, or refuses them with an error that names the expected array.

use numpy::{
    Element, PyArray, PyArray1, PyArray2, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray,
    PyUntypedArray,
};
use numpy::{PyUntypedArrayMethods, ndarray};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// An array that Python receives, [rows, columns].
pub(crate) type Matrix<'py, T> = Bound<'py, PyArray2<T>>;

/// Borrows a C-contiguous array of `T`. `shape` names its dimensions in the error.
pub(crate) fn borrow<'py, T: Element, D: ndarray::Dimension>(
    what: &str,
    array: &Bound<'py, PyAny>,
    shape: &str,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    let expected = numpy::dtype::<T>(array.py());
    match array.cast::<PyArray<T, D>>() {
        Ok(array) if array.is_c_contiguous() && array.is_aligned() => Ok(array.try_readonly()?),
        _ => {
            let mut advice =
                format!("convert it with numpy.ascontiguousarray({what}, dtype=numpy.{expected})");
            let found = match array.cast::<PyUntypedArray>() {
                Ok(array) => {
                    let (is_float, floats) = (array.dtype().kind() == b'f', expected.kind() == b'f');
                    if is_float && floats && D::NDIM == Some(array.ndim() + 1) {
                        advice = format!("one row alone is {what}[None]");
                    } else if is_float && !floats {
                        // A conversion would cut off fractions and return wrong pixels, codes or
                        // classes.
                        advice = format!("whole numbers convert with {what}.astype(numpy.{expected})");
                    }
                    let order = if array.is_c_contiguous() && array.is_aligned() { "" } else { ", strided" };
                    format!("an array of {} {:?}{order}", array.dtype(), array.shape())
                }
                Err(_) => format!("a {}", array.get_type().name()?),
            };
            Err(PyValueError::new_err(format!(
                "{what} is {found}, expected {expected} {shape} in C order ({advice})"
            )))
        }
    }
}

/// Returns the values of an array that [`borrow`] returned.
pub(crate) fn values<'a, T: Element, D: ndarray::Dimension>(array: &'a PyReadonlyArray<'_, T, D>) -> &'a [T] {
    array.as_slice().expect("a borrowed array is contiguous")
}

/// Refuses rows of another length than `columns`.
pub(crate) fn check_columns(what: &str, found: usize, columns: usize, whose: &str) -> PyResult<()> {
    if found == columns {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{what} has rows of {found} values, expected {columns}, {whose}")))
}

/// Reads ids, uint64 or int64, and refuses negative ids.
pub(crate) fn ids(what: &str, array: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let Ok(signed) = borrow::<i64, ndarray::Ix1>(what, array, "[n]") else {
        return Ok(values(&borrow::<u64, ndarray::Ix1>(what, array, "[n]")?).to_vec());
    };
    let id = |&id: &i64| {
        u64::try_from(id)
            .map_err(|_| PyValueError::new_err(format!("{what} has the id {id}, expected 0 or more")))
    };
    values(&signed).iter().map(id).collect()
}

/// Returns `values` as a NumPy array of `shape`.
pub(crate) fn matrix<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    shape: [usize; 2],
) -> PyResult<Matrix<'_, T>> {
    PyArray1::from_vec(py, values).reshape(shape)
}
