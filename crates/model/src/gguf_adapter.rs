//! Adapters as llama.cpp reads them: GGUF with `general.type = adapter`.
//!
//! Source: `convert_lora_to_gguf.py` and `llama-adapter.cpp` of ggml-org/llama.cpp.

use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::model::Model;
use burn::tensor::Tensor;
use cavy_files::gguf::{self, Metadata, Value};
use cavy_files::names::{Architecture, Layout};
use cavy_files::rope_rows::halves_to_interleaved;
use cavy_files::{Dtype, Outgoing, f32_bytes};
use std::path::Path;

/// A tensor of the file: name, shape, values.
type Part = (String, [usize; 2], Vec<f32>);

fn refused(path: &Path, problem: &str) -> ModelError {
    let hint = "merge it into its base with `cavy merge`, and convert that".into();
    ModelError::Adapter { path: path.into(), problem: problem.into(), hint }
}

impl Model {
    /// Writes the adapters that were put on last as a GGUF file for llama.cpp (`--lora`, `lora_path`).
    ///
    /// Scales other than `alpha / r` are folded into `B`.
    ///
    /// Errors: what the format cannot hold (DoRA's magnitudes, modules trained whole, adapters of a tied output head, score
    /// heads), and a file that cannot be written.
    pub fn save_adapter_gguf(&self, path: &Path) -> Result<(), ModelError> {
        let (attached, number) = (self.adapters.last().ok_or(ModelError::NoAdapter)?, self.adapters.len() - 1);
        if attached.config.use_dora {
            return Err(refused(path, "GGUF adapters have no place for DoRA's magnitudes"));
        }
        if !attached.originals.is_empty() || !self.labels.is_empty() {
            return Err(refused(path, "GGUF adapters have no place for modules that were trained whole"));
        }
        let config = self.config();
        let model_type = match &config {
            ModelConfig::Gpt2(_) => "gpt2",
            ModelConfig::Llama(config) => &config.model_type,
        };
        let architecture = Architecture::of_model_type(model_type).expect("an architecture with GGUF names");
        let alpha = attached.config.lora_alpha;
        let (mut parts, mut tied_head) = (Vec::new(), false);
        self.valid().for_each_linear(&mut |name, layer| {
            let own = layer.adapters.iter().find(|adapter| (adapter.entry.site >> 32) as usize == number);
            let Some(adapter) = own else { return };
            tied_head |= layer.base().is_none();
            let name = architecture.gguf_name(&format!("{name}.weight")).expect("a layer with a GGUF name");
            let rows = order(&config, architecture.layout(&name));
            parts.extend(parts_of(adapter, &name, alpha, rows.as_deref()));
        });
        if tied_head {
            return Err(refused(path, "in GGUF a tied output head has no tensor that could be adapted"));
        }
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", Value::String(architecture.gguf().into()));
        metadata.set("general.type", Value::String("adapter".into()));
        metadata.set("adapter.type", Value::String("lora".into()));
        metadata.set("adapter.lora.alpha", Value::F32(alpha as f32));
        let outgoing = parts.iter().map(|(name, shape, values)| {
            Outgoing::new(name, Dtype::F32, shape, f32_bytes(Dtype::F32, values).unwrap_or_default())
        });
        Ok(gguf::save(path, &metadata, outgoing)?)
    }
}

/// In which order GGUF has the rows of a weight, where it is another one.
fn order(config: &ModelConfig, layout: Layout) -> Option<Vec<usize>> {
    let ModelConfig::Llama(config) = config else { return None };
    match layout {
        Layout::QueryRows => Some(halves_to_interleaved(config.num_attention_heads, config.head_dim)),
        Layout::KeyRows => Some(halves_to_interleaved(config.num_key_value_heads, config.head_dim)),
        Layout::Same | Layout::Transposed => None,
    }
}

/// The two factors of an adapter, such that `alpha / rank` is their scale.
fn parts_of(adapter: &Adapter, name: &str, alpha: f64, rows: Option<&[usize]>) -> [Part; 2] {
    let read = |tensor: Tensor<2>| tensor.into_data().try_to_vec::<f32>().unwrap_or_default();
    let (a, (shape, b)) = (adapter.lora_a.val(), adapter.whole_b());
    let factor = adapter.entry.scale * shape[1] as f64 / alpha;
    let row = |o: usize| b[o * shape[1]..][..shape[1]].iter().map(|x| (f64::from(*x) * factor) as f32);
    let b = (0..shape[0]).flat_map(|o| row(rows.map_or(o, |rows| rows[o]))).collect();
    [(format!("{name}.lora_a"), a.dims(), read(a)), (format!("{name}.lora_b"), shape, b)]
}
