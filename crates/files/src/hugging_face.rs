//! Models of other formats as Hugging Face has them, and back: names, the order of rows, transposed layers, settings.

#[cfg(test)]
mod tests;

use crate::config::{self, ROPE_FACTORS};
use crate::dtype::Dtype;
use crate::error::FilesError;
use crate::floats::f32_bytes;
use crate::gguf::{Gguf, Metadata};
use crate::names::{Architecture, BookPlace, Layout, book_place};
use crate::rope_rows::{halves_to_interleaved, interleaved_to_halves};
use crate::tensors::{TensorInfo, Tensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Settings and tensors as a Hugging Face directory has them.
#[derive(Clone, Debug)]
pub struct HuggingFace {
    /// What its `config.json` says.
    pub config: Value,
    /// The tensors under Hugging Face's names and in its order of elements.
    pub tensors: Tensors,
}

/// Names of a GGUF file that nothing else has: what they hold is in the settings or computed.
fn is_only_ggufs(name: &str) -> bool {
    name == ROPE_FACTORS || name.ends_with(".attn_rot_embd.weight")
}

/// A size of the settings that says in which order rows lie.
fn size(path: &Path, config: &Value, key: &str) -> Result<usize, FilesError> {
    let size = config.get(key).and_then(Value::as_u64);
    let size = size.ok_or_else(|| FilesError::NoKey { path: path.into(), key: key.into() })?;
    usize::try_from(size).ok().filter(|&size| size > 0 && size <= 1 << 24).ok_or_else(|| FilesError::Key {
        path: path.into(),
        key: key.into(),
        found: size.to_string(),
        expected: "1 to 2^24",
    })
}

/// The order of the rows of a projection to `heads_key` heads.
fn head_rows(
    path: &Path,
    config: &Value,
    heads_key: &str,
    rows: usize,
    order: fn(usize, usize) -> Vec<usize>,
) -> Result<Vec<usize>, FilesError> {
    let (heads, head_dim) = (size(path, config, heads_key)?, size(path, config, "head_dim")?);
    if !head_dim.is_multiple_of(2) || heads * head_dim != rows {
        let (key, found) = ("head_dim".into(), format!("{head_dim} of each of {heads} heads"));
        let expected = "an even size that gives, with all heads, the rows of the projections";
        return Err(FilesError::Key { path: path.into(), key, found, expected });
    }
    Ok(order(heads, head_dim))
}

/// Puts a tensor's elements in the order of the other side.
fn relay(
    path: &Path,
    config: &Value,
    tensors: &mut Tensors,
    name: &str,
    layout: Layout,
    order: fn(usize, usize) -> Vec<usize>,
) -> Result<(), FilesError> {
    let heads_key = match layout {
        Layout::Same => return Ok(()),
        Layout::Transposed => return tensors.transpose(name),
        Layout::QueryRows => "num_attention_heads",
        Layout::KeyRows => "num_key_value_heads",
    };
    let rows = tensors.info(name)?.shape.first().copied().unwrap_or(0);
    tensors.reorder_rows(name, head_rows(path, config, heads_key, rows, order)?)
}

impl HuggingFace {
    /// A GGUF file as a Hugging Face directory. Quantized blocks stay as they are, except that whole rows move; GPT-2's
    /// linear layers in such blocks are [`Tensors::is_turned`].
    ///
    /// Errors: an architecture or a tensor that is not known here, settings that are missing.
    pub fn from_gguf(gguf: Gguf) -> Result<Self, FilesError> {
        let (path, architecture, config) = (gguf.path(), config::architecture(&gguf)?, config::from_gguf(&gguf)?);
        let mut unknown = None;
        let mut layouts = Vec::new();
        let mut tensors = gguf.tensors.renamed(|name| {
            let found = architecture.hugging_face_name(name);
            match &found {
                Some(found) => layouts.push((found.clone(), architecture.layout(name))),
                None if is_only_ggufs(name) => {}
                None => unknown = unknown.take().or(Some(name.to_string())),
            }
            found
        })?;
        if let Some(name) = unknown {
            return Err(FilesError::Unknown { path, name, architecture: architecture.gguf() });
        }
        for (name, layout) in layouts {
            relay(&path, &config, &mut tensors, &name, layout, interleaved_to_halves)?;
        }
        Ok(Self { config, tensors })
    }

    /// The metadata and tensors of a GGUF file with this model; `path` is where its settings come from. Give both to
    /// [`crate::gguf::save`], with the tokenizer's keys added.
    ///
    /// Law: [`Self::from_gguf`] undoes it.
    ///
    /// Errors: as there.
    pub fn to_gguf(self, path: &Path) -> Result<(Metadata, Tensors), FilesError> {
        let (architecture, metadata) = config::to_gguf(path, &self.config)?;
        let mut unknown = None;
        let mut layouts = Vec::new();
        let mut tensors = self.tensors.renamed(|name| {
            let found = architecture.gguf_name(name);
            match &found {
                Some(found) => layouts.push((found.clone(), architecture.layout(found))),
                // Tables that old checkpoints keep beside the weights.
                None if name.ends_with(".rotary_emb.inv_freq") || is_attention_mask(architecture, name) => {}
                None => unknown = unknown.take().or(Some(name.to_string())),
            }
            found
        })?;
        if let Some(name) = unknown {
            return Err(FilesError::Unknown { path: path.into(), name, architecture: architecture.model_type() });
        }
        let tied = self.config.get("tie_word_embeddings").and_then(Value::as_bool);
        if tied.unwrap_or(architecture == Architecture::Gpt2) {
            // A copy of the embedding, which some savers write; GGUF takes its absence for a tied head.
            tensors = tensors.renamed(|name| (name != "output.weight").then(|| name.into()))?;
        }
        let settings = with_derived_sizes(&self.config);
        for (name, layout) in layouts {
            if tensors.contains(&name) {
                relay(path, &settings, &mut tensors, &name, layout, halves_to_interleaved)?;
            }
            if tensors.is_turned(&name) {
                let TensorInfo { dtype, shape, .. } = tensors.info(&name)?.clone();
                let problem = "only a matrix of plain numbers can be transposed";
                let hint = "convert the model to F16 or F32 instead";
                return Err(FilesError::Tensor { path: path.into(), name, dtype, shape, problem, hint });
            }
        }
        if let Some(factors) = config::factors_to_gguf(path, &self.config)? {
            let bytes = f32_bytes(Dtype::F32, &factors).unwrap_or_default();
            tensors.insert(ROPE_FACTORS, Dtype::F32, &[factors.len()], bytes)?;
        }
        Ok((metadata, tensors))
    }
}

/// GPT-2's causal mask, which old checkpoints keep.
fn is_attention_mask(architecture: Architecture, name: &str) -> bool {
    architecture == Architecture::Gpt2 && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
}

/// The settings with the sizes that `config.json` may leave out.
fn with_derived_sizes(config: &Value) -> Value {
    let mut settings = config.clone();
    for key in ["head_dim", "num_key_value_heads"] {
        if let Some(value) = config::setting(config, Architecture::Llama, key) {
            settings[key] = value;
        }
    }
    settings
}

/// The tensors of a GPT from the book "Build a Large Language Model (From Scratch)" as Hugging Face's GPT-2 has them:
/// queries, keys and values in one, linear layers transposed.
///
/// Errors: a name that the book does not have.
pub fn from_book(mut tensors: Tensors) -> Result<Tensors, FilesError> {
    let mut names = BTreeMap::new();
    let mut thirds: BTreeMap<String, ([Option<String>; 3], bool)> = BTreeMap::new();
    let mut transposes = Vec::new();
    for info in tensors.infos() {
        match book_place(&info.name) {
            Some(BookPlace::Ignored) => {}
            Some(BookPlace::Whole { name, transposed }) => {
                transposes.extend(transposed.then(|| name.clone()));
                names.insert(info.name.clone(), name);
            }
            Some(BookPlace::Third { name, index, transposed }) => {
                let third = thirds.entry(name).or_default();
                third.0[index] = Some(info.name.clone());
                third.1 = transposed;
            }
            None => {
                let path = tensors.paths().next().map(Into::into).unwrap_or_default();
                return Err(FilesError::Unknown { path, name: info.name.clone(), architecture: "book's GPT" });
            }
        }
    }
    for (name, (parts, transposed)) in thirds {
        // A third that is missing is named as the book names it.
        let part = |index: usize| ["att.W_query", "att.W_key", "att.W_value"][index];
        let book = |index: usize| name.replace("transformer.h", "trf_blocks").replace("attn.c_attn", part(index));
        let parts: Vec<String> =
            parts.into_iter().enumerate().map(|(i, part)| part.unwrap_or_else(|| book(i))).collect();
        tensors.stack(&parts, &name)?;
        transposes.extend(transposed.then(|| name.clone()));
        names.insert(name.clone(), name);
    }
    let mut tensors = tensors.renamed(|name| names.get(name).cloned())?;
    for name in transposes {
        tensors.transpose(&name)?;
    }
    Ok(tensors)
}
