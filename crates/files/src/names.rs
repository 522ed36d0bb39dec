//! What tensors are called: GGUF's names, Hugging Face's, and those of the book "Build a Large Language Model (From
//! Scratch)".

/// The architectures whose names are known on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, Mistral and SmolLM.
    Llama,
    /// Qwen2 and Qwen2.5, whose queries, keys and values have biases.
    Qwen2,
    /// Qwen3, whose queries and keys are normed.
    Qwen3,
    /// GPT-2.
    Gpt2,
}

/// How a tensor of a GGUF file lies, compared with Hugging Face's of the same meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In the same way.
    Same,
    /// The rows of every query head are interleaved, see [`crate::rope_rows`].
    QueryRows,
    /// The rows of every key head are interleaved.
    KeyRows,
    /// As `(out, in)`, where Hugging Face's `Conv1D` has `(in, out)`.
    Transposed,
}

/// Architecture, its name in GGUF, the values of `model_type` that stand for it.
const ARCHITECTURES: [(Architecture, &str, &[&str]); 4] = [
    (Architecture::Llama, "llama", &["llama", "mistral"]),
    (Architecture::Qwen2, "qwen2", &["qwen2"]),
    (Architecture::Qwen3, "qwen3", &["qwen3"]),
    (Architecture::Gpt2, "gpt2", &["gpt2"]),
];

/// Pairs of GGUF's and Hugging Face's name.
type Table = &'static [(&'static str, &'static str)];

/// Names outside the blocks, GGUF's and Hugging Face's, without `.weight` or `.bias`.
///
/// Source: `TensorNameMap` of gguf-py in ggml-org/llama.cpp.
const LLAMA: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];
const GPT2: [(&str, &str); 4] = [
    ("token_embd", "transformer.wte"),
    ("position_embd", "transformer.wpe"),
    ("output_norm", "transformer.ln_f"),
    ("output", "lm_head"),
];

/// Names inside a block, after `blk.N.` and `model.layers.N.` or `transformer.h.N.`.
const LLAMA_BLOCK: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
const GPT2_BLOCK: [(&str, &str); 6] = [
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];

/// What a name is made of: the part that a table translates, the number of its block if it is in one, and its ending.
struct Parts<'a> {
    block: Option<usize>,
    stem: &'a str,
    ending: &'a str,
}

/// Takes a name apart. A number is only known as it is written back: no signs, no leading zeros.
fn parts<'a>(name: &'a str, blocks: &str) -> Option<Parts<'a>> {
    let dot = name.rfind('.')?;
    let (stem, ending) = name.split_at(dot);
    if !matches!(ending, ".weight" | ".bias") {
        return None;
    }
    let Some(inside) = stem.strip_prefix(blocks) else { return Some(Parts { block: None, stem, ending }) };
    let (number, stem) = inside.split_once('.')?;
    let block: usize = number.parse().ok()?;
    (block.to_string() == number).then_some(Parts { block: Some(block), stem, ending })
}

impl Architecture {
    /// By the value of `general.architecture` in GGUF.
    pub fn of_gguf(name: &str) -> Option<Self> {
        ARCHITECTURES.iter().find(|(_, gguf, _)| *gguf == name).map(|(architecture, ..)| *architecture)
    }

    /// By the value of `model_type` in `config.json`.
    pub fn of_model_type(name: &str) -> Option<Self> {
        ARCHITECTURES.iter().find(|(.., types)| types.contains(&name)).map(|(architecture, ..)| *architecture)
    }

