//! Text that arrives token by token.

use crate::Tokenizer;

/// Decodes one token after the other and gives out what is certain: no half characters, and nothing that may yet turn
/// out to be the beginning of a stop string.
///
/// Law: the pieces together are `decode` of all tokens up to the stop string that is complete first (the longest of
/// those that end together), however the text is cut into tokens.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    stop_strings: Vec<String>,
    /// Whether the next token begins a text; SentencePiece then takes a space away.
    begins: bool,
    /// Bytes that may be the beginning of a character.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: Option<usize>,
    /// The tokens so far and the length of their text, for tokenizers whose tokens have no text of their own.
    foreign: (Vec<u32>, usize),
}

impl<'a> TextStream<'a> {
    /// A stream of a new text, such as an answer. Empty stop strings are none.
    pub fn new(tokenizer: &'a Tokenizer, stop_strings: &[String]) -> Self {
        Self {
            tokenizer,
            stop_strings: stop_strings.to_vec(),
            begins: true,
            bytes: Vec::new(),
            held: String::new(),
            stopped: None,
            foreign: (Vec::new(), 0),
        }
    }

    /// A stream of text that goes on where a prompt ended, so that a space before its first word stays.
    pub fn continuing(tokenizer: &'a Tokenizer, stop_strings: &[String]) -> Self {
        Self { begins: false, ..Self::new(tokenizer, stop_strings) }
    }

