//! The adapter of one linear layer: LoRA and DoRA.
//!
//! Sources: Hu et al. 2021, <https://arxiv.org/abs/2106.09685>; Liu et al. 2024, <https://arxiv.org/abs/2402.09353>; bias
//! and dropout are treated as in PEFT (`peft/tuners/lora/dora.py` of version 0.21).

use crate::init::parameter;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use cavy_ops::kernels::random::{fill_uniform, subkey};
use cavy_ops::{LowRank, SharedInput, Weight, dropout, exec, linear, low_rank, rescale};
use std::sync::{Arc, OnceLock};

/// How an adapter enters its layer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `alpha / r`, or what the config makes of it.
    pub(crate) scale: f64,
    /// How much of the adapter's change counts: 1 in training.
    pub(crate) weight: f64,
    pub(crate) dropout: f64,
    /// Parts of the outputs with factors of their own: 3 for a fused projection that is treated as three layers.
    pub(crate) blocks: usize,
    /// Tells the dropout of layers apart.
    pub(crate) site: u64,
    /// `||W_o||^2` of the frozen weight, once it was needed.
    squares: Arc<OnceLock<Vec<f64>>>,
    /// `||W_o + s B_o A||`, once it was needed, where nothing is trained.
    norms: Arc<OnceLock<Vec<f32>>>,
}

impl Entry {
    pub(crate) fn new(scale: f64, dropout: f64, blocks: usize, site: u64) -> Self {
        Self { scale, weight: 1.0, dropout, blocks, site, squares: Arc::default(), norms: Arc::default() }
    }

    /// Forgets what was computed from the adapter, and with `base` what was computed from the layer's weight.
    pub(crate) fn forget(&mut self, base: bool) {
        self.norms = Arc::default();
        if base {
            self.squares = Arc::default();
        }
    }
}

/// A low-rank correction of a linear layer, and the magnitudes of its rows with DoRA.
#[derive(Module, Debug)]
pub(crate) struct Adapter {
    /// `(g R, in)`.
    pub(crate) lora_a: Param<Tensor<2>>,
    /// `(out, R)`.
    pub(crate) lora_b: Param<Tensor<2>>,
    /// `(out)`.
    pub(crate) lora_magnitude_vector: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) entry: Entry,
}

impl Adapter {
    /// The adapter that a layer of this weight begins with: `A` uniform within `1 / sqrt(in)`, which is what
    /// `kaiming_uniform_(a = sqrt 5)` comes to, `B` zero, magnitudes the norms of the weight's rows.
    pub(crate) fn new(base: &Weight<'_>, rank: usize, entry: Entry, use_dora: bool, seed: u64, on: &Device) -> Self {
        let ([out, inputs], inner) = (base.dims(), rank * entry.blocks);
        let mut a = vec![0.0; inner * inputs];
        fill_uniform(exec(), subkey(seed, entry.site), (1.0 / (inputs as f64).sqrt()) as f32, &mut a);
        let mut adapter = Self {
            lora_a: made(a, [inner, inputs], on),
            lora_b: made(vec![0.0; out * rank], [out, rank], on),
            lora_magnitude_vector: None,
            entry,
        };
        if use_dora {
            let norms = adapter.norms(base);
            adapter.lora_magnitude_vector = Some(made(norms, [out], on));
        }
        adapter
    }

    pub(crate) fn is_dora(&self) -> bool {
        self.lora_magnitude_vector.is_some()
    }

    /// Whether it is all of its change that counts, and nothing falls.
    fn is_plain(&self, dropout_key: Option<u64>) -> bool {
        self.entry.weight == 1.0 && (dropout_key.is_none() || self.entry.dropout == 0.0)
    }

    fn how(&self, dropout_key: Option<u64>) -> LowRank {
        let Entry { scale, blocks, dropout, site, .. } = self.entry;
        LowRank {
            scale: scale as f32,
            blocks,
            dropout: if dropout_key.is_some() { dropout as f32 } else { 0.0 },
            dropout_key: subkey(dropout_key.unwrap_or(0), site),
        }
    }

    /// `||W_o + s B_o A||` of every row.
    pub(crate) fn norms(&self, base: &Weight<'_>) -> Vec<f32> {
        let squares = self.entry.squares.get_or_init(|| base.row_squares());
        base.adapted_norms(squares, &self.lora_a.val(), &self.lora_b.val(), &self.how(None))
    }

    /// `c_o x_o + b_o` with the magnitudes over the norms.
    fn rescaled(&self, base: &Weight<'_>, x: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        let magnitude = self.lora_magnitude_vector.as_ref().expect("an adapter with magnitudes").val();
        if x.is_autodiff() {
            return rescale(x, magnitude, &self.norms(base), bias);
        }
        let norms = self.entry.norms.get_or_init(|| self.norms(base));
        rescale(x, magnitude, norms, bias)
    }