    /// The value of `general.architecture` in GGUF.
    pub fn gguf(self) -> &'static str {
        ARCHITECTURES[self as usize].1
    }

    /// The value of `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        ARCHITECTURES[self as usize].2[0]
    }

    /// Names outside the blocks, names inside, and what Hugging Face has before a block's number.
    fn tables(self) -> (Table, Table, &'static str) {
        match self {
            Self::Gpt2 => (&GPT2, &GPT2_BLOCK, "transformer.h."),
            _ => (&LLAMA, &LLAMA_BLOCK, "model.layers."),
        }
    }

    /// Hugging Face's name of a tensor that GGUF calls `name`.
    pub fn hugging_face_name(self, name: &str) -> Option<String> {
        let Parts { block, stem, ending } = parts(name, "blk.")?;
        let (outside, inside, blocks) = self.tables();
        let table = if block.is_some() { inside } else { outside };
        let (_, found) = table.iter().find(|(gguf, _)| *gguf == stem)?;
        Some(match block {
            Some(block) => format!("{blocks}{block}.{found}{ending}"),
            None => format!("{found}{ending}"),
        })
    }

    /// GGUF's name of a tensor that Hugging Face calls `name`. GPT-2's without `transformer.`, as the bare model is saved,
    /// are known as well.
    pub fn gguf_name(self, name: &str) -> Option<String> {
        let (outside, inside, blocks) = self.tables();
        let bare = self == Self::Gpt2 && !name.starts_with("transformer.") && !name.starts_with("lm_head.");
        let whole = if bare { format!("transformer.{name}") } else { name.to_string() };
        let Parts { block, stem, ending } = parts(&whole, blocks)?;
        let table = if block.is_some() { inside } else { outside };
        let (found, _) = table.iter().find(|(_, known)| *known == stem)?;
        Some(match block {
            Some(block) => format!("blk.{block}.{found}{ending}"),
            None => format!("{found}{ending}"),
        })
    }

    /// How the tensor that GGUF calls `name` lies there, compared with Hugging Face's.
    ///
    /// Source: `modify_tensors` of `LlamaModel` and `GPT2Model` in `convert_hf_to_gguf.py` of ggml-org/llama.cpp.
    pub fn layout(self, name: &str) -> Layout {
        let Some(Parts { block: Some(_), stem, ending }) = parts(name, "blk.") else { return Layout::Same };
        match (self, stem, ending) {
            (Self::Llama, "attn_q", _) => Layout::QueryRows,
            (Self::Llama, "attn_k", _) => Layout::KeyRows,
            (Self::Gpt2, "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down", ".weight") => Layout::Transposed,
            _ => Layout::Same,
        }
    }
}

/// A name without what `torch.compile` and data parallelism put before it.
pub fn unwrapped(name: &str) -> &str {
    let name = name.strip_prefix("module.").unwrap_or(name);
    name.strip_prefix("_orig_mod.").unwrap_or(name)
}

/// Where a tensor of the book's GPT belongs in Hugging Face's GPT-2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BookPlace {
    /// It is this tensor, transposed if the book's `Linear` is Hugging Face's `Conv1D`.
    Whole {
        /// Hugging Face's name.
        name: String,
        /// Whether `(out, in)` becomes `(in, out)`.
        transposed: bool,
    },
    /// It is one third of a tensor that holds queries, keys and values one after the other.
    Third {
        /// Hugging Face's name.
        name: String,
        /// Which of the three.
        index: usize,
        /// Whether `(out, in)` becomes `(in, out)`, after the three are put below each other.
        transposed: bool,
    },
    /// It is a buffer that the model makes itself.
    Ignored,
}

/// Names of the book outside the blocks and inside, with Hugging Face's, and whether they are transposed.
const BOOK: [(&str, &str); 5] = [
    ("tok_emb.weight", "transformer.wte.weight"),
    ("pos_emb.weight", "transformer.wpe.weight"),
    ("final_norm.scale", "transformer.ln_f.weight"),
    ("final_norm.shift", "transformer.ln_f.bias"),
    ("out_head.weight", "lm_head.weight"),
];
const BOOK_BLOCK: [(&str, &str, bool); 10] = [
    ("att.out_proj.weight", "attn.c_proj.weight", true),
    ("att.out_proj.bias", "attn.c_proj.bias", false),
    ("ff.layers.0.weight", "mlp.c_fc.weight", true),
    ("ff.layers.0.bias", "mlp.c_fc.bias", false),
    ("ff.layers.2.weight", "mlp.c_proj.weight", true),
    ("ff.layers.2.bias", "mlp.c_proj.bias", false),
    ("norm1.scale", "ln_1.weight", false),
    ("norm1.shift", "ln_1.bias", false),
    ("norm2.scale", "ln_2.weight", false),
    ("norm2.shift", "ln_2.bias", false),
];
const BOOK_THIRDS: [&str; 3] = ["att.W_query.", "att.W_key.", "att.W_value."];

