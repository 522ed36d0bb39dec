//! The tokens that have a part of their own: which begin a text, end it, fill it up or stand for the unknown.

use crate::Tokenizer;
use serde_json::Value;

/// Ids of tokens with a part of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// End a text or a turn: generation stops at any of them.
    pub eos: Vec<u32>,
    /// Fills up rows of a batch.
    pub pad: Option<u32>,
    /// Stands for what the vocabulary cannot write.
    pub unk: Option<u32>,
    /// Whether a prompt without a chat template begins with `bos`.
    pub add_bos: bool,
}

impl SpecialTokens {
    /// Reads them from a Hugging Face model's `tokenizer_config.json` (texts of tokens), `generation_config.json` and
    /// `config.json` (ids); `Value::Null` for a file that is not there. The ids to stop at are those of all three, the
    /// first of which is the tokenizer's own; for the others the tokenizer's word goes first, the generation's second.
    pub fn read(tokenizer: &Tokenizer, tokenizer_config: &Value, generation_config: &Value, config: &Value) -> Self {
        let by_text = |key: &str| {
            let token = &tokenizer_config[key];
            // A string, or an added token written out as an object.
            tokenizer.token_id(token.as_str().or_else(|| token["content"].as_str())?)
        };
        let ids = |key: &str| -> Vec<u32> {
            let values = [&generation_config[key], &config[key]];
            let listed = values
                .into_iter()
                .flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
            let ids = listed.filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok());
            ids.filter(|&id| (id as usize) < tokenizer.vocab_size()).collect()
        };
        let one = |name: &str| {
            by_text(&format!("{name}_token")).or_else(|| ids(&format!("{name}_token_id")).first().copied())
        };
        let mut eos: Vec<u32> = Vec::new();
        for id in by_text("eos_token").into_iter().chain(ids("eos_token_id")) {
            if !eos.contains(&id) {
                eos.push(id);
            }
        }
        let bos = one("bos");
        let add_bos = match tokenizer_config["add_bos_token"].as_bool() {
            Some(asked) => asked,
            None => bos.is_some() && tokenizer.first_added() == bos,
        };
        Self { bos, eos, pad: one("pad"), unk: one("unk"), add_bos: add_bos && bos.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tokens_of_all_three_files_are_found() {
        let tokenizer = Tokenizer::train_bpe([""], 260, &["<s>", "</s>", "<pad>", "<unk>"]).unwrap();
        let tokenizer_config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null,
            "unk_token": "<unk>", "add_bos_token": true});
        let generation_config = json!({"eos_token_id": [258, 257, 99_999], "pad_token_id": 258});
        let found = SpecialTokens::read(&tokenizer, &tokenizer_config, &generation_config, &json!({"eos_token_id": 7}));
        let expected =
            SpecialTokens { bos: Some(256), eos: vec![257, 258, 7], pad: Some(258), unk: Some(259), add_bos: true };
        assert_eq!(found, expected);
        let nothing = SpecialTokens::read(&tokenizer, &Value::Null, &Value::Null, &Value::Null);
        assert_eq!(nothing, SpecialTokens::default());
    }

    #[test]
    fn a_tokenizer_that_puts_bos_first_says_so() {
        let tokenizer = Tokenizer::train_bpe([""], 257, &["<s>"]).unwrap();
        let mut file: Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
        let config = json!({"bos_token": "<s>"});
        let read = |file: &Value| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tokenizer.json");
            fs_err::write(&path, file.to_string()).unwrap();
            SpecialTokens::read(&Tokenizer::from_file(path).unwrap(), &config, &Value::Null, &Value::Null)
        };
        assert!(!read(&file).add_bos);
        let template = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}});
        file["post_processor"] = template.clone();
        assert!(read(&file).add_bos);
        file["post_processor"] = json!({"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": true,
            "trim_offsets": false, "use_regex": true}, template]});
        assert!(read(&file).add_bos);
    }
}
