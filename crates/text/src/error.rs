//! What can be wrong with text, tokenizers and shards. Each message says where, what was found and what to do.

use crate::{ItemProblem, Place};
use std::path::PathBuf;

/// The one error of this crate. Its messages are its documentation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum TextError {
    #[error(
        "{path}: no such file or folder\nhint: check the spelling; a relative path starts where the command is run"
    )]
    Missing { path: PathBuf },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}\nhint: check that the folder may be written to and that the disk is not full")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path}: the corpus is empty: {found}\nhint: {hint}")]
    EmptyCorpus { path: PathBuf, found: &'static str, hint: &'static str },
    #[error(
        "{path}: byte {offset} (line {line}) is not valid UTF-8\nhint: save the file as UTF-8, e.g. `iconv -f {guess} -t UTF-8 {path} > fixed.txt`"
    )]
    InvalidUtf8 { path: PathBuf, line: usize, offset: u64, guess: &'static str },
    #[error("{path}:{line}: not valid JSON: {reason}\nhint: a .jsonl file holds one JSON object per line")]
    BadJson { path: PathBuf, line: usize, reason: String },
    #[error(
        "{path}:{line}: found {found}, expected an object with a text under `{field}`\nhint: name the field that holds the text (`text_field`)"
    )]
    MissingField { path: PathBuf, line: usize, field: String, found: String },
    #[error(
        "the text is too short: it has {tokens} tokens, a context of {context} needs at least {needed}\nhint: give more text or choose a context of at most {at_most}"
    )]
    TooShort { tokens: usize, needed: usize, context: usize, at_most: usize },
    #[error(
        "character {character:?} at byte {offset} is not among the {known} characters of this tokenizer\nhint: make the tokenizer from all of the text, or use a byte-level one (`bytes`, `gpt2`)"
    )]
    UnknownCharacter { character: char, offset: usize, known: usize },
    #[error(
        "{path}: not a usable tokenizer: {reason}\nhint: expected a `tokenizer.json` of Hugging Face's `tokenizers`"
    )]
    TokenizerFile { path: PathBuf, reason: String },
    #[error(
        "GGUF vocabulary: `tokenizer.ggml.{key}` is {found}, expected {expected}\nhint: convert the model to GGUF again; another tokenizer may be given as a `tokenizer.json`"
    )]
    GgufVocabulary { key: &'static str, found: String, expected: String },
    #[error(
        "this tokenizer cannot be written into a GGUF file: {reason}\nhint: GGUF files hold byte-level BPE of GPT-2, SmolLM, Llama 3 and Qwen 2, and SentencePiece's BPE"
    )]
    NoGgufVocabulary { reason: &'static str },
    #[error(
        "llama2.c vocabulary: byte {at}: found {found}, expected {expected}\nhint: use the `.bin` that was made with the model"
    )]
    Llama2cVocabulary { at: usize, found: String, expected: String },
    #[error("{path}: not valid JSON: {reason}")]
    BadConfig { path: PathBuf, reason: String },
    #[error(
        "the chat template cannot be read: line {line}: {reason}\nhint: give another template as a `.jinja` file, for instance the one of the model's own folder"
    )]
    ChatTemplate { line: usize, reason: String },
    #[error("the chat template refuses this conversation: {message}")]
    ChatRefused { message: String },
    #[error(
        "the chat template fails at line {line}: {reason}\nhint: the messages may lack something that the template expects"
    )]
    ChatRender { line: usize, reason: String },
    #[error("this tokenizer cannot encode the text: {reason}")]
    Encode { reason: String },
    #[error("`{name}` is {found}, expected {expected}")]
    Setting { name: &'static str, found: String, expected: String },
    #[error("{path}: {found}, expected {expected}\nhint: remove the folder of shards and tokenize the text again")]
    Shard { path: PathBuf, found: String, expected: String },
    #[error(
        "these shards were made with another tokenizer: {path}\nhint: remove the folder and tokenize the text again"
    )]
    OtherTokenizer { path: PathBuf },
    #[error("{path}:{line}: {reason}")]
    BadRow { path: PathBuf, line: usize, reason: String },
    #[error(
        "{path}: found {found}, expected a file in .json, .jsonl, .csv, .tsv (also .gz of these) or .parquet\nhint: convert it, or rename it if its ending does not say what it is"
    )]
    RowsForm { path: PathBuf, found: String },
    #[error(
        "{path}: found {found}, expected `messages`, `conversations`, `prompt` and `completion`, `instruction` and `output`, or `text`\nhint: say which column is which, e.g. `columns = {{ instruction = \"question\", output = \"answer\" }}`"
    )]
    UnknownFormat { path: PathBuf, found: String },
    #[error(
        "`{found}` is no built-in data: there are {names}\nhint: a number after another colon says how many items, e.g. `builtin:spam:500`"
    )]
    Builtin { found: String, names: String },
    #[error("{path}: not a usable Parquet file: {reason}")]
    Parquet { path: PathBuf, reason: String },
    #[error(
        "{path}: found {found}, expected `chosen` and `rejected`, with `prompt` or `instruction` or as conversations\nhint: say which column is which, e.g. `columns = {{ chosen = \"better\", rejected = \"worse\" }}`"
    )]
    UnknownPairs { path: PathBuf, found: String },
    #[error("{place}: {problem}")]
    Item { place: Place, problem: ItemProblem },
    #[error(
        "the prompt template {template:?}: {found}\nhint: write for instance \"Q: {{instruction}}\\nA: {{response}}\""
    )]
    Template { template: String, found: String },
    #[error(
        "the model has no chat template, which these items need\nhint: use a model that has one, put a `chat_template.jinja` beside it, or set `prompt_template`"
    )]
    NoChatTemplate,
    #[error("{share} of {tokens} carries loss\nhint: {hint}")]
    LossShare { share: &'static str, tokens: usize, hint: &'static str },
    #[error("none of {items} items can be used: {reasons}\nhint: raise `max_length`, or look at the first of them")]
    NothingLeft { items: usize, reasons: String },
}

impl TextError {
    /// The error of failing to read `path`; a missing file has its own variant because its way out differs.
    pub(crate) fn read(path: &std::path::Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        if source.kind() == std::io::ErrorKind::NotFound { Self::Missing { path } } else { Self::Read { path, source } }
    }

    /// The error of failing to write `path`.
    pub(crate) fn write(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Write { path: path.to_path_buf(), source }
    }
}
