//! A model as a user names it: weights, tokenizer, chat template, special tokens.

use crate::adapters::AdapterArgs;
use crate::error::CliError;
use crate::sampling::Defaults;
use crate::{hub, text};
use cavy_files::Dtype;
use cavy_files::gguf::{Array, Metadata};
use cavy_model::{Device, Model, Origin, Source, Weights};
use cavy_ops::kernels::packed::Format;
use cavy_text::{ChatTemplate, GgufVocabulary, SpecialTokens, Tokenizer};
use cavy_train::base::{Base, Start};
use cavy_train::machine::Machine;
use cavy_train::settings::{ModelSettings, Precision};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Which model to open, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    /// Hugging Face folder, `.gguf`, PyTorch checkpoint, llama2.c `.bin`, or `hf:org/name[@revision]` of the hub; a run
    /// directory stands for its `model/`
    #[arg(long, short)]
    pub(crate) model: PathBuf,
    /// `tokenizer.json`, `hf:org/name`, or llama2.c's `tok512.bin`, where the model does not bring its own
    #[arg(long)]
    pub(crate) tokenizer: Option<PathBuf>,
    /// How weights are kept and multiplied
    #[arg(long, value_enum, default_value_t = DtypeArg::Auto)]
    pub(crate) dtype: DtypeArg,
    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Precision of what is multiplied with quantized weights
    #[arg(long, value_enum, default_value_t = ActivationsArg::Auto)]
    pub(crate) activations: ActivationsArg,
    /// Precision of products of many tokens, such as a prompt's, where both operands are floats
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub(crate) precision: Precision,
}

/// How activations are seen by quantized weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActivationsArg {
    /// 8 bits for up to 16 tokens at a time; prompts and the output head see them as they are
    Auto,
    /// 8 bits everywhere, as llama.cpp computes: the same tokens, and prompts faster
    #[value(name = "q8")]
    Q8,
}

/// The forms that weights can be kept or written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeArg {
    /// As the file stores them
    Auto,
    /// 32 bits
    F32,
    /// 16 bits, IEEE
    F16,
    /// 16 bits with f32's range
    Bf16,
    /// 8.5 bits a weight
    #[value(name = "q8_0")]
    Q8_0,
    /// 4.5 bits a weight
    #[value(name = "q4_0")]
    Q4_0,
    /// 5 bits a weight: 4, and a minimum for each block
    #[value(name = "q4_1")]
    Q4_1,
}

impl DtypeArg {
    /// The type of a file's tensors and the number that GGUF has for a file of them; `None` for the file's own.
    ///
    /// Source: `llama_ftype` of `llama.h` in ggml-org/llama.cpp.
    pub(crate) fn stored(self) -> Option<(Dtype, u32)> {
        Some(match self {
            Self::Auto => return None,
            Self::F32 => (Dtype::F32, 0),
            Self::F16 => (Dtype::F16, 1),
            Self::Q4_0 => (Dtype::Q4_0, 2),
            Self::Q4_1 => (Dtype::Q4_1, 3),
            Self::Q8_0 => (Dtype::Q8_0, 7),
            Self::Bf16 => (Dtype::BF16, 32),
        })
    }

    fn weights(self) -> Weights {
        match self.stored() {
            None => Weights::AsStored,
            Some((Dtype::F32, _)) => Weights::F32,
            Some((dtype, _)) => {
                let format = Format::from_name(&dtype.to_string());
                Weights::Packed(format.expect("every form that is offered can be multiplied"))
            }
        }
    }
}

/// A model with everything that text needs.
pub(crate) struct Opened {
    pub(crate) model: Model,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) special: SpecialTokens,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) defaults: Defaults,
}

/// The folder or file behind a path: a run directory stands for the model in it, a name of the hub for its place in the
/// cache.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, CliError> {
    if let Some(cached) = hub::local(path, hub::Part::Model)? {
        return Ok(cached);
    }
    if !path.exists() {
        let hint = "check the spelling; a model of the hub is `hf:org/name`";
        return Err(CliError::failed(format!("{}: no such file or folder", path.display()), hint));
    }
    let inner = path.join("model");
    if path.is_dir() && !path.join("config.json").exists() && inner.join("config.json").exists() {
        return Ok(inner);
    }
    Ok(path.to_path_buf())
}

/// Opens the files of a model without loading its weights.
pub(crate) fn source(args: &ModelArgs) -> Result<Source, CliError> {
    Ok(Source::open(&resolve(&args.model)?)?)
}

