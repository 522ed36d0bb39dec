//! The model that fine-tuning begins with: its weights, and the words that go with them.

use crate::TrainError;
use crate::files::{Fingerprint, write_atomically, write_error};
use crate::settings::{AdapterSettings, BaseDtype};
use burn::tensor::Device;
use cavy_model::{AdapterConfig, KvStorage, Model, ModelConfig, Origin, Source, WeightInit, Weights};
use cavy_text::{ChatTemplate, SpecialTokens, Tokenizer};
use clap::ValueEnum;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Files of a Hugging Face directory that say how text becomes tokens.
const WORDS: [&str; 5] = [
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Where the weights of a base come from.
pub enum Start {
    /// Open files, and where they are, for whoever loads an adapter later.
    Files(Box<Source>, PathBuf),
    /// Random ones, of a model of these sizes.
    Random(ModelConfig),
}

/// A model before it is fine-tuned. Its files are open; weights are read when they are asked for.
pub struct Base {
    /// Where its weights come from.
    pub start: Start,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens with a part of their own.
    pub special: SpecialTokens,
    /// How the model writes a conversation.
    pub template: Option<ChatTemplate>,
}

impl Base {
    /// Its sizes.
    pub fn config(&self) -> &ModelConfig {
        match &self.start {
            Start::Files(source, _) => &source.config,
            Start::Random(config) => config,
        }
    }

    /// Most tokens of a sequence.
    pub fn context_length(&self) -> usize {
        self.config().context_length()
    }

    /// The model as it is before anything is trained.
    fn model(&self, weights: Weights, seed: u64, device: &Device) -> Result<Model, TrainError> {
        Ok(match &self.start {
            Start::Files(source, _) => Model::open(source, weights, device)?,
            Start::Random(config) => Model::new(config, WeightInit::Gpt2, seed, device),
        })
    }

    /// What tells its weights from others: a hash of all files that hold some.
    ///
    /// Errors: files that cannot be read.
    fn weights_hash(&self) -> Result<u64, TrainError> {
        let Start::Files(_, path) = &self.start else { return Ok(0) };
        let read_error = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TrainError::Read { path, source }
        };
        let mut files = vec![path.clone()];
        if path.is_dir() {
            files.clear();
            for entry in fs::read_dir(path).map_err(read_error(path))? {
                files.push(entry.map_err(read_error(path))?.path());
            }
            let holds_weights = |path: &PathBuf| {
                let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
                ["safetensors", "bin", "pth", "pt"].contains(&ending)
            };
            files.retain(holds_weights);
            files.sort();
        }
        files.iter().try_fold(0, |hash, path| {
            let file = Fingerprint::of_file(path).map_err(read_error(path))?;
            Ok(cavy_text::rng::mix(hash ^ file.hash))
        })
    }

    /// Writes what says how text becomes tokens and conversations, as Hugging Face's tools read it.
    ///
    /// `template` goes before the model's own.
    ///
    /// Errors: the disk's.
    pub fn save_words(&self, folder: &Path, template: Option<&ChatTemplate>) -> Result<(), TrainError> {
        let write = |name: &str, text: &str| write_atomically(&folder.join(name), text.as_bytes());
        let mut copied = Vec::new();
        let origin = match &self.start {
            Start::Files(source, _) => match &source.origin {
                Origin::Folder(folder) => Some(folder),
                _ => None,
            },
            Start::Random(_) => None,
        };
        if let Some(from) = origin {
            for name in WORDS {
                if let Ok(text) = fs::read_to_string(from.join(name)) {
                    write(name, &text)?;
                    copied.push(name);
                }
            }
        }
        if !copied.contains(&"tokenizer.json") {
            self.tokenizer.save(folder.join("tokenizer.json"))?;
        }
        if !copied.contains(&"tokenizer_config.json") {
            let token = |id: Option<u32>| id.map(|id| self.tokenizer.decode(&[id]));
            let config = json!({
                "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": token(self.special.bos),
                "eos_token": token(self.special.eos.first().copied()), "unk_token": token(self.special.unk),
                "model_max_length": self.context_length(), "clean_up_tokenization_spaces": false,
            });
            write("tokenizer_config.json", &format!("{config:#}\n"))?;
        }
        if !copied.contains(&"generation_config.json") {
            let config = json!({ "bos_token_id": self.special.bos, "eos_token_id": self.special.eos });
            write("generation_config.json", &format!("{config:#}\n"))?;
        }
        // The file goes before a template inside `tokenizer_config.json`.
        if let Some(template) = template.or(self.template.as_ref()) {
            write("chat_template.jinja", template.source())?;
        }
        Ok(())
    }
}

/// A base with what is trained of it.
pub struct Tuned {
    /// Where it begins.
    pub base: Base,
    weights: Weights,
    adapter: Option<AdapterConfig>,
    /// An adapter to begin with instead of a new one.
    init_adapter: Option<PathBuf>,
    /// A head to put in the place of the model's.
    pub head: Option<NewHead>,
    /// What is trained where there is no adapter.
    pub trainable: Trainable,
    seed: u64,
    hash: u64,
    /// How prompts were written in training, where that is not the model's own template.
    pub template: Option<ChatTemplate>,
}

/// A score head in the place of the output head.
#[derive(Clone, Debug)]
pub struct NewHead {
    /// What its rows are called.
    pub labels: Vec<String>,
    /// Whether it has a bias.
    pub bias: bool,
}

