//! The verbs of inference on a model that is trained on the spot: generate, eval, convert, inspect.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn cavy(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cavy"));
    command.args(arguments.split_whitespace()).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command.output().unwrap()
}

/// What a command that must not fail prints.
fn said(folder: &Path, arguments: &str) -> String {
    let output = cavy(folder, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A GPT-2 of some thousand parameters in `run/`, with a tokenizer of its own.
fn trained(folder: &Path) {
    let settings = "pretrain --data builtin:stories:1 --tokenizer bpe:300 --arch custom --hidden-size 64 \
        --num-hidden-layers 2 --num-attention-heads 2 --context-length 32 --batch-size 4 --max-steps 30 --out run \
        --peak-lr 3e-3 --sample-tokens 0 --eval-iter 1";
    said(folder, settings);
}

#[test]
fn a_model_of_ours_is_continued_measured_and_converted_without_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    let greedy = |model: &str| {
        said(folder, &format!("generate --model {model} --prompt The --max-new-tokens 12 --temperature 0 --json"))
    };
    let expected: Value = serde_json::from_str(&greedy("run")).unwrap();
    assert_eq!(expected["tokens"].as_array().unwrap().len(), 12);
    assert_eq!(expected["finish_reason"], "length");
    // Without the cache, in a batch, and past the context of 32 tokens.
    let tokens = |text: String| serde_json::from_str::<Value>(&text).unwrap()["tokens"].clone();
    let base = "generate --model run --prompt The --max-new-tokens 40 --temperature 0 --json";
    assert_eq!(tokens(said(folder, base)), tokens(said(folder, &format!("{base} --no-cache"))));
    fs_err::write(folder.join("prompts.jsonl"), "{\"prompt\": \"The\"}\n{\"prompt\": \"A cat sat\"}\n").unwrap();
    let many = said(folder, "generate --model run --prompts prompts.jsonl --max-new-tokens 12 --temperature 0");
    assert_eq!(tokens(many.lines().next().unwrap().to_owned()), expected["tokens"]);
    assert_eq!(many.lines().count(), 2);
    let beams: Value = serde_json::from_str(&said(folder, &format!("{base} --num-beams 3"))).unwrap();
    assert!(beams["score"].as_f64().unwrap() < 0.0);

    said(folder, "convert --model run --out model.gguf");
    assert_eq!(tokens(greedy("model.gguf")), expected["tokens"]);
    said(folder, "convert --model model.gguf --out back");
    let bytes = |file: &str| fs_err::read(folder.join(file)).unwrap();
    assert!(bytes("back/model.safetensors") == bytes("run/model/model.safetensors"), "the weights came back changed");
    let again = cavy(folder, "convert --model run --out model.gguf");
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));

    let perplexity = |model: &str| {
        fs_err::write(folder.join("text.txt"), "The cat sat on the mat. The dog ran to the cat. ".repeat(4)).unwrap();
        let json = said(folder, &format!("eval perplexity --model {model} --data text.txt --json"));
        let json: Value = serde_json::from_str(&json).unwrap();
        json["perplexity"].as_f64().unwrap()
    };
    assert!((perplexity("run") - perplexity("model.gguf")).abs() < 1e-3);
    let apart = cavy(folder, "eval perplexity --model run --data text.txt --context 16 --stride 16");
    assert_eq!(apart.status.code(), Some(2), "{}", String::from_utf8_lossy(&apart.stderr));
    let inspected: Value = serde_json::from_str(&said(folder, "inspect model.gguf --json")).unwrap();
    assert_eq!(inspected["format"], "Gguf");
    assert!(inspected["parameters"].as_u64().unwrap() > 10_000);
}

#[test]
fn half_precision_comes_back_bitwise_and_quantized_layers_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    trained(folder);
    let bytes = |name: &str| fs_err::read(folder.join(name).join("model.safetensors")).unwrap();
    for form in ["bf16", "f16"] {
        said(folder, &format!("convert --model run --out {form} --quantize {form}"));
        said(folder, &format!("convert --model {form} --out {form}_again"));
        assert!(bytes(form) == bytes(&format!("{form}_again")) && bytes(form) != bytes("run/model"), "{form}");
    }
    let logprobs = |model: &str, dtype: &str| -> Vec<f64> {
        let text = said(
            folder,
            &format!(
                "generate --model {model} --dtype {dtype} --prompt The --max-new-tokens 12 --temperature 0 --json"
            ),
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        value["raw_logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let exact = logprobs("run", "f32");
    for (form, near) in [("q8_0", 0.05), ("q4_1", 1.0)] {
        // GPT-2's layers lie in GGUF the other way round than in a Hugging Face folder, and blocks cannot be turned.
        said(folder, &format!("convert --model run --out {form}.gguf --quantize {form}"));
        said(folder, &format!("convert --model {form}.gguf --out {form}"));
        said(folder, &format!("convert --model {form}.gguf --out {form}_again.gguf"));
        let read = |name: &str| fs_err::read(folder.join(name)).unwrap();
        let tensors = |name: &str| read(name).split_off(read(name).len() / 2);
        assert!(tensors(&format!("{form}.gguf")) == tensors(&format!("{form}_again.gguf")), "{form}");
        let dequantized = logprobs(&format!("{form}.gguf"), "f32");
        assert_eq!(logprobs(form, "f32"), dequantized, "{form}: as a folder of f32");
        let gap = |other: &[f64]| exact.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let (first, packed) = (gap(&dequantized[..1]), logprobs(&format!("{form}.gguf"), "auto"));
        assert!(first < near && gap(&packed[..1]) < near, "{form}: {exact:?}, {dequantized:?}, {packed:?}");
    }
}

#[test]
fn what_cannot_be_opened_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs_err::write(folder.join("noise.gguf"), b"GGUF\x03\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
    fs_err::create_dir(folder.join("empty")).unwrap();
    for (arguments, code, named) in [
        ("generate --model nowhere --prompt x", 1, "nowhere"),
        ("generate --model noise.gguf --prompt x", 1, "noise.gguf"),
        ("generate --model empty --prompt x", 1, "config.json"),
        ("generate --model hf:name --prompt x", 2, "hf:org/name"),
        ("generate --model noise.gguf --logit-bias x", 2, "logit-bias"),
        ("inspect nowhere", 1, "nowhere"),
    ] {
        let output = cavy(folder, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(named) && !text.contains("panicked"), "{text}");
    }
}
