//! From the settings to token ids: read the text, split it, get or train the tokenizer, tokenize once.

use crate::{PretrainSettings, SettingsError, TrainError};
use cavy_text::rng::hash_bytes;
use cavy_text::split::TrainValidation;
use cavy_text::{Corpus, Document, TextError, TokenStore, Tokenizer, shards, split, stories};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Data that the program makes itself: `builtin:stories`, or `builtin:stories:N` for N MB of training text.
const BUILTIN: &str = "builtin:stories";
/// Megabytes of built-in training text, unless told otherwise.
const BUILTIN_MEGABYTES: usize = 8;
/// Text up to this size is tokenized in memory; more goes into memory-mapped shards.
const IN_MEMORY_BYTES: usize = 64 << 20;
/// Ids at either end of a split that its fingerprint looks at.
const FINGERPRINT_TOKENS: usize = 1 << 16;

/// What a run learns from and is measured on.
#[derive(Debug)]
pub struct Data {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Training text.
    pub train: TokenStore,
    /// Validation text.
    pub val: TokenStore,
}

/// What tells the data of one run from that of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFingerprint {
    /// Tokens of training text.
    pub train_tokens: usize,
    /// Tokens of validation text.
    pub val_tokens: usize,
    /// What the tokenizer does.
    pub tokenizer: u64,
    /// Beginning and end of both texts.
    pub text: u64,
}

impl Data {
    /// The fingerprint of this data.
    pub fn fingerprint(&self) -> DataFingerprint {
        let text = [&self.train, &self.val].into_iter().fold(0, |hash, store| {
            let ends = store.len().min(FINGERPRINT_TOKENS);
            let (mut first, mut last) = (vec![0; ends], vec![0; ends]);
            store.copy(0..ends, &mut first);
            store.copy(store.len() - ends..store.len(), &mut last);
            let bytes: Vec<u8> = first.iter().chain(&last).flat_map(|id| id.to_le_bytes()).collect();
            hash_bytes(hash, &bytes)
        });
        DataFingerprint {
            train_tokens: self.train.len(),
            val_tokens: self.val.len(),
            tokenizer: self.tokenizer.fingerprint(),
            text,
        }
    }
}

/// Reads, splits and tokenizes the text of `settings`.
///
/// Shards as `cavy data curate` writes them are read as they are. With `val_data`, all of `data` is for training. Without it, built-in data brings held-out text of its own, and of
/// other text the share `val_fraction` is held out: the end of a single document, or whole documents. A trained
/// tokenizer sees training text only; a character tokenizer gets the characters of both.
///
/// Large text is kept as shards in `cache`, if there is one, and what is found there is used again; `note` hears of
/// what takes a while.
///
/// Errors: missing, empty or broken text; an unusable tokenizer; the disk's.
pub fn prepare(
    settings: &PretrainSettings,
    cache: Option<&Path>,
    note: &mut dyn FnMut(String),
) -> Result<Data, TrainError> {
    prepare_up_to(IN_MEMORY_BYTES, settings, cache, note)
}

/// [`prepare`] with another bound for what is kept in memory.
fn prepare_up_to(
    in_memory_bytes: usize,
    settings: &PretrainSettings,
    cache: Option<&Path>,
    note: &mut dyn FnMut(String),
) -> Result<Data, TrainError> {
    if let Some(data) = cache.and_then(reopened) {
        return data;
    }
    if settings.data.iter().any(|path| is_shards(path)) {
        return ready(settings);
    }
    let TrainValidation { train, validation: val } = documents(settings)?;
    let bytes = |documents: &[Document]| documents.iter().map(|document| document.text.len()).sum::<usize>();
    let (train_bytes, val_bytes) = (bytes(&train), bytes(&val));
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    note(format!(
        "text: {:.2} MB for training, {:.2} MB for validation; tokenizer `{}`",
        megabytes(train_bytes),
        megabytes(val_bytes),
        settings.tokenizer
    ));
    let tokenizer = tokenizer(&settings.tokenizer, &train, &val)?;
    let all = |documents: Vec<Document>| documents.into_iter().map(Ok::<_, TextError>);
    let (train, val) = match cache {
        Some(cache) if train_bytes + val_bytes > in_memory_bytes => {
            note(format!("tokenizing into {}", cache.display()));
            let store = |name: &str, documents| {
                let folder = cache.join(name);
                fs::create_dir_all(cache).map_err(crate::files::write_error(cache))?;
                Ok::<_, TrainError>(shards::write(&folder, all(documents), &tokenizer, shards::SHARD_TOKENS)?)
            };
            let stores = (store("train", train)?, store("val", val)?);
            // Written last: where it is, the shards are whole.
            tokenizer.save(cache.join("tokenizer.json"))?;
            stores
        }
        _ => (TokenStore::build(all(train), &tokenizer)?, TokenStore::build(all(val), &tokenizer)?),
    };
    Ok(Data { tokenizer, train, val })
}