/// Where the tensor that the book calls `name` belongs; `None` if the book has no such name.
///
/// Source: `GPTModel` of chapter 4 and `load_weights_into_gpt` of chapter 5 in rasbt/LLMs-from-scratch.
pub fn book_place(name: &str) -> Option<BookPlace> {
    let name = unwrapped(name);
    if let Some((_, found)) = BOOK.iter().find(|(book, _)| *book == name) {
        return Some(BookPlace::Whole { name: (*found).into(), transposed: false });
    }
    let (number, rest) = name.strip_prefix("trf_blocks.")?.split_once('.')?;
    let block: usize = number.parse().ok().filter(|block: &usize| block.to_string() == number)?;
    if rest == "att.mask" {
        return Some(BookPlace::Ignored);
    }
    if let Some((_, found, transposed)) = BOOK_BLOCK.iter().find(|(book, ..)| *book == rest) {
        return Some(BookPlace::Whole { name: format!("transformer.h.{block}.{found}"), transposed: *transposed });
    }
    BOOK_THIRDS.iter().enumerate().find_map(|(index, third)| {
        let ending = rest.strip_prefix(third).filter(|ending| matches!(*ending, "weight" | "bias"))?;
        let name = format!("transformer.h.{block}.attn.c_attn.{ending}");
        Some(BookPlace::Third { name, index, transposed: ending == "weight" })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gguf_names_are_those_of_the_formats_own_package() {
        let text = fs_err::read_to_string(crate::golden::golden("names.json")).unwrap();
        let golden: std::collections::BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(&text).unwrap();
        assert_eq!(golden.len(), 4);
        for (architecture, names) in golden {
            let architecture = Architecture::of_gguf(&architecture).unwrap();
            assert!(names.len() > 8);
            for (hugging_face, gguf) in names {
                assert_eq!(architecture.gguf_name(&hugging_face).as_ref(), Some(&gguf), "{hugging_face}");
                assert_eq!(architecture.hugging_face_name(&gguf), Some(hugging_face));
            }
        }
    }

    #[test]
    fn architectures_are_found_under_both_names() {
        for (architecture, gguf, types) in ARCHITECTURES {
            assert_eq!((architecture.gguf(), architecture.model_type()), (gguf, types[0]));
            assert_eq!(Architecture::of_gguf(gguf), Some(architecture));
            assert!(types.iter().all(|name| Architecture::of_model_type(name) == Some(architecture)));
        }
        assert_eq!(Architecture::of_gguf("mamba"), None);
    }

    #[test]
    fn names_of_other_models_are_not_known() {
        for name in
            ["", ".", "weight", "blk.0.weight", "blk..attn_q.weight", "blk.01.attn_q.weight", "blk.+1.attn_q.weight"]
        {
            assert_eq!(Architecture::Llama.hugging_face_name(name), None, "{name}");
        }
        assert_eq!(Architecture::Llama.hugging_face_name("blk.0.ffn_gate_exps.weight"), None);
        assert_eq!(Architecture::Llama.gguf_name("model.layers.0.self_attn.rotary_emb.inv_freq"), None);
        assert_eq!(Architecture::Gpt2.gguf_name("transformer.h.0.attn.masked_bias"), None);
        assert_eq!(Architecture::Gpt2.gguf_name("h.3.ln_1.bias").unwrap(), "blk.3.attn_norm.bias");
    }

    #[test]
    fn only_llamas_heads_and_gpt2s_layers_lie_otherwise() {
        let layout = |architecture: Architecture, stem: &str| architecture.layout(&format!("blk.7.{stem}"));
        assert_eq!(layout(Architecture::Llama, "attn_q.weight"), Layout::QueryRows);
        assert_eq!(layout(Architecture::Llama, "attn_k.bias"), Layout::KeyRows);
        assert_eq!(layout(Architecture::Llama, "attn_v.weight"), Layout::Same);
        assert_eq!(layout(Architecture::Qwen2, "attn_q.weight"), Layout::Same);
        assert_eq!(layout(Architecture::Qwen3, "attn_k.weight"), Layout::Same);
        assert_eq!(layout(Architecture::Gpt2, "ffn_up.weight"), Layout::Transposed);
        assert_eq!(layout(Architecture::Gpt2, "ffn_up.bias"), Layout::Same);
        assert_eq!(Architecture::Gpt2.layout("token_embd.weight"), Layout::Same);
    }

    #[test]
    fn the_books_names_have_their_places() {
        let whole = |name: &str, transposed| Some(BookPlace::Whole { name: name.into(), transposed });
        assert_eq!(book_place("tok_emb.weight"), whole("transformer.wte.weight", false));
        assert_eq!(book_place("_orig_mod.pos_emb.weight"), whole("transformer.wpe.weight", false));
        assert_eq!(book_place("trf_blocks.11.ff.layers.2.weight"), whole("transformer.h.11.mlp.c_proj.weight", true));
        assert_eq!(book_place("trf_blocks.0.norm2.shift"), whole("transformer.h.0.ln_2.bias", false));
        assert_eq!(book_place("out_head.weight"), whole("lm_head.weight", false));
        assert_eq!(book_place("trf_blocks.0.att.mask"), Some(BookPlace::Ignored));
        let name = "transformer.h.2.attn.c_attn.bias".to_string();
        let third = BookPlace::Third { name, index: 2, transposed: false };
        assert_eq!(book_place("trf_blocks.2.att.W_value.bias"), Some(third));
        for name in ["trf_blocks.x.att.mask", "trf_blocks.0.att.W_query.scale", "lm_head.weight", "trf_blocks.0"] {
            assert_eq!(book_place(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_translated_back_or_not_at_all(name in "[a-z_.0-9]{0,30}") {
            for (architecture, ..) in ARCHITECTURES {
                if let Some(there) = architecture.hugging_face_name(&name) {
                    prop_assert_eq!(architecture.gguf_name(&there), Some(name.clone()));
                }
            }
        }
    }
}
