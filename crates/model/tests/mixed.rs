//! Gradients in mixed precision over ten AdamW steps of a GPT-2, beside those of PyTorch in f64 and in its bf16 autocast.
//! `testdata/make_mixed.py` says how the model and the numbers were made.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod adamw;

use adamw::Update;
use burn::tensor::{Device, Tensor, TensorData};
use cavy_model::{Gpt2Config, Gradients, Model, ParameterInfo, ParameterVisitor, Pass, WeightInit};
use cavy_ops::kernels::adamw::AdamW;
use cavy_ops::kernels::random::{subkey, uniform};
use cavy_ops::kernels::{Exec, Precision};
use cavy_ops::{LowRank, Segments, Weight, set_exec};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::sync::Arc;

const STEPS: usize = 10;
const TOKENS: usize = 64;

struct Golden(Vec<u8>);

impl Golden {
    fn values<const N: usize>(&self, name: &str, number: fn([u8; N]) -> f64) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
    }

    fn narrow(&self, name: &str) -> Vec<f64> {
        self.values(name, |bytes: [u8; 4]| f64::from(f32::from_le_bytes(bytes)))
    }

    fn wide(&self, name: &str) -> Vec<f64> {
        self.values(name, f64::from_le_bytes)
    }
}

fn names() -> Vec<String> {
    let mut names = vec!["transformer.wte.weight".to_owned(), "transformer.wpe.weight".to_owned()];
    for layer in 0..4 {
        for part in ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2"] {
            names.extend(["weight", "bias"].map(|kind| format!("transformer.h.{layer}.{part}.{kind}")));
        }
    }
    names.extend(["weight", "bias"].map(|kind| format!("transformer.ln_f.{kind}")));
    names
}

struct Weights(Vec<String>);

impl ParameterVisitor for Weights {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        let number = self.0.iter().position(|name| *name == info.name).unwrap();
        let gain = info.name.contains(".ln_") && info.name.ends_with("weight");
        let (scale, shift) = if gain { (0.1, 1.0) } else { (0.07, 0.0) };
        let value = |i: u64| (scale * (uniform(100 + number as u64, i) - 0.5) + shift) as f32;
        let count = info.shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..count).map(value).collect();
        Tensor::from_data(TensorData::new(values, info.shape.clone()), &tensor.device())
    }
}

fn model() -> Model {
    let config = Gpt2Config {
        vocab_size: 256,
        context_length: TOKENS,
        hidden_size: 128,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        intermediate_size: 0,
        drop_rate: 0.0,
        qkv_bias: true,
        tie_word_embeddings: true,
        layer_norm_eps: 1e-5,
    };
    Model::new(&config.into(), WeightInit::Gpt2, 0, &Device::flex().autodiff())
        .for_each_parameter(&mut Weights(names()))
}

fn gradients(model: &Model, step: usize) -> (f64, Gradients) {
    let token = |i: usize| (subkey(7, (130 * step + i) as u64) % 256) as u32;
    let rows = |first: usize| (0..2).flat_map(move |b| (0..TOKENS).map(move |i| token(65 * b + first + i)));
    let pass = Pass::new(rows(0).collect(), Arc::new(Segments::uniform(2, TOKENS)), None);
    let weights = [1.0 / (2 * TOKENS) as f32; 2 * TOKENS];
    let (loss, _, gradients) = model.loss_and_gradients(&pass, &rows(1).collect(), &weights, false);
    (loss, gradients)
}

/// `|found - exact| / |exact|` at the elements that the golden file has.
fn error(found: &[f32], exact: &[f64]) -> f64 {
    let picked = (0..exact.len() as u64).map(|j| f64::from(found[(subkey(9, j) % found.len() as u64) as usize]));
    let gap: f64 = picked.zip(exact).map(|(found, exact)| (found - exact).powi(2)).sum();
    (gap / exact.iter().map(|exact| exact * exact).sum::<f64>()).sqrt()
}

/// DoRA divides by the lengths of rows, which are part of the weight.
fn lengths_of_rows_are_not_rounded(mixed: Exec, f32: Exec) {
    let matrix = |rows: usize, cols: usize, key: u64| {
        let values: Vec<f32> = (0..(rows * cols) as u64).map(|i| uniform(key, i) as f32 - 0.5).collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows, cols]), &Device::flex())
    };
    let (weight, a, b) = (matrix(24, 64, 1), matrix(80, 64, 2), matrix(24, 80, 3));
    let how = LowRank { scale: 0.7, blocks: 1, dropout: 0.0, dropout_key: 0 };
    let norms = |exec: Exec| {
        set_exec(exec);
        let base = Weight::Dense(weight.clone());
        base.adapted_norms(&base.row_squares(), &a, &b, &how)
    };
    assert_eq!(norms(mixed), norms(f32));
    set_exec(f32);
}

/// One test, since the precision of a process is global.
#[test]
fn gradients_in_mixed_precision_are_nearer_to_f64_than_those_of_autocast_in_every_layer() {
    let path = format!("{}/../../testdata/mixed.safetensors", env!("CARGO_MANIFEST_DIR"));
    let golden = Golden(fs_err::read(path).unwrap());
    let (f32, losses) = (Exec::new(2), golden.wide("losses"));
    let mixed = f32.with_precision(Precision::Mixed);
    let (mut model, mut update) = (model(), Update::new(AdamW { lr: 1e-3, ..AdamW::default() }, 0.0));
    let mut errors: HashMap<String, [f64; 2]> = HashMap::new();
    for (step, expected) in losses.iter().enumerate() {
        set_exec(mixed);
        let (_, rounded) = gradients(&model, step);
        set_exec(f32);
        let (loss, plain) = gradients(&model, step);
        assert!((loss - expected).abs() < 2e-5, "step {step}: {loss}, PyTorch {expected}");
        for name in names() {
            let exact = golden.narrow(&format!("grad.{name}"));
            let exact = &exact[step * exact.len() / STEPS..(step + 1) * exact.len() / STEPS];
            let sums = errors.entry(name.clone()).or_default();
            for (sum, gradients) in sums.iter_mut().zip([&plain, &rounded]) {
                *sum += error(&gradients.values(&name).unwrap(), exact) / STEPS as f64;
            }
        }
        update.step += 1;
        model = model.update(plain, &mut update);
    }
    lengths_of_rows_are_not_rounded(mixed, f32);
    println!("{:32} {:>9} {:>9} {:>9}", "error beside f64", "f32", "mixed", "autocast");
    let autocast = |name: &str| golden.wide(&format!("autocast.{name}")).iter().sum::<f64>() / STEPS as f64;
    for name in names() {
        let [plain, rounded] = errors[&name];
        println!("{:32} {plain:9.2e} {rounded:9.2e} {:9.2e}", name.trim_start_matches("transformer."), autocast(&name));
    }
    for name in names() {
        let [plain, rounded] = errors[&name];
        assert!(plain < 1e-4, "{name}: {plain:e} in f32");
        assert!(rounded < autocast(&name), "{name}: {rounded:e}, autocast {:e}", autocast(&name));
        // Rounding is seen where there is any.
        assert!(mixed.half_products().is_none() || rounded > 5.0 * plain, "{name}: {rounded:e} beside {plain:e}");
    }
}
