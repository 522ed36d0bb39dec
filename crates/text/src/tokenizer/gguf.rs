//! Tokenizers from the vocabulary that a GGUF file holds.

use super::added::{AddedTokens, Kind};
use super::bpe::{Bpe, Merge, byte_letters};
use super::json::begin_with;
use super::spm::{Piece, PieceKind, SPACE, Spm};
use super::words::Pattern;
use super::{Model, Tokenizer};
use crate::{SpecialTokens, TextError};
use std::collections::HashMap;

/// A vocabulary as GGUF's `tokenizer.ggml.*` keys hold it: plain data, of which nothing is checked yet.
///
/// Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer>.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `model`: `gpt2` for byte-level BPE, `llama` for SentencePiece's.
    pub model: String,
    /// `pre`: how `gpt2` cuts text into words; empty where the file does not say.
    pub pre: String,
    /// `tokens`, by id.
    pub tokens: Vec<String>,
    /// `token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty: all normal.
    pub token_types: Vec<i32>,
    /// `scores`, by id, for `llama`: the pair of the highest is merged first.
    pub scores: Vec<f32>,
    /// `merges`, for `gpt2`: two tokens with a space between, the first to be merged first.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unknown: Option<u32>,
    /// `add_bos_token`: whether a prompt begins with `bos`. [`Tokenizer::encode`] leaves this to its caller.
    pub add_bos: bool,
    /// `add_space_prefix`, for `llama`: whether a text is encoded as if a space stood before it.
    pub add_space_prefix: bool,
}

/// A vocabulary of more tokens is not one: the largest of known models have a quarter of a million.
const MAX_TOKENS: usize = 1 << 22;

/// The names of patterns, each model's first name first, with whether a word that is a token is taken whole.
///
/// Source: `llama_vocab::impl::load` in <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp>.
const PATTERNS: [(&str, Pattern, bool); 9] = [
    ("gpt-2", Pattern::Gpt2, false),
    ("smollm", Pattern::Smollm, false),
    ("llama-bpe", Pattern::Llama3, true),
    ("qwen2", Pattern::Qwen2, false),
    ("default", Pattern::Default, false),
    ("phi-2", Pattern::Gpt2, false),
    ("llama3", Pattern::Llama3, true),
    ("llama-v3", Pattern::Llama3, true),
    ("deepseek-r1-qwen", Pattern::Qwen2, false),
];

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

