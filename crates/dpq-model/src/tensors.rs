//! Tensors by name, and the files that hold them.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use dpq_file::{Container, Dtype, Section};
use serde::de::DeserializeOwned;

use crate::Error;

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, Var>;

/// The names and shapes of tensors.
pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// A named array: name, shape, values.
pub(crate) type Array = (String, Vec<usize>, Vec<f32>);

/// Opens a file of this format and one of these versions, and checks every byte.
pub(crate) fn open(path: &Path, format: &str, versions: &[&str], expected: &str) -> Result<Container, Error> {
    let file = Container::open(path)?;
    let found = ["format", "version"].map(|key| file.metadata(key).unwrap_or("none"));
    if found[0] != format || !versions.contains(&found[1]) {
        let found = found.join("` of version `");
        return Err(Error::content(path, format!("the file holds a `{found}`, expected {expected}")));
    }
    file.verify()?;
    Ok(file)
}

/// Reads the metadata `config` of a file.
pub(crate) fn config<T: DeserializeOwned>(file: &Container) -> Result<T, Error> {
    let refused = |error| format!("the configuration cannot be read ({error})");
    serde_json::from_str(file.metadata("config")?)
        .map_err(|error| Error::content(file.path(), refused(error)))
}

/// Reads tensors of these names behind `prefix`, each in its shape.
pub(crate) fn read(
    file: &Container,
    prefix: &str,
    shapes: Shapes,
    device: &Device,
) -> Result<Tensors, Error> {
    let mut tensors = Tensors::new();
    for (name, shape) in shapes {
        let values = file.floats(&format!("{prefix}{name}"), &shape)?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::content(
                file.path(),
                format!("`{name}` holds {value}, expected finite numbers"),
            ));
        }
        tensors.insert(name, Tensor::from_vec(values, shape, device)?);
    }
    Ok(tensors)
}

/// Copies tensors into arrays, and puts `prefix` before their names.
pub(crate) fn arrays<'a>(
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
    prefix: &str,
) -> Result<Vec<Array>, Error> {
    let array = |(name, tensor): (&String, &Tensor)| {
        Ok((format!("{prefix}{name}"), tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1::<f32>()?))
    };
    tensors.into_iter().map(array).collect()
}

/// Writes arrays to a container.
pub(crate) fn write(path: &Path, metadata: &[(&str, String)], arrays: &[Array]) -> Result<(), Error> {
    let metadata: BTreeMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let bytes: Vec<Vec<u8>> = arrays.iter().map(|(_, _, values)| bytes(values)).collect();
    let sections: Vec<_> = arrays
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), Section { dtype: Dtype::F32, shape, bytes }))
        .collect();
    Ok(dpq_file::write(path, &metadata, &sections)?)
}

/// Returns values as little-endian bytes.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}
