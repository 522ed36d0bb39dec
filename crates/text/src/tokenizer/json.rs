//! `tokenizer.json` in and out.

mod byte_level;
mod sentencepiece;

use super::added::{AddedTokens, Kind};
use super::{Model, Tokenizer};
use crate::TextError;
use serde_json::{Map, Value, json};

/// Cuts text into single characters, in the regular expressions of every release of `tokenizers`.
const ANY_CHARACTER: &str = r"[\s\S]";

/// What a kind of model writes into the file.
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
}

/// The file of `tokenizer`, in the form that Hugging Face's `tokenizers` reads.
pub(super) fn write(tokenizer: &Tokenizer) -> Result<String, TextError> {
    let parts = match &tokenizer.model {
        Model::Foreign { special, .. } => {
            return special.to_string(true).map_err(|error| TextError::Encode { reason: error.to_string() });
        }
        Model::Bpe(bpe) => byte_level::write(bpe, &tokenizer.added),
        Model::Spm(spm) => sentencepiece::write(spm, &tokenizer.added)?,
        Model::Chars { characters, .. } => write_chars(characters),
    };
    let added = tokenizer.added.all().into_iter().filter(|(_, _, kind)| *kind != Kind::Unused);
    let added = added.map(|(content, id, kind)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": kind == Kind::Special})
    });
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": parts.normalizer, "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": tokenizer.post_processor, "decoder": parts.decoder, "model": parts.model,
    });
    serde_json::to_string_pretty(&file).map_err(|error| TextError::Encode { reason: error.to_string() })
}

fn write_chars(characters: &[char]) -> Parts {
    let vocab: Map<String, Value> = characters.iter().zip(0..).map(|(c, id)| (c.to_string(), json!(id))).collect();
    Parts {
        normalizer: Value::Null,
        pre_tokenizer: json!({"type": "Split", "pattern": {"Regex": ANY_CHARACTER}, "behavior": "Isolated",
            "invert": false}),
        decoder: json!({"type": "Fuse"}),
        model: json!({"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}),
    }
}

/// Reads a tokenizer: as one of this crate's models if it is one of them, else through `tokenizers`.
pub(super) fn parse(bytes: &[u8]) -> Result<Tokenizer, String> {
    let file: Value = serde_json::from_slice(bytes).map_err(|error| format!("not valid JSON: {error}"))?;
    let ours = byte_level::parse(&file).or_else(|| sentencepiece::parse(&file)).or_else(|| parse_chars(&file));
    if let Some(mut tokenizer) = ours {
        tokenizer.post_processor = file["post_processor"].clone();
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
    let added = AddedTokens::new(added.map(|(id, token)| (token.content, id, Kind::Special)));
    let mut tokenizer =
        Tokenizer::new(Model::Foreign { special: special.into(), ordinary: ordinary.into() }, added, model_size);
    tokenizer.post_processor = file["post_processor"].clone();
    Ok(tokenizer)
}

/// What `tokenizers` puts around a text: `bos` before it.
pub(super) fn begin_with(bos: u32, text: &str) -> Value {
    let bos_piece = json!({"SpecialToken": {"id": text, "type_id": 0}});
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    json!({"type": "TemplateProcessing", "single": [bos_piece, sequence("A", 0)],
        "pair": [bos_piece, sequence("A", 0), bos_piece, sequence("B", 1)],
        "special_tokens": {text: {"id": text, "ids": [bos], "tokens": [text]}}})
}

/// The text of the token that a post-processor puts before a text.
pub(super) fn first_added(post_processor: &Value) -> Option<&str> {
    match post_processor["type"].as_str()? {
        "TemplateProcessing" => post_processor["single"][0]["SpecialToken"]["id"].as_str(),
        "Sequence" => post_processor["processors"].as_array()?.iter().find_map(first_added),
        _ => None,
    }
}

/// Whether `value` is absent, null, false or an empty string.
fn is_off(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false)) || value.as_str() == Some("")
}

fn parse_id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// The added tokens of `file`; `None` if one is not plain, that is, found in the text exactly as it is written.
fn parse_added(file: &Value) -> Option<Vec<(String, u32, Kind)>> {
    let mut added = Vec::new();
    for token in file["added_tokens"].as_array().unwrap_or(&Vec::new()) {
        let is_plain = ["single_word", "lstrip", "rstrip"].iter().all(|option| is_off(&token[option]));
        let is_found_as_written = file["normalizer"].is_null() || is_off(&token["normalized"]);
        let content = token["content"].as_str().filter(|content| !content.is_empty())?;
        if !is_plain || !is_found_as_written {
            return None;
        }
        let kind = if token["special"] == true { Kind::Special } else { Kind::UserDefined };
        added.push((content.to_owned(), parse_id(&token["id"])?, kind));
    }
    Some(added)
}

/// The tokens of a model's `vocab` and the number of ids, without those that are added; `None` if an added token has
/// another id there, or an id is far beyond the number of tokens.
fn parse_vocab<'a>(file: &'a Value, added: &[(String, u32, Kind)]) -> Option<(Vec<(&'a str, u32)>, usize)> {
    let vocab = file["model"]["vocab"].as_object()?;
    let added: std::collections::HashMap<&str, u32> = added.iter().map(|(text, id, _)| (text.as_str(), *id)).collect();
    let mut tokens = Vec::with_capacity(vocab.len());
    let mut n_ids = 0;
    for (token, id) in vocab {
        let id = parse_id(id)?;
        match added.get(token.as_str()) {
            Some(special) if *special != id => return None,
            Some(_) => {}
            None => tokens.push((token.as_str(), id)),
        }
        n_ids = n_ids.max(id as usize + 1);
    }
    let holes_are_few = n_ids <= 2 * (vocab.len() + added.len()) + 1024;
    holes_are_few.then_some((tokens, n_ids))
}

/// The two parts of a merge, written as one string or as two.
fn parse_pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(pair) => pair.split_once(' '),
        Value::Array(pair) if pair.len() == 2 => Some((pair[0].as_str()?, pair[1].as_str()?)),
        _ => None,
    }
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
