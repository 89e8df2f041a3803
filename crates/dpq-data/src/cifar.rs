//! The binary version of CIFAR-10 and CIFAR-100: records in files in a compressed archive.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::ImageShape;

/// The shape of every image.
pub(crate) const SHAPE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };

/// Bytes of a member, at most: five times the largest there is, so that a small archive cannot ask for gigabytes.
const MOST: u64 = 5 * 50_000 * (3072 + 2);

/// Reads the classes and the images, u8 `[n, 3, 32, 32]`, of the files `members` in a tar archive compressed with gzip, in
/// the order of `members`.
///
/// Source: <https://www.cs.toronto.edu/~kriz/cifar.html>. A record is `label_bytes` bytes of labels and the image, planes
/// red, green, blue; its class is the last label. CIFAR-10 has one label, CIFAR-100 the coarse one and the fine one.
///
/// # Errors
/// A sentence that says what is wrong with the bytes.
pub fn parse_cifar(
    archive: &[u8],
    members: &[impl AsRef<str>],
    label_bytes: usize,
) -> Result<(Vec<u8>, Vec<u8>), String> {
    let damaged = |error| format!("damaged archive ({error}), get the file again");
    let mut files: Vec<Option<Vec<u8>>> = vec![None; members.len()];
    let mut tar = tar::Archive::new(MultiGzDecoder::new(archive));
    for entry in tar.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let path = entry.path_bytes();
        let Some(member) = members.iter().position(|member| member.as_ref().as_bytes() == &*path) else {
            continue;
        };
        let mut bytes = Vec::new();
        entry.take(MOST).read_to_end(&mut bytes).map_err(damaged)?;
        files[member] = Some(bytes);
    }
    let (mut labels, mut pixels) = (vec![], vec![]);
    let record = label_bytes + SHAPE.len();
    for (name, file) in members.iter().zip(files) {
        let name = name.as_ref();
        let file =
            file.ok_or_else(|| format!("no file {name} in this archive, get the binary version of the set"))?;
        if file.is_empty() || file.len() % record != 0 {
            let n = file.len();
            return Err(format!(
                "{name} has {n} bytes, expected records of {record} bytes, get the file again"
            ));
        }
        for record in file.chunks_exact(record) {
            labels.push(record[label_bytes - 1]);
            pixels.extend(&record[label_bytes..]);
        }
    }
    Ok((labels, pixels))
}
