use super::*;
use crate::golden::{golden, golden_bytes};
use crate::{Dtype, Outgoing, Tensors, gguf};
use proptest::prelude::*;

/// A GGUF file with this metadata and these tensors of one row of zeros each.
fn written(metadata: &Metadata, tensors: &[&str]) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let outgoing = tensors.iter().map(|name| Outgoing::new(name, Dtype::F32, &[1, 2], vec![0; 8]));
    gguf::save(&path, metadata, outgoing).unwrap();
    Gguf::parse(Path::new("m.gguf"), crate::golden::backing(&fs_err::read(&path).unwrap())).unwrap()
}

fn metadata_of(config: &Value) -> Result<(Architecture, Metadata), FilesError> {
    to_gguf(Path::new("config.json"), config)
}

fn llama() -> Value {
    json!({
        "model_type": "llama", "max_position_embeddings": 8192, "hidden_size": 576, "num_hidden_layers": 30,
        "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3, "rope_theta": 100_000,
        "rms_norm_eps": 1e-5, "vocab_size": 49152, "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 2,
        "sliding_window": null,
    })
}

#[test]
fn a_llamas_settings_become_these_keys() {
    let (architecture, metadata) = metadata_of(&llama()).unwrap();
    assert_eq!(architecture, Architecture::Llama);
    let lines: Vec<String> = metadata.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    general.architecture = "llama"
    llama.context_length = 8192
    llama.embedding_length = 576
    llama.block_count = 30
    llama.feed_forward_length = 1536
    llama.attention.head_count = 9
    llama.attention.head_count_kv = 3
    llama.attention.key_length = 64
    llama.rope.freq_base = 100000
    llama.attention.layer_norm_rms_epsilon = 0.00001
    llama.vocab_size = 49152
    tokenizer.ggml.bos_token_id = 1
    tokenizer.ggml.padding_token_id = 2
    llama.attention.value_length = 64
    llama.rope.dimension_count = 64
    "#);
}

#[test]
fn every_architectures_settings_come_back() {
    let gpt2 = json!({
        "model_type": "gpt2", "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": 3072,
        "layer_norm_epsilon": 1e-5, "vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256,
    });
    let with = |base: &Value, changes: &Value| {
        let mut config = base.clone();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    let llama = with(&llama(), &json!({ "head_dim": 64, "eos_token_id": 2 }));
    let scaled = json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "attention_factor": 1.5,
    });
    for config in [
        gpt2,
        with(&llama, &json!({ "rope_scaling": { "rope_type": "linear", "factor": 2.5 } })),
        with(&llama, &json!({ "model_type": "mistral", "sliding_window": 4096, "head_dim": 128 })),
        with(&llama, &json!({ "model_type": "qwen2", "rms_norm_eps": 1e-6, "rope_scaling": scaled })),
        with(&llama, &json!({ "model_type": "qwen3", "head_dim": 128 })),
    ] {
        let (_, metadata) = metadata_of(&config).unwrap();
        let back = from_gguf(&written(&metadata, &["token_embd.weight"])).unwrap();
        for (key, value) in config.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
            let same = back.get(key).is_some_and(|found| found == value || found.as_f64() == value.as_f64());
            assert!(same, "{key}: {value}, got {:?}", back.get(key));
        }
        assert_eq!(back["tie_word_embeddings"], true);
    }
}

#[test]
fn what_gguf_leaves_out_has_its_default() {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Entry::String("llama".into()));
    for (key, size) in [
        ("context_length", 64),
        ("embedding_length", 8),
        ("block_count", 1),
        ("feed_forward_length", 16),
        ("attention.head_count", 2),
    ] {
        metadata.set(&format!("llama.{key}"), Entry::U64(size));
    }
    metadata.set("llama.attention.layer_norm_rms_epsilon", Entry::F32(1e-5));
    let config = from_gguf(&written(&metadata, &["token_embd.weight", "output.weight"])).unwrap();
    assert_eq!(config["num_key_value_heads"], 2);
    assert_eq!(config["head_dim"], 4);
    assert_eq!(config["rope_theta"], 10000.0);
    assert_eq!(config["vocab_size"], 1);
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config["attention_bias"], false);
}

