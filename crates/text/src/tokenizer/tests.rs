use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;

static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);
static TRAINED: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::train_bpe([crate::stories::text(5, 100_000)], 700, &[END_OF_TEXT]).unwrap());

/// `tokenizer` as Hugging Face's library reads it from its file.
pub(crate) fn hugging_face(tokenizer: &Tokenizer) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(tokenizer.to_json().unwrap()).unwrap()
}

#[test]
fn gpt2_ids_are_those_of_tiktoken() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../../../testdata/text/gpt2.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 12);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(GPT2.encode_ordinary(text).unwrap(), expected, "{text:?}");
        assert_eq!(GPT2.decode(&expected), text);
    }
    assert_eq!((GPT2.vocab_size(), GPT2.end_of_text()), (50_257, Some(50_256)));
}

#[test]
fn special_tokens_in_a_text_count_only_where_asked() {
    let text = "one<|endoftext|>two";
    assert_eq!(GPT2.encode(text).unwrap(), [505, 50_256, 11545]);
    assert!(!GPT2.encode_ordinary(text).unwrap().contains(&50_256));
    assert_eq!(GPT2.decode(&GPT2.encode_ordinary(text).unwrap()), text);
    assert_eq!(GPT2.encode_batch(&[text]).unwrap()[0], GPT2.encode_ordinary(text).unwrap());
}

#[test]
fn characters_are_numbered_in_their_order_and_unknown_ones_are_named() {
    let tokenizer = Tokenizer::chars("hello, world\nä");
    assert_eq!(tokenizer.vocab_size(), 11);
    assert_eq!(tokenizer.encode("\n ,d").unwrap(), [0, 1, 2, 3]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("dä rol").unwrap()), "dä rol");
    assert_eq!(tokenizer.end_of_text(), None);
    insta::assert_snapshot!(tokenizer.encode("häx").unwrap_err().to_string(), @r"
    character 'x' at byte 3 is not among the 11 characters of this tokenizer
    hint: make the tokenizer from all of the text, or use a byte-level one (`bytes`, `gpt2`)
    ");
}

#[test]
fn bytes_are_their_own_ids() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(tokenizer.encode("aä<|endoftext|>").unwrap(), [97, 195, 164, 256]);
    assert_eq!(tokenizer.vocab_size(), 257);
}

#[test]
fn unknown_ids_and_broken_characters_decode_to_the_replacement_character() {
    assert_eq!(GPT2.decode(&[505, 60_000]), "one\u{FFFD}");
    assert_eq!(Tokenizer::bytes().decode(&[97, 195]), "a\u{FFFD}");
    assert_eq!(Tokenizer::bytes().decode_bytes(&[195]), [195]);
    assert_eq!(Tokenizer::chars("ab").decode(&[0, 7]), "a\u{FFFD}");
}

#[test]
fn a_saved_tokenizer_is_the_same_after_loading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    for tokenizer in [Tokenizer::gpt2(), Tokenizer::bytes(), Tokenizer::chars("hello wörld\n")] {
        tokenizer.save(&path).unwrap();
        let loaded = Tokenizer::from_file(&path).unwrap();
        assert!(!matches!(loaded.model, Model::Foreign { .. }));
        assert_eq!(loaded.to_json().unwrap(), tokenizer.to_json().unwrap());
        assert_eq!(loaded.fingerprint(), tokenizer.fingerprint());
        assert_eq!((loaded.vocab_size(), loaded.end_of_text()), (tokenizer.vocab_size(), tokenizer.end_of_text()));
    }
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    assert_ne!(Tokenizer::bytes().fingerprint(), GPT2.fingerprint());
}

/// The bytes tokenizer's file with the special token in front of the bytes, as `BpeTrainer` puts it.
fn special_in_front() -> serde_json::Value {
    let mut file: serde_json::Value = serde_json::from_str(&Tokenizer::bytes().to_json().unwrap()).unwrap();
    file["added_tokens"][0]["id"] = 0.into();
    for (_, id) in file["model"]["vocab"].as_object_mut().unwrap() {
        *id = ((id.as_u64().unwrap() + 1) % 257).into();
    }
    file
}

