//! Adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Source: PEFT 0.21, `peft/utils/save_and_load.py` and `peft/tuners/lora/config.py`.

use crate::adapter::{Adapter, Entry, made};
use crate::adapter_config::{AdapterConfig, LoraScaling, Targets};
use crate::attach::{Attached, base_of};
use crate::error::ModelError;
use crate::files::{is_conv1d, transposed};
use crate::init::{Initializer, WeightInit};
use crate::layers::Linear;
use crate::model::Model;
use crate::parameters::{Held, ParameterInfo, ParameterVisitor};
use burn::tensor::{Device, Tensor, TensorData};
use cavy_files::{AtomicFile, Dtype, Outgoing, Safetensors, Tensors, safetensors};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What every name begins with.
const PREFIX: &str = "base_model.model.";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Keys that change what an adapter computes in ways that are not known here; a value other than nothing is refused.
const FOREIGN: [&str; 12] = [
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
    "megatron_config",
];

/// What a tensor of an adapter's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    A,
    B,
    Magnitude,
    /// The layer's own weight or bias, kept since nothing else has it.
    Base,
    /// A parameter of a module that was trained whole.
    Whole,
}

/// The layer, or for a whole parameter its own name, and the tensor's role.
fn role(name: &str) -> (String, Role) {
    let roles = [
        (".lora_A.weight", Role::A),
        (".lora_B.weight", Role::B),
        (".lora_magnitude_vector", Role::Magnitude),
        (".lora_magnitude_vector.weight", Role::Magnitude),
    ];
    for (end, role) in roles {
        if let Some(layer) = name.strip_suffix(end) {
            return (layer.to_owned(), role);
        }
    }
    let whole = name.replace(".base_layer.", ".");
    let role = if whole == name { Role::Whole } else { Role::Base };
    (whole, role)
}

/// An adapter as it lies in its files.
struct Stored {
    dir: PathBuf,
    config: AdapterConfig,
    tensors: Tensors,
    /// Layers with adapters.
    layers: BTreeSet<String>,
    /// Parameters that are stored whole, with their names in the file.
    whole: BTreeMap<String, String>,
}

