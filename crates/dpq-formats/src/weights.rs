//! Pretrained weights as other programs publish them.

use std::collections::BTreeMap;
use std::path::Path;

use dpq_file::Container;

use crate::npy::{self, read_values};
use crate::npz::{Array, NpzReader, to_c_order};
use crate::{Error, Result, extension, file, pickle};

/// Reads all float32 arrays of a file, by name; a .npy file holds a pickled dictionary of layers,
/// whose arrays are named `LAYER.weights` and `LAYER.biases`. Counters of batches in a .safetensors
/// file are skipped.
///
/// The extension decides the format, .npy, .npz or .safetensors, in upper or lower case. No code of
/// a pickle runs.
///
/// # Errors
/// [`Error::Read`], [`Error::Container`] or [`Error::NotAFile`] if the file cannot be opened,
/// [`Error::File`] if it is damaged, has another extension, or holds other elements than float32.
pub fn read_weights(path: impl AsRef<Path>) -> Result<BTreeMap<String, Array<f32>>> {
    let path = path.as_ref();
    match extension(path).as_str() {
        "npy" => {
            let (file, size) = file::open(path)?;
            let bytes = read_values(file, size as usize);
            bytes.and_then(|bytes| parse_dictionary(&bytes)).map_err(|error| error.at(path))
        }
        "npz" => {
            let mut archive = NpzReader::open(path)?;
            let names = archive.names().into_iter();
            names.map(|name| Ok((name.clone(), archive.read(&name)?))).collect()
        }
        "safetensors" => {
            let file = Container::open(path)?;
            let names = file.names().filter(|name| !name.ends_with(".num_batches_tracked"));
            let array = |name: &str| {
                let shape = file.section(name)?.shape;
                Ok((name.to_owned(), (shape.to_vec(), file.floats(name, shape)?)))
            };
            names.map(array).collect()
        }
        other => {
            let found =
                if other.is_empty() { "no extension".to_owned() } else { format!("extension .{other}") };
            Err(Error::kind(found, WEIGHTS).at(path))
        }
    }
}

/// The formats of weights.
const WEIGHTS: &str = "a .npy, .npz or .safetensors file, `dpq weights import --help` says how to make one";

/// The contents of a .npy file of weights.
const DICTIONARY: &str =
    "a dictionary of layers as in bvlc_alexnet.npy, `dpq weights import --help` says which files it reads";

/// Reads a .npy file that holds a pickled dictionary: for each layer a list of weights and biases,
/// or a dictionary of them.
///
/// # Errors
/// [`Error::Invalid`], in [`Error::Array`] where one array is wrong: the file is not a .npy file,
/// or the pickle is damaged or holds anything else.
pub fn parse_dictionary(file: &[u8]) -> Result<BTreeMap<String, Array<f32>>> {
    let begin = npy::header_end(file)?;
    let header = String::from_utf8_lossy(&file[..begin]);
    if let Some((dtype, _)) = header.split_once("'descr': '").and_then(|(_, rest)| rest.split_once('\''))
        && !dtype.contains('O')
    {
        return Err(Error::kind(format!("array holds {dtype}"), DICTIONARY));
    }
    let (mut arrays, mut left) = (BTreeMap::new(), file.len() as u64);
    for (layer, part, array) in pickle::read(&file[begin..])? {
        let needed = array.bytes.len() as u64;
        // A pickle may repeat an array, and each repetition is read anew.
        left = left.checked_sub(needed).ok_or_else(|| Error::truncated(needed, left))?;
        let part = match part.as_str() {
            "0" => "weights",
            "1" => "biases",
            other => other,
        };
        let name = format!("{layer}.{part}");
        let values = values(&array).map_err(|error| error.in_array(&name))?;
        arrays.insert(name, (array.shape, values));
    }
    Ok(arrays)
}

fn values(array: &pickle::Array<'_>) -> Result<Vec<f32>> {
    let (shape, bytes) = (&array.shape, array.bytes);
    if shape.iter().try_fold(size_of::<f32>(), |size, &n| size.checked_mul(n)) != Some(bytes.len()) {
        return Err(Error::array_size(shape, bytes.len() as u64));
    }
    let values = read_values(bytes, bytes.len() / size_of::<f32>())?;
    Ok(if array.fortran { to_c_order(shape, &values) } else { values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_a_dictionary_have_weights_and_biases() {
        let header = b"\x93NUMPY\x01\x00\x04\x00{'a'";
        let file = |pickle: &[u8]| [&header[..], pickle].concat();
        let arrays = parse_dictionary(&file(&pickle::tests::layers("<f4"))).unwrap();
        let names: Vec<&String> = arrays.keys().collect();
        assert_eq!(names, ["fc6.biases", "fc6.weights", "fc7.biases"]);
        let [a, b] = [*b"abcd", *b"efgh"].map(f32::from_le_bytes);
        assert_eq!(arrays["fc6.weights"], (vec![2, 1], vec![a, b]));
        assert_eq!(
            parse_dictionary(b"text").unwrap_err().to_string(),
            "not a NumPy .npy file, write it with numpy.save"
        );
    }
}
