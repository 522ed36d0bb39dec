//! Tiny models of the Llama family equal Hugging Face's: logits, loss and gradients.
//! `testdata/make_llama_golden.py` says how models and numbers were made.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod golden;
#[path = "golden/variants.rs"]
mod variants;

use burn::tensor::Device;
use cavy_model::{Model, ModelConfig, Pass};
use cavy_ops::Segments;
use golden::{golden_path, model};
use safetensors::SafeTensors;
use std::sync::Arc;
use variants::VARIANTS;

const TOKENS: usize = 24;
const VOCAB: usize = 61;

fn ids() -> Vec<u32> {
    (0..TOKENS as u32).map(|i| (7 * i + 3) % VOCAB as u32).collect()
}

fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let segments = Arc::new(Segments::uniform(1, ids.len()));
    model.logits(&Pass::new(ids.into(), segments, None), &(0..ids.len()).collect::<Vec<_>>())
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn assert_near(what: &str, found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let gap = (found - expected).abs() / (1.0 + expected.abs());
        assert!(gap <= bound, "{what}[{i}]: {found}, expected {expected}");
    }
}

#[test]
fn logits_loss_and_gradients_are_those_of_transformers() {
    for variant in VARIANTS {
        let bytes = fs_err::read(golden_path(&format!("{variant}.safetensors"))).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let model = model(variant, &Device::flex().autodiff());
        // The logits reach 3; the bound is some roundings of f32.
        assert_near(variant, &logits(&model.valid(), &ids()), &floats(&golden, "logits"), 4e-6);
        let pass = Pass::new(ids().into(), Arc::new(Segments::uniform(1, TOKENS)), None);
        let targets: Arc<[u32]> = (0..TOKENS as u32).map(|i| (5 * i + 1) % VOCAB as u32).collect();
        let (loss, _, gradients) = model.loss_and_gradients(&pass, &targets, &[1.0; TOKENS], false);
        assert_near(variant, &[loss as f32], &floats(&golden, "loss"), 1e-6);
        for info in model.parameters() {
            let gradient = gradients.values(&info.name).unwrap();
            let wide = || gradient.iter().map(|&g| f64::from(g));
            let (sum, squares) = (wide().sum::<f64>(), wide().map(|g| g * g).sum::<f64>());
            let expected = floats(&golden, &format!("grad.{}", info.name));
            let what = format!("{variant} {}", info.name);
            // Elements of both signs cancel in the sum, their roundings do not.
            let scale = (gradient.len() as f64 * squares).sqrt();
            assert!((sum - f64::from(expected[0])).abs() <= 2e-6 * (1.0 + scale), "{what}: {sum}, {expected:?}");
            assert_near(&what, &[&[squares as f32], &gradient[..6]].concat(), &expected[1..], 1e-5);
        }
    }
}

#[test]
fn what_is_saved_is_read_as_the_same_bits() {
    for variant in VARIANTS {
        let folder = tempfile::tempdir().unwrap();
        let model = model(variant, &Device::flex());
        model.save(folder.path()).unwrap();
        let again = Model::load(folder.path(), &Device::flex()).unwrap();
        assert_eq!(again.config(), model.config(), "{variant}");
        assert_eq!(logits(&again, &ids()), logits(&model, &ids()), "{variant}");
    }
}

#[test]
fn an_option_that_is_not_known_is_named() {
    let refused = |key: &str, value: serde_json::Value| {
        let path = golden_path("llama.json");
        let mut fields: serde_json::Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        fields[key] = value;
        ModelConfig::from_json(&path, fields).unwrap_err().to_string()
    };
    for (key, value, named) in [
        ("model_type", serde_json::json!("mamba"), "`mamba`"),
        ("logit_softcapping", serde_json::json!(30.0), "`logit_softcapping` = 30.0"),
        ("hidden_act", serde_json::json!("gelu"), "`hidden_act` is \"gelu\""),
        ("rope_parameters", serde_json::json!({"rope_type": "longrope"}), "longrope"),
        ("num_key_value_heads", serde_json::json!(3), "`num_key_value_heads` is 3"),
        ("hidden_size", serde_json::json!(-4), "`hidden_size` is -4"),
        ("num_attention_heads", serde_json::json!(0), "`num_attention_heads` is 0"),
    ] {
        let message = refused(key, value);
        assert!(message.contains(named) && message.contains("hint: "), "{message}");
    }
}