impl Stored {
    fn open(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join(CONFIG);
        let text = fs_err::read_to_string(&path).map_err(|source| ModelError::File { path: path.clone(), source })?;
        let fields = serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.clone(), source })?;
        let config = config_of(&path, &fields)?;
        let file = dir.join(WEIGHTS);
        let tensors = Safetensors::load(&file)?.tensors;
        let (mut layers, mut whole) = (BTreeSet::new(), BTreeMap::new());
        for info in tensors.infos() {
            let Some(name) = info.name.strip_prefix(PREFIX) else {
                return Err(broken(&file, format!("`{}` does not begin with `{PREFIX}`", info.name)));
            };
            if name.contains("lora_embedding_") {
                return Err(broken(&file, format!("`{name}` adapts an embedding, which is not known here")));
            }
            match role(name) {
                (layer, Role::A | Role::B | Role::Magnitude) => drop(layers.insert(layer)),
                // The embedding's weight, which the model has.
                (parameter, Role::Base) if parameter == "lm_head.weight" => (),
                (parameter, Role::Base | Role::Whole) => drop(whole.insert(parameter, info.name.clone())),
            }
        }
        Ok(Self { dir: dir.into(), config, tensors, layers, whole })
    }

    /// The modules that were trained whole.
    fn modules(&self) -> Vec<String> {
        let trained = self.whole.iter().filter(|(_, stored)| !stored.contains(".base_layer."));
        let modules: BTreeSet<&str> = trained.filter_map(|(name, _)| Some(name.rsplit_once('.')?.0)).collect();
        modules.into_iter().map(str::to_owned).collect()
    }

    /// The values of a tensor, which must have this shape.
    fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, ModelError> {
        let info = self.tensors.info(name)?;
        if info.shape != expected {
            let (path, name) = (self.dir.join(WEIGHTS), name.to_owned());
            let (expected, found) = (expected.into(), info.shape.clone());
            return Err(ModelError::AdapterShape { path, name, expected, found });
        }
        Ok(self.tensors.f32(name)?)
    }

    /// The adapter of one layer.
    fn adapter(&self, layer: &str, [out, inputs]: [usize; 2], site: u64, on: &Device) -> Result<Adapter, ModelError> {
        let config = &self.config;
        let name = |end: &str| format!("{PREFIX}{layer}.{end}");
        let a = name("lora_A.weight");
        let inner = self.tensors.info(&a)?.shape.first().copied().unwrap_or(0).max(1);
        let values = self.values(&a, &[inner, inputs])?;
        let placed = config.placement(&[])?.resolved(layer);
        let scale = config.scale(inner, placed.alpha);
        let (full, split) = (self.values(&name("lora_B.weight"), &[out, inner])?, config.split_qkv);
        let blocks = if split && inner.is_multiple_of(3) && layer.ends_with("c_attn") { 3 } else { 1 };
        let rank = inner / blocks;
        let b = if blocks == 1 { full } else { self.folded(layer, &full, [out, inner], blocks)? };
        let magnitude = ["lora_magnitude_vector", "lora_magnitude_vector.weight"].map(name);
        let magnitude = magnitude.iter().find(|name| self.tensors.contains(name));
        if config.use_dora && magnitude.is_none() {
            return Err(broken(&self.dir.join(WEIGHTS), format!("`{layer}` has no magnitudes, and `use_dora` is set")));
        }
        let magnitude = magnitude.filter(|_| config.use_dora).map(|name| self.values(name, &[out])).transpose()?;
        Ok(Adapter {
            lora_a: made(values, [inner, inputs], on),
            lora_b: made(b, [out, rank], on),
            lora_magnitude_vector: magnitude.map(|values| made(values, [out], on)),
            entry: Entry::new(scale, config.lora_dropout, blocks, site),
        })
    }

    /// `B` without the zeros outside its diagonal blocks.
    fn folded(
        &self,
        layer: &str,
        full: &[f32],
        [out, inner]: [usize; 2],
        blocks: usize,
    ) -> Result<Vec<f32>, ModelError> {
        let (rank, part) = (inner / blocks, out / blocks);
        let mut values = Vec::with_capacity(out * rank);
        for (o, row) in full.chunks_exact(inner).enumerate() {
            let own = o / part * rank..(o / part + 1) * rank;
            let outside = row.iter().enumerate().any(|(i, &b)| b != 0.0 && !own.contains(&i));
            if outside {
                let problem = format!("`split_qkv` is set, but B of `{layer}` is not made of {blocks} blocks");
                return Err(broken(&self.dir.join(WEIGHTS), problem));
            }
            values.extend_from_slice(&row[own]);
        }
        Ok(values)
    }
}

fn broken(path: &Path, problem: String) -> ModelError {
    let hint = "adapters are LoRA and DoRA of linear layers, in PEFT's files".into();
    ModelError::Adapter { path: path.into(), problem, hint }
}

