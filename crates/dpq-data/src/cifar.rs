//! The binary version of CIFAR-10 and CIFAR-100: records in files in a compressed archive.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::{Error, ImageShape};

/// The shape of every image.
pub(crate) const SHAPE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };

/// The maximum number of bytes of a file in the archive, five times that of the largest known, so
/// that a small archive cannot ask for gigabytes.
const MAX_BYTES: u64 = 5 * 50_000 * (3072 + 2);

/// Reads the files `members` of a tar archive compressed with gzip, in the order of `members`.
/// Returns the class of each image and the images, u8 `[n, 3, 32, 32]`.
///
/// Source: <https://www.cs.toronto.edu/~kriz/cifar.html>. A record is `label_bytes` bytes of labels
/// and the image, planes red, green, blue. Its class is the last label: CIFAR-10 has one label,
/// CIFAR-100 a coarse and a fine one.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Invalid`] if a file is missing, or [`Error::Records`], which 0 for
/// `label_bytes` gives too.
pub fn parse_cifar(
    archive: &[u8],
    members: &[impl AsRef<str>],
    label_bytes: usize,
) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let mut files: Vec<Option<Vec<u8>>> = vec![None; members.len()];
    let mut tar = tar::Archive::new(MultiGzDecoder::new(archive));
    for entry in tar.entries().map_err(Error::Damaged)? {
        let entry = entry.map_err(Error::Damaged)?;
        let path = entry.path_bytes();
        let Some(member) = members.iter().position(|member| member.as_ref().as_bytes() == &*path) else {
            continue;
        };
        let mut bytes = Vec::new();
        entry.take(MAX_BYTES).read_to_end(&mut bytes).map_err(Error::Damaged)?;
        files[member] = Some(bytes);
    }
    let (mut labels, mut pixels) = (vec![], vec![]);
    let record = label_bytes + SHAPE.len();
    for (name, file) in members.iter().zip(files) {
        let name = || name.as_ref().to_owned();
        let file = file.ok_or_else(|| {
            Error::invalid(format!("no file {} in this archive", name()), "get the binary version of the set")
        })?;
        if label_bytes == 0 || file.is_empty() || file.len() % record != 0 {
            return Err(Error::Records(name(), file.len(), record));
        }
        for record in file.chunks_exact(record) {
            labels.push(record[label_bytes - 1]);
            pixels.extend(&record[label_bytes..]);
        }
    }
    Ok((labels, pixels))
}
