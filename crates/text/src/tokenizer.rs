//! Text to ids and back.
//!
//! Byte-level BPE (GPT-2's and its successors', trained ones, and plain bytes), SentencePiece's BPE and characters are
//! encoded here; any other `tokenizer.json` goes through Hugging Face's `tokenizers`. All of them are saved in the form
//! that library loads.

mod added;
mod bpe;
mod gguf;
mod gpt2;
mod json;
mod llama2c;
mod spm;
mod train;
mod words;

use crate::{TextError, rng::hash_bytes};
use added::{AddedTokens, Kind};
use bpe::{Bpe, Cache};
pub use gguf::GgufVocabulary;
use rayon::prelude::*;
use spm::Spm;
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
    added: AddedTokens,
    vocab_size: usize,
    /// What `tokenizers` adds around a text, such as BOS; kept for the file, our encoding adds nothing.
    post_processor: serde_json::Value,
    fingerprint: OnceLock<u64>,
}

#[derive(Debug)]
enum Model {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
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
        let mut ids = Vec::new();
        self.encode_into(text, true, &mut Cache::default(), &mut ids)?;
        Ok(ids)
    }

    /// The ids of `text` taken as it is: `<|endoftext|>` written in it is thirteen characters, not the special token.
    /// For text that others wrote, such as a corpus.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = Vec::new();
        self.encode_into(text, false, &mut Cache::default(), &mut ids)?;
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
                self.encode_into(text.as_ref(), false, &mut cache, &mut ids)?;
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
            _ => String::from_utf8(self.decode_bytes(ids))
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
        let mut begins = true;
        for &id in ids {
            bytes.extend_from_slice(&self.token_bytes(id, &mut begins));
        }
        bytes
    }

    /// The bytes that token `id` stands for. `begins` says whether a text begins here, at which SentencePiece puts a
    /// space that is taken away again: at the first token and after every added one.
    pub(crate) fn token_bytes(&self, id: u32, begins: &mut bool) -> Cow<'_, [u8]> {
        if let Some(text) = self.added.text(id) {
            *begins = true;
            return Cow::Borrowed(text.as_bytes());
        }
        let begins = std::mem::take(begins);
        let known = match &self.model {
            Model::Bpe(bpe) => bpe.token(id).map(Cow::Borrowed),
            Model::Spm(spm) => spm.piece_bytes(id, begins),
            Model::Chars { characters, .. } => {
                characters.get(id as usize).map(|character| Cow::Owned(character.to_string().into_bytes()))
            }
            Model::Foreign { .. } => None,
        };
        known.unwrap_or(Cow::Borrowed("\u{FFFD}".as_bytes()))
    }

    /// Whether the text of a token depends on its neighbours in ways only Hugging Face's library knows.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.model, Model::Foreign { .. })
    }

    /// The number of ids: one more than the largest.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of the end-of-text token, if there is one.
    pub fn end_of_text(&self) -> Option<u32> {
        END_OF_TEXT_NAMES
            .iter()
            .find_map(|name| self.special_tokens().iter().find(|(special, _)| special == name))
            .map(|(_, id)| *id)
    }

    /// The id of the token that stands for exactly this text, special or not.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        if let Some(id) = self.added.id(token) {
            return Some(id);
        }
        match &self.model {
            Model::Foreign { special, .. } => special.token_to_id(token),
            Model::Bpe(bpe) => bpe.tokens().iter().position(|bytes| **bytes == *token.as_bytes()).map(|id| id as u32),
            Model::Spm(spm) => spm.id(&token.replace(' ', spm::SPACE.encode_utf8(&mut [0; 4]))),
            Model::Chars { ids, .. } => {
                let mut characters = token.chars();
                let first = characters.next()?;
                if characters.next().is_none() { ids.get(&first).copied() } else { None }
            }
        }
    }

    /// The special tokens and their ids, longest first.
    pub fn special_tokens(&self) -> &[(String, u32)] {
        self.added.specials()
    }

    /// The token that `tokenizers` puts before a text, by the file's post-processor; our encoding adds none.
    pub(crate) fn first_added(&self) -> Option<u32> {
        json::first_added(&self.post_processor).and_then(|text| self.token_id(text))
    }

    /// A hash of what the tokenizer does, by which shards know theirs.
    pub fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| {
            let specials = self
                .special_tokens()
                .iter()
                .fold(0, |hash, (special, id)| hash_bytes(hash ^ u64::from(*id), special.as_bytes()));
            let others = self.added.all().into_iter().filter(|(_, _, kind)| *kind != Kind::Special);
            let specials = others.fold(specials, |hash, (text, id, kind)| {
                hash_bytes(hash ^ (u64::from(id) << 1 | u64::from(kind == Kind::Unused)), text.as_bytes())
            });
            match &self.model {
                Model::Bpe(bpe) => bpe.fingerprint(specials),
                Model::Spm(spm) => spm.fingerprint(specials),
                Model::Chars { characters, .. } => hash_bytes(specials, String::from_iter(characters).as_bytes()),
                Model::Foreign { .. } => hash_bytes(specials, self.to_json().unwrap_or_default().as_bytes()),
            }
        })
    }

    fn from_bpe(bpe: Bpe, specials: &[&str]) -> Self {
        let first = bpe.tokens().len() as u32;
        let specials = specials.iter().zip(first..).map(|(special, id)| ((*special).to_owned(), id, Kind::Special));
        Self::new(Model::Bpe(bpe.into()), AddedTokens::new(specials), first as usize)
    }

    fn from_characters(characters: Vec<char>) -> Self {
        let ids: HashMap<char, u32> = characters.iter().copied().zip(0..).collect();
        let vocab_size = characters.len();
        Self::new(Model::Chars { characters, ids }, AddedTokens::new([]), vocab_size)
    }

    /// A tokenizer of `model`, whose own ids are below `model_size`.
    fn new(model: Model, added: AddedTokens, model_size: usize) -> Self {
        let vocab_size = added.all().iter().map(|(_, id, _)| *id as usize + 1).fold(model_size, usize::max);
        Self { model, added, vocab_size, post_processor: serde_json::Value::Null, fingerprint: OnceLock::new() }
    }

    /// Adds the ids of `text` to `ids`; special tokens written in it count as such if `with_specials`.
    fn encode_into(
        &self,
        text: &str,
        with_specials: bool,
        cache: &mut Cache,
        ids: &mut Vec<u32>,
    ) -> Result<(), TextError> {
        if let Model::Foreign { special, ordinary } = &self.model {
            ids.extend(encode_foreign(if with_specials { special } else { ordinary }, text)?);
            return Ok(());
        }
        let mut start = 0;
        while let Some((found, id)) = self.added.find(text, start, with_specials) {
            self.encode_part(&text[start..found.start], start, cache, ids)?;
            ids.push(id);
            start = found.end;
        }
        self.encode_part(&text[start..], start, cache, ids)
    }

    /// Adds the ids of `text`, which begins at byte `offset` of the whole and holds no added token, to `ids`.
    fn encode_part(&self, text: &str, offset: usize, cache: &mut Cache, ids: &mut Vec<u32>) -> Result<(), TextError> {
        let unknown = |character: char, at: usize, known: usize| TextError::UnknownCharacter {
            character,
            offset: offset + at,
            known,
        };
        match &self.model {
            Model::Bpe(bpe) => bpe.encode(text, cache, ids),
            Model::Spm(spm) => spm
                .encode(text, cache, ids)
                .map_err(|(character, at)| unknown(character, at, spm.single_characters()))?,
            Model::Chars { ids: known, .. } => {
                ids.reserve(text.len());
                for (at, character) in text.char_indices() {
                    ids.push(*known.get(&character).ok_or_else(|| unknown(character, at, known.len()))?);
                }
            }
            Model::Foreign { .. } => unreachable!("it was encoded as a whole"),
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
#[cfg(test)]
pub(crate) use tests::{foreign_bytes, hugging_face};
