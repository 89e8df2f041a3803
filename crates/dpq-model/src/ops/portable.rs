//! The layers in candle's own tensor operations, for devices without kernels of dpq. Tests compare
//! the kernels with them.

use candle_core::{Result, Tensor};

use super::response::{ALPHA, BETA, RADIUS};

/// See [`super::conv2d`].
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let y = x.conv2d(weight, padding, stride, 1, 1)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

/// See [`super::max_pool2d`]. Rows first, then columns, each as the maximum of `kernel` strided
/// selections. Unlike candle's own pooling this has the right gradient, which the elements of a tie
/// share.
pub(crate) fn max_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let pool = |x: Tensor, dim: usize| -> Result<Tensor> {
        let n_out = (x.dim(dim)? - kernel) / stride + 1;
        let tap = |offset: usize| {
            let picks: Vec<u32> = (0..n_out).map(|i| (i * stride + offset) as u32).collect();
            x.index_select(&Tensor::new(picks, x.device())?, dim)
        };
        (1..kernel).try_fold(tap(0)?, |best, offset| best.maximum(&tap(offset)?))
    };
    pool(pool(x.clone(), 2)?, 3)
}

/// See [`super::batch_norm`].
pub(crate) fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let flat = x.reshape((x.dim(0)?, x.dim(1)?, ()))?;
    let mean = flat.mean_keepdim((0, 2))?;
    let centered = flat.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.mean_keepdim((0, 2))?;
    let normed = centered.broadcast_div(&(&variance + eps)?.sqrt()?)?;
    let y = scale_shift(&normed, gamma, beta)?.reshape(x.shape())?;
    Ok((y, mean.flatten_all()?.detach(), variance.flatten_all()?.detach()))
}

/// See [`super::scale_shift`].
pub(crate) fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let shape: Vec<usize> = (0..x.rank()).map(|dim| if dim == 1 { scale.elem_count() } else { 1 }).collect();
    x.broadcast_mul(&scale.reshape(&*shape)?)?.broadcast_add(&shift.reshape(&*shape)?)
}

/// See [`super::response_norm`].
pub(crate) fn response_norm(x: &Tensor) -> Result<Tensor> {
    let squares = x.sqr()?.pad_with_zeros(1, RADIUS, RADIUS)?;
    let window = |i: usize| squares.narrow(1, i, x.dim(1)?);
    let sums = (1..=2 * RADIUS).try_fold(window(0)?, |sum, i| sum + window(i)?)?;
    x * sums.affine(f64::from(ALPHA), 1.0)?.powf(f64::from(-BETA))?
}

/// See [`super::linear`].
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor, Var};

    use super::super as ops;

    /// Pseudo-random values without duplicates, so that maxima have no ties.
    fn values(shape: &[usize], seed: f64) -> Var {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| ((i as f64 + seed) * 12.9898).sin() as f32).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Checks that both sides give the same result and the same gradients.
    #[track_caller]
    fn check(args: &[Var], portable: Result<Tensor>, kernel: Result<Tensor>) {
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let [portable, kernel] = [portable.unwrap(), kernel.unwrap()];
        assert_eq!(portable.dims(), kernel.dims());
        let weights = values(portable.dims(), 0.5);
        let gradients =
            |y: &Tensor| (y * weights.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let (of_portable, of_kernel) = (gradients(&portable), gradients(&kernel));
        let pairs = args.iter().map(|arg| (of_portable.get(arg).unwrap(), of_kernel.get(arg).unwrap()));
        for (a, b) in pairs.chain([(&portable, &kernel)]) {
            for (a, b) in flat(a).into_iter().zip(flat(b)) {
                assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} and {b}");
            }
        }
    }

    #[test]
    fn tensor_operations_equal_the_kernels() {
        let (x, weight, bias) = (values(&[3, 2, 9, 7], 1.0), values(&[5, 2, 3, 3], 2.0), values(&[5], 3.0));
        let conv = || super::conv2d(&x, &weight, Some(&bias), 2, 1);
        check(
            &[x.clone(), weight.clone(), bias.clone()],
            conv(),
            ops::conv2d(&x, &weight, Some(&bias), 2, 1, false),
        );
        check(
            &[x.clone(), weight.clone(), bias.clone()],
            conv().and_then(|y| super::max_pool2d(&y, 3, 1)),
            ops::conv2d_pool(&x, &weight, Some(&bias), 2, 1, (3, 1), false),
        );
        check(std::slice::from_ref(&x), super::max_pool2d(&x, 3, 2), ops::max_pool2d(&x, 3, 2));

        let (gamma, beta) = (values(&[2], 4.0), values(&[2], 5.0));
        let args = [x.clone(), gamma.clone(), beta.clone()];
        let portable = super::batch_norm(&x, &gamma, &beta, 1e-3).unwrap();
        let kernel = ops::batch_norm(&x, &gamma, &beta, 1e-3, false).unwrap();
        check(&args, Ok(portable.0), Ok(kernel.0));
        check(&[], Ok(portable.1), Ok(kernel.1));
        check(&[], Ok(portable.2), Ok(kernel.2));
        check(
            &[],
            super::scale_shift(&x, &gamma, &beta),
            ops::scale_shift(&x.detach(), &gamma.detach(), &beta.detach(), false),
        );

        let large = |seed| {
            let shape = [2, 7, 3, 2];
            Var::from_tensor(&(values(&shape, seed).as_tensor() * 200.0).unwrap()).unwrap()
        };
        let x = large(8.0);
        check(std::slice::from_ref(&x), super::response_norm(&x), ops::response_norm(&x));

        let (rows, matrix) = (values(&[4, 6], 6.0), values(&[5, 6], 7.0));
        check(
            &[rows.clone(), matrix.clone(), bias.clone()],
            super::linear(&rows, &matrix, Some(&bias)),
            ops::linear(&rows, &matrix, Some(&bias), false),
        );
    }
}