/// The config that `adapter_config.json` holds.
fn config_of(path: &Path, fields: &Value) -> Result<AdapterConfig, ModelError> {
    let kind = fields["peft_type"].as_str().unwrap_or("none");
    if kind != "LORA" {
        return Err(broken(path, format!("`peft_type` is `{kind}`, expected `LORA`")));
    }
    let is_nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    };
    if let Some(key) = FOREIGN.iter().find(|key| !is_nothing(&fields[**key])) {
        return Err(broken(path, format!("`{key}` is {}, which is not known here", fields[*key])));
    }
    let bias = fields["bias"].as_str().unwrap_or("none");
    if bias != "none" {
        return Err(broken(path, format!("`bias` is `{bias}`: trained biases are not known here")));
    }
    let number = |key: &str, default: f64| match &fields[key] {
        Value::Null => Ok(default),
        value => value.as_f64().ok_or_else(|| broken(path, format!("`{key}` is {value}, expected a number"))),
    };
    let flag = |key: &str| fields[key].as_bool().unwrap_or(false);
    let names = |key: &str| match &fields[key] {
        Value::String(name) => vec![name.clone()],
        value => value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
    };
    let target_modules = match &fields["target_modules"] {
        Value::String(text) if text.eq_ignore_ascii_case("all-linear") => Targets::AllLinear,
        Value::String(pattern) => Targets::Pattern(pattern.clone()),
        Value::Null => Targets::Usual,
        _ => Targets::Names(names("target_modules")),
    };
    let pattern = |key: &str| -> Vec<(String, f64)> {
        let entries = fields[key].as_object().into_iter().flatten();
        entries.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
    };
    let defaults = AdapterConfig::default();
    let config = AdapterConfig {
        r: number("r", defaults.r as f64)? as usize,
        lora_alpha: number("lora_alpha", defaults.lora_alpha)?,
        lora_dropout: number("lora_dropout", 0.0)?,
        use_dora: flag("use_dora"),
        use_rslora: flag("use_rslora"),
        lora_scaling: LoraScaling::Rank,
        target_modules,
        exclude_modules: names("exclude_modules"),
        modules_to_save: names("modules_to_save"),
        rank_pattern: pattern("rank_pattern").into_iter().map(|(name, rank)| (name, rank as usize)).collect(),
        alpha_pattern: pattern("alpha_pattern").into_iter().collect(),
        lora_head: false,
        split_qkv: flag("split_qkv"),
        base_model_name_or_path: fields["base_model_name_or_path"].as_str().map(str::to_owned),
    };
    config.validate()?;
    Ok(config)
}

impl Model {
    /// Puts the adapter of a PEFT folder on the model, with its whole modules; `weight` says how much of its change counts.
    ///
    /// On a device with autodiff the adapter and its whole modules are trainable and nothing else, so that training goes
    /// on from there. A score head is made if the folder holds one and the model has none.
    ///
    /// Errors: a missing or broken file, an adapter of another kind, and one for another model, by tensor and shapes.
    pub fn load_adapter(mut self, dir: &Path, weight: f64) -> Result<Self, ModelError> {
        let stored = Stored::open(dir)?;
        let file = dir.join(WEIGHTS);
        if self.labels.is_empty()
            && let Some(name) = stored.whole.get("score.weight")
        {
            let rows = stored.tensors.info(name)?.shape.first().copied().unwrap_or(0).max(1);
            let device = self.device();
            let bias = stored.whole.contains_key("score.bias");
            self.put_head(rows, bias, &mut Initializer::new(WeightInit::Pytorch, 0, &device));
        }
        let originals = self.set_aside(&stored.modules())?;
        let head = if self.labels.is_empty() { "lm_head" } else { "score" };
        if stored.layers.contains("lm_head") && head == "lm_head" {
            self.heads().lm_head.get_or_insert_with(Linear::without_weight);
        }
        let mut whole = Whole { stored: &stored, left: stored.whole.clone(), error: None };
        self = self.for_each_parameter(&mut whole);
        if let Some(error) = whole.error {
            return Err(error);
        }
        if let Some((layer, name)) = whole.left.into_iter().next() {
            return Err(ModelError::AdapterLayer { path: file, name, layer });
        }
        self = self.trainable_where(|name| originals.contains_key(name));
        let (device, embedding, number) = (self.device(), self.heads().embedding.clone(), self.adapters.len());
        let mut left = stored.layers.clone();
        let (mut index, mut error) = (0, None);
        self.for_each_linear(&mut |name, layer| {
            index += 1;
            if !left.remove(name) {
                return;
            }
            let dims = base_of(layer, &embedding).dims();
            match stored.adapter(name, dims, crate::attach::site(index, number), &device) {
                Ok(mut adapter) => {
                    adapter.entry.weight = weight;
                    layer.adapters.push(adapter);
                }
                Err(found) => drop(error.get_or_insert(found)),
            }
        });
        if let Some(error) = error {
            return Err(error);
        }
        if let Some(layer) = left.into_iter().next() {
            let name = format!("{PREFIX}{layer}.lora_A.weight");
            return Err(ModelError::AdapterLayer { path: file, name, layer });
        }
        self.adapters.push(Attached { config: stored.config, originals });
        Ok(self)
    }
}

