//! Adapters of tiny models equal PEFT's: logits, loss and all gradients, files read and written; and the laws of adapters.
//! `testdata/adapters/make_adapters.py` says how they were made.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use burn::tensor::{Device, Tensor, TensorData};
use cavy_model::{
    AdapterConfig, LoraScaling, Model, ModelConfig, ParameterInfo, ParameterVisitor, Pass, Targets, WeightInit,
};
use cavy_ops::Segments;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CASES: [&str; 7] =
    ["gpt2_lora", "gpt2_dora", "gpt2_score", "llama_lora", "llama_dora", "llama_head", "llama_whole"];
const TOKENS: usize = 16;

fn test_input(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect()
}

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/adapters").join(case)
}

/// Fills parameters by the formula; `salts` are sorted names.
struct Formula(Vec<String>);

impl ParameterVisitor for Formula {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        let Some(index) = self.0.iter().position(|name| *name == info.name) else { return tensor };
        let norm = info.name.contains("norm") || info.name.contains(".ln_");
        let (scale, shift) = match (norm && info.name.ends_with("weight"), D) {
            (true, _) => (0.25, 1.0),
            (false, 1) => (0.25, 0.0),
            _ => (0.5, 0.0),
        };
        let values = test_input(info.shape.iter().product(), 100 + index);
        let mut values: Vec<f32> = values.into_iter().map(|x| x * scale + shift).collect();
        if info.name.contains(".h.") && D == 2 {
            let [rows, cols] = [info.shape[1], info.shape[0]];
            values = (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect();
        }
        Tensor::from_data(TensorData::new(values, info.shape.clone()), &tensor.device())
    }
}

fn base(case: &str, device: &Device) -> Model {
    let path = folder(case).join("config.json");
    let config = ModelConfig::from_json(&path, serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap()).unwrap();
    let mut model = Model::new(&config, WeightInit::Gpt2, 0, device);
    if case == "gpt2_score" {
        model = model.with_head(3, false, 0);
    }
    let mut names: Vec<String> = model.parameters().into_iter().map(|info| info.name).collect();
    names.sort_unstable();
    model.for_each_parameter(&mut Formula(names))
}

fn adapted(case: &str, device: &Device) -> Model {
    base(case, device).load_adapter(&folder(case), 1.0).unwrap()
}

fn pass(model: &Model) -> (Pass, Arc<[u32]>) {
    let vocab = model.config().vocab_size() as u32;
    let ids: Vec<u32> = (0..TOKENS as u32).map(|i| (7 * i + 3) % (vocab - 1) + 1).collect();
    let targets = (0..TOKENS as u32).map(|i| (5 * i + 1) % vocab).collect();
    (Pass::new(ids.into(), Arc::new(Segments::uniform(1, TOKENS)), None), targets)
}

fn logits(model: &Model) -> Vec<f32> {
    let rows: Vec<usize> = if model.labels().is_empty() { (0..TOKENS).collect() } else { vec![TOKENS - 1] };
    model.logits(&pass(model).0, &rows)
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|_| panic!("{name}"));
    tensor.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn assert_near(what: &str, found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let gap = (found - expected).abs() / (1.0 + expected.abs());
        assert!(gap <= bound, "{what}[{i}]: {found}, expected {expected}");
    }
}

/// Loss and gradients as the script computes them.
fn gradients(model: &Model) -> (f64, cavy_model::Gradients) {
    let (pass, targets) = pass(model);
    if model.labels().is_empty() {
        let (loss, _, gradients) = model.loss_and_gradients(&pass, &targets, &[1.0; TOKENS], false);
        return (loss, gradients);
    }
    let scores = model.head_rows(&pass, &[TOKENS - 1]);
    let logprobs = burn::tensor::activation::log_softmax(scores, 1);
    let loss = logprobs.slice([0..1, 1..2]).neg().reshape([1]);
    let gradients = model.gradients(&loss);
    (f64::from(loss.inner().into_scalar::<f32>()), gradients)
}

