//! Reads NumPy arrays, and what NumPy converts to arrays without changing its meaning.

use numpy::ndarray::{Dimension, Ix1, IxDyn};
use numpy::{
    Element, PyArray, PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArray,
    PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// An array that Python receives.
pub(crate) type Array<'py, T> = Bound<'py, PyArrayDyn<T>>;

/// Returns what NumPy makes of an argument: the array itself, or a new array of a list, a data
/// frame or a tensor.
pub(crate) fn to_array<'py>(argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    if let Ok(array) = argument.cast::<PyUntypedArray>() {
        return Ok(array.clone());
    }
    let array = argument.py().import("numpy")?.call_method1("asarray", (argument,))?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// Reads an array of `T` in C order: without a copy if the argument is one, converted otherwise.
///
/// Numbers become floats, rounded to `T`, and whole numbers become integers if `T` holds them all.
/// Floats do not become integers: that would cut off fractions and return wrong pixels, codes or
/// classes. `shape` names the dimensions in the error.
pub(crate) fn read<'py, T: Element, D: Dimension>(
    what: &str,
    argument: &Bound<'py, PyAny>,
    shape: &str,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    let py = argument.py();
    let fits = |array: &Bound<'py, PyArray<T, D>>| array.is_c_contiguous() && array.is_aligned();
    if let Ok(array) = argument.cast::<PyArray<T, D>>()
        && fits(array)
    {
        return Ok(array.try_readonly()?);
    }
    let array = to_array(argument)?;
    let (found, expected) = (array.dtype(), numpy::dtype::<T>(py));
    let (is_float, wants_float) = (found.kind() == b'f', expected.kind() == b'f');
    let is_whole = matches!(found.kind(), b'b' | b'i' | b'u') || array.is_empty();
    let has_rank = D::NDIM.is_none_or(|n| n == array.ndim());
    if !has_rank || !(is_whole || is_float && wants_float) {
        let advice = if is_float && !wants_float {
            format!(" (whole numbers convert with {what}.astype(numpy.{expected}))")
        } else {
            String::new()
        };
        return Err(unfit(what, argument, &array, &format!("{expected} {shape}{advice}")));
    }
    if !wants_float && !array.is_empty() {
        check_range(what, &array, &expected)?;
    }
    let options = PyDict::new(py);
    options.set_item("order", "C")?;
    options.set_item("copy", false)?;
    let converted = array.call_method("astype", (expected,), Some(&options))?;
    // `astype` keeps an array that is in order but not aligned.
    match converted.cast_into::<PyArray<T, D>>()? {
        array if fits(&array) => Ok(array.try_readonly()?),
        array => Ok(array.call_method0("copy")?.cast_into::<PyArray<T, D>>()?.try_readonly()?),
    }
}

/// Returns the error for an argument of another type or number of dimensions.
fn unfit(
    what: &str,
    argument: &Bound<'_, PyAny>,
    array: &Bound<'_, PyUntypedArray>,
    expected: &str,
) -> PyErr {
    let found = match argument.get_type().name() {
        // NumPy makes an array without dimensions of what it does not know.
        Ok(name) if array.ndim() == 0 => format!("a {name}"),
        _ => format!("an array of {} {:?}", array.dtype(), array.shape()),
    };
    PyValueError::new_err(format!("{what} is {found}, expected {expected}"))
}

/// Refuses whole numbers that an integer type does not hold.
fn check_range(
    what: &str,
    array: &Bound<'_, PyUntypedArray>,
    expected: &Bound<'_, numpy::PyArrayDescr>,
) -> PyResult<()> {
    let limits = array.py().import("numpy")?.call_method1("iinfo", (expected,))?;
    let limit = |name: &str| limits.getattr(name)?.extract::<i128>();
    let range = limit("min")?..=limit("max")?;
    for end in ["min", "max"] {
        let value = array.call_method0(end)?.call_method0("item")?.extract::<i128>()?;
        if !range.contains(&value) {
            let (first, last) = range.into_inner();
            return Err(PyValueError::new_err(format!(
                "{what} has the value {value}, expected {expected}, {first} to {last}"
            )));
        }
    }
    Ok(())
}

/// Returns the values of an array that [`read`] returned.
pub(crate) fn values<'a, T: Element, D: Dimension>(array: &'a PyReadonlyArray<'_, T, D>) -> &'a [T] {
    array.as_slice().expect("a contiguous array was read")
}

/// Rows of an argument: [n, columns], or one row alone, [columns].
pub(crate) struct Rows<'py, T: Element> {
    array: PyReadonlyArray<'py, T, IxDyn>,
    is_one: bool,
    pub(crate) n: usize,
    pub(crate) columns: usize,
}

impl<'py, T: Element> Rows<'py, T> {
    /// Reads rows as [`read`] does. `shape` names the two dimensions in the error.
    pub(crate) fn read(what: &str, argument: &Bound<'py, PyAny>, shape: &str) -> PyResult<Self> {
        let array = to_array(argument)?;
        let (n, columns) = match *array.shape() {
            [columns] => (1, columns),
            [n, columns] => (n, columns),
            _ => {
                let expected = format!("{} {shape}", numpy::dtype::<T>(argument.py()));
                return Err(unfit(what, argument, &array, &expected));
            }
        };
        Ok(Self { is_one: array.ndim() == 1, array: read(what, &array, shape)?, n, columns })
    }

    /// Reads rows of `columns` values each.
    pub(crate) fn of_columns(
        what: &str,
        argument: &Bound<'py, PyAny>,
        shape: &str,
        columns: usize,
        whose: &str,
    ) -> PyResult<Self> {
        let rows = Self::read(what, argument, shape)?;
        check_columns(what, rows.columns, columns, whose)?;
        Ok(rows)
    }

    pub(crate) fn values(&self) -> &[T] {
        values(&self.array)
    }

    /// Returns a result of `columns` values per row as an array: [n, columns], or [columns] for one
    /// row alone.
    pub(crate) fn result<U: Element>(&self, values: Vec<U>, columns: usize) -> PyResult<Array<'py, U>> {
        array(self.array.py(), values, &[self.n, columns][usize::from(self.is_one)..])
    }
}

/// Refuses rows of another length than `columns`.
pub(crate) fn check_columns(what: &str, found: usize, columns: usize, whose: &str) -> PyResult<()> {
    if found == columns {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{what} has rows of {found} values, expected {columns}, {whose}")))
}

/// Reads ids, whole numbers from 0.
pub(crate) fn ids(argument: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let array = to_array(argument)?;
    if array.dtype().kind() == b'b' {
        return Err(unfit("ids", argument, &array, "ids, whole numbers [n]"));
    }
    Ok(values(&read::<u64, Ix1>("ids", &array, "[n]")?).to_vec())
}

/// Returns `values` as a NumPy array of `shape`.
pub(crate) fn array<'py, T: Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Array<'py, T>> {
    PyArray1::from_vec(py, values).reshape(IxDyn(shape))
}
