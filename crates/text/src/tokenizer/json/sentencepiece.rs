//! SentencePiece's BPE in `tokenizer.json`: `BPE` with bytes for unknown characters, as transformers converts it.

use super::super::added::AddedTokens;
use super::super::gguf::parse_byte;
use super::super::spm::{Piece, PieceKind, SPACE, Spm};
use super::super::{Model, Tokenizer};
use super::{Parts, is_off, parse_added, parse_pair, parse_vocab};
use crate::TextError;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

fn normalizer(space_prefix: bool) -> Value {
    let space = SPACE.to_string();
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": space});
    if space_prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": space}, replace]})
    } else {
        replace
    }
}

fn decoder(space_prefix: bool) -> Value {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE.to_string()}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space_prefix {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

/// Every way in which two pieces make a third: for each piece of several characters, best score first.
///
/// Source: `generate_merges` in `convert_slow_tokenizer.py` of <https://github.com/huggingface/transformers>.
fn merges(spm: &Spm) -> Vec<(&str, &str)> {
    let mut made: Vec<&Piece> = spm.pieces().iter().filter(|piece| piece.kind == PieceKind::Normal).collect();
    made.sort_by(|a, b| b.score.total_cmp(&a.score));
    let pairs = made.into_iter().flat_map(|piece| {
        let places = piece.text.char_indices().skip(1).map(|(at, _)| piece.text.split_at(at));
        places.filter(|(left, right)| spm.id(left).is_some() && spm.id(right).is_some())
    });
    pairs.collect()
}

/// # Errors
/// Pieces that merges alone cannot tell apart: several of one score, or of one text.
pub(super) fn write(spm: &Spm, added: &AddedTokens) -> Result<Parts, TextError> {
    let merges = merges(spm);
    let mut scores = HashMap::new();
    for (left, right) in &merges {
        let text = [*left, *right].concat();
        let score = spm.id(&text).map(|id| spm.pieces()[id as usize].score.to_bits());
        let other = scores.entry(score).or_insert_with(|| text.clone());
        if *other != text {
            let reason = format!("the pieces {other:?} and {text:?} have one score, which a list of merges cannot say");
            return Err(TextError::Encode { reason });
        }
    }
    let mut vocab: Map<String, Value> = Map::new();
    let pieces = spm.pieces().iter().zip(0u32..).filter(|(_, id)| added.text(*id).is_none());
    let texts =
        pieces.map(|(piece, id)| (&*piece.text, id)).chain(added.all().into_iter().map(|(text, id, _)| (text, id)));
    for (text, id) in texts {
        if let Some(other) = vocab.insert(text.to_owned(), json!(id)) {
            let reason = format!("the tokens {other} and {id} are both {text:?}, which `tokenizer.json` cannot say");
            return Err(TextError::Encode { reason });
        }
    }
    let unknown = spm.unknown().and_then(|id| added.text(id));
    let merges: Vec<Value> = merges.into_iter().map(|(left, right)| json!([left, right])).collect();
    let model = json!({"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": vocab, "merges": merges});
    Ok(Parts {
        normalizer: normalizer(spm.space_prefix()),
        pre_tokenizer: Value::Null,
        decoder: decoder(spm.space_prefix()),
        model,
    })
}

/// A vocabulary of SentencePiece's kind, if `file` is one that [`Spm`] encodes as `tokenizers` would: its list of merges
/// is that of scores which fall from piece to piece.
pub(super) fn parse(file: &Value) -> Option<Tokenizer> {
    let model = &file["model"];
    let space_prefix = file["normalizer"] == normalizer(true);
    let options = ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"];
    let is_ours = (space_prefix || file["normalizer"] == normalizer(false))
        && file["pre_tokenizer"].is_null()
        && file["decoder"] == decoder(space_prefix)
        && model["type"] == "BPE"
        && model["byte_fallback"] == true
        && model["fuse_unk"] == true
        && options.iter().all(|option| is_off(&model[option]));
    if !is_ours {
        return None;
    }
    let added = parse_added(file)?;
    let (vocab, n_ids) = parse_vocab(file, &added)?;
    let pairs = model["merges"].as_array()?.iter().map(parse_pair).collect::<Option<Vec<_>>>()?;
    let mut ranks: HashMap<String, usize> = HashMap::new();
    let mut last = String::new();
    for (left, right) in &pairs {
        let text = [*left, *right].concat();
        if text != last {
            // The merges of one piece stand together, or its rank would not be one.
            if ranks.insert(text.clone(), ranks.len()).is_some() {
                return None;
            }
            last = text;
        }
    }
    let hole = Piece { text: "".into(), score: 0.0, kind: PieceKind::Other };
    let mut pieces = vec![hole; n_ids];
    for (text, id) in vocab {
        let kind = parse_byte(text).map_or(PieceKind::Normal, PieceKind::Byte);
        // Pieces without merges come last, where no merge leads to them.
        let rank = ranks.get(text).copied().unwrap_or(ranks.len());
        pieces[id as usize] = Piece { text: text.into(), score: -(rank as f32), kind };
    }
    let unknown = match &model["unk_token"] {
        Value::Null => None,
        text => Some(added.iter().find(|(added, _, _)| text == added)?.1),
    };
    for (text, id, _) in &added {
        if let Some(piece) = pieces.get_mut(*id as usize) {
            piece.text = text.as_str().into();
        }
    }
    let spm = Spm::new(pieces, unknown, space_prefix);
    // A pair that is missing from the file would be merged all the same.
    let ours: HashSet<(&str, &str)> = merges(&spm).into_iter().collect();
    if ours.len() != pairs.len() || !pairs.iter().all(|pair| ours.contains(pair)) {
        return None;
    }
    Some(Tokenizer::new(Model::Spm(spm.into()), AddedTokens::new(added), n_ids))
}
