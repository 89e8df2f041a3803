//! Pickles as NumPy writes them, and damaged ones.

use super::*;

/// An array as NumPy for Python 2 pickles it.
fn array(shape: &[u8], dtype: &str, fortran: bool, data: &[u8]) -> Vec<u8> {
    let shape: Vec<u8> = shape.iter().flat_map(|&n| [b'K', n]).collect();
    let [order, kind] = [&dtype[..1], &dtype[1..]].map(str::as_bytes);
    [
        &b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02"[..],
        b"K\x00\x85q\x03U\x01bq\x04\x87q\x05Rq\x06(K\x01(",
        &shape,
        b"tq\x07cnumpy\ndtype\nq\x08U\x02",
        kind,
        b"q\x09K\x00K\x01\x87q\x0aRq\x0b(K\x03U\x01",
        order,
        b"q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0db",
        if fortran { &b"\x88"[..] } else { b"\x89" },
        data,
        b"tq\x0eb",
    ]
    .concat()
}

/// Two layers, one of a list of arrays, one of a dictionary.
pub(crate) fn layers(dtype: &str) -> Vec<u8> {
    let weights = array(&[2, 1], dtype, true, b"T\x08\x00\x00\x00abcdefgh");
    let biases = array(&[1], "<f4", false, b"U\x04ijkl");
    let dict = [
        b"]q\x10}q\x11(U\x03fc6q\x12]q\x13(",
        &weights[..],
        &biases,
        b"eU\x03fc7q\x14}q\x15U\x06biasesq\x16",
        &biases,
        b"sua",
    ];
    [b"\x80\x02", &array(&[], "|O8", false, &dict.concat())[..], b"."].concat()
}

#[test]
fn a_dictionary_of_arrays_is_read() {
    let pickle = layers("<f4");
    let found: Vec<_> = read(&pickle)
        .unwrap()
        .into_iter()
        .map(|(layer, part, Array { shape, fortran, bytes })| (layer + "." + &part, shape, fortran, bytes))
        .collect();
    let expected: [(String, Vec<usize>, bool, &[u8]); 3] = [
        ("fc6.0".to_owned(), vec![2, 1], true, b"abcdefgh"),
        ("fc6.1".to_owned(), vec![1], false, b"ijkl"),
        ("fc7.biases".to_owned(), vec![1], false, b"ijkl"),
    ];
    assert_eq!(found, expected);
    let error = read(&layers("<f8")).err().unwrap().to_string();
    assert_eq!(
        error,
        "array holds <f8, expected float32: convert it with .astype('float32') if no value changes"
    );
}

#[test]
fn damage_and_other_pickles_are_errors() {
    let pickle = layers("<f4");
    for n in 0..pickle.len() {
        assert!(read(&pickle[..n]).is_err());
        // Other names may still be a dictionary of arrays; nothing panics.
        for byte in [0, b'.', b'(', b'e', b'R', b'b', b'h', 0x87, 0xff] {
            let mut damaged = pickle.clone();
            damaged[n] = byte;
            _ = read(&damaged);
        }
    }
    let error = |pickle: &[u8]| read(pickle).err().unwrap().to_string();
    assert_eq!(error(b"\x80\x02cos\nsystem\nU\x02ls\x85R."), "an object, expected an array");
    assert!(error(b"\x80\x05\x96").starts_with("operation 0x96 of a pickle"));
}
