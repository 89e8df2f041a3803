//! The paper's data sets at toy size, in their own formats, and weights in that of its AlexNet.
//!
//! `cargo run --release --package dpq-data --example toy_sets -- DIR` writes the folders
//! `cifar-10`, `nus-wide-21` and `imagenet-100`, each with the `dataset.toml` of `datasets/` but
//! smaller numbers, a few hundred images of coloured bands, and `bvlc_alexnet.npy`. They show the
//! format of these files, and `cargo xtask ci` runs the paper's experiments on them. The folder
//! `small-patterns` has classes that differ by one small pattern alone, for `cargo xtask
//! reproduce-paper --system phpq`.

use std::error::Error;
use std::fs;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

type Done = Result<(), Box<dyn Error>>;

/// Draws a noisy band of colour for each class.
fn picture(classes: &[usize], i: usize, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let class = classes[(x * classes.len() as u32 / width) as usize];
        let noise = (x * 31 + y * 17 + i as u32 * 101) % 41;
        Rgb([37, 101, 59].map(|step| ((class * step + 40) % 200) as u8 + noise as u8))
    })
}

/// Writes an image whose size depends on `i`, as photographs differ.
fn photograph(path: &Path, classes: &[usize], i: usize) -> Done {
    let image = DynamicImage::from(picture(classes, i, 64 + 16 * (i as u32 % 5), 48 + 12 * (i as u32 % 7)));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // One in ten is gray.
    let image = if i % 10 == 9 { image.into_luma8().into() } else { image };
    Ok(image.save(path)?)
}

/// Writes the `dataset.toml` of `datasets/NAME` with `changes`: pairs of a text and its
/// replacement.
fn manifest(dir: &Path, name: &str, changes: &[[&str; 2]]) -> Done {
    let datasets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets");
    let mut text = fs::read_to_string(datasets.join(name).join("dataset.toml"))?;
    for [from, to] in changes {
        assert!(text.contains(from), "{name}/dataset.toml has no `{from}`");
        text = text.replace(from, to);
    }
    Ok(fs::write(dir.join("dataset.toml"), text)?)
}

/// Writes ten classes in the six files of the binary version: 3 queries, 26 training images and 17
/// gallery images per class.
fn cifar_10(dir: &Path) -> Done {
    let sums = ", md5 = \"c32a1d4ab5d03f1284b67883e8d87530\", \
                sha256 = \"c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd\"";
    let numbers = [
        ["queries_per_class = 100", "queries_per_class = 3"],
        ["train_per_class = 500", "train_per_class = 26"],
    ];
    manifest(dir, "cifar-10", &[&numbers[..], &[[sums, ""]]].concat())?;
    let record = |i: usize| {
        let image = picture(&[i % 10], i, 32, 32);
        let plane = |channel| image.pixels().map(move |pixel| pixel.0[channel]);
        [(i % 10) as u8].into_iter().chain(plane(0)).chain(plane(1)).chain(plane(2)).collect::<Vec<u8>>()
    };
    let archive = fs::File::create(dir.join("cifar-10-binary.tar.gz"))?;
    let mut tar = tar::Builder::new(GzEncoder::new(archive, Compression::fast()));
    let batches = (1..=5).map(|n| format!("data_batch_{n}")).chain(["test_batch".to_owned()]);
    for (n, batch) in batches.enumerate() {
        let bytes: Vec<u8> = (0..460).filter(|i| i % 6 == n).flat_map(record).collect();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("cifar-10-batches-bin/{batch}.bin"), &bytes[..])?;
    }
    tar.into_inner()?.finish()?;
    Ok(())
}

/// Writes one list with a 0 or 1 for each of 21 concepts: 20 queries, 260 training images in a
/// gallery of 280. One photograph is damaged, because large sets have damaged files.
fn nus_wide(dir: &Path) -> Done {
    let numbers = [["queries = 5000", "queries = 20"], ["train = 10000", "train = 260"]];
    manifest(dir, "nus-wide-21", &numbers)?;
    let mut list = String::new();
    for i in 0..300 {
        let mut classes = vec![i % 21, (i * 5 + i / 21) % 21];
        classes.truncate(1 + i % 2);
        let path = format!("{}/{i}.{}", ["sea", "town"][i % 2], ["jpg", "png"][i % 3 / 2]);
        photograph(&dir.join("images").join(&path), &classes, i)?;
        let hot = |class| if classes.contains(&class) { " 1" } else { " 0" };
        list += &format!("{path}{}\n", (0..21).map(hot).collect::<String>());
    }
    fs::write(dir.join("images/sea/0.jpg"), "no photograph")?;
    Ok(fs::write(dir.join("all.txt"), list)?)
}

/// Writes a list per split with the numbers of four classes: 20 queries, 260 training images in a
/// gallery of 280.
fn imagenet(dir: &Path) -> Done {
    manifest(dir, "imagenet-100", &[])?;
    let lines: Vec<String> = (0..300).map(|i| format!("n{:08}/{i}.JPEG {}\n", i % 4, i % 4)).collect();
    for (i, line) in lines.iter().enumerate() {
        let path = line.split(' ').next().unwrap_or_default();
        photograph(&dir.join("images").join(path), &[i % 4], i)?;
    }
    for (split, lines) in [("query", &lines[..20]), ("train", &lines[20..280]), ("gallery", &lines[20..])] {
        fs::write(dir.join(format!("{split}.txt")), lines.concat())?;
    }
    Ok(())
}

