//! The IDX format of MNIST and its relatives.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::Error;

/// Reads an IDX array of unsigned bytes, plain or compressed with gzip. Returns its shape and its
/// values, row-major.
///
/// # Errors
/// [`Error::Damaged`] if the bytes cannot be decompressed, [`Error::Invalid`] otherwise.
pub fn parse_idx(bytes: &[u8]) -> Result<(Vec<usize>, Vec<u8>), Error> {
    if bytes.starts_with(&[0x1f, 0x8b]) { read_idx(MultiGzDecoder::new(bytes)) } else { read_idx(bytes) }
}

fn read_idx(mut reader: impl Read) -> Result<(Vec<usize>, Vec<u8>), Error> {
    let mut word = || {
        let mut word = [0; 4];
        reader.read_exact(&mut word).map(|()| word).map_err(Error::Damaged)
    };
    let magic = word()?;
    let [0, 0, 8, n_dims] = magic else {
        let found = format!("not an IDX file of bytes: it begins with {magic:02x?}");
        return Err(Error::invalid(found, "expected [00, 00, 08, dimensions]"));
    };
    let shape =
        (0..n_dims).map(|_| Ok(u32::from_be_bytes(word()?) as usize)).collect::<Result<Vec<_>, Error>>()?;
    let product = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    let invalid = |found| Err(Error::invalid(format!("the IDX header claims {found}"), "get the file again"));
    let Some(expected) = product else { return invalid(format!("the impossible shape {shape:?}")) };
    // One more byte than claimed shows whether the file is too long. Beyond 64 MiB, memory grows
    // with the bytes that are read, not with the claim.
    let mut values = Vec::with_capacity(expected.min(1 << 26));
    reader.take((expected as u64).saturating_add(1)).read_to_end(&mut values).map_err(Error::Damaged)?;
    match values.len() {
        found if found < expected => invalid(format!("{expected} bytes, {found} follow")),
        found if found > expected => invalid(format!("{expected} bytes, more follow")),
        _ => Ok((shape, values)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::parse_idx;

    fn idx(shape: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    #[test]
    fn plain_and_compressed_arrays_are_read() {
        let plain = idx(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&plain).unwrap();
        for bytes in [plain, encoder.finish().unwrap()] {
            assert_eq!(parse_idx(&bytes).unwrap(), (vec![2, 3], vec![1, 2, 3, 4, 5, 6]));
            for end in 0..bytes.len() {
                assert!(parse_idx(&bytes[..end]).is_err(), "cut at {end}");
            }
            assert!(parse_idx(&[&bytes[..], b"more"].concat()).is_err());
        }
    }

    #[test]
    fn damaged_gzip_is_refused() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&idx(&[256], &(0..=255).collect::<Vec<u8>>())).unwrap();
        let mut bytes = encoder.finish().unwrap();
        // Incompressible bytes are stored, so this changes a value, which only the checksum shows.
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
        assert!(parse_idx(&bytes).unwrap_err().to_string().contains("damaged data"));
    }

    #[test]
    fn invalid_bytes_are_refused_with_the_reason() {
        let error = |bytes: &[u8]| parse_idx(bytes).unwrap_err().to_string();
        assert!(error(&idx(&[u32::MAX, u32::MAX, u32::MAX], &[])).contains("impossible shape"));
        assert!(error(&idx(&[u32::MAX], &[1])).contains("claims 4294967295 bytes, 1 follow"));
        assert!(error(&idx(&[1], &[1, 2])).contains("claims 1 bytes, more follow"));
        assert!(error(b"\x00\x00\x0d\x01").contains("not an IDX file of bytes"));
        assert!(error(b"<html>").contains("not an IDX file of bytes"));
    }
}
