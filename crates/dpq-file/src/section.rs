//! A typed piece of a container.

use safetensors::Dtype;

/// A section of a container: `shape.product()` elements of `dtype`, little-endian, row-major.
///
/// `bytes` can start at any address, so read numbers with `from_le_bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The type of an element.
    pub dtype: Dtype,
    /// The size of each dimension.
    pub shape: &'a [usize],
    /// The elements.
    pub bytes: &'a [u8],
}

impl Section<'_> {
    /// Returns the size that `dtype` and `shape` claim, in bytes; `None` if it overflows or ends inside a byte.
    pub(crate) fn claimed_len(&self) -> Option<usize> {
        let n = self.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
        n.checked_mul(self.dtype.bitsize()).filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8)
    }
}
