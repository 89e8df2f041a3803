//! Product codebooks do on each part of the dimensions what codebooks of one level do.

use dpq_codebook::{
    Assignment, Beam, CodeLength, Codebooks, Error, FitOptions, Form, ResidualKMeans, RoundedCodebooks,
    inner_products,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{numbers, threads};

fn product(n_levels: usize, n_codewords: usize, width: usize, assignment: Assignment) -> Codebooks {
    let values = numbers(n_levels * n_codewords * width, 7);
    Codebooks::with_form(Form::Product, values, n_levels, n_codewords, n_levels * width, assignment).unwrap()
}

/// Returns the level as codebooks of its own.
fn part(codebooks: &Codebooks, level: usize) -> Codebooks {
    let (values, k) = (codebooks.level(level).to_vec(), codebooks.n_codewords());
    Codebooks::new(values, 1, k, codebooks.width(), codebooks.assignment()).unwrap()
}

fn columns(rows: &[f32], codebooks: &Codebooks, level: usize) -> Vec<f32> {
    rows.chunks_exact(codebooks.dim()).flat_map(|row| &row[codebooks.dims(level)]).copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_level_does_what_codebooks_of_its_part_do(
        levels in 1usize..7, codewords in 1usize..40, width in 1usize..40, n in 0usize..150,
        seed in 0u64..1000, cosine in any::<bool>(),
    ) {
        let assignment = if cosine { Assignment::Cosine } else { Assignment::Euclidean };
        let codebooks = product(levels, codewords, width, assignment);
        let features = numbers(n * codebooks.dim(), seed);
        let codes = codebooks.encode(&features).unwrap();
        let length = codebooks.max_length();
        let decoded = codebooks.decode(&codes, length).unwrap();
        let tables = codebooks.lookup_tables(&features, length).unwrap();
        let mut norms = vec![0.0f32; n];
        for level in 0..levels {
            let (part, xs) = (part(&codebooks, level), columns(&features, &codebooks, level));
            let of_level: Vec<u8> = codes.iter().skip(level).step_by(levels).copied().collect();
            prop_assert_eq!(&part.encode(&xs).unwrap(), &of_level);
            let one = part.max_length();
            prop_assert_eq!(columns(&decoded, &codebooks, level), part.decode(&of_level, one).unwrap());
            let expected = part.lookup_tables(&xs, one).unwrap();
            for (table, expected) in tables.iter().zip(expected) {
                prop_assert_eq!(table.level(level), expected.values());
            }
            let of_part = part.squared_norms(&of_level, &[one]).unwrap();
            norms.iter_mut().zip(of_part).for_each(|(norm, part)| *norm += part);
        }
        prop_assert_eq!(codebooks.squared_norms(&codes, &[length]).unwrap(), norms);
        for (row, table) in features.chunks_exact(codebooks.dim()).zip(&tables).take(3) {
            prop_assert_eq!(&codebooks.lookup_table(row).unwrap(), table);
            // Levels in any order, some twice in a row.
            let at: Vec<(u8, u8)> =
                (0..50).map(|i| ((i * i / 3 % levels) as u8, (i * 7 % codewords) as u8)).collect();
            let mut entries = vec![f32::NAN; 50];
            codebooks.lookup_entries(row, &at, &mut entries).unwrap();
            for (&(level, codeword), entry) in at.iter().zip(entries) {
                prop_assert_eq!(entry, table.level(level.into())[usize::from(codeword)]);
            }
        }
    }

    #[test]
    fn norms_are_those_of_the_decoded(levels in 1usize..9, width in 1usize..20, seed in 0u64..1000) {
        let codebooks = product(levels, 16, width, Assignment::Euclidean);
        let codes = codebooks.encode(&numbers(20 * codebooks.dim(), seed)).unwrap();
        let norms = codebooks.squared_norms(&codes, &[codebooks.max_length()]).unwrap();
        let decoded = codebooks.decode(&codes, codebooks.max_length()).unwrap();
        for (x, norm) in decoded.chunks_exact(codebooks.dim()).zip(norms) {
            let mut expected = [0.0];
            inner_products(x, x, &mut expected).unwrap();
            prop_assert!((norm - expected[0]).abs() <= 1e-5 * expected[0], "{norm} {expected:?}");
            let units = f64::from(norm) / codebooks.norm_unit();
            prop_assert!(units <= f64::from(1 << 30), "{units}");
        }
        let of_codewords = codebooks.codeword_norms().unwrap();
        for (codeword, norm) in codebooks.values().chunks_exact(width).zip(of_codewords) {
            let mut expected = [0.0];
            inner_products(codeword, codeword, &mut expected).unwrap();
            prop_assert_eq!(norm, expected[0]);
        }
    }
}

#[test]
fn only_the_full_length_is_a_code() {
    let codebooks = product(4, 8, 3, Assignment::Euclidean);
    let (features, full) = (numbers(50 * 12, 1), codebooks.max_length());
    assert_eq!(codebooks.lengths().collect::<Vec<_>>(), [full]);
    let progressive = Codebooks::new(vec![0.0; 3], 3, 1, 1, Assignment::Euclidean).unwrap();
    assert_eq!(progressive.lengths().map(CodeLength::bits).collect::<Vec<_>>(), [8, 16, 24]);

    let codes = codebooks.encode(&features).unwrap();
    let says = |error: Error| {
        let text = "code length is 16 bits, expected 32 bits: the codes of product codebooks have one length";
        assert_eq!(error.to_string(), text);
    };
    let short = CodeLength::from_bits(16).unwrap();
    says(codebooks.decode(&codes, short).unwrap_err());
    says(codebooks.lookup_table_at(&features[..12], short).unwrap_err());
    says(codebooks.lookup_tables(&features, short).unwrap_err());
    let long = CodeLength::from_bits(40).unwrap();
    assert!(matches!(codebooks.decode(&codes, long), Err(Error::Argument { .. })));
    for wrong in [short, long] {
        assert!(codebooks.squared_norms(&codes, &[wrong]).is_err());
    }

    let decoded = codebooks.decode(&codes, full).unwrap();
    let squares = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let error: Vec<f32> = features.iter().zip(decoded).map(|(x, y)| x - y).collect();
    let distortion = codebooks.relative_distortion(&features, &codes).unwrap();
    assert_eq!(distortion.len(), 1);
    assert!((distortion[0] - squares(&error) / squares(&features)).abs() < 1e-6);
}

#[test]
fn dimensions_are_cut_into_equal_parts() {
    let make = |n_values, dim| {
        Codebooks::with_form(Form::Product, vec![0.0; n_values], 4, 2, dim, Assignment::Euclidean)
    };
    assert!(make(24, 12).is_ok());
    let says =
        |result: Result<Codebooks, Error>, text: &str| assert_eq!(result.unwrap_err().to_string(), text);
    says(make(24, 10), "dimension is 10, expected a multiple of 4, the levels of product codebooks");
    says(make(96, 12), "codebook has 96 values, expected 4 × 2 × 3");
    let config = ResidualKMeans { n_levels: 4, n_codewords: 2, n_iterations: 1 };
    says(
        config.train_product(&[0.0; 30], 10, FitOptions::default()),
        "dimension is 10, expected a multiple of 4, the levels of product codebooks",
    );
    assert_eq!("product".parse::<Form>().unwrap(), Form::Product);
    assert!(
        "nested".parse::<Form>().unwrap_err().to_string().contains("expected `progressive` or `product`")
    );
}

#[test]
fn beams_refinement_and_rounding_are_refused() {
    let codebooks = product(2, 4, 3, Assignment::Euclidean);
    let features = numbers(40 * 6, 1);
    let beam = |width| Beam { width, weights: &[0.0, 1.0] };
    assert_eq!(
        codebooks.encode_beam(&features, beam(1)).unwrap(),
        codebooks.encode(&features).unwrap(),
        "a beam of one is greedy"
    );
    assert!(matches!(codebooks.encode_beam(&features, beam(2)), Err(Error::Product)));
    assert!(matches!(codebooks.refine(&features, 3, FitOptions::default()), Err(Error::Product)));
    assert!(matches!(RoundedCodebooks::new(&codebooks), Err(Error::Product)));
    let config = ResidualKMeans { n_levels: 2, n_codewords: 4, n_iterations: 1 };
    let options = FitOptions { beam: Some(beam(2)), ..FitOptions::default() };
    assert!(matches!(config.train_product(&features, 6, options), Err(Error::Product)));
}

#[test]
fn a_product_is_fitted_part_by_part() {
    let (features, dim) = (numbers(3000 * 12, 1), 12);
    let config = ResidualKMeans { n_levels: 4, n_codewords: 16, n_iterations: 25 };
    for init_size in [1000, usize::MAX] {
        let options = || FitOptions { init_size: Some(init_size), ..FitOptions::default() };
        let mut reported = Vec::new();
        let mut progress = |level: usize, error: f64| reported.push((level, error));
        let train = FitOptions { progress: Some(&mut progress), ..options() };
        let codebooks = config.train_product(&features, dim, train).unwrap();
        for level in 0..4 {
            let one = ResidualKMeans { n_levels: 1, ..config };
            let part = one.train_with(&columns(&features, &codebooks, level), 3, options()).unwrap();
            assert_eq!(codebooks.level(level), part.values(), "level {level}");
        }
        let levels: Vec<usize> = reported.iter().map(|&(level, _)| level).collect();
        assert_eq!(levels, [0, 1, 2, 3]);
        assert!(reported.is_sorted_by(|a, b| a.1 > b.1), "{reported:?}");
        let codes = codebooks.encode(&features).unwrap();
        let distortion = codebooks.relative_distortion(&features, &codes).unwrap()[0];
        assert!((reported[3].1 - distortion).abs() < 1e-6, "{reported:?} {distortion}");
        let again = |n| threads(n, || config.train_product(&features, dim, options()).unwrap());
        assert!(again(1) == codebooks && again(2) == codebooks, "threads change nothing");
    }
}

#[test]
fn the_file_says_that_codebooks_are_a_product() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("cb.safetensors");
    for (levels, assignment) in [(1, Assignment::Euclidean), (3, Assignment::Cosine)] {
        let made = product(levels, 7, 5, assignment);
        made.save(&path).unwrap();
        let opened = Codebooks::open(&path).unwrap();
        assert_eq!(opened, made);
        assert_eq!(opened.fingerprint(), made.fingerprint());
        let file = dpq_file::Container::open(&path).unwrap();
        assert_eq!((file.metadata("version").unwrap(), file.metadata("form").unwrap()), ("2", "product"));

        let mut bytes = b"product".to_vec();
        let sizes = [levels, 7, made.dim()].map(|n| (n as u64).to_le_bytes());
        bytes.extend(sizes.into_iter().flatten());
        bytes.extend(made.values().iter().flat_map(|x| x.to_le_bytes()));
        assert_eq!(made.fingerprint(), format!("{:08x}", dpq_file::crc32c(&bytes)));
        let progressive = Codebooks::new(made.values().to_vec(), levels, 7, 5, assignment).unwrap();
        assert_ne!(progressive.fingerprint(), made.fingerprint());
        progressive.save(&path).unwrap();
        let file = dpq_file::Container::open(&path).unwrap();
        assert!(file.metadata("version").unwrap() == "1" && file.metadata("form").is_err());
    }
}
