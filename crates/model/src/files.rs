//! A Hugging Face directory: `config.json` and `model.safetensors`.

use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::gpt2::Gpt2;
use crate::parameters::{ParameterInfo, ParameterVisitor};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Values of one tensor as they lie in a file.
struct Stored {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Hugging Face stores the linear layers of GPT-2's blocks as `Conv1D`, `(in, out)`.
fn is_conv1d(name: &str) -> bool {
    name.contains(".h.") && name.ends_with(".weight") && !name.contains(".ln_")
}

fn transposed(stored: Stored) -> Stored {
    let (rows, cols) = (stored.shape[0], stored.shape[1]);
    let values = (0..rows * cols).map(|i| stored.values[i % rows * cols + i / rows]).collect();
    Stored { shape: vec![cols, rows], values }
}

/// Reads parameters out of a model without changing it.
struct Reader(BTreeMap<String, Stored>);

impl ParameterVisitor for Reader {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        let values = tensor.to_data().try_to_vec().unwrap_or_default();
        let stored = Stored { shape: info.shape.clone(), values };
        let stored = if is_conv1d(&info.name) { transposed(stored) } else { stored };
        self.0.insert(info.name.clone(), stored);
        tensor
    }
}

pub(crate) fn save(model: &Gpt2, dir: &Path) -> Result<(), ModelError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ModelError::File { path, source }
    };
    fs_err::create_dir_all(dir).map_err(at(dir))?;
    let mut reader = Reader(BTreeMap::new());
    let _same = model.valid().for_each_parameter(&mut reader);
    let config = model.config();
    if !config.qkv_bias {
        // Hugging Face's layer always has the bias; zeros are the same function.
        for layer in 0..config.num_hidden_layers {
            let width = 3 * config.hidden_size;
            let name = format!("transformer.h.{layer}.attn.c_attn.bias");
            reader.0.insert(name, Stored { shape: vec![width], values: vec![0.0; width] });
        }
    }
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = reader
        .0
        .iter()
        .map(|(name, stored)| (name, &stored.shape, stored.values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let path = dir.join("model.safetensors");
    let broken = |source| ModelError::Safetensors { path: path.clone(), source };
    let mut views = Vec::new();
    for (name, shape, bytes) in &bytes {
        views.push((name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes).map_err(broken)?));
    }
    let temporary = dir.join(".model.safetensors.tmp");
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    serialize_to_file(views, Some(metadata), &temporary).map_err(|source| match source {
        safetensors::SafeTensorError::IoError(source) => ModelError::File { path: temporary.clone(), source },
        source => broken(source),
    })?;
    let synced = fs_err::File::open(&temporary).and_then(|file| file.sync_all());
    synced.and_then(|()| fs_err::rename(&temporary, &path)).map_err(at(&path))?;
    let config_path = dir.join("config.json");
    write_atomically(&config_path, config_json(config).as_bytes()).map_err(at(&config_path))
}

fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs_err::write(&temporary, bytes)?;
    fs_err::File::open(&temporary)?.sync_all()?;
    fs_err::rename(&temporary, path)
}

fn config_json(config: &Gpt2Config) -> String {
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
        "torch_dtype": "float32",
    });
    if let Value::Object(more) = more {
        fields.extend(more);
    }
    format!("{:#}\n", Value::Object(fields))
}

pub(crate) fn load(dir: &Path, device: &Device) -> Result<Gpt2, ModelError> {
    let path = dir.join("config.json");
    let text = fs_err::read_to_string(&path).map_err(|source| ModelError::File { path: path.clone(), source })?;
    let json = |source| ModelError::Json { path: path.clone(), source };
    let value: Value = serde_json::from_str(&text).map_err(json)?;
    let model_type = value.get("model_type").and_then(Value::as_str).unwrap_or("none");
    if model_type != "gpt2" {
        return Err(ModelError::ModelType { path, found: model_type.into() });
    }
    let config: Gpt2Config = serde_json::from_value(value).map_err(json)?;
    config.validate()?;
    let path = dir.join("model.safetensors");
    let bytes = map(&path)?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|source| ModelError::Safetensors { path: path.clone(), source })?;
    let model = Gpt2::new(&config, 0, device);
    let mut loader = Loader { path, file, error: None };
    let model = model.for_each_parameter(&mut loader);
    loader.error.map_or(Ok(model), Err)
}

/// The file's bytes, mapped so that only what is read is loaded.
#[expect(unsafe_code, reason = "memory-mapping a file")]
fn map(path: &Path) -> Result<memmap2::Mmap, ModelError> {
    let failed = |source| ModelError::File { path: path.to_path_buf(), source };
    let file = fs_err::File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only and dropped before `load` returns; a file that another program cuts short in
    // between would end this process by a signal, not corrupt its memory.
    unsafe { memmap2::Mmap::map(file.file()) }.map_err(failed)
}

/// Replaces every parameter by the file's; the first error is kept.
struct Loader<'a> {
    path: PathBuf,
    file: SafeTensors<'a>,
    error: Option<ModelError>,
}

impl Loader<'_> {
    fn read(&self, info: &ParameterInfo) -> Result<Stored, ModelError> {
        let (path, name) = (self.path.clone(), info.name.clone());
        // The bare model is saved without the prefix.
        let bare = info.name.trim_start_matches("transformer.");
        let view = self.file.tensor(&name).or_else(|_| self.file.tensor(bare));
        let Ok(view) = view else { return Err(ModelError::Missing { path, name }) };
        let conv1d = is_conv1d(&name);
        let expected: Vec<usize> = if conv1d { info.shape.iter().rev().copied().collect() } else { info.shape.clone() };
        if view.shape() != expected {
            return Err(ModelError::Shape { path, name, expected, found: view.shape().to_vec() });
        }
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::BF16 => {
                data.as_chunks().0.iter().map(|&b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)).collect()
            }
            Dtype::F16 => data.as_chunks().0.iter().map(|&b| f16_to_f32(u16::from_le_bytes(b))).collect(),
            found => return Err(ModelError::Dtype { path, name, found: format!("{found:?}") }),
        };
        let stored = Stored { shape: expected, values };
        Ok(if conv1d { transposed(stored) } else { stored })
    }
}

/// The value of IEEE half-precision bits.
fn f16_to_f32(bits: u16) -> f32 {
    burn::tensor::f16::from_bits(bits).to_f32()
}

impl ParameterVisitor for Loader<'_> {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        if self.error.is_some() {
            return tensor;
        }
        match self.read(info) {
            Ok(stored) => Tensor::from_data(TensorData::new(stored.values, stored.shape), &tensor.device()),
            Err(error) => {
                self.error = Some(error);
                tensor
            }
        }
    }
}