/// Replaces the parameters that are stored whole.
struct Whole<'a> {
    stored: &'a Stored,
    left: BTreeMap<String, String>,
    error: Option<ModelError>,
}

impl ParameterVisitor for Whole<'_> {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        let Some(name) = self.left.remove(&info.name) else { return tensor };
        let conv1d = is_conv1d(&info.name) && D == 2;
        let there: Vec<usize> = if conv1d { info.shape.iter().rev().copied().collect() } else { info.shape.clone() };
        match self.stored.values(&name, &there) {
            Ok(values) => {
                let values = if conv1d { transposed(&values, there[0], there[1]) } else { values };
                Tensor::from_data(TensorData::new(values, info.shape.clone()), &tensor.device())
            }
            Err(error) => {
                self.error.get_or_insert(error);
                tensor
            }
        }
    }
}

/// Reads parameters by name.
struct Chosen<'a, F> {
    wanted: &'a F,
    found: Vec<(ParameterInfo, Held)>,
}

impl<F: Fn(&str) -> bool> ParameterVisitor for Chosen<'_, F> {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        if (self.wanted)(&info.name) {
            self.found.push((info.clone(), Held::new(tensor.clone())));
        }
        tensor
    }
}

/// A number as JSON has it, whole where it is within rounding of that.
fn number(x: f64) -> Value {
    let x = (x * 1e9).round() / 1e9;
    if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) }
}

/// An adapter on its way into PEFT's files.
struct Writer {
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    /// Rank as PEFT counts it, and alpha, of every layer.
    layers: BTreeMap<String, (usize, f64)>,
}

impl Writer {
    fn put(&mut self, name: String, shape: &[usize], values: Vec<f32>) {
        self.tensors.push((format!("{PREFIX}{name}"), shape.into(), values));
    }

    fn layer(&mut self, config: &AdapterConfig, layer: &str, adapter: &Adapter) {
        let (a, (shape, b)) = (adapter.lora_a.val(), adapter.whole_b());
        let (out, inner) = (shape[0], shape[1]);
        self.put(format!("{layer}.lora_A.weight"), &a.dims(), a.into_data().try_to_vec().unwrap_or_default());
        self.put(format!("{layer}.lora_B.weight"), &shape, b);
        if let Some(magnitude) = &adapter.lora_magnitude_vector {
            let values = magnitude.val().into_data().try_to_vec().unwrap_or_default();
            self.put(format!("{layer}.lora_magnitude_vector"), &[out], values);
        }
        self.layers.insert(layer.to_owned(), (inner, adapter.entry.scale * divisor(config, inner)));
    }

    /// What `adapter_config.json` says.
    fn config(&self, config: &AdapterConfig, is_gpt2: bool, task: Option<&str>, whole: &[String]) -> String {
        let alpha = number(config.scale(config.r, config.lora_alpha) * divisor(config, config.r));
        let ranks = self.layers.iter().filter(|(_, (rank, _))| *rank != config.r);
        let alphas = self.layers.iter().map(|(name, (_, alpha))| (name, number(*alpha)));
        let fields = json!({
            "alpha_pattern": alphas.filter(|(_, other)| *other != alpha).collect::<BTreeMap<_, _>>(),
            "base_model_name_or_path": config.base_model_name_or_path,
            "bias": "none",
            "fan_in_fan_out": is_gpt2,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": alpha,
            "lora_dropout": config.lora_dropout,
            "modules_to_save": (!whole.is_empty()).then_some(whole),
            "peft_type": "LORA",
            "r": config.r,
            "rank_pattern": ranks.map(|(name, (rank, _))| (name, *rank)).collect::<BTreeMap<_, _>>(),
            "target_modules": self.layers.keys().collect::<Vec<_>>(),
            "task_type": task,
            "use_dora": config.use_dora,
            "use_rslora": config.use_rslora && config.lora_scaling == LoraScaling::Rank,
        });
        let mut sorted: BTreeMap<String, Value> = fields.as_object().cloned().unwrap_or_default().into_iter().collect();
        if config.split_qkv {
            sorted.insert("split_qkv".into(), json!(true));
        }
        format!("{:#}\n", json!(sorted))
    }
}