impl GgufVocabulary {
    /// The tokens that have a part of their own, as the file names them.
    pub fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens {
            bos: self.bos,
            eos: self.eos.into_iter().collect(),
            pad: None,
            unk: self.unknown,
            add_bos: self.add_bos,
        }
    }

    /// Adds unused tokens up to `n`, as where a model has more rows than its tokenizer has tokens.
    pub fn pad_to(&mut self, n: usize) {
        for id in self.tokens.len()..n {
            self.tokens.push(format!("[PAD{id}]"));
            self.token_types.push(UNUSED);
            if !self.scores.is_empty() {
                self.scores.push(0.0);
            }
        }
    }

    fn token_type(&self, id: usize) -> i32 {
        self.token_types.get(id).copied().unwrap_or(NORMAL)
    }

    /// Checks what both kinds of vocabulary have in common.
    fn check(&self) -> Result<(), TextError> {
        let n = self.tokens.len();
        if n == 0 || n > MAX_TOKENS {
            return Err(wrong("tokens", format!("a list of {n}"), format!("1 to {MAX_TOKENS} tokens")));
        }
        if !self.token_types.is_empty() && self.token_types.len() != n {
            return Err(wrong(
                "token_type",
                format!("a list of {}", self.token_types.len()),
                format!("{n}, as `tokens`"),
            ));
        }
        if let Some(id) = (0..n).find(|&id| !(NORMAL..=BYTE).contains(&self.token_type(id))) {
            let found = format!("{} for token {id}", self.token_type(id));
            return Err(wrong("token_type", found, format!("{NORMAL} to {BYTE}")));
        }
        for (key, id) in [("bos_token_id", self.bos), ("eos_token_id", self.eos), ("unknown_token_id", self.unknown)] {
            if let Some(id) = id.filter(|&id| id as usize >= n) {
                return Err(wrong(key, id.to_string(), format!("an id below {n}")));
            }
        }
        Ok(())
    }

    /// The added tokens, by the types of tokens; `spell` gives the text that stands for a token.
    fn added(&self, spell: impl Fn(&str) -> String) -> AddedTokens {
        let kind = |id: usize| match self.token_type(id) {
            UNKNOWN | CONTROL => Some(Kind::Special),
            USER_DEFINED => Some(Kind::UserDefined),
            UNUSED => Some(Kind::Unused),
            _ => None,
        };
        let tokens = self.tokens.iter().enumerate();
        AddedTokens::new(tokens.filter_map(|(id, token)| Some((spell(token), id as u32, kind(id)?))))
    }

    fn byte_level(&self) -> Result<Tokenizer, TextError> {
        let pre = if self.pre.is_empty() { "default" } else { &self.pre };
        let Some(&(_, pattern, whole_words)) = PATTERNS.iter().find(|(name, ..)| *name == pre) else {
            let names: Vec<String> = PATTERNS.iter().map(|(name, ..)| format!("`{name}`")).collect();
            return Err(wrong("pre", format!("{pre:?}"), format!("one of {}", names.join(", "))));
        };
        let bytes_of: HashMap<char, u8> = byte_letters().into_iter().zip(0..=255).collect();
        let mut tokens: Vec<Box<[u8]>> = Vec::with_capacity(self.tokens.len());
        let mut ids: HashMap<&str, u32> = HashMap::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if !matches!(self.token_type(id), NORMAL | BYTE) {
                tokens.push(Box::default());
                continue;
            }
            let bytes: Option<Box<[u8]>> = token.chars().map(|letter| bytes_of.get(&letter).copied()).collect();
            let bytes = bytes.filter(|bytes| !bytes.is_empty());
            tokens.push(bytes.ok_or_else(|| {
                wrong("tokens", format!("{token:?} for token {id}"), "bytes as letters, such as `Ġthe`".to_owned())
            })?);
            ids.entry(token).or_insert(id as u32);
        }
        let mut merges = Vec::with_capacity(self.merges.len());
        for (place, merge) in self.merges.iter().enumerate() {
            merges.push(parse_merge(merge, &ids).ok_or_else(|| wrong_merge(place, merge))?);
        }
        let bpe = Bpe::new(tokens, merges, pattern).map_err(|place| wrong_merge(place, &self.merges[place]))?;
        let bpe = if whole_words { bpe.with_whole_words() } else { bpe };
        // Qwen's own tokenizer composes characters first; GGUF has no key for it.
        let bpe = if pattern == Pattern::Qwen2 { bpe.with_nfc() } else { bpe };
        Ok(Tokenizer::new(Model::Bpe(bpe.into()), self.added(str::to_owned), self.tokens.len()))
    }

    fn sentencepiece(&self) -> Result<Tokenizer, TextError> {
        let n = self.tokens.len();
        if self.scores.len() != n {
            return Err(wrong("scores", format!("a list of {}", self.scores.len()), format!("{n}, as `tokens`")));
        }
        let mut pieces = Vec::with_capacity(n);
        for (id, (token, &score)) in self.tokens.iter().zip(&self.scores).enumerate() {
            let kind = match self.token_type(id) {
                NORMAL => PieceKind::Normal,
                BYTE => PieceKind::Byte(parse_byte(token).ok_or_else(|| {
                    wrong("tokens", format!("{token:?} for the byte token {id}"), "the form `<0x0A>`".to_owned())
                })?),
                _ => PieceKind::Other,
            };
            if kind == PieceKind::Normal && !score.is_finite() {
                return Err(wrong("scores", format!("{score} for token {id}"), "a finite number".to_owned()));
            }
            // Zero has two signs, which would be two places in the order of scores.
            pieces.push(Piece { text: token.as_str().into(), score: score + 0.0, kind });
        }
        let unknown = self.unknown.or_else(|| (0..n).find(|&id| self.token_type(id) == UNKNOWN).map(|id| id as u32));
        let spm = Spm::new(pieces, unknown, self.add_space_prefix);
        // Added tokens are looked for in the text as it came, where a space is a space.
        let added = self.added(|token| token.replace(SPACE, " "));
        Ok(Tokenizer::new(Model::Spm(spm.into()), added, n))
    }
}

/// What becomes of a tokenizer that has no GGUF form.
fn unwritable(reason: &'static str) -> TextError {
    TextError::NoGgufVocabulary { reason }
}

/// The name by which llama.cpp knows how `bpe` cuts text into words.
fn pattern_name(bpe: &Bpe) -> Result<&'static str, TextError> {
    // Without merges it does not matter where text is cut.
    let pattern = if bpe.merges().is_empty() { Pattern::Gpt2 } else { bpe.pattern() };
    if bpe.composes() && pattern != Pattern::Qwen2 {
        return Err(unwritable("it composes Unicode characters first, which GGUF has no key for"));
    }
    let known = PATTERNS.iter().find(|(_, known, whole)| *known == pattern && *whole == bpe.takes_whole_words());
    let reason = "no pattern that llama.cpp has a name for (`tokenizer.ggml.pre`) cuts text into words as it does";
    known.map(|(name, ..)| *name).ok_or_else(|| unwritable(reason))
}

