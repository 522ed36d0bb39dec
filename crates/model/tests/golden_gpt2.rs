//! A small GPT-2 equals PyTorch's: logits, all gradients and ten AdamW losses, tied and untied.
//! `testdata/make_golden.py` says how the model and the numbers were made.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod adamw;

use adamw::Update;
use burn::tensor::{Device, Tensor, TensorData};
use cavy_model::{Gpt2Config, Gradients, Model, ParameterInfo, ParameterVisitor, Pass, WeightInit};
use cavy_ops::kernels::adamw::AdamW;
use cavy_ops::kernels::block::pays;
use cavy_ops::{Isa, Segments, exec};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::sync::Arc;

fn test_input(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect()
}

fn config(tied: bool) -> Gpt2Config {
    Gpt2Config {
        vocab_size: 37,
        context_length: 16,
        hidden_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 0,
        drop_rate: 0.0,
        qkv_bias: true,
        tie_word_embeddings: tied,
        layer_norm_eps: 1e-5,
    }
}

/// Names in the order that counts the salts of their values.
fn salted_names(tied: bool) -> Vec<String> {
    let mut names = vec!["transformer.wte.weight".to_string(), "transformer.wpe.weight".into()];
    for layer in 0..2 {
        for part in ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2"] {
            names.extend(["weight", "bias"].map(|kind| format!("transformer.h.{layer}.{part}.{kind}")));
        }
    }
    names.extend(["transformer.ln_f.weight".into(), "transformer.ln_f.bias".into()]);
    if !tied {
        names.push("lm_head.weight".into());
    }
    names
}

/// Whether the file holds the matrix as `(in, out)`.
fn is_conv1d(name: &str) -> bool {
    name.contains(".h.") && name.ends_with(".weight") && !name.contains(".ln_")
}

fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
}

struct GoldenWeights(HashMap<String, usize>);

impl ParameterVisitor for GoldenWeights {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        let salt = 100 + self.0[&info.name];
        let norm = info.name.contains(".ln_") && info.name.ends_with("weight");
        let (scale, shift) = match (norm, D) {
            (true, _) => (0.25, 1.0),
            (false, 2) => (0.5, 0.0),
            _ => (0.25, 0.0),
        };
        let values = test_input(info.shape.iter().product(), salt);
        let values: Vec<f32> = values.into_iter().map(|x| x * scale + shift).collect();
        let values = if is_conv1d(&info.name) { transposed(&values, info.shape[1], info.shape[0]) } else { values };
        Tensor::from_data(TensorData::new(values, info.shape.clone()), &tensor.device())
    }
}

fn model(tied: bool) -> Model {
    let salts = salted_names(tied).into_iter().enumerate().map(|(salt, name)| (name, salt)).collect();
    Model::new(&config(tied).into(), WeightInit::Gpt2, 0, &Device::flex().autodiff())
        .for_each_parameter(&mut GoldenWeights(salts))
}

/// The two sequences of the golden files, so often.
fn batch(copies: usize) -> (Pass, Arc<[u32]>) {
    let token = |i: usize| ((i * i + 3 * i + 1) % 37) as u32;
    let sequences = || (0..2 * copies).map(|b| b % 2);
    let ids: Arc<[u32]> = sequences().flat_map(|b| (17 * b..17 * b + 16).map(token)).collect();
    let targets = sequences().flat_map(|b| (17 * b + 1..17 * b + 17).map(token)).collect();
    (Pass::new(ids, Arc::new(Segments::uniform(2 * copies, 16)), None), targets)
}

/// Copies of the batch with which blocks are one operation.
const MANY: usize = 16;

struct Golden(Vec<u8>);

