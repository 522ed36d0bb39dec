//! Whole runs of learning from preferences on tiny models: laws, stopping, resuming, scores that come back.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

use burn::tensor::Device;
use cavy_model::{Gpt2Config, Model, Pass, Source, WeightInit, Weights};
use cavy_ops::Segments;
use cavy_text::preference::Pair;
use cavy_text::{SpecialTokens, Tokenizer};
use cavy_train::base::{Base, Start};
use cavy_train::metrics::{self, Event, Metrics, Observer, Record};
use cavy_train::objectives::dpo::{self, PairBatch, Preference};
use cavy_train::objectives::pairs::PairData;
use cavy_train::objectives::preference_loss::{LossType, PairLogps};
use cavy_train::objectives::reward::{self, RatedPairs};
use cavy_train::objectives::{Loss, PassSettings};
use cavy_train::settings::{
    AdapterSettings, DpoSettings, EvaluationSettings, ModelSettings, OptimizationSettings, PairDataSettings,
    RewardSettings, Warmup,
};
use cavy_train::{Outcome, TrainError, checkpoint};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A byte-level GPT-2 of some ten thousand parameters, saved as a Hugging Face directory.
fn base_model(folder: &Path) -> String {
    let dir = folder.join("base");
    if !dir.exists() {
        let config = Gpt2Config {
            vocab_size: 257,
            context_length: 64,
            hidden_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 64,
            drop_rate: 0.0,
            qkv_bias: true,
            tie_word_embeddings: true,
            layer_norm_eps: 1e-5,
        };
        Model::new(&config.into(), WeightInit::Normal, 3, &Device::flex()).save(&dir).unwrap();
        Tokenizer::bytes().save(dir.join("tokenizer.json")).unwrap();
    }
    dir.display().to_string()
}

fn base(path: &str) -> Base {
    let tokenizer = Tokenizer::bytes();
    let special = SpecialTokens { eos: tokenizer.end_of_text().into_iter().collect(), ..SpecialTokens::default() };
    let start = Start::Files(Box::new(Source::open(Path::new(path)).unwrap()), path.into());
    Base { start, tokenizer, special, template: None }
}

/// Questions with a polite answer to prefer and a curt one to avoid.
fn pair_settings(folder: &Path) -> PairDataSettings {
    let path = folder.join("pairs.json");
    let item = |n: usize| {
        let end = if n.is_multiple_of(3) { "" } else { " now" };
        json!({ "prompt": format!("ask number {n}:"), "chosen": format!(" please{end}"), "rejected": format!(" no{}", n % 2) })
    };
    fs_err::write(&path, Value::Array((0..40).map(item).collect()).to_string()).unwrap();
    let data = vec![path.display().to_string()];
    PairDataSettings { data, prompt_template: "plain".to_owned(), ..PairDataSettings::default() }
}

fn optimization() -> OptimizationSettings {
    OptimizationSettings {
        batch_size: 4,
        grad_accum_steps: 2,
        epochs: 3,
        peak_lr: 3e-3,
        warmup_steps: Warmup::Steps(1),
        ..DpoSettings::default().optimization
    }
}

fn dpo_settings(folder: &Path) -> DpoSettings {
    DpoSettings {
        model: ModelSettings { model: base_model(folder), ..ModelSettings::default() },
        data: pair_settings(folder),
        optimization: optimization(),
        evaluation: EvaluationSettings { eval_freq: 3, sample_tokens: 4, ..DpoSettings::default().evaluation },
        test_answers: 2,
        ..DpoSettings::default()
    }
}

fn reward_settings(folder: &Path) -> RewardSettings {
    RewardSettings {
        model: ModelSettings { model: base_model(folder), ..ModelSettings::default() },
        data: pair_settings(folder),
        optimization: optimization(),
        evaluation: EvaluationSettings { eval_freq: 3, sample_tokens: 4, ..RewardSettings::default().evaluation },
        ..RewardSettings::default()
    }
}

/// Sets the flag once so many steps are done.
struct StopAt<'a>(usize, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Train(record) if record.step == self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

fn run_dpo(settings: &DpoSettings, run_dir: &Path, resume: bool, at: usize) -> Result<Outcome, TrainError> {
    let stop = AtomicBool::new(false);
    dpo::run(settings, base(&settings.model.model), run_dir, resume, &mut StopAt(at, &stop), &stop)
}

fn evaluations(run_dir: &Path) -> Vec<(f64, Metrics)> {
    let records: Vec<Record> = metrics::read_lines(&run_dir.join("metrics.jsonl")).unwrap();
    let of = |record| match record {
        Record::Eval(eval) => Some((eval.val_loss, eval.metrics)),
        Record::Train(_) => None,
    };
    records.into_iter().filter_map(of).collect()
}

fn pairs(folder: &Path) -> Vec<Pair> {
    let settings = dpo_settings(folder);
    PairData::load(&settings.data, &settings.split, 1, &base(&settings.model.model)).unwrap().pairs
}

fn model(folder: &Path) -> Model {
    Model::load(Path::new(&base_model(folder)), &Device::flex().autodiff()).unwrap()
}

#[test]
fn learning_begins_at_ln_2_and_widens_the_margin() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    assert!(matches!(run_dpo(&dpo_settings(folder.path()), &out, false, 0).unwrap(), Outcome::Finished(_)));
    let found = evaluations(&out);
    let (first, last) = (&found[0], &found[found.len() - 1]);
    assert!((first.0 - std::f64::consts::LN_2).abs() < 1e-6, "{}", first.0);
    assert_eq!(first.1["eval_rewards/margins"], 0.0);
    assert!(last.0 < 0.3 && last.1["eval_rewards/margins"] > 1.0, "{last:?}");
    assert_eq!(last.1["eval_rewards/accuracies"], 1.0);
    let summary: Value = serde_json::from_slice(&fs_err::read(out.join("summary.json")).unwrap()).unwrap();
    let answers = summary["test"]["answers"].as_array().unwrap();
    assert!(answers.len() == 2 && answers.iter().all(|answer| answer["before"].is_string()), "{summary}");
    assert!(out.join("model/model.safetensors").exists() && out.join("reference.json").exists());
}

