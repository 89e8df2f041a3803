//! Squared norms of reconstructions, which search by Euclidean distance needs.

use crate::dot::{LANES, add_up, dots};
use crate::error::check_size;
use crate::vectorize::vectorize;
use crate::{CodeLength, Codebooks, Error, Form};

/// The maximum number of norms of one call.
const MAX_NORMS: usize = usize::MAX / 4;

impl Codebooks {
    /// Returns ‖x̂‖² of codes at each of `lengths`, where x̂ is what [`decode`](Self::decode) returns
    /// at that length. Each norm is the inner product of x̂ with itself, summed in the order of a
    /// lookup table's entries: the same bits on every CPU. In product form it is the sum of the
    /// norms of the codewords, added in f32 in ascending order of levels.
    ///
    /// Shapes: codes [N, L]; returns f32 [N, number of lengths]. Neighbouring codes that share a
    /// prefix share its work, so sorted codes take less time.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `codes` is whole rows of codes less than K, and as
    /// [`check_length`](Self::check_length). [`Error::Overflow`] if a norm overflows f32.
    pub fn squared_norms(&self, codes: &[u8], lengths: &[CodeLength]) -> Result<Vec<f32>, Error> {
        let n = self.check_codes(codes)?;
        lengths.iter().try_for_each(|&length| self.check_length(length))?;
        let mut norms = vec![0.0; check_size("norms", n, lengths.len(), MAX_NORMS)?];
        if self.form() == Form::Progressive {
            fill(self, codes, lengths, &mut norms);
        } else if !lengths.is_empty() {
            let of_codewords = self.codeword_norms()?;
            let rows = codes.chunks_exact(self.n_levels()).zip(norms.chunks_exact_mut(lengths.len()));
            for (code, norms) in rows {
                let levels = code.iter().zip(of_codewords.chunks_exact(self.n_codewords()));
                norms.fill(levels.map(|(&codeword, of_level)| of_level[usize::from(codeword)]).sum());
            }
        }
        if norms.iter().all(|norm| norm.is_finite()) { Ok(norms) } else { Err(Error::Overflow) }
    }

    /// Returns ‖c‖² of all codewords, f32 [L, K], each summed in the order of a lookup table's
    /// entries.
    ///
    /// # Errors
    /// [`Error::Overflow`] if a norm overflows f32.
    pub fn codeword_norms(&self) -> Result<Vec<f32>, Error> {
        let mut norms = vec![0.0; self.n_levels() * self.n_codewords()];
        for (norm, codeword) in norms.iter_mut().zip(self.values().chunks_exact(self.width())) {
            dots(codeword, codeword, std::slice::from_mut(norm));
        }
        if norms.iter().all(|norm| norm.is_finite()) { Ok(norms) } else { Err(Error::Overflow) }
    }

    /// Returns the unit that an index rounds squared norms to: a power of two, so small that all
    /// norms of codes are at most 2³⁰ of it. Norms are at most (Σ_l max_k ‖c_{l,k}‖)².
    pub fn norm_unit(&self) -> f64 {
        let norm = |codeword: &[f32]| crate::norm::squared_norm(codeword).sqrt();
        let max = |level: usize| self.level(level).chunks_exact(self.width()).map(norm).fold(0.0, f64::max);
        let sum: f64 = (0..self.n_levels()).map(max).sum();
        // A little more, because norms are rounded; and at least the smallest normal f32.
        let max = (sum * sum * 1.001).max(f32::MIN_POSITIVE.into());
        // The exponent of the power of two above.
        let exponent = (max.to_bits() >> 52) as i32 - 1022;
        2.0f64.powi(exponent - 30)
    }
}

vectorize! {
    fn fill(codebooks: &Codebooks, codes: &[u8], lengths: &[CodeLength], norms: &mut [f32]) =
        fill_rows, fill_rows
}

