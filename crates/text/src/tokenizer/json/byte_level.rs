//! Byte-level BPE in `tokenizer.json`.

use super::super::added::AddedTokens;
use super::super::bpe::{Bpe, Merge, byte_letters};
use super::super::words::Pattern;
use super::super::{Model, Tokenizer};
use super::{Parts, is_off, parse_added, parse_pair, parse_vocab};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// The regular expressions of [`Pattern`] as `tokenizers` spells them, with the look-ahead that ours do by hand.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const ALL: [Pattern; 6] =
    [Pattern::Whole, Pattern::Gpt2, Pattern::Smollm, Pattern::Llama3, Pattern::Qwen2, Pattern::Default];

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

/// The pre-tokenizer that cuts as `pattern` does.
fn pre_tokenizer(pattern: Pattern) -> Value {
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
    match pattern {
        Pattern::Whole => byte_level(false),
        Pattern::Gpt2 => byte_level(true),
        Pattern::Smollm => sequence(vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)]),
        Pattern::Llama3 => sequence(vec![split(LLAMA3), byte_level(false)]),
        Pattern::Qwen2 => sequence(vec![split(QWEN2), byte_level(false)]),
        Pattern::Default => {
            let steps = [r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];
            sequence(steps.into_iter().map(split).chain([byte_level(false)]).collect())
        }
    }
}

/// The steps of a pre-tokenizer without the settings that change nothing for ids.
fn steps(pre_tokenizer: &Value) -> Vec<Value> {
    let steps = match pre_tokenizer["pretokenizers"].as_array() {
        Some(steps) if pre_tokenizer["type"] == "Sequence" => steps.clone(),
        _ => vec![pre_tokenizer.clone()],
    };
    let plain = steps.into_iter().map(|mut step| {
        if step["type"] == "ByteLevel" {
            step["trim_offsets"] = json!(true);
            step["use_regex"] = json!(step["use_regex"] != false);
            step["add_prefix_space"] = json!(!is_off(&step["add_prefix_space"]));
        }
        step
    });
    plain.collect()
}

pub(super) fn write(bpe: &Bpe, added: &AddedTokens) -> Parts {
    let letters = byte_letters();
    let spell = |bytes: &[u8]| -> String { bytes.iter().map(|&byte| letters[byte as usize]).collect() };
    let spell_id = |id: u32| spell(bpe.token(id).expect("a merge's tokens are in the vocabulary"));
    let tokens = bpe.tokens().iter().zip(0u32..).filter(|(token, _)| !token.is_empty());
    let mut vocab: Map<String, Value> = tokens.map(|(token, id)| (spell(token), json!(id))).collect();
    vocab.extend(added.all().into_iter().map(|(text, id, _)| (text.to_owned(), json!(id))));
    // Merges as `left right`: every release reads this form, and byte letters never hold a space.
    let merges = bpe.merges().iter().map(|merge| format!("{} {}", spell_id(merge.left), spell_id(merge.right)));
    let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": bpe.takes_whole_words(), "vocab": vocab, "merges": merges.collect::<Vec<_>>()});
    let normalizer = if bpe.composes() { json!({"type": "NFC"}) } else { Value::Null };
    Parts { normalizer, pre_tokenizer: pre_tokenizer(bpe.pattern()), decoder: byte_level(true), model }
}

/// A byte-level BPE, if `file` is one that [`Bpe`] encodes exactly as `tokenizers` would.
pub(super) fn parse(file: &Value) -> Option<Tokenizer> {
    let model = &file["model"];
    let options = ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"];
    let composes = file["normalizer"]["type"] == "NFC";
    let is_ours = (composes || file["normalizer"].is_null())
        && file["decoder"]["type"] == "ByteLevel"
        && (model["type"] == "BPE" || model["type"].is_null())
        && options.iter().all(|option| is_off(&model[option]));
    if !is_ours {
        return None;
    }
    let found = steps(&file["pre_tokenizer"]);
    let pattern = ALL.into_iter().find(|pattern| steps(&pre_tokenizer(*pattern)) == found)?;
    let added = parse_added(file)?;
    let (vocab, n_ids) = parse_vocab(file, &added)?;
    let bytes_of: HashMap<char, u8> = byte_letters().into_iter().zip(0..=255).collect();
    let mut tokens: Vec<Box<[u8]>> = vec![Box::default(); n_ids];
    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(vocab.len());
    for (token, id) in vocab {
        let bytes: Option<Box<[u8]>> = token.chars().map(|letter| bytes_of.get(&letter).copied()).collect();
        tokens[id as usize] = bytes?;
        ids.insert(token, id);
    }
    // The last ids may be added tokens alone, which are no tokens of the model.
    let n_tokens = tokens.iter().rposition(|token| !token.is_empty()).map_or(0, |last| last + 1);
    tokens.truncate(n_tokens);
    let merges = model["merges"].as_array()?.iter().map(|merge| {
        let (left, right) = parse_pair(merge)?;
        let merged = *ids.get([left, right].concat().as_str())?;
        Some(Merge { left: *ids.get(left)?, right: *ids.get(right)?, merged })
    });
    let bpe = Bpe::new(tokens, merges.collect::<Option<Vec<Merge>>>()?, pattern).ok()?;
    let bpe = if is_off(&model["ignore_merges"]) { bpe } else { bpe.with_whole_words() };
    let bpe = if composes { bpe.with_nfc() } else { bpe };
    Some(Tokenizer::new(Model::Bpe(bpe.into()), AddedTokens::new(added), n_tokens))
}
