//! A model into a Hugging Face directory.

use super::load::{is_conv1d, transposed};
use crate::config::{Gpt2Config, ModelConfig};
use crate::error::ModelError;
use crate::model::Model;
use crate::parameters::{ParameterInfo, ParameterVisitor};
use burn::tensor::Tensor;
use cavy_files::{AtomicFile, Dtype, Outgoing, safetensors};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A parameter that is read when it is written, so that a save holds one copy of one tensor at a time.
enum Held {
    One(Tensor<1>),
    Two(Tensor<2>),
    Zeros(usize),
}

impl Held {
    fn values(self, conv1d: bool) -> Vec<f32> {
        let read = |data: burn::tensor::TensorData| data.try_to_vec().unwrap_or_default();
        match self {
            Self::One(tensor) => read(tensor.into_data()),
            Self::Zeros(len) => vec![0.0; len],
            Self::Two(tensor) => {
                let [rows, cols] = tensor.dims();
                let values = read(tensor.into_data());
                if conv1d { transposed(&values, rows, cols) } else { values }
            }
        }
    }
}

/// Collects the parameters of a model without changing it.
struct Reader(BTreeMap<String, (Vec<usize>, Held)>);

impl ParameterVisitor for Reader {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        let shared = tensor.clone();
        let held = match D {
            1 => Held::One(Tensor::from_dispatch(shared.into_dispatch())),
            _ => Held::Two(Tensor::from_dispatch(shared.into_dispatch())),
        };
        self.0.insert(info.name.clone(), (info.shape.clone(), held));
        tensor
    }
}

pub(crate) fn save(model: &Model, dir: &Path) -> Result<(), ModelError> {
    if !model.adapters.is_empty() {
        return save(&model.valid().merged(), dir);
    }
    let config = model.config();
    fs_err::create_dir_all(dir).map_err(|source| ModelError::File { path: dir.to_path_buf(), source })?;
    let mut reader = Reader(BTreeMap::new());
    let _same = model.valid().for_each_parameter(&mut reader);
    if let ModelConfig::Gpt2(config @ Gpt2Config { qkv_bias: false, .. }) = &config {
        // Hugging Face's layer always has the bias; zeros are the same function.
        for layer in 0..config.num_hidden_layers {
            let width = 3 * config.hidden_size;
            let name = format!("transformer.h.{layer}.attn.c_attn.bias");
            reader.0.insert(name, (vec![width], Held::Zeros(width)));
        }
    }
    let outgoing = reader.0.into_iter().map(|(name, (shape, held))| {
        let conv1d = is_conv1d(&name);
        let shape = if conv1d { shape.into_iter().rev().collect() } else { shape };
        let bytes = move || Ok(held.values(conv1d).iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into());
        Outgoing { name, dtype: Dtype::F32, shape, bytes: Box::new(bytes) }
    });
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::save(&dir.join("model.safetensors"), &metadata, outgoing)?;
    let mut file = AtomicFile::create(&dir.join("config.json"))?;
    file.write(config_json(&config, "float32", model.labels()).as_bytes())?;
    Ok(file.commit()?)
}

/// What `config.json` says of a model whose weights are stored as `dtype`; with labels, of one with a score head.
pub(crate) fn config_json(config: &ModelConfig, dtype: &str, labels: &[String]) -> String {
    let mut fields = match config {
        ModelConfig::Gpt2(config) => gpt2_json(config),
        ModelConfig::Llama(config) => config.to_json(),
    };
    fields.insert("torch_dtype".into(), json!(dtype));
    if !labels.is_empty() {
        let class = |model: &Value| {
            let class = model.as_str().unwrap_or_default();
            class.trim_end_matches("LMHeadModel").trim_end_matches("ForCausalLM").to_owned()
                + "ForSequenceClassification"
        };
        let classes: Vec<String> = fields["architectures"].as_array().into_iter().flatten().map(class).collect();
        let names = labels.iter().enumerate();
        let id2label: Map<String, Value> = names.clone().map(|(id, name)| (id.to_string(), json!(name))).collect();
        let label2id: Map<String, Value> = names.map(|(id, name)| (name.clone(), json!(id))).collect();
        let more = json!({ "architectures": classes, "id2label": id2label, "label2id": label2id });
        if let Value::Object(more) = more {
            fields.extend(more);
        }
    }
    format!("{:#}\n", Value::Object(fields))
}

fn gpt2_json(config: &Gpt2Config) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let more = json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "attn_pdrop": config.drop_rate,
        "embd_pdrop": config.drop_rate,
    });
    if let Value::Object(more) = more {
        fields.extend(more);
    }
    fields
}