/// The data that an earlier call left in `cache`, if it did.
fn reopened(cache: &Path) -> Option<Result<Data, TrainError>> {
    let saved = cache.join("tokenizer.json");
    let open = || {
        let tokenizer = Tokenizer::from_file(&saved)?;
        let train = TokenStore::open(&cache.join("train"), &tokenizer)?;
        let val = TokenStore::open(&cache.join("val"), &tokenizer)?;
        Ok(Data { tokenizer, train, val })
    };
    saved.exists().then(open)
}

/// The first file of a folder of shards.
const FIRST_SHARD: &str = "tokens-00000.shard";

fn is_shards(path: &str) -> bool {
    Path::new(path).join(FIRST_SHARD).exists()
}

/// Data of which the training text is shards already, as `cavy data curate --shards` writes them.
fn ready(settings: &PretrainSettings) -> Result<Data, TrainError> {
    let invalid = |key: &str, found: String, expected: &str, hint: &str| {
        TrainError::from(SettingsError::Invalid {
            key: key.to_owned(),
            found,
            expected: expected.to_owned(),
            hint: hint.to_owned(),
        })
    };
    let [folder] = &settings.data[..] else {
        let found = format!("{} paths, shards among them", settings.data.len());
        return Err(invalid("data", found, "one folder of shards, or text alone", "curate all of it together"));
    };
    if settings.val_data.is_empty() {
        let hint = "give text that was held out, or shards of it, in `val_data`";
        return Err(invalid("val_data", "nothing".to_owned(), "a path, since shards are shuffled", hint));
    }
    if settings.tokenizer.starts_with("bpe:") || matches!(&*settings.tokenizer, "char" | "chars") {
        let found = format!("`{}`", settings.tokenizer);
        return Err(invalid("tokenizer", found, "the one that wrote the shards", "name it as the recipe does"));
    }
    let tokenizer = tokenizer(&settings.tokenizer, &[], &[])?;
    let train = TokenStore::open(Path::new(folder), &tokenizer)?;
    let val = match &settings.val_data[..] {
        [held_out] if is_shards(held_out) => TokenStore::open(Path::new(held_out), &tokenizer)?,
        _ => {
            let TrainValidation { validation, .. } =
                documents(&PretrainSettings { data: Vec::new(), ..settings.clone() })?;
            TokenStore::build(validation.into_iter().map(Ok::<_, TextError>), &tokenizer)?
        }
    };
    Ok(Data { tokenizer, train, val })
}

/// Training and validation documents.
fn documents(settings: &PretrainSettings) -> Result<TrainValidation, TrainError> {
    let (mut train, mut val) = (Vec::new(), Vec::new());
    let mut read = Vec::new();
    for path in &settings.data {
        match builtin(settings, "data", path)? {
            Some(made) => {
                train.extend(made.train);
                if settings.val_data.is_empty() {
                    val.extend(made.validation);
                }
            }
            None => read.extend(Corpus::open(path, &settings.text_key)?.read_all()?),
        }
    }
    for path in &settings.val_data {
        match builtin(settings, "val_data", path)? {
            Some(made) => val.extend(made.validation),
            None => val.extend(Corpus::open(path, &settings.text_key)?.read_all()?),
        }
    }
    if settings.val_data.is_empty() && !read.is_empty() {
        let split = split::by_fraction(read, 1.0 - settings.val_fraction, settings.run.seed)?;
        train.extend(split.train);
        val.extend(split.validation);
    } else {
        train.extend(read);
    }
    Ok(TrainValidation { train, validation: val })
}

