//! Holds a real model to what transformers made of it: `same_as_transformers MODEL.gguf GOLDEN.json`, for `.ci/real-data`.
//!
//! `testdata/real/make_smollm2.py` says what the golden file holds. Prints a line for each check; exit code 1 if one fails.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use burn::tensor::Device;
use cavy_generate::{GenerateSettings, Sampling, generate};
use cavy_model::{Model, Pass, Source, Weights};
use cavy_ops::Segments;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

type Failure = Box<dyn std::error::Error>;

fn integers(value: &Value) -> Vec<u32> {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|id| id as u32).collect()
}

fn reals(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// Largest gap to what the file keeps of each position: the logarithm of the sum of exponentials, the largest logits, and
/// those that a formula picks. NaN if any is NaN.
fn logits_gap(model: &Model, golden: &Value) -> (usize, f64) {
    let ids = integers(&golden["ids"]);
    let segments = Arc::new(Segments::uniform(1, ids.len()));
    let positions: Vec<usize> = (0..ids.len()).collect();
    let logits = model.logits(&Pass::new(ids.as_slice().into(), segments, None), &positions);
    let vocabulary = logits.len() / ids.len();
    let mut worst: f64 = 0.0;
    let mut checked = 0;
    let mut compare = |found: f64, expected: f64| {
        let gap = (found - expected).abs();
        checked += 1;
        if gap.is_nan() || gap > worst {
            worst = gap;
        }
    };
    for (position, (row, expected)) in
        logits.chunks_exact(vocabulary).zip(golden["logits"].as_array().into_iter().flatten()).enumerate()
    {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - largest).exp()).sum();
        compare(sum.ln() + f64::from(largest), expected["log_sum_exp"].as_f64().unwrap_or(f64::NAN));
        let top = integers(&expected["top_ids"]).into_iter().map(|id| id as usize).zip(reals(&expected["top"]));
        let picked = (0..16).map(|k| (position * 7919 + k * 104_729 + 13) % vocabulary);
        for (id, value) in top.chain(picked.zip(reals(&expected["sampled"]))) {
            compare(f64::from(row[id]), value);
        }
    }
    (checked, worst)
}

fn check(model: &Path, golden: &Path) -> Result<bool, Failure> {
    let golden: Value = serde_json::from_slice(&fs_err::read(golden)?)?;
    let model = Model::open(&Source::open(model)?, Weights::F32, &Device::flex())?;
    let (checked, gap) = logits_gap(&model, &golden);
    let positions = integers(&golden["ids"]).len();
    let mut good = checked == positions * 25 && positions == 200 && gap <= 2e-3;
    println!(
        "logits: largest gap {gap:.1e} to transformers over {checked} numbers of {positions} positions, at most 2e-3"
    );
    for case in golden["greedy"].as_array().into_iter().flatten() {
        let (prompt, expected) = (integers(&case["ids"]), integers(&case["tokens"]));
        let settings = GenerateSettings {
            max_tokens: 64,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            stop_tokens: integers(&golden["eos"]),
            ..GenerateSettings::default()
        };
        let found = generate(&model, &[prompt], &settings, &mut |_, _, _| false).remove(0).remove(0).tokens;
        let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        good &= found == expected;
        println!("greedy: {} of {} tokens are transformers' after {}", same, expected.len(), case["prompt"]);
    }
    Ok(good)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, golden] = arguments.as_slice() else {
        println!("usage: same_as_transformers MODEL GOLDEN.json");
        return ExitCode::from(2);
    };
    match check(Path::new(model), Path::new(golden)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
