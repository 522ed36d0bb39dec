//! `tokenizer.json` in and out.

use super::bpe::{Bpe, Merge, byte_letters};
use super::{Model, Tokenizer};
use crate::TextError;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Cuts text into single characters, in the regular expressions of every release of `tokenizers`.
const ANY_CHARACTER: &str = r"[\s\S]";

/// The file of `tokenizer`, in the form that Hugging Face's `tokenizers` reads.
pub(super) fn write(tokenizer: &Tokenizer) -> Result<String, TextError> {
    let unwritable = |reason: String| TextError::Encode { reason };
    let (pre_tokenizer, decoder, model) = match &tokenizer.model {
        Model::Foreign { special, .. } => {
            return special.to_string(true).map_err(|error| unwritable(error.to_string()));
        }
        Model::Bpe(bpe) => {
            let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
            (byte_level(bpe.cut_words()), byte_level(true), write_bpe(bpe, &tokenizer.specials))
        }
        Model::Chars { characters, .. } => {
            let vocab: Map<String, Value> =
                characters.iter().zip(0..).map(|(c, id)| (c.to_string(), json!(id))).collect();
            (
                json!({"type": "Split", "pattern": {"Regex": ANY_CHARACTER}, "behavior": "Isolated", "invert": false}),
                json!({"type": "Fuse"}),
                json!({"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}),
            )
        }
    };
    let mut specials: Vec<_> = tokenizer.specials.iter().collect();
    specials.sort_by_key(|(_, id)| *id);
    let added = |(content, id): &(String, u32)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": specials.into_iter().map(added).collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
    });
    serde_json::to_string_pretty(&file).map_err(|error| unwritable(error.to_string()))
}

fn write_bpe(bpe: &Bpe, specials: &[(String, u32)]) -> Value {
    let letters = byte_letters();
    let spell = |id: u32| -> String { bpe.tokens()[id as usize].iter().map(|&byte| letters[byte as usize]).collect() };
    let mut vocab: Map<String, Value> = (0..bpe.tokens().len() as u32).map(|id| (spell(id), json!(id))).collect();
    vocab.extend(specials.iter().map(|(special, id)| (special.clone(), json!(id))));
    // Merges as `left right`: every release reads this form, and byte letters never hold a space.
    let merges: Vec<String> =
        bpe.merges().iter().map(|merge| format!("{} {}", spell(merge.left), spell(merge.right))).collect();
    json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": vocab, "merges": merges})
}

/// Reads a tokenizer: as one of this crate's models if it is one of them, else through `tokenizers`.
pub(super) fn parse(bytes: &[u8]) -> Result<Tokenizer, String> {
    let file: Value = serde_json::from_slice(bytes).map_err(|error| format!("not valid JSON: {error}"))?;
    if let Some(tokenizer) = parse_bpe(&file).or_else(|| parse_chars(&file)) {
        return Ok(tokenizer);
    }
    let mut special = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| error.to_string())?;
    // A stored truncation or padding would silently drop or add tokens.
    special.with_padding(None);
    special.with_truncation(None).map_err(|error| error.to_string())?;
    let mut ordinary = special.clone();
    ordinary.set_encode_special_tokens(true);
    let model_size = special.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
    let added = special.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special);
    let specials = added.map(|(id, token)| (token.content, id)).collect();
    Ok(Tokenizer::new(Model::Foreign { special: special.into(), ordinary: ordinary.into() }, specials, model_size))
}

/// Whether `value` is absent, null, false or an empty string.
fn is_off(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false)) || value.as_str() == Some("")
}

/// The special tokens of `file`; `None` if an added token is not a plain special one.
fn parse_specials(file: &Value) -> Option<Vec<(String, u32)>> {
    let mut specials = Vec::new();
    for token in file["added_tokens"].as_array().unwrap_or(&Vec::new()) {
        let plain = ["single_word", "lstrip", "rstrip"].iter().all(|option| is_off(&token[option]));
        let content = token["content"].as_str().filter(|content| !content.is_empty())?;
        if !plain || token["special"] != true {
            return None;
        }
        specials.push((content.to_owned(), parse_id(&token["id"])?));
    }
    Some(specials)
}

