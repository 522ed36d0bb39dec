//! Text to ids and back.
//!
//! Byte-level BPE (GPT-2's, trained ones, and plain bytes) and characters are encoded here; any other `tokenizer.json`
//! goes through Hugging Face's `tokenizers`. All of them are saved in the form that library loads.

mod bpe;
mod gpt2;
mod json;
mod train;
mod words;

use crate::{TextError, rng::hash_bytes};
use bpe::{Bpe, Cache};
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

/// GPT-2's end-of-text token, and the usual name for it since.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// What other vocabularies call their end of text, in the order of preference.
const END_OF_TEXT_NAMES: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];

/// Turns text into token ids and back.
///
/// Law: `decode(encode(text)) == text` for any text, with `gpt2`, `train_bpe` and `bytes`; with `chars` for any text of
/// known characters.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    /// Special tokens with their ids, longest first, so that the first that matches is the right one.
    specials: Vec<(String, u32)>,
    vocab_size: usize,
    fingerprint: OnceLock<u64>,
}

#[derive(Debug)]
enum Model {
    Bpe(Box<Bpe>),
    Chars {
        characters: Vec<char>,
        ids: HashMap<char, u32>,
    },
    /// A tokenizer of another kind; `ordinary` is the same one with special tokens encoded as text.
    Foreign {
        special: Box<tokenizers::Tokenizer>,
        ordinary: Box<tokenizers::Tokenizer>,
    },
}

impl Tokenizer {
    /// GPT-2's tokenizer: 50,257 tokens, of which 50256 is `<|endoftext|>`. Takes some 20 ms.
    pub fn gpt2() -> Self {
        Self::from_bpe(gpt2::bpe(), &[END_OF_TEXT])
    }

    /// Bytes as tokens: ids 0 to 255 are the bytes, 256 is `<|endoftext|>`.
    pub fn bytes() -> Self {
        Self::from_bpe(Bpe::bytes(), &[END_OF_TEXT])
    }

    /// Characters as tokens: those of `text`, sorted. No end-of-text token. Any other character fails to encode.
    ///
    /// Source: nanoGPT's `data/shakespeare_char/prepare.py`, <https://github.com/karpathy/nanoGPT>.
    pub fn chars(text: &str) -> Self {
        let mut characters: Vec<char> = text.chars().collect::<std::collections::HashSet<_>>().into_iter().collect();
        characters.sort_unstable();
        Self::from_characters(characters)
    }

    /// Learns a byte-level BPE of `vocab_size` tokens from documents: GPT-2's bytes and word pattern, then merges, then
    /// the special tokens. Fewer tokens if the text has too few pairs that occur twice. The order of the documents
    /// does not matter.
    ///
    /// # Errors
    /// [`TextError::Setting`] if there is no room for the 256 bytes and the specials, or a special is empty or named
    /// twice.
    pub fn train_bpe<T: AsRef<str>>(
        documents: impl IntoIterator<Item = T>,
        vocab_size: usize,
        specials: &[&str],
    ) -> Result<Self, TextError> {
        let least = 256 + specials.len();
        if vocab_size < least {
            let expected = format!("at least {least} (256 bytes and {} special tokens)", specials.len());
            return Err(TextError::Setting { name: "vocab_size", found: vocab_size.to_string(), expected });
        }
        if let Some((at, special)) =
            specials.iter().enumerate().find(|(at, special)| special.is_empty() || specials[..*at].contains(special))
        {
            let expected = "special tokens that are not empty and not named twice".to_owned();
            return Err(TextError::Setting {
                name: "special_tokens",
                found: format!("{special:?} at place {at}"),
                expected,
            });
        }
        Ok(Self::from_bpe(train::train(documents, vocab_size - specials.len()), specials))
    }