    /// The text that is certain once `id` has come. Nothing any more after a stop string.
    pub fn push(&mut self, id: u32) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        if self.tokenizer.is_foreign() {
            return self.push_foreign(id);
        }
        let bytes = self.tokenizer.token_bytes(id, &mut self.begins);
        self.bytes.extend_from_slice(&bytes);
        self.take_characters();
        self.take_certain()
    }

    /// The rest: what was held back for a character or a stop string that never came.
    pub fn finish(&mut self) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        if self.tokenizer.is_foreign() {
            let text = self.tokenizer.decode(&self.foreign.0);
            self.held.push_str(text.get(self.foreign.1..).unwrap_or_default());
            self.foreign.1 = text.len();
        } else {
            self.held.push_str(&String::from_utf8_lossy(&self.bytes));
            self.bytes.clear();
        }
        let certain = self.take_certain();
        certain + &std::mem::take(&mut self.held)
    }

    /// Which of the stop strings came, if one did.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Moves whole characters from `bytes` to `held`. Bytes that can be none become U+FFFD, as `decode` has it.
    fn take_characters(&mut self) {
        let mut rest = self.bytes.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.held.push_str(text);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    self.held.push_str(&String::from_utf8_lossy(valid));
                    rest = broken;
                    if let Some(length) = error.error_len() {
                        self.held.push(char::REPLACEMENT_CHARACTER);
                        rest = &broken[length..];
                        continue;
                    }
                }
            }
            break;
        }
        self.bytes = rest.to_vec();
    }

    /// Takes from `held` all up to a stop string, or else all that cannot be the beginning of one.
    fn take_certain(&mut self) -> String {
        let stops = self.stop_strings.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let found = stops.clone().filter_map(|(which, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, which))
        });
        if let Some((_, start, which)) = found.min() {
            self.stopped = Some(which);
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let beginnings = stops.flat_map(|(_, stop)| stop.char_indices().map(|(end, _)| &stop[..end]));
        let kept = beginnings.filter(|beginning| self.held.ends_with(beginning)).map(str::len).max();
        let certain = self.held.len() - kept.unwrap_or(0);
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Where tokens have no text of their own, all are decoded again and what is new is given out; a character that is
    /// not complete shows as U+FFFD at the end.
    fn push_foreign(&mut self, id: u32) -> String {
        let (ids, given) = &mut self.foreign;
        ids.push(id);
        let text = self.tokenizer.decode(ids);
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        self.held.push_str(text.get(*given..).unwrap_or_default());
        *given = text.len();
        self.take_certain()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GgufVocabulary;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);

    /// A small SentencePiece vocabulary: 0 and 1 are special, 2 to 257 the bytes, then letters and words.
    static SPM: LazyLock<Tokenizer> = LazyLock::new(|| {
        let words = ["\u{2581}", "a", "b", "c", "ab", "bc", "\u{2581}a", "\u{2581}ab", "\u{2581}\u{2581}", "abc", "é"];
        let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
        let tokens: Vec<String> =
            ["<s>".to_owned(), "</s>".to_owned()].into_iter().chain(bytes).chain(words.map(str::to_owned)).collect();
        let types = (0..tokens.len()).map(|id| {
            if id < 2 {
                3
            } else if id < 258 {
                6
            } else {
                1
            }
        });
        let vocabulary = GgufVocabulary {
            model: "llama".to_owned(),
            token_types: types.collect(),
            scores: (0..tokens.len()).map(|id| -(id as f32)).collect(),
            add_space_prefix: true,
            tokens,
            ..GgufVocabulary::default()
        };
        Tokenizer::from_gguf(&vocabulary).unwrap()
    });

    /// The pieces, and which stop string came.
    fn stream(mut stream: TextStream, ids: &[u32]) -> (Vec<String>, Option<usize>) {
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
        pieces.push(stream.finish());
        (pieces, stream.stopped())
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// `text` up to the stop string that is complete first, character by character.
    fn cut<'a>(text: &'a str, stops: &[String]) -> &'a str {
        for (end, _) in text.char_indices().chain([(text.len(), ' ')]) {
            let ends = stops.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()));
            if let Some(longest) = ends.map(String::len).max() {
                return &text[..end - longest];
            }
        }
        text
    }

    #[test]
    fn a_character_of_several_tokens_comes_whole() {
        let tokenizer = Tokenizer::bytes();
        let (pieces, _) = stream(TextStream::new(&tokenizer, &[]), &[97, 0xF0, 0x9F, 0x98, 0x80, 98]);
        assert_eq!(pieces, ["a", "", "", "", "😀", "b", ""]);
        let (pieces, _) = stream(TextStream::new(&tokenizer, &[]), &[0xC3, 97, 0xF0, 0x9F]);
        assert_eq!(pieces, ["", "\u{FFFD}a", "", "", "\u{FFFD}"]);
    }

    #[test]
    fn text_that_may_begin_a_stop_string_is_held_back() {
        let tokenizer = Tokenizer::bytes();
        let ids = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
        let (pieces, stopped) =
            stream(TextStream::new(&tokenizer, &strings(&["END", "\n\n"])), &ids("aENb\nEND after"));
        assert_eq!(pieces.concat(), "aENb\n");
        assert_eq!(pieces[..6], ["a", "", "", "ENb", "", "\n"]);
        assert_eq!(stopped, Some(0));
        let (pieces, stopped) = stream(TextStream::new(&tokenizer, &strings(&["END"])), &ids("xEN"));
        assert_eq!((pieces, stopped), (strings(&["x", "", "", "EN"]), None));
        // "bc" is complete before "abcd" could be.
        let (pieces, stopped) =
            stream(TextStream::new(&GPT2, &strings(&["abcd", "bc"])), &GPT2.encode("abcd").unwrap());
        assert_eq!((pieces.concat().as_str(), stopped), ("a", Some(1)));
    }

    #[test]
    fn the_first_space_of_sentencepiece_stays_only_where_a_text_goes_on() {
        let ids = SPM.encode("ab a").unwrap();
        assert_eq!(stream(TextStream::new(&SPM, &[]), &ids).0.concat(), "ab a");
        assert_eq!(stream(TextStream::continuing(&SPM, &[]), &ids).0.concat(), " ab a");
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text_up_to_the_stop(
            ids in prop::collection::vec(prop_oneof![0u32..270, 97u32..100, 194u32..200, 250u32..300], 0..40),
            stops in prop::collection::vec("[abc é\u{FFFD}]{0,3}", 0..4),
        ) {
            for tokenizer in [&*GPT2, &Tokenizer::bytes(), &*SPM, &Tokenizer::chars("abc é")] {
                let text = tokenizer.decode(&ids);
                let (pieces, stopped) = stream(TextStream::new(tokenizer, &stops), &ids);
                prop_assert_eq!(pieces.concat(), cut(&text, &stops));
                prop_assert_eq!(stopped.is_some(), cut(&text, &stops).len() < text.len());
            }
        }

        #[test]
        fn a_text_that_goes_on_is_the_rest_of_the_whole(prompt in "[abc ]{1,9}", answer in "[abc é]{0,9}") {
            let ids = SPM.encode(&format!("{prompt}{answer}")).unwrap();
            for cut in 1..=ids.len() {
                let (pieces, _) = stream(TextStream::continuing(&SPM, &[]), &ids[cut..]);
                let whole = SPM.decode_bytes(&ids);
                let before = SPM.decode_bytes(&ids[..cut]);
                prop_assert_eq!(pieces.concat(), String::from_utf8_lossy(&whole[before.len()..]));
            }
        }

        #[test]
        fn other_tokenizers_stream_too(text in "[ a-cé😀]{0,20}", stops in prop::collection::vec("[abc ]{1,3}", 0..3)) {
            let tokenizer = crate::tokenizer::foreign_bytes();
            let ids = tokenizer.encode(&text).unwrap();
            let (pieces, _) = stream(TextStream::new(&tokenizer, &stops), &ids);
            prop_assert_eq!(pieces.concat(), cut(&text, &stops));
        }
    }
}
