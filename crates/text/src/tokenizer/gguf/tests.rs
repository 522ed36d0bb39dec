use super::*;
use crate::tokenizer::hugging_face;
use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;

/// A small vocabulary with the ids of many texts by other libraries.
pub(in crate::tokenizer) struct Golden {
    pub(in crate::tokenizer) vocabulary: GgufVocabulary,
    pub(in crate::tokenizer) tokenizer: Tokenizer,
    /// Texts, their ids by Hugging Face's or Google's library, and llama.cpp's where they differ.
    pub(in crate::tokenizer) cases: Vec<(String, Vec<u32>, Option<Vec<u32>>)>,
}

pub(in crate::tokenizer) static GOLDEN: LazyLock<Vec<Golden>> = LazyLock::new(|| {
    let file: Value = serde_json::from_str(include_str!("../../../../../testdata/text/vocabularies.json")).unwrap();
    let ids = |value: &Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let texts: Vec<&str> = file["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let golden = |case: &Value| {
        let vocabulary = parse(&case["vocabulary"]);
        let all = texts.iter().zip(case["ids"].as_array().unwrap());
        let cases =
            all.map(|(text, expected)| ((*text).to_owned(), ids(expected), case["llama_cpp"].get(text).map(ids)));
        Golden { tokenizer: Tokenizer::from_gguf(&vocabulary).unwrap(), cases: cases.collect(), vocabulary }
    };
    file["cases"].as_array().unwrap().iter().map(golden).collect()
});

fn parse(value: &Value) -> GgufVocabulary {
    let strings = |key: &str| value[key].as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect();
    let id = |key: &str| value[key].as_u64().map(|id| id as u32);
    GgufVocabulary {
        model: value["model"].as_str().unwrap().to_owned(),
        pre: value["pre"].as_str().unwrap().to_owned(),
        tokens: strings("tokens"),
        token_types: value["token_types"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap() as i32).collect(),
        scores: value["scores"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap() as f32).collect(),
        merges: strings("merges"),
        bos: id("bos"),
        eos: id("eos"),
        unknown: id("unknown"),
        add_bos: value["add_bos"].as_bool().unwrap(),
        add_space_prefix: value["add_space_prefix"].as_bool().unwrap(),
    }
}

pub(in crate::tokenizer) fn golden(pre: &str) -> &'static Golden {
    let named = |golden: &&Golden| golden.vocabulary.pre == pre && golden.vocabulary.model == "gpt2";
    GOLDEN.iter().find(named).unwrap()
}

pub(in crate::tokenizer) fn sentencepiece() -> &'static Golden {
    GOLDEN.iter().find(|golden| golden.vocabulary.model == "llama").unwrap()
}

#[test]
fn ids_are_those_of_the_libraries() {
    assert_eq!(GOLDEN.len(), 6);
    for Golden { vocabulary, tokenizer, cases } in &*GOLDEN {
        assert!(cases.len() >= 200);
        for (text, ids, llama_cpp) in cases {
            // SentencePiece takes `<s>` in a text as three characters; special tokens are found as llama.cpp does.
            let by_llama_cpp = llama_cpp.as_ref().filter(|_| vocabulary.model == "llama");
            let expected = by_llama_cpp.unwrap_or(ids);
            assert_eq!(&tokenizer.encode(text).unwrap(), expected, "{} {text:?}", vocabulary.pre);
            assert!(llama_cpp.is_none() || by_llama_cpp.is_some() || vocabulary.pre == "qwen2");
        }
    }
}

#[test]
fn a_text_comes_back_but_for_bytes_without_a_token_and_composed_characters() {
    for Golden { vocabulary, tokenizer, cases } in &*GOLDEN {
        for (text, ids, _) in cases {
            let lost = match vocabulary.pre.as_str() {
                "smollm" => text.contains("gone"),
                "qwen2" => !unicode_normalization_alignments::is_nfc(text),
                _ => vocabulary.model == "llama" && text.contains(SPACE),
            };
            assert_eq!(
                tokenizer.decode(&tokenizer.encode(text).unwrap()) != *text,
                lost,
                "{} {text:?}",
                vocabulary.pre
            );
            assert!(lost || tokenizer.decode(ids) == *text, "{} {text:?}", vocabulary.pre);
        }
    }
    let composed = golden("qwen2").tokenizer.encode("e\u{301}").unwrap();
    assert_eq!(golden("qwen2").tokenizer.decode(&composed), "é");
}