    /// Reads a `tokenizer.json`. What [`Tokenizer::save`] wrote, and any other byte-level BPE with GPT-2's pattern, is
    /// encoded by this crate; the rest by Hugging Face's `tokenizers`.
    ///
    /// # Errors
    /// A missing or unreadable file, or one that is no tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TextError> {
        let path = path.as_ref();
        let bytes = fs_err::read(path).map_err(|source| TextError::read(path, source))?;
        json::parse(&bytes).map_err(|reason| TextError::TokenizerFile { path: path.to_path_buf(), reason })
    }

    /// Writes a `tokenizer.json` that Hugging Face's `tokenizers` loads and that encodes the same. A file of that name
    /// is replaced only once the new one is safely on disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TextError> {
        let path = path.as_ref();
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        let write = |text: &str| -> std::io::Result<()> {
            use std::io::Write;
            let mut file = fs_err::File::create(partial)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs_err::rename(partial, path)
        };
        let json = self.to_json()?;
        write(&json).map_err(|source| TextError::write(path, source))
    }

    /// What [`Tokenizer::save`] writes.
    ///
    /// # Errors
    /// [`TextError::Encode`] if a foreign tokenizer cannot be written.
    pub fn to_json(&self) -> Result<String, TextError> {
        json::write(self)
    }

    /// The ids of `text`, with the special tokens written in it (`<|endoftext|>`) as such: for prompts and templates.
    ///
    /// # Errors
    /// [`TextError::UnknownCharacter`] with a character vocabulary. A byte-level one never fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        if let Model::Foreign { special, .. } = &self.model {
            return encode_foreign(special, text);
        }
        let (mut ids, mut cache, mut rest, mut offset) = (Vec::new(), Cache::default(), text, 0);
        while let Some((at, special, id)) = self.next_special(rest) {
            self.encode_into(&rest[..at], offset, &mut cache, &mut ids)?;
            ids.push(id);
            rest = &rest[at + special.len()..];
            offset = text.len() - rest.len();
        }
        self.encode_into(rest, offset, &mut cache, &mut ids)?;
        Ok(ids)
    }

    /// The ids of `text` taken as it is: `<|endoftext|>` written in it is thirteen characters, not the special token.
    /// For text that others wrote, such as a corpus.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::new();
        self.encode_into(text, 0, &mut Cache::default(), &mut ids)?;
        Ok(ids)
    }

    /// The ids of each text, taken as it is like [`Tokenizer::encode_ordinary`], on all threads of rayon's pool.
    ///
    /// # Errors
    /// The first in the order of the texts.
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, TextError> {
        // A few pieces for each thread: fewer would leave threads idle, more would start with cold caches.
        let piece = texts.len().div_ceil(4 * rayon::current_num_threads()).max(1);
        let encode_piece = |texts: &[T]| {
            let mut cache = Cache::default();
            let encode = |text: &T| {
                let mut ids = Vec::new();
                self.encode_into(text.as_ref(), 0, &mut cache, &mut ids)?;
                Ok(ids)
            };
            texts.iter().map(encode).collect::<Result<Vec<_>, TextError>>()
        };
        let pieces: Vec<_> = texts.par_chunks(piece).map(encode_piece).collect();
        let mut all = Vec::with_capacity(texts.len());
        for piece in pieces {
            all.extend(piece?);
        }
        Ok(all)
    }

    /// The text of `ids`, special tokens included. Bytes that are not UTF-8 and ids outside the vocabulary become
    /// U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.model {
            Model::Foreign { special, .. } => {
                special.decode(ids, false).unwrap_or_else(|_| "\u{FFFD}".repeat(ids.len()))
            }
            Model::Bpe(_) | Model::Chars { .. } => String::from_utf8(self.decode_bytes(ids))
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        }
    }

    /// The bytes of `ids`: for text that arrives token by token, where a character may be spread over several tokens.
    /// Ids outside the vocabulary become U+FFFD.
    pub fn decode_bytes(&self, ids: &[u32]) -> Vec<u8> {
        if let Model::Foreign { .. } = &self.model {
            return self.decode(ids).into_bytes();
        }
        let mut bytes = Vec::with_capacity(4 * ids.len());
        for &id in ids {
            bytes.extend_from_slice(&self.token_bytes(id));
        }
        bytes
    }

    /// The bytes that token `id` stands for.
    fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        if let Some((special, _)) = self.specials.iter().find(|(_, special)| *special == id) {
            return Cow::Borrowed(special.as_bytes());
        }
        let known = match &self.model {
            Model::Bpe(bpe) => bpe.tokens().get(id as usize).map(|token| Cow::Borrowed(&**token)),
            Model::Chars { characters, .. } => {
                characters.get(id as usize).map(|character| Cow::Owned(character.to_string().into_bytes()))
            }
            Model::Foreign { .. } => None,
        };
        known.unwrap_or(Cow::Borrowed("\u{FFFD}".as_bytes()))
    }

    /// The number of ids: one more than the largest.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of the end-of-text token, if there is one.
    pub fn end_of_text(&self) -> Option<u32> {
        END_OF_TEXT_NAMES
            .iter()
            .find_map(|name| self.specials.iter().find(|(special, _)| special == name))
            .map(|(_, id)| *id)
    }

    /// The id of the token that stands for exactly this text, special or not.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        if let Some((_, id)) = self.specials.iter().find(|(special, _)| special == token) {
            return Some(*id);
        }
        match &self.model {
            Model::Foreign { special, .. } => special.token_to_id(token),
            Model::Bpe(bpe) => bpe.tokens().iter().position(|bytes| **bytes == *token.as_bytes()).map(|id| id as u32),
            Model::Chars { ids, .. } => {
                let mut characters = token.chars();
                let first = characters.next()?;
                if characters.next().is_none() { ids.get(&first).copied() } else { None }
            }
        }
    }

    /// The special tokens and their ids, longest first.
    pub fn special_tokens(&self) -> &[(String, u32)] {
        &self.specials
    }

    /// A hash of what the tokenizer does, by which shards know theirs.
    pub fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| {
            let specials = self
                .specials
                .iter()
                .fold(0, |hash, (special, id)| hash_bytes(hash ^ u64::from(*id), special.as_bytes()));
            match &self.model {
                Model::Bpe(bpe) => bpe.fingerprint(specials),
                Model::Chars { characters, .. } => hash_bytes(specials, String::from_iter(characters).as_bytes()),
                Model::Foreign { .. } => hash_bytes(specials, self.to_json().unwrap_or_default().as_bytes()),
            }
        })
    }

    fn from_bpe(bpe: Bpe, specials: &[&str]) -> Self {
        let first = bpe.tokens().len() as u32;
        let specials = specials.iter().zip(first..).map(|(special, id)| ((*special).to_owned(), id)).collect();
        Self::new(Model::Bpe(bpe.into()), specials, first as usize)
    }

    fn from_characters(characters: Vec<char>) -> Self {
        let ids: HashMap<char, u32> = characters.iter().copied().zip(0..).collect();
        let vocab_size = characters.len();
        Self::new(Model::Chars { characters, ids }, Vec::new(), vocab_size)
    }

    /// A tokenizer of `model`, whose own ids are below `model_size`.
    fn new(model: Model, mut specials: Vec<(String, u32)>, model_size: usize) -> Self {
        specials.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        let vocab_size = specials.iter().map(|(_, id)| *id as usize + 1).fold(model_size, usize::max);
        Self { model, specials, vocab_size, fingerprint: OnceLock::new() }
    }

    /// Where the next special token in `text` begins, and which it is.
    fn next_special<'a>(&'a self, text: &str) -> Option<(usize, &'a str, u32)> {
        let places = self
            .specials
            .iter()
            .filter_map(|(special, id)| Some((text.find(special.as_str())?, special.as_str(), *id)));
        // `min_by_key` keeps the first of equals, which is the longest.
        places.min_by_key(|(at, _, _)| *at)
    }

    /// Adds the ids of `text`, which begins at byte `offset` of the whole, to `ids`.
    fn encode_into(&self, text: &str, offset: usize, cache: &mut Cache, ids: &mut Vec<u32>) -> Result<(), TextError> {
        match &self.model {
            Model::Bpe(bpe) => bpe.encode(text, cache, ids),
            Model::Chars { ids: known, .. } => {
                ids.reserve(text.len());
                for (at, character) in text.char_indices() {
                    let unknown = || TextError::UnknownCharacter { character, offset: offset + at, known: known.len() };
                    ids.push(*known.get(&character).ok_or_else(unknown)?);
                }
            }
            Model::Foreign { ordinary, .. } => ids.extend(encode_foreign(ordinary, text)?),
        }
        Ok(())
    }
}

fn encode_foreign(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, TextError> {
    match tokenizer.encode_fast(text, false) {
        Ok(encoding) => Ok(encoding.get_ids().to_vec()),
        Err(error) => Err(TextError::Encode { reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests;