/// Which weights are trained where there is no adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Trainable {
    /// Every weight
    #[default]
    All,
    /// The last block, the norm after it and the head
    LastBlock,
    /// The head alone
    Head,
}

impl Trainable {
    /// Whether the parameter `name` of a model with so many blocks is trained.
    fn includes(self, name: &str, blocks: usize) -> bool {
        let last = format!("{}", blocks.saturating_sub(1));
        let mut parts = name.split('.');
        let is_head = name.starts_with("score") || name.starts_with("lm_head");
        let block = parts.by_ref().find(|part| part.parse::<usize>().is_ok());
        let is_final_norm = name.starts_with("transformer.ln_f") || name.starts_with("model.norm");
        match self {
            Self::All => true,
            Self::LastBlock => is_head || is_final_norm || block == Some(last.as_str()),
            Self::Head => is_head,
        }
    }
}

impl Tuned {
    /// What `adapter` asks for on top of `base`, whose weights are kept as `base_dtype`.
    ///
    /// Errors: settings that cannot be; files that cannot be read.
    pub fn new(base: Base, base_dtype: BaseDtype, adapter: &AdapterSettings, seed: u64) -> Result<Self, TrainError> {
        let hash = base.weights_hash()?;
        let init = &adapter.init_adapter;
        let name = match &base.start {
            Start::Files(_, path) => Some(path.display().to_string()),
            Start::Random(_) => None,
        };
        Ok(Self {
            base,
            weights: base_dtype.weights(),
            adapter: adapter.config()?.map(|config| AdapterConfig { base_model_name_or_path: name, ..config }),
            init_adapter: (!init.is_empty()).then(|| PathBuf::from(init)),
            head: None,
            trainable: Trainable::All,
            seed,
            hash,
            template: None,
        })
    }

    /// The hash of the base's weights.
    pub fn fingerprint(&self) -> u64 {
        self.hash
    }

    /// A hash of everything that decides what the model says before training.
    ///
    /// Errors: files that cannot be read.
    pub fn start_hash(&self) -> Result<u64, TrainError> {
        let with_form = cavy_text::rng::hash_bytes(self.hash, format!("{:?}", self.weights).as_bytes());
        let Some(adapter) = &self.init_adapter else { return Ok(with_form) };
        let path = adapter.join("adapter_model.safetensors");
        let file = Fingerprint::of_file(&path).map_err(|source| TrainError::Read { path, source })?;
        Ok(cavy_text::rng::mix(with_form ^ file.hash))
    }

    fn has_adapter(&self) -> bool {
        self.adapter.is_some() || self.init_adapter.is_some()
    }

    /// Name of the folder with the result.
    pub fn output(&self) -> &'static str {
        if self.has_adapter() { "adapter" } else { "model" }
    }

    /// The model before the first step, or as [`Tuned::save`] left it in a folder.
    ///
    /// Errors: files that cannot be read; an adapter that does not fit.
    pub fn model(&self, saved: Option<&Path>, device: &Device) -> Result<Model, TrainError> {
        if let (Some(folder), false) = (saved, self.has_adapter()) {
            return Ok(self.freeze(Model::load(folder, device)?));
        }
        let mut model = self.base.model(self.weights, self.seed, device)?;
        if let Some(head) = &self.head {
            model = model.with_head(head.labels.len(), head.bias, self.seed).with_labels(head.labels.clone());
        }
        Ok(match (saved.or(self.init_adapter.as_deref()), &self.adapter) {
            (Some(folder), _) => model.load_adapter(folder, 1.0)?,
            (None, Some(config)) => model.attach(config, self.seed)?,
            (None, None) => self.freeze(model),
        })
    }

    fn freeze(&self, model: Model) -> Model {
        if self.trainable == Trainable::All {
            return model;
        }
        let blocks = model.config().kv_shape(KvStorage::F32).layers;
        model.trainable_where(|name| self.trainable.includes(name, blocks))
    }

    /// Writes what is trained, and the words that go with it.
    ///
    /// Errors: the disk's.
    pub fn save(&self, model: &Model, folder: &Path) -> Result<(), TrainError> {
        fs::create_dir_all(folder).map_err(write_error(folder))?;
        if self.has_adapter() {
            model.save_adapter(folder)?;
        } else {
            model.save(folder)?;
        }
        self.base.save_words(folder, self.template.as_ref())
    }

    /// Floating-point operations of a training step: twice the weights a token forward, the same again for gradients of
    /// activations and again for those of weights that are trained.
    pub fn step_flops(&self, model: &Model, tokens: usize, context: usize) -> f64 {
        let whole = model.config().training_flops(tokens, context);
        if self.has_adapter() { whole * 2.0 / 3.0 } else { whole }
    }
}

/// How many parameters there are, and how many of them are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterCounts {
    /// Of the model without adapters, shared ones once.
    pub base: u64,
    /// Of all, adapters too.
    pub total: u64,
    /// Those that training changes.
    pub trainable: u64,
}

/// Counts the parameters of a model.
pub fn parameter_counts(model: &Model) -> ParameterCounts {
    let (mut adapters, mut dense, mut trainable) = (0, 0, 0);
    for info in model.parameters() {
        let count = info.shape.iter().product::<usize>() as u64;
        *if info.name.contains("lora_") { &mut adapters } else { &mut dense } += count;
        trainable += if info.trainable { count } else { 0 };
    }
    // Packed weights are no parameters of the module, but the model has them all the same.
    let base = if model.labels().is_empty() { model.config().num_parameters() as u64 } else { dense };
    ParameterCounts { base, total: base + adapters, trainable }
}