/// Writes eight classes of noise: an image has the pattern of its class, 4×4 pixels of which half
/// are white, at a random place. Per class there are 25 queries, 100 training images and a gallery
/// of 75.
fn small_patterns(dir: &Path) -> Done {
    const SIDE: u32 = 28;
    const PATTERN: u32 = 4;
    const WHITE: usize = 8;
    for class in 0..8 {
        let folder = dir.join(format!("images/{class}"));
        fs::create_dir_all(&folder)?;
        let mut order: Vec<u32> = (0..PATTERN * PATTERN).collect();
        order.sort_by_key(|&at| hash([class, u64::MAX, at.into()]));
        for i in 0..200 {
            let random = |at: u32| hash([class, i, at.into()]);
            let mut image = GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([(random(y * SIDE + x) % 192) as u8]));
            let place = |k: u32| (random(SIDE * SIDE + k) % u64::from(SIDE - PATTERN + 1)) as u32;
            for (rank, at) in order.iter().enumerate() {
                let value = if rank < WHITE { 255 } else { 0 };
                image.put_pixel(place(0) + at % PATTERN, place(1) + at / PATTERN, Luma([value]));
            }
            image.save(folder.join(format!("{i:03}.png")))?;
        }
    }
    let manifest = "name = \"Small patterns\"\nshape = { channels = 1, height = 28, width = 28 }\n\
                    images = { format = \"folder\", path = \"images\" }\n\
                    protocol = { queries_per_class = 25, train_per_class = 100, seed = 1 }\n";
    Ok(fs::write(dir.join("dataset.toml"), manifest)?)
}

/// Returns a number that depends on all of `of` (splitmix64).
fn hash(of: [u64; 3]) -> u64 {
    of.into_iter().fold(1, |seed, x| {
        let mut z = (seed ^ x).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// The layers of an AlexNet of few channels: rows, columns, input channels of a group, output
/// channels.
const LAYERS: [(&str, &[usize]); 8] = [
    ("conv1", &[11, 11, 3, 4]),
    ("conv2", &[5, 5, 2, 8]),
    ("conv3", &[3, 3, 8, 8]),
    ("conv4", &[3, 3, 4, 8]),
    ("conv5", &[3, 3, 4, 8]),
    ("fc6", &[288, 16]),
    ("fc7", &[16, 16]),
    ("fc8", &[16, 1000]),
];

/// Makes a dictionary of weights and biases by layer, as NumPy saves it: a header and a pickle.
fn alexnet() -> Vec<u8> {
    let text = |text: &str| [&[b'U', text.len() as u8][..], text.as_bytes()].concat();
    let array = |shape: &[usize], order: &str, kind: &str, data: &[u8]| {
        let shape: Vec<u8> =
            shape.iter().flat_map(|&n| [&b"J"[..], &(n as u32).to_le_bytes()].concat()).collect();
        [
            &b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01("[..],
            &shape,
            b"tcnumpy\ndtype\n",
            &text(kind),
            b"K\x00K\x01\x87R(K\x03",
            &text(order),
            b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK",
            // NumPy's flags of a type: none, or those of objects.
            if kind == "O8" { &b"\x3f"[..] } else { b"\x00" },
            b"tb\x89",
            data,
            b"tb",
        ]
        .concat()
    };
    let numbers = |shape: &[usize], scale: f32| {
        let values = (0..shape.iter().product()).map(|i: usize| scale * (i as f32 * 12.9898).sin());
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        array(shape, "<", "f4", &[&b"T"[..], &(bytes.len() as u32).to_le_bytes(), &bytes[..]].concat())
    };
    let layer = |(name, shape): &(&str, &[usize])| {
        let n_in: usize = shape[..shape.len() - 1].iter().product();
        let (weights, biases) =
            (numbers(shape, 2.0 / (n_in as f32).sqrt()), numbers(&shape[shape.len() - 1..], 0.1));
        [&text(name)[..], b"](", &weights, &biases, b"e"].concat()
    };
    let layers: Vec<u8> = LAYERS.iter().flat_map(layer).collect();
    let pickle = array(&[], "|", "O8", &[b"]}(", &layers[..], b"ua"].concat());
    let header = format!("{:117}\n", "{'descr': '|O', 'fortran_order': False, 'shape': (), }");
    let start = [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    [&start[..], b"\x80\x02", &pickle, b"."].concat()
}

fn main() -> Done {
    let dir = std::env::args_os().nth(1).ok_or("give a folder to write to")?;
    let dir = Path::new(&dir);
    for (name, make) in [
        ("cifar-10", cifar_10 as fn(&Path) -> Done),
        ("nus-wide-21", nus_wide),
        ("imagenet-100", imagenet),
        ("small-patterns", small_patterns),
    ] {
        fs::create_dir_all(dir.join(name))?;
        make(&dir.join(name))?;
    }
    Ok(fs::write(dir.join("bvlc_alexnet.npy"), alexnet())?)
}