#[test]
fn logits_loss_and_gradients_are_those_of_peft() {
    for case in CASES {
        let bytes = fs_err::read(folder(case).join("golden.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let model = adapted(case, &Device::flex().autodiff());
        assert_near(case, &logits(&model.valid()), &floats(&golden, "logits"), 1e-5);
        // The adapter does something.
        let without = logits(&base(case, &Device::flex()));
        let moved = without.iter().zip(floats(&golden, "logits")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(moved > 0.05, "{case}: {moved}");
        let (loss, gradients) = gradients(&model);
        assert_near(case, &[loss as f32], &floats(&golden, "loss"), 1e-6);
        let mut trained = 0;
        for info in model.parameters() {
            let gradient = gradients.values(&info.name);
            assert_eq!(gradient.is_some(), info.trainable, "{case} {}", info.name);
            let Some(gradient) = gradient else { continue };
            trained += 1;
            let wide = || gradient.iter().map(|&g| f64::from(g));
            let (sum, squares) = (wide().sum::<f64>(), wide().map(|g| g * g).sum::<f64>());
            let expected = floats(&golden, &format!("grad.{}", info.name));
            let what = format!("{case} {}", info.name);
            // Elements of both signs cancel in the sum, their roundings do not.
            let scale = (gradient.len() as f64 * squares).sqrt();
            assert!((sum - f64::from(expected[0])).abs() <= 4e-6 * (1.0 + scale), "{what}: {sum}, {expected:?}");
            assert_near(&what, &[&[squares as f32], &gradient[..6]].concat(), &expected[1..], 2e-5);
        }
        let named = golden.names().iter().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(trained, named, "{case}");
    }
}

#[test]
fn an_adapter_that_is_read_and_written_keeps_names_and_bits() {
    for case in CASES {
        let out = tempfile::tempdir().unwrap();
        let (first, second) = (out.path().join("first"), out.path().join("second"));
        adapted(case, &Device::flex()).save_adapter(&first).unwrap();
        let read = |dir: &Path, file: &str| fs_err::read(dir.join(file)).unwrap();
        let (ours, theirs) =
            (read(&first, "adapter_model.safetensors"), read(&folder(case), "adapter_model.safetensors"));
        let (ours, theirs) = (SafeTensors::deserialize(&ours).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
        for name in theirs.names().into_iter().filter(|name| !name.contains("base_layer")) {
            let (ours, theirs) = (ours.tensor(name).unwrap(), theirs.tensor(name).unwrap());
            assert_eq!(ours.shape(), theirs.shape(), "{case} {name}");
            assert!(ours.data() == theirs.data(), "{case} {name}");
        }
        let again = base(case, &Device::flex()).load_adapter(&first, 1.0).unwrap();
        assert_eq!(logits(&again), logits(&adapted(case, &Device::flex())), "{case}");
        again.save_adapter(&second).unwrap();
        for file in ["adapter_model.safetensors", "adapter_config.json"] {
            assert!(read(&first, file) == read(&second, file), "{case} {file}");
        }
    }
}

#[test]
fn merged_is_attached() {
    for case in CASES {
        let model = adapted(case, &Device::flex());
        let (attached, merged) = (logits(&model), model.merged());
        assert!(merged.parameters().iter().all(|info| !info.name.contains("lora_")), "{case}");
        assert_near(case, &logits(&merged), &attached, 2e-5);
    }
}

fn all_linear(use_dora: bool) -> AdapterConfig {
    AdapterConfig { r: 4, lora_alpha: 8.0, target_modules: Targets::AllLinear, use_dora, ..AdapterConfig::default() }
}

#[test]
fn a_new_adapter_changes_nothing_and_without_it_the_model_is_what_it_was() {
    for case in CASES {
        let model = base(case, &Device::flex());
        let before = logits(&model);
        for (dora, head, split) in
            [(false, false, false), (true, true, false), (false, true, true), (true, false, true)]
        {
            let config = AdapterConfig { lora_head: head, split_qkv: split, ..all_linear(dora) };
            let attached = model.clone().attach(&config, 7).unwrap();
            if dora {
                // The magnitudes are the norms, so the factors are one within rounding.
                assert_near(case, &logits(&attached), &before, 2e-6);
            } else {
                assert_eq!(logits(&attached), before, "{case}");
            }
            assert_eq!(logits(&attached.without_adapter()), before, "{case}");
        }
        assert_eq!(logits(&adapted(case, &Device::flex()).without_adapter()), before, "{case}");
    }
}

#[test]
fn adapters_with_weights_add_up() {
    for case in ["gpt2_lora", "gpt2_dora", "llama_lora", "llama_dora", "llama_head"] {
        let load = |weights: &[f64]| {
            let load = |model: Model, weight: &f64| model.load_adapter(&folder(case), *weight).unwrap();
            logits(&weights.iter().fold(base(case, &Device::flex()), load))
        };
        let whole = load(&[1.0]);
        assert_near(case, &load(&[0.25, 0.75]), &whole, 2e-5);
        assert_near(case, &load(&[1.5, -0.5]), &whole, 4e-5);
        assert_near(case, &load(&[0.0]), &logits(&base(case, &Device::flex())), 2e-6);
        let half = load(&[0.5]);
        assert!(half.iter().zip(&whole).any(|(a, b)| (a - b).abs() > 0.01), "{case}");
    }
}

/// Adds a formula's values to everything that is trained.
struct Moved;

impl ParameterVisitor for Moved {
    fn visit<const D: usize>(&mut self, info: &ParameterInfo, tensor: Tensor<D>, _: Option<Tensor<D>>) -> Tensor<D> {
        if !info.trainable {
            return tensor;
        }
        let values = test_input(info.elements(), info.name.len());
        let moved: Tensor<D> = Tensor::from_data(TensorData::new(values, info.shape.clone()), &tensor.device());
        tensor + moved * 0.3
    }
}

#[test]
fn a_split_projection_is_three_layers_here_and_one_of_three_times_the_rank_in_the_files() {
    for use_rslora in [false, true] {
        let base = || base("gpt2_lora", &Device::flex().autodiff());
        let config = AdapterConfig { split_qkv: true, use_rslora, ..all_linear(false) };
        let model = base().attach(&config, 3).unwrap().for_each_parameter(&mut Moved);
        let shape = |name: &str| model.parameters().into_iter().find(|info| info.name.ends_with(name)).unwrap().shape;
        assert_eq!(shape("h.0.attn.c_attn.lora_A.weight"), [12, 24]);
        assert_eq!(shape("h.0.attn.c_attn.lora_B.weight"), [72, 4]);
        let out = tempfile::tempdir().unwrap();
        model.save_adapter(out.path()).unwrap();
        let again = base().load_adapter(out.path(), 1.0).unwrap();
        assert_eq!(logits(&again.valid()), logits(&model.valid()));
        // As PEFT reads it: one adapter, most of whose B is zero.
        let file = out.path().join("adapter_config.json");
        let text = fs_err::read_to_string(&file).unwrap();
        assert!(text.contains("\"split_qkv\": true"));
        fs_err::write(&file, text.replace("\"split_qkv\": true", "\"split_qkv\": false")).unwrap();
        let fused = base().load_adapter(out.path(), 1.0).unwrap();
        assert_near("fused", &logits(&fused.valid()), &logits(&model.valid()), 2e-6);
        assert_near("merged", &logits(&model.valid().merged()), &logits(&model.valid()), 2e-5);
    }
}

#[test]
fn gpt2_with_a_head_of_two_labels_has_the_published_counts() {
    // Appendix E of "Build a Large Language Model (From Scratch)".
    let config = cavy_model::Gpt2Config::published("gpt2-124m").unwrap();
    let model = Model::new(&config.into(), WeightInit::Gpt2, 0, &Device::flex().autodiff()).with_head(2, true, 0);
    let count = |model: &Model, trainable: bool| -> usize {
        model.parameters().iter().filter(|info| info.trainable || !trainable).map(ParameterInfo::elements).sum()
    };
    assert_eq!(count(&model, false), 124_441_346);
    let frozen = model.trainable_where(|_| false);
    assert_eq!(count(&frozen, true), 0);
    let config = AdapterConfig { r: 16, lora_alpha: 16.0, lora_head: true, split_qkv: true, ..all_linear(false) };
    assert_eq!(count(&frozen.clone().attach(&config, 0).unwrap(), true), 2_666_528);
    // The fused projection as PEFT treats it.
    let fused = AdapterConfig { split_qkv: false, ..config };
    assert_eq!(count(&frozen.attach(&fused, 0).unwrap(), true), 2_371_616);
}

#[test]
fn the_scale_of_the_book_is_written_as_peft_reads_it() {
    let config = AdapterConfig { lora_scaling: LoraScaling::Alpha, lora_alpha: 0.5, ..all_linear(false) };
    let base = || base("llama_lora", &Device::flex().autodiff());
    let model = base().attach(&config, 3).unwrap().for_each_parameter(&mut Moved);
    let out = tempfile::tempdir().unwrap();
    model.save_adapter(out.path()).unwrap();
    let text = fs_err::read_to_string(out.path().join("adapter_config.json")).unwrap();
    assert!(text.contains("\"lora_alpha\": 2"), "{text}");
    assert_eq!(logits(&base().load_adapter(out.path(), 1.0).unwrap().valid()), logits(&model.valid()));
}

#[test]
fn an_adapter_for_another_model_is_refused_by_tensor_and_shapes() {
    let message = |model: Model, case: &str| model.load_adapter(&folder(case), 1.0).unwrap_err().to_string();
    let llama = base("llama_lora", &Device::flex());
    let found = message(llama.clone(), "gpt2_lora");
    assert!(found.contains("`base_model.model.transformer.h.0.attn.c_attn.lora_A.weight`"), "{found}");
    assert!(found.contains("which this model does not have"), "{found}");
    let ModelConfig::Llama(config) = llama.config() else { unreachable!() };
    let wider = cavy_model::LlamaConfig { intermediate_size: 56, ..config };
    let wider = Model::new(&wider.into(), WeightInit::Gpt2, 0, &Device::flex());
    let found = message(wider, "llama_lora");
    let expected =
        "`base_model.model.model.layers.0.mlp.gate_proj.lora_B.weight` is [48, 4], this model asks for [56, 4]";
    assert!(found.contains(expected), "{found}");
    // A head of three labels where the model has two.
    let two = base("gpt2_lora", &Device::flex()).with_head(2, false, 0);
    let found = message(two, "gpt2_score");
    assert!(found.contains("`base_model.model.score.weight` is [3, 24], this model asks for [2, 24]"), "{found}");
}

#[test]
fn names_that_no_layer_has_are_told_with_those_there_are() {
    let message =
        |config: &AdapterConfig| base("gpt2_lora", &Device::flex()).attach(config, 0).unwrap_err().to_string();
    let found = message(&AdapterConfig { target_modules: Targets::parse("q_proj,v_proj"), ..AdapterConfig::default() });
    assert!(found.contains("q_proj") && found.contains("c_attn, c_fc, c_proj"), "{found}");
    let found = message(&AdapterConfig { modules_to_save: vec!["score".into()], ..all_linear(false) });
    assert!(found.contains("`score`") && found.contains("wte"), "{found}");
    let found = message(&AdapterConfig { target_modules: Targets::parse("(c_attn"), ..AdapterConfig::default() });
    assert!(found.contains("not a regular expression"), "{found}");
    assert!(message(&AdapterConfig { r: 0, ..all_linear(false) }).contains("`r` is 0"));
}

/// Dropout falls in training alone, and the gradients by recomputed blocks are the same bits.
#[test]
fn dropout_of_adapters_falls_in_training_and_recomputing_changes_no_bit() {
    for (case, dora) in [("gpt2_lora", false), ("llama_lora", false), ("llama_dora", true)] {
        let config = AdapterConfig { lora_dropout: 0.4, ..all_linear(dora) };
        let model = base(case, &Device::flex().autodiff()).attach(&config, 3).unwrap().for_each_parameter(&mut Moved);
        let (still, targets) = pass(&model);
        let run = |key: Option<u64>, recompute: bool| {
            let pass = Pass { dropout_key: key, ..still.clone() };
            model.loss_and_gradients(&pass, &targets, &[1.0; TOKENS], recompute)
        };
        let (loss, _, gradients) = run(Some(5), false);
        assert_ne!(loss, run(None, false).0, "{case}");
        assert_ne!(loss, run(Some(6), false).0, "{case}");
        let (same, _, recomputed) = run(Some(5), true);
        assert_eq!(loss, same, "{case}");
        for info in model.parameters().iter().filter(|info| info.trainable) {
            assert_eq!(gradients.values(&info.name), recomputed.values(&info.name), "{case} {}", info.name);
        }
    }
}

#[test]
fn log_probabilities_have_the_gradients_of_the_loss_whatever_is_frozen() {
    let rows: Vec<usize> = (0..TOKENS).collect();
    for case in ["gpt2_lora", "llama_head", "llama_lora"] {
        let whole = base(case, &Device::flex().autodiff());
        for model in [
            whole.clone(),
            adapted(case, &Device::flex().autodiff()),
            whole.trainable_where(|name| name.contains("1.")),
        ] {
            let (pass, targets) = pass(&model);
            let weights: Vec<f32> = (0..TOKENS).map(|i| 0.1 * i as f32).collect();
            let (loss, _, expected) = model.loss_and_gradients(&pass, &targets, &weights, false);
            let (logprobs, _) = model.token_logprobs(&pass, &rows, &targets);
            let weights = Tensor::<1>::from_floats(weights.as_slice(), &logprobs.device());
            let found = (logprobs * weights).sum().neg();
            let gradients = model.gradients(&found);
            assert_near(case, &[found.inner().into_scalar::<f32>()], &[loss as f32], 1e-6);
            for info in model.parameters() {
                let (found, expected) = (gradients.values(&info.name), expected.values(&info.name));
                assert_eq!(found.is_some(), info.trainable, "{case} {}", info.name);
                assert_eq!(expected.is_some(), info.trainable, "{case} {}", info.name);
                if let (Some(found), Some(expected)) = (found, expected) {
                    // The same sums in another order: rows scaled after their product, or logits before it.
                    assert_near(&info.name, &found, &expected, 1e-5);
                }
            }
        }
    }
}

#[test]
fn a_model_with_a_score_head_is_saved_and_read_with_its_labels() {
    let out = tempfile::tempdir().unwrap();
    let model = adapted("gpt2_score", &Device::flex());
    let names: Vec<String> = ["ham", "spam", "other"].map(String::from).into();
    model.clone().with_labels(names.clone()).save(out.path()).unwrap();
    let again = Model::load(out.path(), &Device::flex()).unwrap();
    assert_eq!(again.labels(), names);
    assert_near("saved merged", &logits(&again), &logits(&model), 2e-5);
    let text = fs_err::read_to_string(out.path().join("config.json")).unwrap();
    assert!(text.contains("GPT2ForSequenceClassification") && text.contains("\"spam\": 1"), "{text}");
}

/// What a GGUF adapter adds to each weight is what merging adds to it, in GGUF's order of rows.
#[test]
fn an_adapter_in_gguf_adds_what_merging_adds() {
    use cavy_files::{Gguf, HuggingFace};
    let out = tempfile::tempdir().unwrap();
    for case in ["gpt2_lora", "llama_lora"] {
        let model = adapted(case, &Device::flex());
        let file = out.path().join("adapter.gguf");
        model.save_adapter_gguf(&file).unwrap();
        let adapter = Gguf::load(&file).unwrap();
        assert_eq!(adapter.metadata.str("general.type").unwrap(), "adapter");
        assert_eq!(adapter.metadata.str("adapter.type").unwrap(), "lora");
        let alpha = adapter.metadata.f64("adapter.lora.alpha").unwrap();
        let weights = |model: &Model, name: &str| {
            let dir = out.path().join(format!("{case}-{name}"));
            model.save(&dir).unwrap();
            let source = cavy_model::Source::open(&dir).unwrap();
            HuggingFace { config: source.fields, tensors: source.tensors }.to_gguf(&dir).unwrap().1
        };
        let (before, after) = (weights(&model.without_adapter(), "base"), weights(&model.clone().merged(), "merged"));
        let (mut layers, mut moved) = (0, 0.0_f32);
        for info in before.infos() {
            let name = info.name.as_str();
            let change: Vec<f32> =
                before.f32(name).unwrap().iter().zip(after.f32(name).unwrap()).map(|(b, a)| a - b).collect();
            let expected: Vec<f32> = if adapter.tensors.contains(&format!("{name}.lora_a")) {
                layers += 1;
                let factor = |end: &str| {
                    let name = format!("{name}.{end}");
                    let shape = &adapter.tensors.info(&name).unwrap().shape;
                    let data = TensorData::new(adapter.tensors.f32(&name).unwrap(), [shape[0], shape[1]]);
                    Tensor::<2>::from_data(data, &Device::flex())
                };
                let (a, b) = (factor("lora_a"), factor("lora_b"));
                let product = b.matmul(a.clone()) * (alpha / a.dims()[0] as f64);
                product.into_data().try_to_vec().unwrap()
            } else {
                vec![0.0; change.len()]
            };
            moved = expected.iter().fold(moved, |most, x| most.max(x.abs()));
            assert_near(&format!("{case} {name}"), &change, &expected, 1e-6);
        }
        assert_eq!(2 * layers, adapter.tensors.len(), "{case}");
        assert!(moved > 0.1, "{case}");
    }
    let refused = |case: &str| {
        let model = adapted(case, &Device::flex());
        model.save_adapter_gguf(&out.path().join("no.gguf")).unwrap_err().to_string()
    };
    assert!(refused("llama_dora").contains("DoRA"));
    assert!(refused("llama_whole").contains("trained whole"));
    assert!(refused("llama_head").contains("tied output head"));
    assert!(refused("gpt2_score").contains("trained whole"));
}

/// Adapters on a base in a storage form, as QLoRA trains them: gradients are those on the same weights in f32.
#[test]
fn adapters_on_packed_weights_have_the_gradients_of_those_on_floats() {
    use cavy_model::{Source, Weights};
    use cavy_ops::kernels::packed::Format;
    let out = tempfile::tempdir().unwrap();
    base("llama_lora", &Device::flex()).save(&out.path().join("base")).unwrap();
    let source = Source::open(&out.path().join("base")).unwrap();
    let open = |weights: Weights| Model::open(&source, weights, &Device::flex().autodiff()).unwrap();
    for dora in [false, true] {
        let attach = |model: Model| model.attach(&all_linear(dora), 3).unwrap().for_each_parameter(&mut Moved);
        // Blocks of 32 weights: the width is 32, that inside the feed-forward part 48 stays f32.
        let packed = open(Weights::Packed(Format::Q8_0));
        let exact = packed.clone().dequantized();
        assert!(packed.parameters().len() < exact.parameters().len());
        let (packed, exact) = (attach(packed), attach(exact));
        let (pass, targets) = pass(&packed);
        let run = |model: &Model| model.loss_and_gradients(&pass, &targets, &[1.0; TOKENS], false);
        let ((loss, _, found), (expected_loss, _, expected)) = (run(&packed), run(&exact));
        assert_near("loss", &[loss as f32], &[expected_loss as f32], 2e-6);
        let mut trained = 0;
        for info in packed.parameters().iter().filter(|info| info.trainable) {
            trained += 1;
            let (found, expected) = (found.values(&info.name).unwrap(), expected.values(&info.name).unwrap());
            assert_near(&info.name, &found, &expected, 2e-5);
        }
        assert_eq!(trained, 14 * if dora { 3 } else { 2 });
        assert_near("merged", &logits(&packed.valid().merged()), &logits(&exact.valid()), 6e-5);
    }
}
