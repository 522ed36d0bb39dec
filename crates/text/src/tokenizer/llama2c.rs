//! Tokenizers of llama2.c: its `tokenizer.bin`.

use super::Tokenizer;
use super::gguf::{GgufVocabulary, parse_byte};
use super::spm::SPACE;
use crate::TextError;
use std::path::Path;

/// A longer token is not one: llama2.c's largest have some tens of bytes.
const MAX_TOKEN_BYTES: usize = 1 << 16;

impl Tokenizer {
    /// Reads the vocabulary of a llama2.c model; its size stands in the model's file.
    ///
    /// # Errors
    /// As [`Tokenizer::from_llama2c_bytes`], and a file that cannot be read.
    pub fn from_llama2c(path: impl AsRef<Path>, vocab_size: usize) -> Result<Self, TextError> {
        let path = path.as_ref();
        let bytes = fs_err::read(path).map_err(|source| TextError::read(path, source))?;
        Self::from_llama2c_bytes(&bytes, vocab_size)
    }

    /// The tokenizer that `bytes` hold: an i32 (the length of the longest token), then for each token its score as f32,
    /// its length as i32 and its bytes. Token 0 is unknown, 1 begins a text, 2 ends it; all little-endian.
    ///
    /// # Errors
    /// [`TextError::Llama2cVocabulary`], with the place of the first byte that is not as it should be.
    /// Source: `build_tokenizer` in <https://github.com/karpathy/llama2.c/blob/master/run.c>.
    pub fn from_llama2c_bytes(bytes: &[u8], vocab_size: usize) -> Result<Self, TextError> {
        let mut vocabulary = GgufVocabulary {
            model: "llama".to_owned(),
            bos: Some(1),
            eos: Some(2),
            unknown: Some(0),
            add_bos: true,
            add_space_prefix: true,
            ..GgufVocabulary::default()
        };
        let mut reader = Reader { bytes, at: 0 };
        reader.number("the length of the longest token")?;
        for id in 0..vocab_size {
            let score = f32::from_bits(reader.number("a score")?);
            let length = reader.number("a token's length")? as usize;
            if length > MAX_TOKEN_BYTES {
                reader.at -= 4;
                return Err(reader.wrong(format!("token {id} of {length} bytes"), "at most 65536"));
            }
            let token = reader.take(length, "a token")?;
            let Ok(token) = std::str::from_utf8(token) else {
                reader.at -= length;
                return Err(reader.wrong(format!("token {id}, which is not UTF-8"), "UTF-8"));
            };
            // The file writes spaces as spaces, and its first tokens with line ends around them.
            let (token, token_type) = match id {
                0 => ("<unk>".to_owned(), 2),
                1 => ("<s>".to_owned(), 3),
                2 => ("</s>".to_owned(), 3),
                3..=258 if parse_byte(token).is_some() => (token.to_owned(), 6),
                _ => (token.replace(' ', SPACE.encode_utf8(&mut [0; 4])), 1),
            };
            vocabulary.tokens.push(token);
            vocabulary.token_types.push(token_type);
            vocabulary.scores.push(score);
        }
        if reader.at < bytes.len() {
            let found = format!("{} more bytes after {vocab_size} tokens", bytes.len() - reader.at);
            return Err(reader.wrong(found, "the end: is this the tokenizer of that model?"));
        }
        Self::from_gguf(&vocabulary)
    }
}

/// Reads numbers and bytes, and remembers where.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, found: String, expected: &str) -> TextError {
        TextError::Llama2cVocabulary { at: self.at, found, expected: expected.to_owned() }
    }

    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], TextError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..length) else {
            return Err(self.wrong(format!("{} bytes up to the end", rest.len()), &format!("{length} for {what}")));
        };
        self.at += length;
        Ok(taken)
    }

    fn number(&mut self, what: &'static str) -> Result<u32, TextError> {
        let bytes = self.take(4, what)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::gguf::tests::sentencepiece;
    use proptest::prelude::*;

    /// The vocabulary of the golden file as llama2.c writes it.
    fn file() -> Vec<u8> {
        let vocabulary = &sentencepiece().vocabulary;
        let mut bytes = 27i32.to_le_bytes().to_vec();
        for (id, (token, score)) in vocabulary.tokens.iter().zip(&vocabulary.scores).enumerate() {
            // Its ids 3 to 258 are the bytes; ours has a token of the user before them.
            let token = match id {
                1 => "\n<s>\n".to_owned(),
                2 => "\n</s>\n".to_owned(),
                _ => token.replace(SPACE, " "),
            };
            bytes.extend(score.to_le_bytes());
            bytes.extend((token.len() as i32).to_le_bytes());
            bytes.extend(token.bytes());
        }
        bytes
    }

    #[test]
    fn ids_are_those_of_the_vocabulary_the_file_was_made_from() {
        let tokenizer = Tokenizer::from_llama2c_bytes(&file(), 620).unwrap();
        assert_eq!(tokenizer.vocab_size(), 620);
        assert_eq!(tokenizer.end_of_text(), Some(2));
        for (text, ids, llama_cpp) in &sentencepiece().cases {
            // Two tokens are of another kind here: `<think>` is text, and the last byte is.
            if llama_cpp.is_none() && text.is_ascii() {
                assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{text:?}");
            }
        }
        assert_eq!(tokenizer.encode("<s>a</s>").unwrap()[0], 1);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named_with_its_place() {
        let message = |bytes: &[u8], vocab_size: usize| {
            let error = Tokenizer::from_llama2c_bytes(bytes, vocab_size).unwrap_err().to_string();
            error.lines().next().unwrap().to_owned()
        };
        let file = file();
        insta::assert_snapshot!(message(&[], 620), @"llama2.c vocabulary: byte 0: found 0 bytes up to the end, expected 4 for the length of the longest token");
        insta::assert_snapshot!(message(&file[..14], 620), @"llama2.c vocabulary: byte 12: found 2 bytes up to the end, expected 5 for a token");
        insta::assert_snapshot!(message(&file, 619), @"llama2.c vocabulary: byte 7356: found 10 more bytes after 619 tokens, expected the end: is this the tokenizer of that model?");
        let mut long = file.clone();
        long[11] = 1;
        insta::assert_snapshot!(message(&long, 620), @"llama2.c vocabulary: byte 8: found token 0 of 16777221 bytes, expected at most 65536");
        let mut broken = file;
        broken[13] = 0xFF;
        insta::assert_snapshot!(message(&broken, 620), @"llama2.c vocabulary: byte 12: found token 0, which is not UTF-8, expected UTF-8");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, vocab_size in 0usize..9, cut in 0usize..4000) {
            let _ = Tokenizer::from_llama2c_bytes(&bytes, vocab_size);
            prop_assert!(Tokenizer::from_llama2c_bytes(&file()[..cut], 620).is_err());
        }
    }
}
