//! GPT-2: learned positions, pre-norm blocks, tanh GELU, and an output head that is usually the token embedding.
//!
//! Source: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3; names and layout
//! as in Hugging Face's `GPT2LMHeadModel`.

use crate::Pass;
use crate::config::Gpt2Config;
use crate::decoder::{Architecture, Head, LayerPass, OutputHeads, dropped_embedding, residual_std};
use crate::init::{INIT_STD, Initializer};
use crate::layers::{Embedding, LayerNorm, Linear};
use burn::module::Module;
use burn::tensor::Tensor;
use cavy_ops::{
    AttentionSpec, BlockSpec, BlockWeights, Gelu, Heads, Residual, TiedGradient, add, add_residual, gelu, gelu_mlp,
    gpt2_block,
};

/// A GPT-2 language model.
#[derive(Module, Debug)]
pub(crate) struct Gpt2 {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    /// The output head's weight and adapters; of a tied one the adapters alone, if it has any.
    lm_head: Option<Linear>,
    /// What stands in the output head's place in a model that classifies or scores.
    score: Option<Linear>,
    #[module(skip)]
    pub(crate) config: Gpt2Config,
}

/// One pre-norm block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: SelfAttention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct SelfAttention {
    c_attn: Linear,
    c_proj: Linear,
}

#[derive(Module, Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}

impl Block {
    fn new(init: &mut Initializer<'_>, config: &Gpt2Config) -> Self {
        let (d, f) = (config.hidden_size, config.inner_size());
        let residual_std = residual_std(config.num_hidden_layers);
        Self {
            ln_1: LayerNorm::new(init, d),
            attn: SelfAttention {
                c_attn: Linear::new(init, d, 3 * d, config.qkv_bias, INIT_STD),
                c_proj: Linear::new(init, d, d, true, residual_std),
            },
            ln_2: LayerNorm::new(init, d),
            mlp: Mlp {
                c_fc: Linear::new(init, d, f, true, INIT_STD),
                c_proj: Linear::new(init, f, d, true, residual_std),
            },
        }
    }
}

impl Block {
    /// The block as one operation, where that pays.
    fn whole(&self, x: &Tensor<2>, attention: Option<AttentionSpec>, eps: f64) -> Option<Tensor<2>> {
        let attention = attention?;
        let norm = |norm: &LayerNorm| (norm.weight.val(), norm.bias.val());
        let weights = BlockWeights {
            norms: [norm(&self.ln_1), norm(&self.ln_2)],
            qkv: self.attn.c_attn.bare()?,
            out: self.attn.c_proj.bare()?,
            mlp: [self.mlp.c_fc.bare()?, self.mlp.c_proj.bare()?],
        };
        gpt2_block(x, &weights, &BlockSpec { attention, eps: eps as f32, gelu: Gelu::Tanh })
    }
}

impl Mlp {
    /// Shapes: `(N, D)` to the same.
    fn forward(&self, x: Tensor<2>, dropout_key: Option<u64>) -> Tensor<2> {
        if let (Some(first), Some(second)) = (self.c_fc.plain(), self.c_proj.plain()) {
            return gelu_mlp(x, [first, second], Gelu::Tanh);
        }
        let inner = self.c_fc.forward(x, dropout_key); // (N, F)
        self.c_proj.forward(gelu(inner, Gelu::Tanh), dropout_key)
    }
}

impl Gpt2 {
    pub(crate) fn new(config: &Gpt2Config, init: &mut Initializer<'_>) -> Self {
        let (d, v) = (config.hidden_size, config.vocab_size);
        Self {
            wte: Embedding::new(init, v, d),
            wpe: Embedding::new(init, config.context_length, d),
            h: (0..config.num_hidden_layers).map(|_| Block::new(init, config)).collect(),
            ln_f: LayerNorm::new(init, d),
            lm_head: (!config.tie_word_embeddings).then(|| Linear::new(init, d, v, false, INIT_STD)),
            score: None,
            config: config.clone(),
        }
    }
}

impl Architecture for Gpt2 {
    const PREFIX: &'static str = "transformer.";
    const BLOCKS: &'static str = "h";
    const USUAL_TARGETS: &'static [&'static str] = &["c_attn"];
    const FUSED_QKV: Option<&'static str> = Some("c_attn");

    fn embed(&self, pass: &Pass, tied: Option<&TiedGradient>) -> Tensor<2> {
        let x = add(self.wte.forward(&pass.ids, tied), self.wpe.forward(&pass.positions, None));
        dropped_embedding(x, pass, self.config.drop_rate)
    }

    fn depth(&self) -> usize {
        self.h.len()
    }

    fn block(&self, x: Tensor<2>, at: &LayerPass<'_, '_>) -> Tensor<2> {
        let (block, config, key) = (&self.h[at.layer], &self.config, at.pass.dropout_key);
        let (eps, drop_rate) = (config.layer_norm_eps, config.drop_rate);
        let dim = config.hidden_size / config.num_attention_heads;
        let heads = Heads::new(config.num_attention_heads, config.num_attention_heads, dim);
        let heads = heads.expect("a config that was checked");
        let scale = 1.0 / (dim as f32).sqrt();
        if let Some(y) = block.whole(&x, at.plain_attention(heads, scale, drop_rate), eps) {
            return y;
        }
        let (mixer, mlp) = (Residual::default(), Residual::default());
        let qkv = block.attn.c_attn.forward(block.ln_1.of_stream(x.clone(), eps, &mixer), key); // (N, 3 D)
        let mixed = at.attention(qkv, heads, scale, None, drop_rate); // (N, D)
        let x = add_residual(x, at.dropped(block.attn.c_proj.forward(mixed, key), drop_rate, 1), mixer);
        let widened = block.mlp.forward(block.ln_2.of_stream(x.clone(), eps, &mlp), key);
        add_residual(x, at.dropped(widened, drop_rate, 2), mlp)
    }

    fn final_norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.ln_f.forward(x, self.config.layer_norm_eps)
    }

    fn head(&self) -> Head<'_> {
        Head::of(self.score.as_ref().or(self.lm_head.as_ref()), &self.wte)
    }

    fn for_each_linear(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        for (layer, block) in self.h.iter_mut().enumerate() {
            let mut visit = |name: &str, linear| f(&format!("transformer.h.{layer}.{name}"), linear);
            visit("attn.c_attn", &mut block.attn.c_attn);
            visit("attn.c_proj", &mut block.attn.c_proj);
            visit("mlp.c_fc", &mut block.mlp.c_fc);
            visit("mlp.c_proj", &mut block.mlp.c_proj);
        }
        if let Some(head) = &mut self.lm_head {
            f("lm_head", head);
        }
        if let Some(score) = &mut self.score {
            f("score", score);
        }
    }

    fn token_embedding(&mut self) -> (&'static str, &mut Embedding) {
        ("transformer.wte", &mut self.wte)
    }

    fn heads(&mut self) -> OutputHeads<'_> {
        let tied = &mut self.config.tie_word_embeddings;
        OutputHeads { lm_head: &mut self.lm_head, score: &mut self.score, embedding: &mut self.wte, tied }
    }
}
