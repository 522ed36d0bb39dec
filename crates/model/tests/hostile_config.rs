//! Whatever a `config.json` says, it is read or refused: no panic, and no memory for a model that its file does not hold.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod golden;
#[path = "golden/variants.rs"]
mod variants;

use burn::tensor::Device;
use cavy_model::{KvStorage, Model, ModelConfig};
use golden::{golden_path, model};
use serde_json::{Value, json};
use variants::VARIANTS;

/// The largest size that is valid alone.
const MOST: usize = 1 << 20;

fn fields(variant: &str) -> Value {
    serde_json::from_slice(&fs_err::read(golden_path(&format!("{variant}.json"))).unwrap()).unwrap()
}

/// What is said of a config and of sizes that follow from it, if it is not refused.
fn read(fields: Value) {
    if let Ok(config) = ModelConfig::from_json("config.json".as_ref(), fields) {
        let shape = config.kv_shape(KvStorage::F32);
        assert!(config.num_parameters() > 0 && shape.layers > 0 && config.context_length() > 0);
        assert!(config.training_flops(1, 1) > 0.0);
    }
}

#[test]
fn any_value_of_any_key_is_read_or_refused() {
    let values = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(3),
        json!(MOST),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(-0.5),
        json!("x"),
        json!([]),
        json!([1, [2, {"x": null}]]),
        json!({"rope_type": "yarn", "factor": 0.0, "original_max_position_embeddings": 0}),
        json!({"rope_type": "llama3", "factor": 1e-300, "low_freq_factor": 0.0, "high_freq_factor": 0.0}),
        json!({"rope_type": "linear", "factor": -1.0, "rope_theta": 0.0}),
    ];
    let gpt2 =
        json!({"model_type": "gpt2", "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64});
    for fields in VARIANTS.map(fields).into_iter().chain([gpt2]) {
        let keys: Vec<String> = fields.as_object().unwrap().keys().cloned().collect();
        for key in &keys {
            for value in &values {
                let mut changed = fields.clone();
                changed[key] = value.clone();
                read(changed);
            }
        }
        // All sizes at once as large as each may be.
        let mut changed = fields.clone();
        for key in keys {
            if fields[&key].is_u64() {
                changed[key] = json!(MOST);
            }
        }
        read(changed);
    }
}

#[test]
fn a_config_of_more_than_its_file_holds_is_refused_before_memory_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    model("llama", &Device::flex()).save(folder.path()).unwrap();
    let path = folder.path().join("config.json");
    let fields: serde_json::Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    let refused = |changes: &[(&str, usize)]| {
        let mut fields = fields.clone();
        changes.iter().for_each(|&(key, size)| fields[key] = size.into());
        fs_err::write(&path, fields.to_string()).unwrap();
        Model::load(folder.path(), &Device::flex()).unwrap_err().to_string()
    };
    // Each would take gigabytes and more, the last more than can be counted.
    for changes in [
        &[("num_hidden_layers", MOST)][..],
        &[("vocab_size", MOST), ("hidden_size", 1 << 14)],
        &[("num_hidden_layers", MOST), ("hidden_size", MOST), ("head_dim", MOST), ("num_attention_heads", MOST)],
    ] {
        let message = refused(changes);
        assert!(message.contains("parameters, the files hold") && message.contains("hint: "), "{message}");
    }
    let message = refused(&[("vocab_size", 62)]);
    assert!(message.contains("[61, 32]") && message.contains("[62, 32]"), "{message}");
}