/// What alpha is divided by at a rank.
fn divisor(config: &AdapterConfig, rank: usize) -> f64 {
    let rank = rank as f64;
    if config.use_rslora && config.lora_scaling == LoraScaling::Rank { rank.sqrt() } else { rank }
}

impl Model {
    /// Writes the adapters that were put on last, as PEFT does: `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// Scales are written as alphas, layers by their whole names. The three parts of a projection under
    /// [`AdapterConfig::split_qkv`] become one adapter of three times the rank. Where a score head has an adapter, the
    /// head's own weight is stored too (`score.base_layer.weight`), since no base model has it.
    ///
    /// Law: what was written and read is written in the same bytes.
    ///
    /// Errors: a model without adapters, and a file that cannot be written, by its path.
    pub fn save_adapter(&self, dir: &Path) -> Result<(), ModelError> {
        let (attached, number) = (self.adapters.last().ok_or(ModelError::NoAdapter)?, self.adapters.len() - 1);
        let mut plain = self.valid();
        let mut writer = Writer { tensors: Vec::new(), layers: BTreeMap::new() };
        plain.for_each_linear(&mut |name, layer| {
            let own = layer.adapters.iter().find(|adapter| (adapter.entry.site >> 32) as usize == number);
            if let Some(adapter) = own {
                writer.layer(&attached.config, name, adapter);
            }
        });
        let score_is_adapted = writer.layers.contains_key("score");
        let base = |name: &str| score_is_adapted && matches!(name, "score.weight" | "score.bias");
        let wanted = |name: &str| attached.originals.contains_key(name) || base(name);
        let mut chosen = Chosen { wanted: &wanted, found: Vec::new() };
        let _same = plain.for_each_parameter(&mut chosen);
        let mut whole = BTreeSet::new();
        for (info, held) in chosen.found {
            let mut values = held.values();
            if base(&info.name) {
                writer.put(info.name.replace("score.", "score.base_layer."), &info.shape, values);
                continue;
            }
            whole.insert(info.module().to_owned());
            let conv1d = is_conv1d(&info.name) && info.shape.len() == 2;
            let mut shape = info.shape.clone();
            if conv1d {
                values = transposed(&values, shape[0], shape[1]);
                shape.reverse();
            }
            writer.put(info.name, &shape, values);
        }
        let task = match (self.labels.is_empty(), score_is_adapted) {
            (true, _) => Some("CAUSAL_LM"),
            (false, false) => Some("SEQ_CLS"),
            // PEFT would train the score head of such a task whole.
            (false, true) => None,
        };
        let whole: Vec<String> = whole.into_iter().collect();
        let text = writer.config(&attached.config, self.conventions().1.is_some(), task, &whole);
        fs_err::create_dir_all(dir).map_err(|source| ModelError::File { path: dir.to_path_buf(), source })?;
        let outgoing = writer.tensors.iter().map(|(name, shape, values)| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            Outgoing::new(name, Dtype::F32, shape, bytes)
        });
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        safetensors::save(&dir.join(WEIGHTS), &metadata, outgoing)?;
        let mut file = AtomicFile::create(&dir.join(CONFIG))?;
        file.write(text.as_bytes())?;
        Ok(file.commit()?)
    }
}