    fn product(&self, onto: Tensor<2>, x: Tensor<2>, how: LowRank, shared: Option<&SharedInput>) -> Tensor<2> {
        low_rank(onto, x, self.lora_a.val(), self.lora_b.val(), how, shared)
    }

    /// `B` with the zeros outside its blocks: its shape, `(out, g R)`, and its values.
    pub(crate) fn whole_b(&self) -> ([usize; 2], Vec<f32>) {
        let b = self.lora_b.val();
        let [out, rank] = b.dims();
        let (blocks, values) = (self.entry.blocks, b.into_data().try_to_vec::<f32>().unwrap_or_default());
        let inner = blocks * rank;
        let mut whole = vec![0.0; out * inner];
        for (o, row) in values.chunks_exact(rank).enumerate() {
            whole[o * inner + o / (out / blocks) * rank..][..rank].copy_from_slice(row);
        }
        ([out, inner], whole)
    }

    /// `B A`, `(out, in)`.
    fn product_of_factors(&self) -> Tensor<2> {
        let (a, b) = (self.lora_a.val(), self.lora_b.val());
        let ([out, rank], [_, inputs], g) = (b.dims(), a.dims(), self.entry.blocks);
        let part = |i: usize| {
            let a = a.clone().slice([i * rank..(i + 1) * rank, 0..inputs]);
            linear(b.clone().slice([i * out / g..(i + 1) * out / g, 0..rank]), a.transpose(), None)
        };
        if g == 1 { part(0) } else { Tensor::cat((0..g).map(part).collect(), 0) }
    }

    /// `weight` with the adapter's change of the layer's own weight, both `(out, in)`.
    fn added_to(&self, weight: Tensor<2>, own: &Tensor<2>) -> Tensor<2> {
        let (product, count) = (self.product_of_factors(), self.entry.weight);
        if !self.is_dora() {
            return weight + product * (self.entry.scale * count);
        }
        let sum = own.clone() + product * self.entry.scale;
        let turned = self.rescaled(&Weight::Dense(own.clone()), sum.transpose(), None).transpose();
        weight + (turned - own.clone()) * count
    }
}

/// The layer's result with what its adapters change, from its result without bias where [`wants_bare`] says so.
///
/// Shapes: `result` is `(N, out)`, `x` `(N, in)`.
/// Source: PEFT's `DoraLinearLayer.forward`: with dropout, both products of a DoRA see the dropped input, and the layer's
/// own result the whole one.
pub(crate) fn adapted(
    adapters: &[Adapter],
    base: &Weight<'_>,
    result: Tensor<2>,
    x: &Tensor<2>,
    bias: Option<Tensor<1>>,
    dropout_key: Option<u64>,
    shared: Option<&SharedInput>,
    product: impl Fn(Tensor<2>) -> Tensor<2>,
) -> Tensor<2> {
    if !wants_bare(adapters) {
        return adapters.iter().fold(result, |y, adapter| {
            let mut how = adapter.how(dropout_key);
            how.scale = (adapter.entry.scale * adapter.entry.weight) as f32;
            adapter.product(y, x.clone(), how, shared)
        });
    }
    if let [only] = adapters
        && only.is_plain(dropout_key)
    {
        return only.rescaled(base, only.product(result, x.clone(), only.how(None), shared), bias);
    }
    let mut y = result.clone();
    for adapter in adapters {
        let (how, count) = (adapter.how(dropout_key), adapter.entry.weight);
        let (seen, own) = if how.dropout > 0.0 {
            let seen = dropout(x.clone(), how.dropout, how.dropout_key);
            (seen.clone(), product(seen))
        } else {
            (x.clone(), result.clone())
        };
        let mut sum = adapter.product(own.clone(), seen, LowRank { dropout: 0.0, ..how }, None);
        if adapter.is_dora() {
            sum = adapter.rescaled(base, sum, None);
        }
        y = y + (sum - own) * count;
    }
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// How many operations on a layer's input [`adapted`] takes, each of which gives a gradient by it; `None` where that is not
/// the sum of one for each adapter.
pub(crate) fn input_uses(adapters: &[Adapter], dropout_key: Option<u64>) -> Option<usize> {
    let simple = !wants_bare(adapters) || matches!(adapters, [only] if only.is_plain(dropout_key));
    simple.then_some(adapters.len())
}

/// Whether the adapters rescale a layer's result, so that its bias must come after them.
pub(crate) fn wants_bare(adapters: &[Adapter]) -> bool {
    adapters.iter().any(Adapter::is_dora)
}

/// A weight with what all adapters change, `(out, in)`, differentiable by theirs.
pub(crate) fn adapted_weight(adapters: &[Adapter], own: &Tensor<2>) -> Tensor<2> {
    adapters.iter().fold(own.clone(), |weight, adapter| adapter.added_to(weight, own))
}

/// A parameter of these values.
pub(crate) fn made<const D: usize>(values: Vec<f32>, shape: [usize; D], on: &Device) -> Param<Tensor<D>> {
    parameter(Tensor::from_data(TensorData::new(values, shape), on))
}