/// Opens and loads a model with its tokenizer and adapters.
pub(crate) fn open(args: &ModelArgs, adapters: &AdapterArgs) -> Result<Opened, CliError> {
    let exec = if args.threads > 0 { cavy_ops::Exec::new(args.threads) } else { cavy_ops::exec() };
    let exec = match args.precision {
        Precision::F32 => exec,
        chosen => {
            let machine = Machine::new(exec, chosen);
            text::say(&format!("precision: {}", machine.precision));
            machine.exec
        }
    };
    cavy_ops::set_exec(exec.with_rounded_activations(args.activations == ActivationsArg::Q8));
    let source = source(args)?;
    let (tokenizer, special, template) = words(&source, args.tokenizer.as_deref())?;
    let known = source.config.vocab_size();
    if tokenizer.vocab_size() > known {
        return Err(CliError::failed(
            format!("the tokenizer has {} tokens, the model {known}", tokenizer.vocab_size()),
            "both must come from one model",
        ));
    }
    let model = adapters.put_on(Model::open(&source, args.dtype.weights(), &Device::flex())?)?;
    Ok(Opened { model, tokenizer, special, template, defaults: defaults(&source) })
}

/// How a model wants to be sampled.
pub(crate) fn defaults(source: &Source) -> Defaults {
    match &source.origin {
        Origin::Gguf(metadata) => Defaults::of_gguf(metadata),
        Origin::Llama2c(_) => Defaults::default(),
        Origin::Folder(dir) => Defaults::of_config(&json(dir, "generation_config.json")),
    }
}

/// A JSON file of a folder; null where it is not there.
fn json(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs_err::read(dir.join(name)).unwrap_or_default()).unwrap_or_default()
}

/// The model that fine-tuning begins with, its weights not read yet.
///
/// Errors: a path that is no model, or a tokenizer that does not fit it.
pub(crate) fn base(settings: &ModelSettings) -> Result<Base, CliError> {
    let path = resolve(Path::new(&settings.model))?;
    let source = Source::open(&path)?;
    let tokenizer = (!settings.tokenizer.is_empty()).then(|| Path::new(&settings.tokenizer));
    let (tokenizer, special, template) = words(&source, tokenizer)?;
    let (tokens, known) = (tokenizer.vocab_size(), source.config.vocab_size());
    if tokens > known {
        let message = format!("the tokenizer has {tokens} tokens, the model {known}");
        return Err(CliError::failed(message, "both must come from one model"));
    }
    Ok(Base { start: Start::Files(Box::new(source), path), tokenizer, special, template })
}

type Words = (Tokenizer, SpecialTokens, Option<ChatTemplate>);

/// Tokenizer, special tokens and chat template of a model.
pub(crate) fn words(source: &Source, tokenizer: Option<&Path>) -> Result<Words, CliError> {
    let cached = tokenizer.map(|path| hub::local(path, hub::Part::Tokenizer)).transpose()?.flatten();
    let tokenizer = cached.as_deref().or(tokenizer);
    match &source.origin {
        Origin::Gguf(metadata) => {
            let vocabulary = vocabulary(metadata)?;
            let special = SpecialTokens {
                bos: vocabulary.bos,
                eos: stops(metadata, &vocabulary),
                pad: None,
                unk: vocabulary.unknown,
                add_bos: vocabulary.add_bos,
            };
            let tokenizer = match tokenizer {
                Some(path) => Tokenizer::from_file(path)?,
                None => Tokenizer::from_gguf(&vocabulary)?,
            };
            let template = metadata.find_str("tokenizer.chat_template")?;
            Ok((tokenizer, special, template.map(ChatTemplate::from_source).transpose()?))
        }
        Origin::Llama2c(path) => {
            let beside = path.parent().unwrap_or(Path::new("")).join("tok512.bin");
            let file = tokenizer.map_or(beside, Path::to_path_buf);
            let tokenizer = if file.extension().is_some_and(|extension| extension == "json") {
                Tokenizer::from_file(&file)?
            } else {
                Tokenizer::from_llama2c(&file, source.config.vocab_size())?
            };
            let special = SpecialTokens { bos: Some(1), eos: vec![1, 2], pad: None, unk: Some(0), add_bos: true };
            Ok((tokenizer, special, None))
        }
        Origin::Folder(dir) => {
            let file = tokenizer.map_or_else(|| dir.join("tokenizer.json"), Path::to_path_buf);
            let tokenizer = if !file.exists() && source.config.vocab_size() == 50257 {
                Tokenizer::gpt2()
            } else {
                Tokenizer::from_file(&file)?
            };
            let (config, generation) = (json(dir, "tokenizer_config.json"), json(dir, "generation_config.json"));
            let mut special = SpecialTokens::read(&tokenizer, &config, &generation, &source.fields);
            if special.eos.is_empty() {
                special.eos.extend(tokenizer.end_of_text());
            }
            let template = ChatTemplate::from_model_dir(dir)?;
            Ok((tokenizer, special, template))
        }
    }
}

