use super::*;

/// A model of two words, three labels and four columns, written by hand.
fn model(loss: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ints = |bytes: &mut Vec<u8>, values: &[i32]| values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    ints(&mut bytes, &[793_712_314, 12, 2, 5, 5, 1, 5, 1, loss, 3, 4, 2, 3, 100]);
    bytes.extend(1e-4_f64.to_le_bytes());
    ints(&mut bytes, &[6, 3, 3]);
    bytes.extend(100_i64.to_le_bytes());
    bytes.extend((-1_i64).to_le_bytes());
    for (word, count, kind) in [
        ("</s>", 9_i64, 0),
        ("good", 5, 0),
        ("bad", 4, 0),
        ("__label__a", 6, 1),
        ("__label__b", 3, 1),
        ("__label__c", 2, 1),
    ] {
        bytes.extend(word.as_bytes());
        bytes.push(0);
        bytes.extend(count.to_le_bytes());
        bytes.push(kind);
    }
    let matrix = |bytes: &mut Vec<u8>, rows: &[[f32; 2]]| {
        bytes.push(0);
        bytes.extend((rows.len() as i64).to_le_bytes());
        bytes.extend(2_i64.to_le_bytes());
        rows.iter().flatten().for_each(|value| bytes.extend(value.to_le_bytes()));
    };
    matrix(&mut bytes, &[[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.5, 0.5], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
    matrix(&mut bytes, &[[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]);
    bytes
}

#[test]
fn hidden_is_the_mean_of_the_rows_of_words_and_character_runs() {
    let model = FastText::parse(&model(3)).unwrap();
    let row = |run: &str| 3 + (hash(run.as_bytes()) % 4) as usize;
    let mut expected = vec![1];
    expected.extend(["<g", "<go", "go", "goo", "oo", "ood", "od", "od>", "d>"].map(row));
    expected.push(0);
    assert_eq!(model.rows("good"), expected);
    // A character beyond ASCII is one character of a run.
    let mut expected: Vec<usize> = ["<é", "<é>", "é>"].map(row).to_vec();
    expected.push(0);
    assert_eq!(model.rows("\té\n"), expected);
    let probabilities = model.probabilities("");
    assert!(probabilities.iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6), "{probabilities:?}");
}

#[test]
fn the_tree_joins_the_two_rarest_first() {
    // Counts 6, 3, 2: b and c (c left) below row 0, then that node (5) left of a.
    let model = FastText::parse(&model(1)).unwrap();
    let scores = [0.3_f32, -0.7];
    let found = model.tree.probabilities(|row| scores[row]);
    let s = |x: f32| 1.0 / (1.0 + (-x).exp());
    let expected = [s(-0.7), (1.0 - s(-0.7)) * s(0.3), (1.0 - s(-0.7)) * (1.0 - s(0.3))];
    found
        .iter()
        .zip(expected)
        .for_each(|(found, expected)| assert!((found - expected).abs() < 1e-4, "{found} {expected}"));
}

#[test]
fn bytes_are_extended_by_their_sign_before_hashing() {
    // From fastText's C++: FNV-1a of "é" is 3109765735 without the slip.
    assert_eq!(hash(b"a"), 0xe40c_292c);
    assert_ne!(
        hash("é".as_bytes()),
        "é".bytes().fold(2_166_136_261, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
    );
}

#[test]
fn a_damaged_model_is_refused_at_every_cut() {
    let whole = model(1);
    assert!(FastText::parse(&whole).is_ok());
    for cut in 0..whole.len() {
        assert!(FastText::parse(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let check = |at: usize, byte: u8, expected: &str| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        let (_, found) = FastText::parse(&bytes).unwrap_err();
        assert!(found.contains(expected), "{found}");
    };
    check(0, 0, "magic number");
    check(32, 9, "loss 9");
    check(36, 1, "not a classifier");
    check(64, 200, "entries are not");
}
