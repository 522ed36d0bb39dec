//! The text of a ladder: written once, so that every rung reads the same and is measured on the same.

use super::LadderSettings;
use crate::error::CliError;
use crate::text;
use cavy_text::{Corpus, Document, Tokenizer, split, stories};
use cavy_train::{PretrainSettings, data};
use std::io::Write;
use std::path::Path;

/// Data that the program makes itself.
const BUILTIN: &str = "builtin:stories";
/// Bytes that a token of the built-in text has at most, for how much of it is made.
const BYTES_PER_TOKEN: f64 = 2.5;
/// Text that a tokenizer is trained on, at most.
const TOKENIZER_BYTES: usize = 4_000_000;
/// Validation text: of the built-in, bytes; of a user's, its share.
const VALIDATION_BYTES: usize = 1_000_000;
const VALIDATION_SHARE: f64 = 0.05;
/// Written last: where it is, the text is whole.
const DONE: &str = "done";

/// What there is to train on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Tokens of training text.
    pub(super) train: usize,
    /// Tokens of validation text.
    pub(super) validation: usize,
    /// Tokens of the vocabulary.
    pub(super) vocab_size: usize,
}

/// Writes `train.jsonl`, `val.jsonl` and, for `bpe:N`, `tokenizer.json` into `folder`, unless they are there; counts tokens.
///
/// Errors: text that cannot be read or is too little; the disk's.
pub(super) fn prepare(settings: &LadderSettings, folder: &Path) -> Result<Tokens, CliError> {
    if !folder.join(DONE).exists() {
        fs_err::create_dir_all(folder).map_err(CliError::write(folder))?;
        text::say("preparing the text");
        let (train, validation) = documents(settings)?;
        write(&folder.join("train.jsonl"), &train)?;
        write(&folder.join("val.jsonl"), &validation)?;
        if let Some(count) = bpe(&settings.tokenizer)? {
            let mut bytes = 0;
            let some = train.iter().take_while(|document| {
                let fits = bytes < TOKENIZER_BYTES;
                bytes += document.text.len();
                fits
            });
            let texts = some.map(|document| document.text.as_str());
            let trained = Tokenizer::train_bpe(texts, count, &[cavy_text::tokenizer::END_OF_TEXT])?;
            trained.save(folder.join("tokenizer.json"))?;
        }
        let done = folder.join(DONE);
        fs_err::write(&done, "").map_err(CliError::write(&done))?;
    }
    let file = |name: &str| vec![folder.join(name).display().to_string()];
    let run = PretrainSettings {
        data: file("train.jsonl"),
        val_data: file("val.jsonl"),
        tokenizer: tokenizer(settings, folder),
        ..PretrainSettings::default()
    };
    let data = data::prepare(&run, None, &mut |_| {})?;
    Ok(Tokens { train: data.train.len(), validation: data.val.len(), vocab_size: data.tokenizer.vocab_size() })
}

/// The tokenizer as a run is told of it.
pub(super) fn tokenizer(settings: &LadderSettings, folder: &Path) -> String {
    if settings.tokenizer.starts_with("bpe:") {
        folder.join("tokenizer.json").display().to_string()
    } else {
        settings.tokenizer.clone()
    }
}

/// Tokens of a vocabulary, where that is known without the text.
pub(super) fn vocab_size(tokenizer: &str) -> Result<usize, CliError> {
    Ok(match (tokenizer, bpe(tokenizer)?) {
        (_, Some(count)) => count,
        ("gpt2", _) => Tokenizer::gpt2().vocab_size(),
        ("byte" | "bytes", _) => Tokenizer::bytes().vocab_size(),
        // About what English text has.
        ("char" | "chars", _) => 100,
        (path, _) => Tokenizer::from_file(path)?.vocab_size(),
    })
}

/// The count of `bpe:N`.
fn bpe(tokenizer: &str) -> Result<Option<usize>, CliError> {
    let Some(count) = tokenizer.strip_prefix("bpe:") else { return Ok(None) };
    let count = count.parse().ok().filter(|count| (257..=1 << 20).contains(count));
    let wrong = || CliError::usage(format!("`--tokenizer` is `{tokenizer}`"), "write for instance `bpe:512`");
    count.map(Some).ok_or_else(wrong)
}

/// Training and validation documents.
fn documents(settings: &LadderSettings) -> Result<(Vec<Document>, Vec<Document>), CliError> {
    if settings.data == [BUILTIN] {
        let longest = settings.target.max(2.0 * settings.largest) * settings.tokens_per_parameter;
        let bytes = (BYTES_PER_TOKEN * longest * 1.1) as usize;
        return Ok(stories::corpus(settings.seed, bytes.max(1_000_000), VALIDATION_BYTES));
    }
    let mut all = Vec::new();
    for path in &settings.data {
        all.extend(Corpus::open(path, &settings.text_key)?.read_all()?);
    }
    let split = split::by_fraction(all, 1.0 - VALIDATION_SHARE, settings.seed)?;
    Ok((split.train, split.validation))
}

/// Writes documents as JSON lines.
fn write(path: &Path, documents: &[Document]) -> Result<(), CliError> {
    let mut file = std::io::BufWriter::new(fs_err::File::create(path).map_err(CliError::write(path))?);
    for document in documents {
        let line = serde_json::json!({"text": document.text});
        writeln!(file, "{line}").map_err(CliError::write(path))?;
    }
    file.flush().map_err(CliError::write(path))
}
