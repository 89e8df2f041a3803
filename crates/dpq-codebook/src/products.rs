//! Inner products between codewords, which search by Euclidean distance needs.
//!
//! Every product is summed in f64 over ascending dimensions and rounded to f32 once. The product of
//! two f32 is exact in f64, so a fused multiply-add would change nothing.

use rayon::prelude::*;

use crate::error::check_size;
use crate::{Codebooks, Error};

/// The maximum number of cross products, 1 GiB. Product quantization has dozens of levels: beyond
/// this, an index would hold little but these tables.
const MAX_PRODUCTS: usize = 1 << 28;

impl Codebooks {
    /// Returns the squared norm of every codeword, f32 [L, K]. Norms above 1.8e19 give infinity.
    pub fn squared_norms(&self) -> Vec<f32> {
        let squared =
            |codeword: &[f32]| codeword.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() as f32;
        self.values().chunks_exact(self.dim()).map(squared).collect()
    }

    /// Returns the inner products between the codewords of every two levels i < j, f32 [L(L−1)/2, K
    /// of i, K of j].
    ///
    /// The pair (i, j) is table j(j−1)/2 + i, so the first n levels use the first n(n−1)/2 tables.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if they take more than 1 GiB, [`Error::Overflow`] if a product or a
    /// squared norm overflows f32.
    pub fn cross_products(&self) -> Result<Vec<f32>, Error> {
        let (n_levels, n_codewords, dim) = (self.n_levels(), self.n_codewords(), self.dim());
        let n_tables = n_levels * (n_levels - 1) / 2;
        let size =
            check_size("inner products of codewords", n_tables, n_codewords * n_codewords, MAX_PRODUCTS)?;
        let mut products = Vec::with_capacity(size);
        for j in 1..n_levels {
            // A dimension-major copy puts the codewords of level j side by side.
            let values = self.level(j);
            let transposed: Vec<f32> =
                (0..dim * n_codewords).map(|at| values[at % n_codewords * dim + at / n_codewords]).collect();
            let mut tables = vec![0.0; j * n_codewords * n_codewords];
            tables.par_chunks_mut(n_codewords).enumerate().for_each(|(row, products)| {
                let mut sums = [0.0; 256];
                let sums = &mut sums[..n_codewords];
                let left = self.codeword(row / n_codewords, row % n_codewords);
                for (&x, column) in left.iter().zip(transposed.chunks_exact(n_codewords)) {
                    for (sum, &y) in sums.iter_mut().zip(column) {
                        *sum += f64::from(x) * f64::from(y);
                    }
                }
                products.iter_mut().zip(sums).for_each(|(product, sum)| *product = *sum as f32);
            });
            products.extend(tables);
        }
        let finite = products.iter().chain(&self.squared_norms()).all(|x| x.is_finite());
        if finite { Ok(products) } else { Err(Error::Overflow) }
    }
}
