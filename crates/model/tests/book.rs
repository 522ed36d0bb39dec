//! A checkpoint as the book "Build a Large Language Model (From Scratch)" saves it gives PyTorch's logits.
//! `testdata/make_book.py` made it.

use burn::tensor::Device;
use cavy_model::{Model, Pass, Source, Weights};
use cavy_ops::Segments;
use safetensors::SafeTensors;
use std::path::Path;
use std::sync::Arc;

#[test]
fn a_model_of_the_book_gives_pytorchs_logits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    let source = Source::open(&folder.join("book.pth")).unwrap();
    assert_eq!((source.config.vocab_size(), source.config.context_length()), (61, 32));
    let model = Model::open(&source, Weights::F32, &Device::flex()).unwrap();
    let ids: Vec<u32> = (0..20).map(|i| (7 * i + 3) % 61).collect();
    let pass = Pass::new(ids.into(), Arc::new(Segments::uniform(1, 20)), None);
    let logits = model.logits(&pass, &(0..20).collect::<Vec<_>>());
    let bytes = fs_err::read(folder.join("book.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let expected = golden.tensor("logits").unwrap();
    let expected: Vec<f32> = expected.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    assert_eq!(logits.len(), expected.len());
    for (i, (found, expected)) in logits.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() <= 4e-6 * (1.0 + expected.abs()), "logit {i}: {found}, expected {expected}");
    }
}