/// The tokens that end a turn: EOS, and what chat models end their turns with.
fn stops(metadata: &Metadata, vocabulary: &GgufVocabulary) -> Vec<u32> {
    let mut stops: Vec<u32> = vocabulary.eos.into_iter().collect();
    let eot = metadata.find_u64("tokenizer.ggml.eot_token_id").ok().flatten().map(|id| id as u32);
    let named = ["<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"];
    let ids = vocabulary.tokens.iter().zip(0..).filter(|(token, _)| named.contains(&token.as_str())).map(|(_, id)| id);
    for id in eot.into_iter().chain(ids) {
        if !stops.contains(&id) {
            stops.push(id);
        }
    }
    stops
}

/// The vocabulary that a GGUF file holds.
pub(crate) fn vocabulary(metadata: &Metadata) -> Result<GgufVocabulary, CliError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let text = |name: &str| metadata.find_str(&key(name)).map(|found| found.unwrap_or_default().to_owned());
    let texts = |name: &str| metadata.find_strings(&key(name)).map(|found| found.unwrap_or_default().to_vec());
    let id = |name: &str| metadata.find_u64(&key(name)).map(|found| found.and_then(|id| u32::try_from(id).ok()));
    let model = metadata.str(&key("model"))?.to_owned();
    // Files that do not say whether a prompt begins with BOS: SentencePiece models do.
    let add_bos = metadata.find_bool(&key("add_bos_token"))?.unwrap_or(model == "llama");
    Ok(GgufVocabulary {
        pre: text("pre")?,
        tokens: metadata.strings(&key("tokens"))?.to_vec(),
        token_types: integers(metadata.find_array(&key("token_type"))?),
        scores: floats(metadata.find_array(&key("scores"))?),
        merges: texts("merges")?,
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        unknown: id("unknown_token_id")?,
        add_bos,
        add_space_prefix: metadata.find_bool(&key("add_space_prefix"))?.unwrap_or(true),
        model,
    })
}

/// The elements of an array of integers; nothing of any other.
fn integers(array: Option<&Array>) -> Vec<i32> {
    match array {
        Some(Array::I32(values)) => values.clone(),
        Some(Array::U32(values)) => values.iter().map(|&x| x as i32).collect(),
        Some(Array::I8(values)) => values.iter().map(|&x| x.into()).collect(),
        Some(Array::U8(values)) => values.iter().map(|&x| x.into()).collect(),
        _ => Vec::new(),
    }
}

/// The elements of an array of floats; nothing of any other.
fn floats(array: Option<&Array>) -> Vec<f32> {
    match array {
        Some(Array::F32(values)) => values.clone(),
        Some(Array::F64(values)) => values.iter().map(|&x| x as f32).collect(),
        _ => Vec::new(),
    }
}

impl Opened {
    /// The ids of a plain prompt, with BOS where the model wants it.
    pub(crate) fn encode(&self, prompt: &str) -> Result<Vec<u32>, CliError> {
        let mut ids = self.tokenizer.encode(prompt)?;
        let bos = self.special.bos.filter(|&bos| self.special.add_bos && ids.first() != Some(&bos));
        if let Some(bos) = bos {
            ids.insert(0, bos);
        }
        if ids.is_empty() {
            // An empty prompt: the model begins a text.
            let start = self.special.bos.or(self.special.eos.first().copied());
            ids.push(start.ok_or_else(|| CliError::usage("the prompt is empty", "give `--prompt` some text"))?);
        }
        Ok(ids)
    }

    /// The text of a special token.
    pub(crate) fn special_text(&self, id: Option<u32>) -> Option<String> {
        id.map(|id| self.tokenizer.decode(&[id]))
    }
}
