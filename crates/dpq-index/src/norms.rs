//! Norms of reconstructions, which the Euclidean metric needs. They are sums in f64 of inner
//! products between codewords.

use crate::Error;

/// Squared norms of reconstructions, from inner products between codewords.
#[derive(Clone, Copy)]
pub(crate) struct Norms<'a> {
    /// Squared norms of the codewords, `[L, K]`.
    pub(crate) own: &'a [f32],
    /// Inner products between codewords, little-endian as in the file.
    pub(crate) gram: &'a [[u8; 4]],
    pub(crate) n_codewords: usize,
}

impl<'a> Norms<'a> {
    /// Returns ‖x̂‖² of a code at `n_levels` levels: Σ_l (‖c_l‖² + 2 Σ_{i<l} ⟨c_i, c_l⟩) in f64, i
    /// and l ascending.
    #[inline]
    pub(crate) fn squared(&self, n_levels: usize, code: impl Fn(usize) -> u8) -> f64 {
        // Loops unroll if the number of levels is known.
        match n_levels {
            1 => self.squared_at(1, code),
            2 => self.squared_at(2, code),
            3 => self.squared_at(3, code),
            4 => self.squared_at(4, code),
            _ => self.squared_at(n_levels, code),
        }
    }

    #[inline(always)]
    fn squared_at(&self, n_levels: usize, code: impl Fn(usize) -> u8) -> f64 {
        let mut norm = 0.0;
        for level in 0..n_levels {
            let own = self.own.get(level * self.n_codewords + usize::from(code(level)));
            norm += f64::from(own.copied().unwrap_or(0.0)) + 2.0 * self.products(0, level, &code);
        }
        norm
    }

    /// Returns the cross term Σ_{1≤i<j<n} ⟨c_i, c_j⟩ of a code at n = `n_levels` levels, in f64, i
    /// and j ascending.
    pub(crate) fn cross(&self, n_levels: usize, code: impl Fn(usize) -> u8) -> f64 {
        (2..n_levels).fold(0.0, |sum, level| sum + self.products(1, level, &code))
    }

    /// Returns the squared norms of the codewords of a level, `[K]`.
    pub(crate) fn own(&self, level: usize) -> &'a [f32] {
        &self.own[level * self.n_codewords..][..self.n_codewords]
    }

    /// Returns the inner products of codeword `first` of level 0 and all codewords of `level`,
    /// `[K]`, little-endian. A byte of a damaged file that names no codeword has none.
    pub(crate) fn with_first(&self, first: u8, level: usize) -> &'a [[u8; 4]] {
        let row = level * (level - 1) / 2 * self.n_codewords + usize::from(first);
        let known = usize::from(first) < self.n_codewords;
        if known { &self.gram[row * self.n_codewords..][..self.n_codewords] } else { &[] }
    }

    /// Returns Σ_{first≤i<level} ⟨c_i, c_level⟩.
    #[inline(always)]
    fn products(&self, first: usize, level: usize, code: &impl Fn(usize) -> u8) -> f64 {
        let k = self.n_codewords;
        let mut sum = 0.0;
        for i in first..level {
            let table = level * level.saturating_sub(1) / 2 + i;
            // Only damaged files have codes that name no codeword. The lookup table made their
            // score NaN.
            let at = (table * k + usize::from(code(i))) * k + usize::from(code(level));
            sum += self.gram.get(at).map_or(0.0, |&bytes| f64::from(f32::from_le_bytes(bytes)));
        }
        sum
    }
}

/// The scale of the bytes of a `cross` plane: byte b stands for a cross term of at least `min` +
/// b·`step`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantizer {
    pub(crate) min: f32,
    pub(crate) step: f32,
}

impl Quantizer {
    /// Spreads the bytes over the range of `values`. Without values, `min` and `step` are 0.
    pub(crate) fn new(values: impl Iterator<Item = f64>) -> Result<Self, Error> {
        let range = values.fold(None, |range: Option<(f64, f64)>, x| {
            Some(range.map_or((x, x), |(low, high)| (low.min(x), high.max(x))))
        });
        let Some((low, high)) = range else { return Ok(Self { min: 0.0, step: 0.0 }) };
        let min = low as f32;
        let min = if f64::from(min) > low { min.next_down() } else { min };
        let step = ((high - f64::from(min)) / 255.0) as f32;
        if min.is_finite() && step.is_finite() {
            Ok(Self { min, step })
        } else {
            Err(dpq_codebook::Error::Overflow.into())
        }
    }

    /// Returns the maximum byte b with `min` + b·`step` ≤ `value`.
    pub(crate) fn byte(self, value: f64) -> u8 {
        let steps = (value - f64::from(self.min)) / f64::from(self.step);
        // A step of 0 makes this NaN or infinite, which the cast turns into 0 or 255. Both stand
        // for `min` then.
        let mut byte = steps as u8;
        while byte > 0 && self.value(byte) > value {
            byte -= 1;
        }
        byte
    }

    /// Returns the minimum cross term that `byte` stands for.
    pub(crate) fn value(self, byte: u8) -> f64 {
        f64::from(self.min) + f64::from(byte) * f64::from(self.step)
    }
}