impl Golden {
    fn read(tied: bool) -> Self {
        let name = if tied { "gpt2_tied" } else { "gpt2_untied" };
        let path = format!("{}/../../testdata/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self(fs_err::read(path).unwrap())
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let data = file.tensor(name).unwrap().data().to_vec();
        if name.ends_with("_f64") {
            data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect()
        } else {
            data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
        }
    }

    fn check(&self, name: &str, found: &[f64], bound: f64) {
        let expected = self.values(name);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let gap = (found - expected).abs() / (1.0 + expected.abs());
            assert!(gap <= bound, "{name}[{i}]: {found}, PyTorch {expected}");
        }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn gradients(model: &Model, copies: usize, recompute: bool) -> (f64, Gradients) {
    let (pass, targets) = batch(copies);
    let weights = vec![1.0 / targets.len() as f32; targets.len()];
    let (loss, _, gradients) = model.loss_and_gradients(&pass, &targets, &weights, recompute);
    (loss, gradients)
}

#[test]
fn logits_equal_pytorch() {
    for tied in [true, false] {
        let rows: Vec<usize> = (0..32).collect();
        for copies in [1, MANY] {
            Golden::read(tied).check("logits", &wide(&model(tied).logits(&batch(copies).0, &rows)), 3e-6);
        }
    }
}

#[test]
fn loss_and_all_gradients_equal_pytorch() {
    for (tied, copies) in [(true, 1), (false, 1), (true, MANY), (false, MANY)] {
        let (golden, model) = (Golden::read(tied), model(tied));
        let is_one = pays(exec(), &batch(copies).0.segments, 24, 96);
        assert_eq!(is_one, copies == MANY && exec().isa() != Isa::Neon);
        let (loss, gradients) = gradients(&model, copies, false);
        golden.check("loss_f64", &[loss], 1e-6);
        golden.check("grad_norm_f64", &[gradients.stats().sum_squares.sqrt()], 2e-6);
        for info in model.parameters() {
            let mut values = gradients.values(&info.name).unwrap();
            if is_conv1d(&info.name) {
                values = transposed(&values, info.shape[0], info.shape[1]);
            }
            golden.check(&format!("grad.{}", info.name), &wide(&values), 2e-6);
        }
    }
}

#[test]
fn recomputed_gradients_are_the_same_bits() {
    for (tied, copies) in [(true, 1), (false, 1), (true, MANY), (false, MANY)] {
        let model = model(tied);
        let ((loss, kept), (same, recomputed)) = (gradients(&model, copies, false), gradients(&model, copies, true));
        assert_eq!(loss, same);
        for info in model.parameters() {
            assert_eq!(kept.values(&info.name), recomputed.values(&info.name), "{}", info.name);
        }
    }
}

#[test]
fn ten_adamw_losses_equal_pytorch() {
    for tied in [true, false] {
        for (decay, name) in [(0.1, "losses_f64"), (0.0, "losses_undecayed_f64")] {
            let golden = Golden::read(tied);
            let rule = AdamW { lr: 1e-3, ..AdamW::default() };
            let mut update = Update::new(rule, decay);
            let (mut model, mut losses) = (model(tied), Vec::new());
            for _ in 0..10 {
                let (loss, gradients) = gradients(&model, 1, false);
                losses.push(loss);
                update.step += 1;
                model = model.update(gradients, &mut update);
            }
            golden.check(name, &losses, 1e-6);
            // The bound is far below what decay does to the last loss.
            let effect = (golden.values("losses_f64")[9] - golden.values("losses_undecayed_f64")[9]).abs();
            assert!(effect > 20e-6 * (1.0 + losses[9]), "{effect}");
        }
    }
}

#[test]
fn a_saved_model_is_read_back_bit_for_bit() {
    for tied in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let model = model(tied);
        model.save(dir.path()).unwrap();
        let again = Model::load(dir.path(), &Device::flex()).unwrap();
        assert_eq!(again.config(), model.config());
        let rows: Vec<usize> = (0..32).collect();
        assert_eq!(again.logits(&batch(1).0, &rows), model.logits(&batch(1).0, &rows));
    }
}

#[test]
fn a_damaged_model_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    model(true).save(dir.path()).unwrap();
    let message = |dir: &std::path::Path| Model::load(dir, &Device::flex()).unwrap_err().to_string();
    let weights = dir.path().join("model.safetensors");
    let whole = fs_err::read(&weights).unwrap();
    fs_err::write(&weights, &whole[..whole.len() - 4]).unwrap();
    assert!(message(dir.path()).contains("model.safetensors: all tensors needs"));
    fs_err::write(&weights, &whole).unwrap();
    let path = dir.path().join("config.json");
    let text = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, text.replace("\"n_positions\": 16", "\"n_positions\": 17")).unwrap();
    assert!(message(dir.path()).contains("`transformer.wpe.weight` is [16, 24], the config asks for [17, 24]"));
    fs_err::write(&path, text.replace("\"gpt2\"", "\"mamba\"")).unwrap();
    assert!(message(dir.path()).contains("`model_type` is `mamba`"));
    fs_err::remove_file(&path).unwrap();
    assert!(message(dir.path()).contains("config.json"));
}