#[test]
fn settings_that_cannot_be_translated_are_named() {
    let message = |config: &Value| metadata_of(config).unwrap_err().to_string();
    let with = |key: &str, value: Value| {
        let mut config = llama();
        config[key] = value;
        config
    };
    insta::assert_snapshot!(message(&json!({ "model_type": "mamba" })), @r"
    config.json: `model_type` is `mamba`, expected llama, mistral, qwen2, qwen3 or gpt2
    hint: other architectures cannot be converted
    ");
    insta::assert_snapshot!(message(&with("hidden_size", json!("wide"))), @r#"
    config.json: key `hidden_size` is "wide", expected an integer of at least 0, below 2^32
    hint: correct it, or take the file from where the model comes from again
    "#);
    insta::assert_snapshot!(message(&with("rms_norm_eps", Value::Null)), @r"
    config.json: key `rms_norm_eps` is missing
    hint: the file may be for another kind of model
    ");
    insta::assert_snapshot!(message(&with("rope_scaling", json!({ "rope_type": "longrope" }))), @r"
    config.json: key `rope_scaling.rope_type` is `longrope`, expected linear, yarn or llama3
    hint: correct it, or take the file from where the model comes from again
    ");
    assert!(metadata_of(&with("vocab_size", json!(1_u64 << 32))).is_err());
    assert!(metadata_of(&with("vocab_size", json!(-1))).is_err());
    assert!(metadata_of(&json!([])).is_err() && metadata_of(&json!({})).is_err());
    let (_, mut metadata) = metadata_of(&llama()).unwrap();
    metadata.set("llama.expert_count", Entry::U32(8));
    let error = from_gguf(&written(&metadata, &["token_embd.weight"])).unwrap_err().to_string();
    insta::assert_snapshot!(error, @r"
    m.gguf: key `llama.expert_count` is 8, expected no mixture of experts
    hint: correct it, or take the file from where the model comes from again
    ");
    metadata.set("general.architecture", Entry::String("mamba".into()));
    assert!(from_gguf(&written(&metadata, &[])).unwrap_err().to_string().contains("`mamba`"));
}

#[test]
fn llama3s_factors_are_those_of_transformers() {
    let golden: Value = serde_json::from_slice(&golden_bytes("llama3_rope.json")).unwrap();
    let of = |key: &str| golden["rope"][key].as_f64().unwrap();
    let expected: Vec<f64> = golden["factors"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let found = llama3_rope_factors(
        of("rope_theta"),
        64,
        of("factor"),
        of("low_freq_factor"),
        of("high_freq_factor"),
        of("original_max_position_embeddings"),
    );
    assert_eq!(found.len(), 32);
    // Both sides round to f32; the smallest step between factors is far larger.
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) / expected - 1.0).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn llama3s_scaling_comes_back_from_its_factors() {
    let golden: Value = serde_json::from_slice(&golden_bytes("llama3_rope.json")).unwrap();
    let mut config = llama();
    config["head_dim"] = 64.into();
    config["rope_theta"] = 500_000.into();
    config["rope_scaling"] = golden["rope"].clone();
    let (_, metadata) = metadata_of(&config).unwrap();
    let factors = factors_to_gguf(Path::new("config.json"), &config).unwrap().unwrap();
    let mut gguf = written(&metadata, &["token_embd.weight"]);
    let bytes = crate::f32_bytes(Dtype::F32, &factors).unwrap();
    let bare = gguf.tensors.clone();
    gguf.tensors.insert(ROPE_FACTORS, Dtype::F32, &[32], bytes.clone()).unwrap();
    let scaling = &from_gguf(&gguf).unwrap()["rope_scaling"];
    for key in ["rope_type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"] {
        let (found, expected) = (&scaling[key], &golden["rope"][key]);
        assert!(found == expected || found.as_f64() == expected.as_f64(), "{key}: {found}");
    }
    let mut wrong = bytes;
    wrong[4 * 20..4 * 21].copy_from_slice(&2.5_f32.to_le_bytes());
    gguf.tensors = bare;
    gguf.tensors.insert(ROPE_FACTORS, Dtype::F32, &[32], wrong).unwrap();
    assert!(from_gguf(&gguf).unwrap_err().to_string().contains("not the factors"));
}

#[test]
fn a_file_without_tensors_is_refused() {
    let gguf = Gguf::load(&golden("tiny.gguf")).unwrap();
    assert!(from_gguf(&gguf).is_err());
    let empty = Gguf { metadata: gguf.metadata, tensors: Tensors::default() };
    assert!(from_gguf(&empty).is_err());
}

proptest! {
    // Each case writes and syncs a file.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sizes_come_back(sizes in prop::array::uniform8(1_u32..1_000_000), eps in 1e-9_f64..1.0) {
        let mut config = llama();
        for ((_, name, _), size) in LLAMA.iter().filter(|(.., kind)| *kind == Kind::Size).zip(sizes) {
            config[*name] = size.into();
        }
        // What a person writes has few digits.
        let eps: f64 = format!("{eps:.3e}").parse().unwrap();
        config["rms_norm_eps"] = eps.into();
        let (_, metadata) = metadata_of(&config).unwrap();
        let back = from_gguf(&written(&metadata, &["token_embd.weight"])).unwrap();
        for (_, name, _) in LLAMA {
            prop_assert_eq!(back[name].as_f64(), config[name].as_f64(), "{}", name);
        }
    }
}
