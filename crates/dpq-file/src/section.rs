//! A typed piece of a container.

use safetensors::Dtype;

use crate::Error;

/// A section of a container: `shape.product()` elements of `dtype`, little-endian, row-major.
///
/// `bytes` may lie at any address: read numbers through `from_le_bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The type of an element.
    pub dtype: Dtype,
    /// The size of each dimension.
    pub shape: &'a [usize],
    /// The elements.
    pub bytes: &'a [u8],
}

impl<'a> Section<'a> {
    /// This section, if it has `dtype` and `shape`.
    ///
    /// # Errors
    /// [`Error::Shape`] says what was found and what was expected.
    pub fn expect(self, dtype: Dtype, shape: &[usize]) -> Result<Self, Error> {
        if self.dtype == dtype && self.shape == shape {
            Ok(self)
        } else {
            let describe = |dtype, shape| format!("{dtype:?} {shape:?}");
            Err(Error::Shape { found: describe(self.dtype, self.shape), expected: describe(dtype, shape) })
        }
    }

    /// The elements of a section of f32.
    ///
    /// # Errors
    /// [`Error::Shape`] if the elements are of another type.
    pub fn to_f32(self) -> Result<Vec<f32>, Error> {
        let (chunks, _) = self.expect(Dtype::F32, self.shape)?.bytes.as_chunks();
        Ok(chunks.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    /// The size that `dtype` and `shape` claim, in bytes; none if it overflows or ends inside a byte.
    pub(crate) fn claimed_len(&self) -> Option<usize> {
        let n = self.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
        n.checked_mul(self.dtype.bitsize()).filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8)
    }
}