fn parse_id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// A byte-level BPE, if `file` is one that [`Bpe`] encodes exactly as `tokenizers` would.
fn parse_bpe(file: &Value) -> Option<Tokenizer> {
    let (model, pre_tokenizer) = (&file["model"], &file["pre_tokenizer"]);
    let options =
        ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"];
    let is_ours = file["normalizer"].is_null()
        && pre_tokenizer["type"] == "ByteLevel"
        && is_off(&pre_tokenizer["add_prefix_space"])
        && file["decoder"]["type"] == "ByteLevel"
        && (model["type"] == "BPE" || model["type"].is_null())
        && options.iter().all(|option| is_off(&model[option]));
    if !is_ours {
        return None;
    }
    let specials = parse_specials(file)?;
    let vocab = model["vocab"].as_object()?;
    let bytes_of: HashMap<char, u8> = byte_letters().into_iter().zip(0..=255).collect();
    let n_tokens = vocab.keys().filter(|token| !specials.iter().any(|(special, _)| special == *token)).count();
    let mut tokens: Vec<Box<[u8]>> = vec![Box::default(); n_tokens];
    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(n_tokens);
    for (token, id) in vocab {
        let id = parse_id(id)?;
        if let Some((_, special)) = specials.iter().find(|(special, _)| special == token) {
            if *special != id {
                return None;
            }
            continue;
        }
        // Ids with a hole, as from specials in front, go through `tokenizers`.
        let bytes: Option<Box<[u8]>> = token.chars().map(|letter| bytes_of.get(&letter).copied()).collect();
        *tokens.get_mut(id as usize)? = bytes?;
        ids.insert(token, id);
    }
    if tokens.iter().any(|token| token.is_empty()) || specials.iter().any(|(_, id)| (*id as usize) < n_tokens) {
        return None;
    }
    let merges: Option<Vec<Merge>> = model["merges"].as_array()?.iter().map(|merge| parse_merge(merge, &ids)).collect();
    let cut_words = pre_tokenizer["use_regex"] != false;
    Some(Tokenizer::new(Model::Bpe(Bpe::new(tokens, merges?, cut_words)?.into()), specials, n_tokens))
}

fn parse_merge(merge: &Value, ids: &HashMap<&str, u32>) -> Option<Merge> {
    let (left, right) = match merge {
        Value::String(pair) => pair.split_once(' ')?,
        Value::Array(pair) if pair.len() == 2 => (pair[0].as_str()?, pair[1].as_str()?),
        _ => return None,
    };
    let merged = *ids.get(format!("{left}{right}").as_str())?;
    Some(Merge { left: *ids.get(left)?, right: *ids.get(right)?, merged })
}

/// A character vocabulary as [`write`] writes it.
fn parse_chars(file: &Value) -> Option<Tokenizer> {
    let is_ours = file["model"]["type"] == "WordLevel"
        && file["normalizer"].is_null()
        && file["pre_tokenizer"]["pattern"]["Regex"] == ANY_CHARACTER
        && file["pre_tokenizer"]["behavior"] == "Isolated"
        && file["decoder"]["type"] == "Fuse"
        && file["added_tokens"].as_array().is_none_or(Vec::is_empty);
    if !is_ours {
        return None;
    }
    let vocab = file["model"]["vocab"].as_object()?;
    let mut characters = vec![None; vocab.len()];
    for (token, id) in vocab {
        let mut letters = token.chars();
        let (letter, rest) = (letters.next()?, letters.next());
        if rest.is_some() {
            return None;
        }
        *characters.get_mut(parse_id(id)? as usize)? = Some(letter);
    }
    Some(Tokenizer::from_characters(characters.into_iter().collect::<Option<Vec<char>>>()?))
}