/// Training and held-out documents of a built-in data set, if `path` names one.
fn builtin(settings: &PretrainSettings, key: &str, path: &str) -> Result<Option<TrainValidation>, SettingsError> {
    if !path.starts_with("builtin:") {
        return Ok(None);
    }
    let megabytes = match path.strip_prefix(BUILTIN) {
        Some("") => Some(BUILTIN_MEGABYTES),
        Some(rest) => rest.strip_prefix(':').and_then(|count| count.parse().ok()).filter(|&count| count > 0),
        None => None,
    };
    let Some(megabytes) = megabytes else {
        return Err(SettingsError::Invalid {
            key: key.to_owned(),
            found: format!("`{path}`"),
            expected: format!("`{BUILTIN}`, or `{BUILTIN}:N` for N MB of it"),
            hint: format!("write for instance `{BUILTIN}:{BUILTIN_MEGABYTES}`"),
        });
    };
    let train_bytes = megabytes * 1_000_000;
    let held_out = (train_bytes as f64 * settings.val_fraction) as usize;
    let (train, validation) = stories::corpus(settings.run.seed, train_bytes, held_out);
    Ok(Some(TrainValidation { train, validation }))
}

/// The tokenizer that `spec` names.
fn tokenizer(spec: &str, train: &[Document], val: &[Document]) -> Result<Tokenizer, TrainError> {
    let texts = || train.iter().map(|document| document.text.as_str());
    Ok(match spec {
        "gpt2" => Tokenizer::gpt2(),
        "byte" | "bytes" => Tokenizer::bytes(),
        "char" | "chars" => {
            let all = texts().chain(val.iter().map(|document| document.text.as_str()));
            let characters: BTreeSet<char> = all.flat_map(str::chars).collect();
            Tokenizer::chars(&String::from_iter(characters))
        }
        _ => match spec.strip_prefix("bpe:").map(str::parse) {
            Some(Ok(count)) => Tokenizer::train_bpe(texts(), count, &[cavy_text::tokenizer::END_OF_TEXT])?,
            Some(Err(_)) => {
                return Err(TrainError::Settings(SettingsError::Invalid {
                    key: "tokenizer".to_owned(),
                    found: format!("`{spec}`"),
                    expected: "`bpe:N` with a number N".to_owned(),
                    hint: "write for instance `bpe:4096`".to_owned(),
                }));
            }
            None => Tokenizer::from_file(PathBuf::from(spec))?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(data: &Path) -> PretrainSettings {
        let data = vec![data.display().to_string()];
        PretrainSettings { data, tokenizer: "char".to_owned(), ..PretrainSettings::default() }
    }

    fn prepared(settings: &PretrainSettings) -> Result<Data, TrainError> {
        prepare(settings, None, &mut |_| ())
    }

    fn text(store: &TokenStore, tokenizer: &Tokenizer) -> String {
        let mut ids = vec![0; store.len()];
        store.copy(0..store.len(), &mut ids);
        tokenizer.decode(&ids)
    }

    #[test]
    fn one_text_is_cut_and_its_characters_are_the_vocabulary_of_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "abcdefghiz").unwrap();
        let data = prepared(&settings(&path)).unwrap();
        assert_eq!(text(&data.train, &data.tokenizer), "abcdefghi");
        assert_eq!(text(&data.val, &data.tokenizer), "z");
        assert_eq!((data.tokenizer.vocab_size(), data.val.text_bytes()), (10, 1));
        let before = data.fingerprint();
        fs::write(&path, "abcdefghza").unwrap();
        assert_ne!(before, prepared(&settings(&path)).unwrap().fingerprint());
    }

    #[test]
    fn large_text_is_tokenized_once_into_shards_that_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cache) = (folder.path().join("a.txt"), folder.path().join("run/tokens"));
        fs::write(&path, "some words, again and again. ".repeat(40)).unwrap();
        let settings = PretrainSettings { tokenizer: "byte".to_owned(), ..settings(&path) };
        let prepared = |bound| prepare_up_to(bound, &settings, Some(&cache), &mut |_| ()).unwrap().fingerprint();
        let in_memory = prepared(10_000);
        assert!(!cache.exists());
        assert_eq!(prepared(100), in_memory);
        assert!(cache.join("train/tokens-00000.shard").exists());
        // The text is not read again.
        fs::remove_file(&path).unwrap();
        assert_eq!(prepared(100), in_memory);
    }

    #[test]
    fn shards_are_read_as_they_are_with_the_tokenizer_that_wrote_them() {
        let folder = tempfile::tempdir().unwrap();
        let (path, val) = (folder.path().join("shards"), folder.path().join("b.txt"));
        fs::write(&val, "validation").unwrap();
        let documents = ["one text", "another"]
            .map(|text| Ok(Document { text: text.to_owned(), place: cavy_text::Place::File(val.clone()) }));
        let written = shards::write(&path, documents, &Tokenizer::bytes(), 5).unwrap();
        let of = |tokenizer: &str, val_data: &[&Path]| PretrainSettings {
            tokenizer: tokenizer.to_owned(),
            val_data: val_data.iter().map(|path| path.display().to_string()).collect(),
            ..settings(&path)
        };
        let data = prepared(&of("byte", &[&val])).unwrap();
        assert_eq!(text(&data.train, &data.tokenizer), text(&written, &Tokenizer::bytes()));
        assert_eq!(text(&data.val, &data.tokenizer), "validation");
        let data = prepared(&of("byte", &[&path])).unwrap();
        assert_eq!(data.val.len(), data.train.len());
        for (settings, expected) in
            [(of("byte", &[]), "val_data"), (of("char", &[&val]), "tokenizer"), (of("gpt2", &[&val]), "tokenizer")]
        {
            let error = prepared(&settings).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn validation_files_leave_all_of_the_data_for_training() {
        let folder = tempfile::tempdir().unwrap();
        let (train, val) = (folder.path().join("a.txt"), folder.path().join("b.txt"));
        fs::write(&train, "training text").unwrap();
        fs::write(&val, "validation").unwrap();
        let settings = PretrainSettings { val_data: vec![val.display().to_string()], ..settings(&train) };
        let data = prepared(&settings).unwrap();
        assert_eq!(text(&data.train, &data.tokenizer), "training text");
        assert_eq!(text(&data.val, &data.tokenizer), "validation");
    }

    #[test]
    fn built_in_stories_need_no_file_and_train_a_tokenizer() {
        let settings = PretrainSettings {
            data: vec!["builtin:stories:1".to_owned()],
            tokenizer: "bpe:400".to_owned(),
            ..PretrainSettings::default()
        };
        let data = prepared(&settings).unwrap();
        assert_eq!(data.tokenizer.vocab_size(), 400);
        assert!(data.train.text_bytes() >= 1_000_000 && data.val.text_bytes() >= 100_000);
        assert!(data.train.len() < 700_000, "{} tokens", data.train.len());
        let wrong = PretrainSettings { data: vec!["builtin:poems".to_owned()], ..settings };
        let error = prepared(&wrong).unwrap_err().to_string();
        assert!(error.contains("`builtin:poems`") && error.contains("builtin:stories"), "{error}");
    }

    #[test]
    fn a_missing_file_and_an_empty_one_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = prepared(&settings(&folder.path().join("nowhere.txt"))).unwrap_err().to_string();
        assert!(missing.contains("nowhere.txt") && missing.contains("no such file"), "{missing}");
        let path = folder.path().join("empty.txt");
        fs::write(&path, "").unwrap();
        let empty = prepared(&settings(&path)).unwrap_err().to_string();
        assert!(empty.contains("empty.txt") && empty.contains("the corpus is empty"), "{empty}");
    }
}