#[test]
fn special_tokens_may_stand_anywhere_among_the_ids() {
    let tokenizer = json::parse(special_in_front().to_string().as_bytes()).unwrap();
    assert!(matches!(tokenizer.model, Model::Bpe(_)));
    assert_eq!((tokenizer.vocab_size(), tokenizer.end_of_text()), (257, Some(0)));
    assert_eq!(tokenizer.encode("a<|endoftext|>b").unwrap(), [98, 0, 99]);
    assert_eq!(tokenizer.encode_ordinary("a<|endoftext|>").unwrap().len(), 14);
    assert_eq!(tokenizer.decode(&[98, 0, 99]), "a<|endoftext|>b");
}

/// Bytes with a special token that takes the white space before it, which is none of ours.
pub(crate) fn foreign_bytes() -> Tokenizer {
    let mut file = special_in_front();
    file["added_tokens"][0]["lstrip"] = true.into();
    json::parse(file.to_string().as_bytes()).unwrap()
}

#[test]
fn a_tokenizer_of_another_kind_goes_through_hugging_faces_library() {
    let tokenizer = foreign_bytes();
    assert!(matches!(tokenizer.model, Model::Foreign { .. }));
    assert_eq!((tokenizer.vocab_size(), tokenizer.end_of_text()), (257, Some(0)));
    assert_eq!(tokenizer.encode("a <|endoftext|>b").unwrap(), [98, 0, 99]);
    assert_eq!(tokenizer.encode_ordinary("a<|endoftext|>").unwrap().len(), 14);
    assert_eq!(tokenizer.decode(&[98, 0, 99]), "a<|endoftext|>b");
}

#[test]
fn files_that_are_no_tokenizers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let message = |content: &str| {
        fs_err::write(&path, content).unwrap();
        Tokenizer::from_file(&path).unwrap_err().to_string().replace(&path.display().to_string(), "tokenizer.json")
    };
    insta::assert_snapshot!(message("{"), @r"
    tokenizer.json: not a usable tokenizer: not valid JSON: EOF while parsing an object at line 1 column 1
    hint: expected a `tokenizer.json` of Hugging Face's `tokenizers`
    ");
    insta::assert_snapshot!(message("{}"), @r"
    tokenizer.json: not a usable tokenizer: Model missing. at line 1 column 2
    hint: expected a `tokenizer.json` of Hugging Face's `tokenizers`
    ");
    assert!(matches!(Tokenizer::from_file(folder.path().join("none")), Err(TextError::Missing { .. })));
}

/// Checks that our ids of `text` are those of Hugging Face's library and that they decode to it.
fn check_against_hugging_face(ours: &Tokenizer, theirs: &tokenizers::Tokenizer, text: &str) {
    let ids = ours.encode(text).unwrap();
    assert_eq!(ids, theirs.encode(text, false).unwrap().get_ids(), "{text:?}");
    assert_eq!(ours.decode(&ids), text);
    assert_eq!(theirs.decode(&ids, false).unwrap(), text);
}

proptest! {
    #[test]
    fn decode_undoes_encode(text: String) {
        for tokenizer in [&*GPT2, &*TRAINED, &Tokenizer::bytes(), &Tokenizer::chars(&text)] {
            prop_assert_eq!(&tokenizer.decode(&tokenizer.encode(&text).unwrap()), &text);
            prop_assert_eq!(&tokenizer.decode(&tokenizer.encode_ordinary(&text).unwrap()), &text);
        }
    }

    #[test]
    fn our_ids_are_those_of_hugging_faces_library(text in r"(\PC|[ \n\ta-e'<|>1é]| the|'ll|<\|endoftext\|>){0,40}") {
        static THEIRS: LazyLock<[tokenizers::Tokenizer; 3]> =
            LazyLock::new(|| [hugging_face(&GPT2), hugging_face(&TRAINED), hugging_face(&Tokenizer::bytes())]);
        check_against_hugging_face(&GPT2, &THEIRS[0], &text);
        check_against_hugging_face(&TRAINED, &THEIRS[1], &text);
        check_against_hugging_face(&Tokenizer::bytes(), &THEIRS[2], &text);
        let characters = Tokenizer::chars(&text);
        check_against_hugging_face(&characters, &hugging_face(&characters), &text);
    }
}

#[test]
fn hugging_faces_library_too_refuses_unknown_characters() {
    assert!(hugging_face(&Tokenizer::chars("ab")).encode("abc", false).is_err());
}