#[test]
fn user_defined_tokens_are_found_in_any_text_and_control_tokens_only_where_asked() {
    for Golden { vocabulary, tokenizer, .. } in &*GOLDEN {
        let think = tokenizer.token_id("<think>").unwrap();
        assert_eq!(vocabulary.token_types[think as usize], USER_DEFINED);
        assert!(tokenizer.encode_ordinary("a<think>b").unwrap().contains(&think));
        assert!(tokenizer.special_tokens().iter().all(|(text, _)| text != "<think>"));
        let eos = vocabulary.eos.unwrap();
        let text = format!("a{}b", vocabulary.tokens[eos as usize]);
        assert!(tokenizer.encode(&text).unwrap().contains(&eos));
        assert!(!tokenizer.encode_ordinary(&text).unwrap().contains(&eos));
        assert_eq!(tokenizer.decode(&tokenizer.encode_ordinary(&text).unwrap()), text);
        assert_eq!(vocabulary.special_tokens().eos, [eos]);
    }
}

#[test]
fn a_word_that_is_a_token_is_taken_whole_where_the_model_does() {
    // No merges lead to this token, so nothing else does.
    let tokenizer = &golden("llama-bpe").tokenizer;
    let word = tokenizer.token_id("guillemets").unwrap();
    assert_eq!(tokenizer.encode("guillemets").unwrap(), [word]);
    assert!(!tokenizer.encode("(guillemets").unwrap().contains(&word));
}

#[test]
fn the_order_of_pieces_is_that_of_scores_not_of_ids() {
    let mut vocabulary = sentencepiece().vocabulary.clone();
    vocabulary.tokens[260..].reverse();
    vocabulary.scores[260..].reverse();
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    let theirs = hugging_face(&tokenizer);
    for (text, ids, llama_cpp) in &sentencepiece().cases {
        let expected = llama_cpp.as_ref().unwrap_or(ids);
        let moved: Vec<u32> = expected.iter().map(|&id| if id < 260 { id } else { 879 - id }).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), moved, "{text:?}");
        assert_eq!(theirs.encode(text.as_str(), false).unwrap().get_ids(), moved, "{text:?}");
    }
}

#[test]
fn the_file_of_a_gguf_vocabulary_is_read_back_by_us_and_by_hugging_faces_library() {
    for Golden { vocabulary, tokenizer, cases } in &*GOLDEN {
        let json = tokenizer.to_json().unwrap();
        let ours = crate::tokenizer::json::parse(json.as_bytes()).unwrap();
        assert!(!matches!(ours.model, Model::Foreign { .. }), "{}", vocabulary.pre);
        assert_eq!(ours.to_json().unwrap(), json);
        assert_eq!(ours.vocab_size(), tokenizer.vocab_size());
        let theirs = hugging_face(tokenizer);
        assert_eq!(theirs.get_vocab_size(true), tokenizer.vocab_size());
        for (text, ids, _) in cases {
            assert_eq!(ours.encode(text).unwrap(), tokenizer.encode(text).unwrap());
            assert_eq!(
                theirs.encode(text.as_str(), false).unwrap().get_ids(),
                tokenizer.encode(text).unwrap(),
                "{text:?}"
            );
            assert_eq!(ours.decode(ids), tokenizer.decode(ids));
        }
        let with_bos = theirs.encode("a", true).unwrap().get_ids()[0] == vocabulary.bos.unwrap();
        assert_eq!(with_bos, vocabulary.add_bos);
    }
}

/// The message for what `change` makes of the vocabulary for `pre`.
fn message(original: &Golden, change: impl FnOnce(&mut GgufVocabulary)) -> String {
    let mut vocabulary = original.vocabulary.clone();
    change(&mut vocabulary);
    let message = Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string();
    message.lines().next().unwrap().to_owned()
}

