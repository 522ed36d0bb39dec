//! Beam searches find the texts and scores that transformers finds: widths, length penalties, ways of stopping and ends of
//! text. `testdata/make_beam.py` made the numbers.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

#[path = "../../model/tests/golden/mod.rs"]
mod golden;

use burn::tensor::Device;
use cavy_generate::{BeamSettings, EarlyStopping, beam_search};
use serde_json::Value;

fn integers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

#[test]
fn beams_are_those_of_transformers() {
    let text = fs_err::read_to_string(golden::golden_path("../beam.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 216);
    let models = ["llama", "qwen3"].map(|name| (name, golden::model(name, &Device::flex())));
    let mut wrong = Vec::new();
    for case in &cases {
        let (_, model) = models.iter().find(|(name, _)| case["model"] == *name).unwrap();
        let num_beams = case["num_beams"].as_u64().unwrap() as usize;
        let settings = BeamSettings {
            num_beams,
            num_return_sequences: num_beams,
            max_tokens: case["max_new_tokens"].as_u64().unwrap() as usize,
            length_penalty: case["length_penalty"].as_f64().unwrap(),
            early_stopping: match &case["early_stopping"] {
                Value::Bool(true) => EarlyStopping::True,
                Value::Bool(false) => EarlyStopping::False,
                _ => EarlyStopping::Never,
            },
            stop_tokens: integers(&case["stop"]),
            ..BeamSettings::default()
        };
        let found = beam_search(model, &integers(&case["prompt"]), &settings);
        let expected = case["texts"].as_array().unwrap();
        let same = found.len() == expected.len()
            && found.iter().zip(expected).all(|(found, expected)| {
                let gap = (found.score - expected["score"].as_f64().unwrap()).abs();
                found.tokens == integers(&expected["tokens"]) && gap < 2e-5 * (1.0 + found.score.abs())
            });
        if !same {
            wrong.push(format!("{settings:?}\n  found {found:?}\n  expected {}", case["texts"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong[..wrong.len().min(3)].join("\n"));
}