impl Tokenizer {
    /// The vocabulary as a GGUF file holds it, with `special` in its keys; an id without a token is an unused one.
    ///
    /// Law: `from_gguf` of it encodes the same, and so does llama.cpp, but for `qwen2`, which see.
    ///
    /// # Errors
    /// [`TextError::NoGgufVocabulary`] for character vocabularies, for those that go through Hugging Face's library, and
    /// for byte-level ones with a pattern or an option that llama.cpp has no name for.
    pub fn to_gguf(&self, special: &SpecialTokens) -> Result<GgufVocabulary, TextError> {
        let mut vocabulary = GgufVocabulary {
            bos: special.bos,
            eos: special.eos.first().copied(),
            unknown: special.unk,
            add_bos: special.add_bos,
            ..GgufVocabulary::default()
        };
        vocabulary.pad_to(self.vocab_size());
        match &self.model {
            Model::Bpe(bpe) => {
                vocabulary.model = String::from("gpt2");
                vocabulary.pre = String::from(pattern_name(bpe)?);
                let letters = byte_letters();
                let spell = |token: &[u8]| token.iter().map(|&byte| letters[byte as usize]).collect::<String>();
                for (id, token) in bpe.tokens().iter().enumerate().filter(|(_, token)| !token.is_empty()) {
                    vocabulary.tokens[id] = spell(token);
                    vocabulary.token_types[id] = NORMAL;
                }
                let pair = |merge: &Merge| [merge.left, merge.right].map(|id| vocabulary.tokens[id as usize].as_str());
                vocabulary.merges = bpe.merges().iter().map(|merge| pair(merge).join(" ")).collect();
            }
            Model::Spm(spm) => {
                vocabulary.model = String::from("llama");
                vocabulary.pre = String::from("default");
                vocabulary.add_space_prefix = spm.space_prefix();
                vocabulary.scores = vec![0.0; vocabulary.tokens.len()];
                for (id, piece) in spm.pieces().iter().enumerate() {
                    vocabulary.scores[id] = piece.score;
                    let token_type = match piece.kind {
                        PieceKind::Normal => NORMAL,
                        PieceKind::Byte(_) => BYTE,
                        PieceKind::Other => continue,
                    };
                    vocabulary.tokens[id] = piece.text.clone().into();
                    vocabulary.token_types[id] = token_type;
                }
                vocabulary.unknown = vocabulary.unknown.or(spm.unknown());
            }
            Model::Chars { .. } => return Err(unwritable("it is made of characters")),
            Model::Foreign { .. } => return Err(unwritable("it is neither byte-level nor SentencePiece's BPE")),
        }
        for (text, id, kind) in self.added.all() {
            let id = id as usize;
            text.clone_into(&mut vocabulary.tokens[id]);
            vocabulary.token_types[id] = match kind {
                Kind::Special if vocabulary.model == "llama" && vocabulary.unknown == Some(id as u32) => UNKNOWN,
                Kind::Special => CONTROL,
                Kind::UserDefined => USER_DEFINED,
                Kind::Unused => UNUSED,
            };
        }
        Ok(vocabulary)
    }

    /// The tokenizer of a GGUF file: byte-level BPE (`gpt2`) or SentencePiece's (`llama`), with control tokens as
    /// specials. User-defined tokens are found in any text, also by [`Tokenizer::encode_ordinary`].
    ///
    /// Law: ids are those of llama.cpp, but for `qwen2`, whose text is brought to NFC first as Qwen's own tokenizer does.
    ///
    /// # Errors
    /// [`TextError::GgufVocabulary`], which names the key that is not as it should be.
    pub fn from_gguf(vocabulary: &GgufVocabulary) -> Result<Self, TextError> {
        vocabulary.check()?;
        let mut tokenizer = match vocabulary.model.as_str() {
            "gpt2" => vocabulary.byte_level()?,
            "llama" => vocabulary.sentencepiece()?,
            other => return Err(wrong("model", format!("{other:?}"), "`gpt2` or `llama`".to_owned())),
        };
        if let Some(bos) = vocabulary.bos.filter(|_| vocabulary.add_bos) {
            tokenizer.post_processor = begin_with(bos, &vocabulary.tokens[bos as usize]);
        }
        Ok(tokenizer)
    }
}

fn wrong(key: &'static str, found: String, expected: String) -> TextError {
    TextError::GgufVocabulary { key, found, expected }
}

fn wrong_merge(place: usize, merge: &str) -> TextError {
    let expected = "two tokens with a space between that together are a third".to_owned();
    wrong("merges", format!("{merge:?} at place {place}"), expected)
}

fn parse_merge(merge: &str, ids: &HashMap<&str, u32>) -> Option<Merge> {
    let (left, right) = merge.split_once(' ')?;
    let merged = *ids.get([left, right].concat().as_str())?;
    Some(Merge { left: *ids.get(left)?, right: *ids.get(right)?, merged })
}

/// The byte that `<0x0A>` stands for.
pub(super) fn parse_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
pub(in crate::tokenizer) mod tests;