#[test]
fn what_is_wrong_with_a_vocabulary_is_named() {
    let gpt2 = golden("gpt-2");
    let check = |expected: &str, change: fn(&mut GgufVocabulary)| {
        assert_eq!(message(gpt2, change), format!("GGUF vocabulary: `tokenizer.ggml.{expected}"));
    };
    check("model` is \"bert\", expected `gpt2` or `llama`", |v| v.model = "bert".to_owned());
    check(
        "pre` is \"tekken\", expected one of `gpt-2`, `smollm`, `llama-bpe`, `qwen2`, `default`, `phi-2`, `llama3`, `llama-v3`, `deepseek-r1-qwen`",
        |v| v.pre = "tekken".to_owned(),
    );
    check("tokens` is a list of 0, expected 1 to 4194304 tokens", |v| v.tokens.clear());
    check("token_type` is a list of 520, expected 521, as `tokens`", |v| v.token_types.truncate(520));
    check("token_type` is 9 for token 7, expected 1 to 6", |v| v.token_types[7] = 9);
    check("eos_token_id` is 521, expected an id below 521", |v| v.eos = Some(521));
    check("tokens` is \"a b\" for token 9, expected bytes as letters, such as `Ġthe`", |v| {
        v.tokens[9] = "a b".to_owned();
    });
    check("merges` is \"a zzz\" at place 2, expected two tokens with a space between that together are a third", |v| {
        v.merges[2] = "a zzz".to_owned();
    });
    let check = |expected: &str, change: fn(&mut GgufVocabulary)| {
        assert_eq!(message(sentencepiece(), change), format!("GGUF vocabulary: `tokenizer.ggml.{expected}"));
    };
    check("scores` is a list of 1, expected 620, as `tokens`", |v| v.scores.truncate(1));
    check("scores` is NaN for token 400, expected a finite number", |v| v.scores[400] = f32::NAN);
    check("tokens` is \"<0xZZ>\" for the byte token 10, expected the form `<0x0A>`", |v| {
        v.tokens[10] = "<0xZZ>".to_owned();
    });
}

#[test]
fn a_vocabulary_written_for_gguf_is_the_one_it_was_read_from() {
    for Golden { vocabulary, tokenizer, .. } in &*GOLDEN {
        assert_eq!(&tokenizer.to_gguf(&vocabulary.special_tokens()).unwrap(), vocabulary);
    }
}

#[test]
fn our_own_byte_level_tokenizers_are_written_for_gguf() {
    for tokenizer in
        [Tokenizer::gpt2(), Tokenizer::bytes(), Tokenizer::train_bpe(["aa bb aa bb"], 259, &["<s>"]).unwrap()]
    {
        let vocabulary = tokenizer.to_gguf(&SpecialTokens::default()).unwrap();
        assert_eq!(vocabulary.pre, "gpt-2");
        let read = Tokenizer::from_gguf(&vocabulary).unwrap();
        let text = "Hello, aa bb <|endoftext|><s> 123  ü";
        assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert_eq!(read.special_tokens(), tokenizer.special_tokens());
    }
}

#[test]
fn ids_without_a_token_are_unused_ones() {
    let mut vocabulary = golden("smollm").vocabulary.clone();
    vocabulary.pad_to(524);
    assert_eq!(vocabulary.tokens[523], "[PAD523]");
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    assert_eq!(tokenizer.vocab_size(), 524);
    assert!(!tokenizer.encode("[PAD523]").unwrap().contains(&523));
    assert_eq!(tokenizer.decode(&[523]), "[PAD523]");
    assert_eq!(tokenizer.to_gguf(&vocabulary.special_tokens()).unwrap(), vocabulary);
}

#[test]
fn what_gguf_cannot_say_is_named() {
    let message = |tokenizer: &Tokenizer| {
        let error = tokenizer.to_gguf(&SpecialTokens::default()).unwrap_err().to_string();
        error
            .lines()
            .next()
            .unwrap()
            .trim_start_matches("this tokenizer cannot be written into a GGUF file: ")
            .to_owned()
    };
    assert_eq!(message(&Tokenizer::chars("ab")), "it is made of characters");
    assert_eq!(message(&crate::tokenizer::foreign_bytes()), "it is neither byte-level nor SentencePiece's BPE");
    let change = |pre: &str, change: fn(&mut Value)| {
        let mut file: Value = serde_json::from_str(&golden(pre).tokenizer.to_json().unwrap()).unwrap();
        change(&mut file);
        crate::tokenizer::json::parse(file.to_string().as_bytes()).unwrap()
    };
    let composing = change("gpt-2", |file| file["normalizer"] = serde_json::json!({"type": "NFC"}));
    assert_eq!(message(&composing), "it composes Unicode characters first, which GGUF has no key for");
    let whole = change("smollm", |file| file["model"]["ignore_merges"] = true.into());
    assert_eq!(
        message(&whole),
        "no pattern that llama.cpp has a name for (`tokenizer.ggml.pre`) cuts text into words as it does"
    );
}