#[inline(always)]
fn fill_rows(codebooks: &Codebooks, codes: &[u8], lengths: &[CodeLength], norms: &mut [f32]) {
    let (n_levels, dim) = (codebooks.n_levels(), codebooks.dim());
    let Some(max_level) = lengths.iter().map(|length| length.levels()).max() else { return };
    // The reconstruction at each length of the last code, and its norm.
    let mut prefixes = vec![0.0f32; max_level * dim];
    let mut of_prefixes = vec![0.0f32; max_level];
    let mut last: &[u8] = &[];
    for (code, norms) in codes.chunks_exact(n_levels).zip(norms.chunks_exact_mut(lengths.len())) {
        let n_shared = code.iter().zip(last).take_while(|(a, b)| a == b).count();
        for level in n_shared..max_level {
            let codeword = codebooks.codeword(level, code[level].into());
            let (before, x) = prefixes.split_at_mut(level * dim);
            let x = &mut x[..dim];
            match before.len().checked_sub(dim) {
                None => x.copy_from_slice(codeword),
                Some(start) => {
                    let terms = before[start..].iter().zip(codeword);
                    x.iter_mut().zip(terms).for_each(|(x, (prefix, c))| *x = prefix + c);
                }
            }
            if lengths.iter().any(|length| length.levels() == level + 1) {
                of_prefixes[level] = squared_norm(x);
            }
        }
        last = code;
        let of = lengths.iter().map(|length| of_prefixes[length.levels() - 1]);
        norms.iter_mut().zip(of).for_each(|(norm, of)| *norm = of);
    }
}

/// Returns ⟨x, x⟩ in the order of [`inner_products`](crate::inner_products).
#[inline(always)]
fn squared_norm(x: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (blocks, tail) = x.as_chunks::<LANES>();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum = x.mul_add(*x, *sum);
        }
    }
    sums.iter_mut().zip(tail).for_each(|(sum, x)| *sum = x.mul_add(*x, *sum));
    add_up(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assignment, inner_products};

    #[test]
    fn a_norm_is_the_product_of_the_decoded_with_itself() {
        for dim in [1, 3, 16, 21, 100] {
            let values: Vec<f32> =
                (0..3 * 5 * dim).map(|i| ((i * 7919) % 1009) as f32 / 313.0 - 1.6).collect();
            let codebooks = Codebooks::new(values, 3, 5, dim, Assignment::Euclidean).unwrap();
            // Prefixes of every length are shared by neighbours.
            let codes = [[0, 1, 2], [0, 1, 2], [0, 1, 3], [0, 4, 3], [2, 4, 3]].concat();
            let lengths = [3, 1].map(|levels| CodeLength::from_levels(levels).unwrap());
            let norms = codebooks.squared_norms(&codes, &lengths).unwrap();
            for (i, length) in lengths.into_iter().enumerate() {
                let decoded = codebooks.decode(&codes, length).unwrap();
                for (row, x) in decoded.chunks(dim).enumerate() {
                    let mut expected = [0.0];
                    inner_products(x, x, &mut expected).unwrap();
                    assert_eq!(norms[2 * row + i].to_bits(), expected[0].to_bits(), "dim {dim}, row {row}");
                }
            }
        }
    }

    #[test]
    fn all_norms_fit_the_unit() {
        for scale in [1e-30, 0.3, 1.0, 1e15] {
            // The same direction on all levels: no norm of a code is larger.
            let values: Vec<f32> = [1.0, 0.5, 2.0, 1.0].map(|x| x * scale).to_vec();
            let codebooks = Codebooks::new(values, 2, 2, 1, Assignment::Euclidean).unwrap();
            let [norm] = codebooks.squared_norms(&[0, 0], &[codebooks.max_length()]).unwrap()[..] else {
                panic!("one code, one norm");
            };
            let units = f64::from(norm) / codebooks.norm_unit();
            assert!(units <= f64::from(1 << 30), "{scale}: {units}");
            assert!(scale < 1e-20 || units > f64::from(1 << 28), "{scale}: {units}");
        }
        let zero = Codebooks::new(vec![0.0], 1, 1, 1, Assignment::Euclidean).unwrap();
        assert!(zero.norm_unit() > 0.0);
    }

    #[test]
    fn norms_that_overflow_are_refused() {
        let codebooks = Codebooks::new(vec![1e19, 2e19], 2, 1, 1, Assignment::Euclidean).unwrap();
        let [one, two] = [1, 2].map(|levels| CodeLength::from_levels(levels).unwrap());
        assert!(codebooks.squared_norms(&[0, 0], &[one]).is_ok());
        assert!(matches!(codebooks.squared_norms(&[0, 0], &[one, two]), Err(Error::Overflow)));
        assert!(codebooks.squared_norms(&[0, 1], &[one]).is_err());
        assert!(codebooks.squared_norms(&[], &[two]).unwrap().is_empty());
    }
}
