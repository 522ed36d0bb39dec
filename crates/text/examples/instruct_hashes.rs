//! Prints hashes of the ids and masks of the first 200 items of real data, to compare with those that TRL makes: see
//! `testdata/text/make_instruct.py`, which wrote `testdata/text/instruct_smollm2.json`. Fails where one differs.
//!
//!   cargo run --release -p cavy-text --example instruct_hashes -- SMOLLM2 instruction-data.json instruction-data-with-preference.json
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use cavy_text::instruct::{self, FormatSettings, Source};
use cavy_text::{SpecialTokens, Tokenizer, preference};
use serde_json::Value;

const GOLDEN: &str = include_str!("../../../testdata/text/instruct_smollm2.json");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, instructions, preferences] = &arguments[..] else {
        return Err("expected a model's folder, instructions and preferences".into());
    };
    let json = |name: &str| -> Result<Value, Box<dyn std::error::Error>> {
        Ok(serde_json::from_str(&fs_err::read_to_string(format!("{model}/{name}"))?)?)
    };
    let tokenizer = Tokenizer::from_file(format!("{model}/tokenizer.json"))?;
    let special = SpecialTokens::read(&tokenizer, &json("tokenizer_config.json")?, &Value::Null, &json("config.json")?);
    let settings = FormatSettings::default();
    let loaded = instruct::load(&[Source::new(instructions)], &settings, &tokenizer, &special, None)?;
    println!("{}", loaded.report);
    let tuned = loaded.examples.iter().map(|example| {
        fnv(example.ids.iter().copied().chain(example.trained.iter().map(|&trained| u32::from(trained))))
    });
    compare("sft", tuned)?;
    let sources = [Source::new(preferences)];
    let loaded =
        preference::load(&sources, &settings, &preference::PairSettings::default(), &tokenizer, &special, None)?;
    println!("{}", loaded.report);
    let pairs = loaded.pairs.iter().map(|pair| {
        let prompt = std::iter::once(pair.prompt.len() as u32).chain(pair.prompt.iter().copied());
        fnv(prompt.chain(pair.chosen.iter().copied()).chain(pair.rejected.iter().copied()))
    });
    compare("dpo", pairs)
}

fn compare(name: &str, found: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let golden: Value = serde_json::from_str(GOLDEN)?;
    let golden = golden[name].as_array().ok_or("the golden file has no such list")?;
    let differing: Vec<usize> = found
        .zip(golden)
        .enumerate()
        .filter(|(_, (found, golden))| found != *golden)
        .map(|(number, _)| number)
        .collect();
    println!("{name}: {} of {} items as TRL makes them", golden.len() - differing.len(), golden.len());
    if differing.is_empty() { Ok(()) } else { Err(format!("{name}: items {differing:?} differ").into()) }
}

/// FNV-1a over the bytes of the numbers.
fn fnv(numbers: impl Iterator<Item = u32>) -> String {
    let hash = numbers
        .flat_map(u32::to_le_bytes)
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    format!("{hash:016x}")
}