#[test]
fn a_character_without_bytes_is_the_unknown_token_once_for_a_run() {
    let mut vocabulary = sentencepiece().vocabulary.clone();
    for (token, kind) in vocabulary.tokens.iter_mut().zip(&mut vocabulary.token_types).filter(|(_, kind)| **kind == 6) {
        (*token, *kind) = ("unused".to_owned(), UNUSED);
    }
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    let [begin, end] = [tokenizer.encode("a").unwrap()[0], tokenizer.token_id("b").unwrap()];
    assert_eq!(tokenizer.encode("a中文b").unwrap(), [begin, 0, end]);
    vocabulary.unknown = None;
    vocabulary.token_types[0] = CONTROL;
    let error = Tokenizer::from_gguf(&vocabulary).unwrap().encode("<s>a中文b").unwrap_err();
    assert!(matches!(error, TextError::UnknownCharacter { character: '中', offset: 4, .. }), "{error}");
}

/// `merge` as llama2.c does it: the best neighbours of all, again and again.
fn llama2c_reference(vocabulary: &GgufVocabulary, text: &str) -> Vec<u32> {
    let find = |wanted: &str| vocabulary.tokens.iter().position(|token| token == wanted);
    let mut ids = Vec::new();
    let written = text.replace(' ', "\u{2581}");
    for character in Some('\u{2581}').filter(|_| !text.is_empty()).into_iter().chain(written.chars()) {
        match find(&character.to_string()) {
            Some(id) => ids.push(id),
            None => ids.extend(character.to_string().bytes().map(|byte| byte as usize + 4)),
        }
    }
    loop {
        let (mut best, mut best_score) = (None, -1e10);
        for at in 1..ids.len() {
            if let Some(id) = find(&[&*vocabulary.tokens[ids[at - 1]], &*vocabulary.tokens[ids[at]]].concat())
                && vocabulary.scores[id] > best_score
            {
                (best, best_score) = (Some((at, id)), vocabulary.scores[id]);
            }
        }
        let Some((at, id)) = best else { break };
        ids[at - 1] = id;
        ids.remove(at);
    }
    ids.into_iter().map(|id| id as u32).collect()
}

proptest! {
    #[test]
    fn decode_undoes_encode(text: String) {
        for pre in ["gpt-2", "llama-bpe", "default"] {
            let tokenizer = &golden(pre).tokenizer;
            prop_assert_eq!(&tokenizer.decode(&tokenizer.encode(&text).unwrap()), &text);
        }
        let text = text.replace(SPACE, " ");
        let tokenizer = &sentencepiece().tokenizer;
        prop_assert_eq!(&tokenizer.decode(&tokenizer.encode(&text).unwrap()), &text);
        prop_assert_eq!(&tokenizer.decode(&tokenizer.encode_ordinary(&text).unwrap()), &text);
    }

    #[test]
    fn ids_are_those_of_hugging_faces_library(
        text in r"(\PC|[ \n\r\ta-e'<|>1é=.-]| the|'[lL]{2}|12|<\|im_end\|>|<think>|<s>|banana|\u{301}){0,40}"
    ) {
        static THEIRS: LazyLock<Vec<tokenizers::Tokenizer>> =
            LazyLock::new(|| GOLDEN.iter().map(|golden| hugging_face(&golden.tokenizer)).collect());
        for (golden, theirs) in GOLDEN.iter().zip(&*THEIRS) {
            let theirs = theirs.encode(text.as_str(), false).unwrap();
            prop_assert_eq!(golden.tokenizer.encode(&text).unwrap(), theirs.get_ids(), "{}", golden.vocabulary.pre);
        }
    }

    #[test]
    fn sentencepiece_merges_as_llama2c_does(text in r"([ a-e=.\né]| the|aa|  |and|中){0,30}") {
        let Golden { vocabulary, tokenizer, .. } = sentencepiece();
        prop_assert_eq!(tokenizer.encode(&text).unwrap(), llama2c_reference(vocabulary, &text));
    }
}
