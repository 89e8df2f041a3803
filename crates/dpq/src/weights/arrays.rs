//! Arrays of the files that others publish weights in.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dpq_file::Container;
use dpq_model::Arrays;
use npyz::Order;
use npyz::npz::NpzArchive;

use super::pickle::{self, Array};
use crate::npy::{self, Element};

/// Bytes of an array in an archive, at most; the largest layer of VGG-16 has 411 million. A small archive may hold many.
const LARGEST: u64 = 1 << 30;

/// Reads all arrays of a file, which are float32 in NumPy's formats.
pub(super) fn read(path: &Path) -> Result<Arrays> {
    ensure!(path.exists(), "{} does not exist, give a file of weights", path.display());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => {
            let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            dictionary(&bytes).with_context(|| path.display().to_string())
        }
        Some("npz") => archive(path),
        Some("safetensors") => {
            let file = Container::open(path)?;
            // Counters of batches are no weights.
            let names = file.names().filter(|name| !name.ends_with(".num_batches_tracked"));
            let array = |name: &str| {
                let shape = file.section(name)?.shape;
                Ok((name.to_owned(), (shape.to_vec(), file.floats(name, shape)?)))
            };
            names.map(array).collect()
        }
        _ => bail!(
            "{}: expected a .npy, .npz or .safetensors file, `dpq weights import --help` says how to make one",
            path.display()
        ),
    }
}

/// A .npy file of one dictionary, which is a pickle: under the name of each layer a list of weights and biases, or a
/// dictionary of them.
fn dictionary(file: &[u8]) -> Result<Arrays> {
    let begin = npy::header_end(file)?;
    let (mut arrays, mut left) = (Arrays::new(), file.len());
    for (layer, part, Array { shape, fortran, bytes }) in pickle::read(&file[begin..])? {
        // What a pickle mentions again is read again.
        left = left.checked_sub(bytes.len()).context("arrays of more bytes than the file, it is damaged")?;
        let kind = match part.as_str() {
            "0" => "weights",
            "1" => "biases",
            other => other,
        };
        let size = shape.iter().try_fold(f32::SIZE, |product, &n| product.checked_mul(n));
        ensure!(
            size == Some(bytes.len()),
            "`{layer}.{kind}` of shape {shape:?} has {} bytes, the file is damaged",
            bytes.len()
        );
        let values = in_c_order(&shape, fortran, bytes);
        arrays.insert(format!("{layer}.{kind}"), (shape, values));
    }
    Ok(arrays)
}

/// All arrays of a .npz archive.
fn archive(path: &Path) -> Result<Arrays> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let damaged = || format!("{}: not a .npz archive, write it with numpy.savez", path.display());
    let mut archive = NpzArchive::new(BufReader::new(file)).with_context(damaged)?;
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let read = |name: String| {
        let mut array = || -> Result<_> {
            let mut bytes = Vec::new();
            let entry = archive.zip_archive().by_name(&format!("{name}.npy"))?;
            entry.take(LARGEST + 1).read_to_end(&mut bytes)?;
            ensure!(bytes.len() as u64 <= LARGEST, "more than {LARGEST} bytes, no layer has as many");
            let (shape, begin, order) = npy::layout::<f32>(&bytes, bytes.len() as u64)?;
            let values = in_c_order(&shape, order == Order::Fortran, &bytes[begin..]);
            Ok((shape, values))
        };
        let array = array().with_context(|| format!("{}: `{name}`", path.display()))?;
        Ok((name, array))
    };
    names.into_iter().map(read).collect()
}

/// The numbers of an array whose last axis is the fastest; in Fortran order the first one is.
fn in_c_order(shape: &[usize], fortran: bool, bytes: &[u8]) -> Vec<f32> {
    let stored: Vec<f32> = bytes.chunks_exact(f32::SIZE).map(f32::from_le).collect();
    if !fortran {
        return stored;
    }
    let place = |mut i: usize| {
        let (mut place, mut stride) = (0, stored.len());
        for &n in shape.iter().rev() {
            stride /= n;
            place += i % n * stride;
            i /= n;
        }
        place
    };
    (0..stored.len()).map(|i| stored[place(i)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_is_turned_round() {
        // Of [2, 3, 2] the number at (i, j, k) is 100·i + 10·j + k.
        let number = |i, j, k| 100.0 * i as f32 + 10.0 * j as f32 + k as f32;
        let mut stored = Vec::new();
        let mut expected = Vec::new();
        for outer in 0..2 {
            for j in 0..3 {
                for inner in 0..2 {
                    stored.extend(number(inner, j, outer).to_le_bytes());
                    expected.push(number(outer, j, inner));
                }
            }
        }
        assert_eq!(in_c_order(&[2, 3, 2], true, &stored), expected);
    }

    #[test]
    fn layers_of_a_dictionary_have_weights_and_biases() {
        let header = b"\x93NUMPY\x01\x00\x04\x00{'a'";
        let file = |pickle: &[u8]| [&header[..], pickle].concat();
        let arrays = dictionary(&file(&pickle::tests::layers("<f4"))).unwrap();
        let names: Vec<&String> = arrays.keys().collect();
        assert_eq!(names, ["fc6.biases", "fc6.weights", "fc7.biases"]);
        let [a, b] = [*b"abcd", *b"efgh"].map(f32::from_le_bytes);
        assert_eq!(arrays["fc6.weights"], (vec![2, 1], vec![a, b]));
        assert_eq!(
            dictionary(b"text").unwrap_err().to_string(),
            "not a NumPy .npy file, write it with numpy.save"
        );
    }
}
