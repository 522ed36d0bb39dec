//! The `.bin` files of karpathy/llama2.c, version 0: seven sizes, then every weight as `f32`.
//!
//! Source: `legacy_export` of `export.py` in <https://github.com/karpathy/llama2.c>, and `checkpoint_init_weights` of
//! its `run.c`.

#[cfg(test)]
mod tests;

use crate::backing::{Backing, map};
use crate::dtype::Dtype;
use crate::error::FilesError;
use crate::rope_rows::interleaved_to_halves;
use crate::tensors::{TensorInfo, Tensors};
use serde_json::{Value, json};
use std::path::Path;

const HEADER_BYTES: usize = 7 * 4;
/// Most layers: far more than any model of this kind has, few enough that their names are no burden.
const MOST_LAYERS: usize = 1024;
/// Where later versions have a magic number, `ak42`.
const LATER_MAGIC: i32 = 0x616B_3432;

/// Sizes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Whether the output head is the token embedding.
    pub tie_word_embeddings: bool,
}

/// What a llama2.c file holds.
#[derive(Clone, Debug)]
pub struct Llama2c {
    /// The sizes at its beginning.
    pub header: Header,
    /// Its weights under Hugging Face's names for Llama and in Hugging Face's order: the file has the rows of queries and
    /// keys interleaved, they are moved when they are read (see [`crate::rope_rows`]).
    pub tensors: Tensors,
}

impl Header {
    fn parse(path: &Path, file: &[u8]) -> Result<Self, FilesError> {
        let wrong = |found, hint| {
            let expected = "a llama2.c file of version 0, which begins with seven sizes";
            FilesError::Format { path: path.into(), found, expected, hint }
        };
        let Some(header) = file.first_chunk::<HEADER_BYTES>() else {
            let found = format!("a file of {} bytes", file.len());
            return Err(wrong(found, "it may be cut short or of another format"));
        };
        let mut sizes = [0; 7];
        for (size, bytes) in sizes.iter_mut().zip(header.as_chunks().0) {
            *size = i32::from_le_bytes(*bytes);
        }
        if sizes[0] == LATER_MAGIC {
            let hint = "export it again with `--version 0`";
            return Err(wrong(format!("a llama2.c file of version {}", sizes[1]), hint));
        }
        let [dim, hidden, layers, heads, kv_heads, vocab, positions] = sizes;
        let of = |size: i32| usize::try_from(size).ok().filter(|&size| size > 0);
        let header = || {
            Some(Self {
                hidden_size: of(dim)?,
                intermediate_size: of(hidden)?,
                num_hidden_layers: of(layers).filter(|&layers| layers <= MOST_LAYERS)?,
                num_attention_heads: of(heads).filter(|&heads| of(dim).is_some_and(|dim| dim % (2 * heads) == 0))?,
                num_key_value_heads: of(kv_heads).filter(|&kv| of(heads).is_some_and(|heads| heads % kv == 0))?,
                vocab_size: of(vocab.checked_abs()?)?,
                max_position_embeddings: of(positions)?,
                tie_word_embeddings: vocab > 0,
            })
        };
        header().ok_or_else(|| wrong(format!("a file that begins with {sizes:?}"), "it may be of another format"))
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// What Hugging Face's `config.json` says of such a model.
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim(),
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        })
    }

    /// The groups of tensors in the file's order: how many, the name of one, its shape. Those without a name are tables
    /// that can be computed.
    fn groups(&self) -> [(usize, &'static str, Vec<usize>); 14] {
        let (layers, d, f) = (self.num_hidden_layers, self.hidden_size, self.intermediate_size);
        let kv = self.head_dim() * self.num_key_value_heads;
        let half_table = vec![self.max_position_embeddings, self.head_dim() / 2];
        let heads = usize::from(!self.tie_word_embeddings);
        [
            (1, "model.embed_tokens.weight", vec![self.vocab_size, d]),
            (layers, "input_layernorm.weight", vec![d]),
            (layers, "self_attn.q_proj.weight", vec![d, d]),
            (layers, "self_attn.k_proj.weight", vec![kv, d]),
            (layers, "self_attn.v_proj.weight", vec![kv, d]),
            (layers, "self_attn.o_proj.weight", vec![d, d]),
            (layers, "post_attention_layernorm.weight", vec![d]),
            (layers, "mlp.gate_proj.weight", vec![f, d]),
            (layers, "mlp.down_proj.weight", vec![d, f]),
            (layers, "mlp.up_proj.weight", vec![f, d]),
            (1, "model.norm.weight", vec![d]),
            (1, "", half_table.clone()),
            (1, "", half_table),
            (heads, "lm_head.weight", vec![self.vocab_size, d]),
        ]
    }

    /// Bytes of the whole file. No size is above 2^31, so that 128 bits hold any product of three of them.
    fn file_bytes(&self) -> u128 {
        let elements = self
            .groups()
            .into_iter()
            .map(|(count, _, shape)| shape.iter().fold(count as u128, |product, &size| product * size as u128));
        HEADER_BYTES as u128 + 4 * elements.sum::<u128>()
    }
}

impl Llama2c {
    /// Opens a `.bin` file.
    pub fn load(path: &Path) -> Result<Self, FilesError> {
        Self::parse(path, map(path)?)
    }

    /// Reads a file's bytes; `path` stands in messages.
    pub fn parse(path: &Path, bytes: Backing) -> Result<Self, FilesError> {
        let size = (*bytes).as_ref().len();
        let header = Header::parse(path, (*bytes).as_ref())?;
        let needed = header.file_bytes();
        if needed > size as u128 {
            let (what, needed) = ("a model of these sizes".into(), needed.try_into().unwrap_or(u64::MAX));
            return Err(FilesError::Cut { path: path.into(), what, at: 0, needed, size: size as u64 });
        }
        if needed < size as u128 {
            let (what, expected) = ("its size in bytes".into(), needed.to_string());
            return Err(FilesError::Damaged { path: path.into(), what, found: size.to_string(), expected });
        }
        let mut tensors = Tensors::of(path, bytes);
        let mut at = HEADER_BYTES;
        for (count, name, shape) in header.groups() {
            let in_layers = !name.is_empty() && !name.starts_with("model.") && name != "lm_head.weight";
            for layer in 0..count {
                let name = if in_layers { format!("model.layers.{layer}.{name}") } else { name.to_string() };
                let end = at + 4 * shape.iter().product::<usize>();
                if !name.is_empty() {
                    tensors.add(
                        TensorInfo { name, dtype: Dtype::F32, shape: shape.clone(), range: at..end },
                        Vec::new(),
                    )?;
                }
                at = end;
            }
        }
        for layer in 0..header.num_hidden_layers {
            for (name, heads) in [("q", header.num_attention_heads), ("k", header.num_key_value_heads)] {
                let name = format!("model.layers.{layer}.self_attn.{name}_proj.weight");
                tensors.reorder_rows(&name, interleaved_to_halves(heads, header.head_dim()))?;
            }
        }
        Ok(Self { header, tensors })
    }
}