#[test]
fn a_run_stopped_in_an_epoch_and_resumed_is_bitwise_the_one_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = AdapterSettings { r: 4, target_modules: vec!["all-linear".into()], ..AdapterSettings::default() };
    let settings = DpoSettings { adapter, ..dpo_settings(folder.path()) };
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    run_dpo(&settings, &straight, false, 0).unwrap();
    assert!(matches!(run_dpo(&settings, &stopped, false, 5).unwrap(), Outcome::Stopped(_)));
    assert_eq!(checkpoint::list(&stopped).unwrap(), [5]);
    run_dpo(&settings, &stopped, true, 0).unwrap();
    let read = |run: &Path| fs_err::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(read(&straight) == read(&stopped));
    assert_eq!(evaluations(&straight), evaluations(&stopped));
}

#[test]
fn a_prompt_computed_once_gives_each_answer_what_it_has_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, model) = (pairs(folder.path()), model(folder.path()).valid());
    let alone = |prompt: &[u32], answer: &[u32]| -> f64 {
        let ids: Vec<u32> = prompt.iter().chain(&answer[..answer.len() - 1]).copied().collect();
        let rows: Vec<usize> = (prompt.len() - 1..ids.len()).collect();
        let pass = Pass::new(ids.clone().into(), Segments::of_lengths(&[ids.len()]).into(), None);
        let (logprobs, _) = model.token_logprobs(&pass, &rows, &answer.into());
        logprobs.into_data().try_to_vec::<f32>().unwrap().into_iter().map(f64::from).sum()
    };
    let batch = PairBatch::new(&pairs[..7], vec![PairLogps::default(); 7]);
    let loss = Preference(dpo_settings(folder.path()).loss_settings());
    // All prompts begin with the eleven letters of `ask number `, and these are there once; of each answer the last
    // token is no input.
    assert_eq!(loss.computed_tokens(&batch), loss.tokens(&batch) - 6 * 11 - 2 * 7);
    let together = batch.logps(&model);
    for (pair, found) in pairs.iter().zip(together) {
        let expected = [alone(&pair.prompt, &pair.chosen), alone(&pair.prompt, &pair.rejected)];
        for (found, expected) in [found.chosen, found.rejected].into_iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{found}, alone {expected}");
        }
    }
}

#[test]
fn pairs_in_micro_batches_are_the_pairs_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, model) = (pairs(folder.path()), model(folder.path()));
    let loss = Preference(dpo_settings(folder.path()).loss_settings());
    let reference = |count| vec![PairLogps { chosen: -30.0, rejected: -20.0 }; count];
    let name = "transformer.h.0.mlp.c_fc.weight";
    let learn = |pairs: &[Pair]| {
        let batch = PairBatch::new(pairs, reference(pairs.len()));
        let (gradients, tally) = loss.learn(&model, &batch, 1.0 / 6.0, PassSettings::default());
        (gradients.values(name).unwrap(), tally)
    };
    let (whole, tally) = learn(&pairs[..6]);
    let (first, mut sum) = learn(&pairs[..2]);
    let (second, other) = learn(&pairs[2..6]);
    sum.merge(&other);
    assert!((sum.mean("loss") / tally.mean("loss") - 1.0).abs() < 1e-6);
    let largest = whole.iter().fold(0_f32, |max, x| max.max(x.abs()));
    assert!(largest > 1e-4);
    for ((whole, a), b) in whole.iter().zip(&first).zip(&second) {
        assert!((whole - (a + b)).abs() <= 1e-5 * largest, "{whole}, in parts {}", a + b);
    }
}

#[test]
fn every_loss_prefers_the_better_answer_more_after_learning() {
    for loss_type in [LossType::Hinge, LossType::Ipo, LossType::Robust, LossType::Kto, LossType::Orpo, LossType::Simpo]
    {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let settings = DpoSettings { loss_type, label_smoothing: 0.05, ..dpo_settings(folder.path()) };
        run_dpo(&settings, &out, false, 0).unwrap();
        let found = evaluations(&out);
        let (first, last) = (&found[0].1, &found[found.len() - 1].1);
        let gap = |metrics: &Metrics| metrics["eval_logps/chosen"] - metrics["eval_logps/rejected"];
        assert!(gap(last) > gap(first) + 1.0, "{loss_type:?}: {} to {}", gap(first), gap(last));
        assert!(found[found.len() - 1].0 < found[0].0, "{loss_type:?}");
        assert_eq!(out.join("reference.json").exists(), loss_type.needs_reference(), "{loss_type:?}");
    }
}

#[test]
fn a_reward_model_tells_better_answers_and_its_scores_come_back_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, out) = (reward_settings(folder.path()), folder.path().join("run"));
    let stop = AtomicBool::new(false);
    reward::run(&settings, base(&settings.model.model), &out, false, &mut (), &stop).unwrap();
    let found = evaluations(&out);
    assert_eq!(found[found.len() - 1].1["eval_accuracy"], 1.0, "{found:?}");
    let pairs = pairs(folder.path());
    let model = Model::open(&Source::open(&out.join("model")).unwrap(), Weights::F32, &Device::flex()).unwrap();
    let scores = RatedPairs::new(&pairs).rate(&model);
    assert!(scores.chunks_exact(2).all(|pair| pair[0] > pair[1]), "{scores:?}");
    assert_eq!(model.labels().len(), 1);
}
