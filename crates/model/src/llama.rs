//! The Llama family: rotary positions, grouped queries, RMS norms, SwiGLU. Llama 2 and 3, SmolLM2, Mistral (with a
//! sliding window), Qwen2 (biases of queries, keys and values), Qwen3 (norms of queries and keys).
//!
//! Source: Touvron et al. 2023, <https://arxiv.org/abs/2302.13971>, section 2.2; names and layout as in Hugging Face's
//! `LlamaForCausalLM`.

use crate::Pass;
use crate::decoder::{Architecture, Head, LayerPass, OutputHeads, residual_std};
use crate::init::{INIT_STD, Initializer};
use crate::layers::{Embedding, Linear, RmsNorm};
use crate::llama_config::LlamaConfig;
use crate::rope::{Rope, rope_of};
use burn::module::Module;
use burn::tensor::Tensor;
use cavy_ops::{Heads, Residual, TiedGradient, add_residual, concat, rope, swiglu};

/// A language model of the Llama family.
#[derive(Module, Debug)]
pub(crate) struct Llama {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    /// The output head's weight and adapters; of a tied one the adapters alone, if it has any.
    lm_head: Option<Linear>,
    /// What stands in the output head's place in a model that classifies or scores.
    score: Option<Linear>,
    #[module(skip)]
    pub(crate) config: LlamaConfig,
    #[module(skip)]
    rope: Rope,
}

/// One pre-norm block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
}

#[derive(Module, Debug)]
#[expect(clippy::struct_field_names, reason = "Hugging Face's names")]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Block {
    fn new(init: &mut Initializer<'_>, config: &LlamaConfig) -> Self {
        let (d, f, e) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (q, kv) = (config.num_attention_heads * e, config.num_key_value_heads * e);
        let residual_std = residual_std(config.num_hidden_layers);
        Self {
            input_layernorm: RmsNorm::new(init, d),
            self_attn: SelfAttention {
                q_proj: Linear::new(init, d, q, config.qkv_bias, INIT_STD),
                k_proj: Linear::new(init, d, kv, config.qkv_bias, INIT_STD),
                v_proj: Linear::new(init, d, kv, config.qkv_bias, INIT_STD),
                o_proj: Linear::new(init, q, d, config.o_bias, residual_std),
                q_norm: config.qk_norm.then(|| RmsNorm::new(init, e)),
                k_norm: config.qk_norm.then(|| RmsNorm::new(init, e)),
            },
            post_attention_layernorm: RmsNorm::new(init, d),
            mlp: Mlp {
                gate_proj: Linear::new(init, d, f, config.mlp_bias, INIT_STD),
                up_proj: Linear::new(init, d, f, config.mlp_bias, INIT_STD),
                down_proj: Linear::new(init, f, d, config.mlp_bias, residual_std),
            },
        }
    }
}

impl Llama {
    pub(crate) fn new(config: &LlamaConfig, init: &mut Initializer<'_>) -> Self {
        let (d, v) = (config.hidden_size, config.vocab_size);
        Self {
            embed_tokens: Embedding::new(init, v, d),
            layers: (0..config.num_hidden_layers).map(|_| Block::new(init, config)).collect(),
            norm: RmsNorm::new(init, d),
            lm_head: (!config.tie_word_embeddings).then(|| Linear::new(init, d, v, false, INIT_STD)),
            score: None,
            rope: rope_of(config),
            config: config.clone(),
        }
    }

    /// RMS norm of every head on its own, `(N, heads * E)` to the same.
    fn head_norm(&self, norm: Option<&RmsNorm>, x: Tensor<2>) -> Tensor<2> {
        let Some(norm) = norm else { return x };
        let [n, width] = x.dims();
        let e = self.config.head_dim;
        norm.forward(x.reshape([n * width / e, e]), self.config.rms_norm_eps).reshape([n, width])
    }
}

impl Architecture for Llama {
    const PREFIX: &'static str = "model.";
    const BLOCKS: &'static str = "layers";
    const USUAL_TARGETS: &'static [&'static str] = &["q_proj", "v_proj"];
    const FUSED_QKV: Option<&'static str> = None;

    fn embed(&self, pass: &Pass, tied: Option<&TiedGradient>) -> Tensor<2> {
        self.embed_tokens.forward(&pass.ids, tied)
    }

    fn depth(&self) -> usize {
        self.layers.len()
    }

    fn block(&self, x: Tensor<2>, at: &LayerPass<'_, '_>) -> Tensor<2> {
        let (block, config, key) = (&self.layers[at.layer], &self.config, at.pass.dropout_key);
        let (attn, mlp, eps) = (&block.self_attn, &block.mlp, config.rms_norm_eps);
        let (h, k, e) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let (mixer, inner) = (Residual::default(), Residual::default());
        let normed = block.input_layernorm.of_stream(x.clone(), eps, &mixer); // (N, D)
        let [query, keys, value] = Linear::forward_each([&attn.q_proj, &attn.k_proj, &attn.v_proj], normed, key);
        let query = self.head_norm(attn.q_norm.as_ref(), query); // (N, H E)
        let keys = self.head_norm(attn.k_norm.as_ref(), keys); // (N, K E)
        let query = rope(query, h, &at.pass.positions, &self.rope.inv_freq);
        let keys = rope(keys, k, &at.pass.positions, &self.rope.inv_freq);
        let heads = Heads::new(h, k, e).expect("a config that was checked");
        // A factor on both queries and keys is its square on the scores.
        let scale = (self.rope.factor.powi(2) / (e as f64).sqrt()) as f32;
        let mixed = at.attention(concat([query, keys, value]), heads, scale, config.sliding_window, 0.0); // (N, H E)
        let x = add_residual(x, attn.o_proj.forward(mixed, key), mixer);
        let normed = block.post_attention_layernorm.of_stream(x.clone(), eps, &inner);
        let [gate, up] = Linear::forward_each([&mlp.gate_proj, &mlp.up_proj], normed, key); // (N, F)
        add_residual(x, mlp.down_proj.forward(swiglu(gate, up), key), inner)
    }

    fn final_norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.norm.forward(x, self.config.rms_norm_eps)
    }

    fn head(&self) -> Head<'_> {
        Head::of(self.score.as_ref().or(self.lm_head.as_ref()), &self.embed_tokens)
    }

    fn for_each_linear(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        for (layer, block) in self.layers.iter_mut().enumerate() {
            let mut visit = |name: &str, linear| f(&format!("model.layers.{layer}.{name}"), linear);
            visit("self_attn.q_proj", &mut block.self_attn.q_proj);
            visit("self_attn.k_proj", &mut block.self_attn.k_proj);
            visit("self_attn.v_proj", &mut block.self_attn.v_proj);
            visit("self_attn.o_proj", &mut block.self_attn.o_proj);
            visit("mlp.gate_proj", &mut block.mlp.gate_proj);
            visit("mlp.up_proj", &mut block.mlp.up_proj);
            visit("mlp.down_proj", &mut block.mlp.down_proj);
        }
        if let Some(head) = &mut self.lm_head {
            f("lm_head", head);
        }
        if let Some(score) = &mut self.score {
            f("score", score);
        }
    }

    fn token_embedding(&mut self) -> (&'static str, &mut Embedding) {
        ("model.embed_tokens", &mut self.embed_tokens)
    }

    fn heads(&mut self) -> OutputHeads<'_> {
        let tied = &mut self.config.tie_word_embeddings;
        OutputHeads { lm_head: &mut self.lm_head, score: &mut self.score, embedding: &mut self.embed_tokens, tied }
    }
}
