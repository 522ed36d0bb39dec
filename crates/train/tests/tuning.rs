//! Whole runs of fine-tuning on tiny models: laws, stopping, resuming, and what goes wrong.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

use burn::tensor::Device;
use cavy_model::{Gpt2Config, Model, Source, WeightInit};
use cavy_text::instruct::Example;
use cavy_text::{SpecialTokens, Tokenizer};
use cavy_train::base::{Base, Start, Trainable, Tuned};
use cavy_train::metrics::{self, Event, Metrics, Observer, Record, SampleRecord};
use cavy_train::objectives::sft::{Answers, SftData, packed};
use cavy_train::objectives::{Loss, PassSettings, Tally, classify, sft};
use cavy_train::settings::{
    AdapterSettings, BaseDtype, ClassifySettings, EvaluationSettings, ModelSettings, OptimizationSettings, SftSettings,
    Warmup,
};
use cavy_train::{Outcome, Settings, TrainError, checkpoint};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A byte-level GPT-2 of some ten thousand parameters, saved as a Hugging Face directory.
fn base_model(folder: &Path) -> String {
    let dir = folder.join("base");
    if !dir.exists() {
        let config = Gpt2Config {
            vocab_size: 257,
            context_length: 96,
            hidden_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 64,
            drop_rate: 0.0,
            qkv_bias: true,
            tie_word_embeddings: true,
            layer_norm_eps: 1e-5,
        };
        Model::new(&config.into(), WeightInit::Gpt2, 3, &Device::flex()).save(&dir).unwrap();
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

/// Instructions of different lengths: the colour of a thing.
fn instructions(folder: &Path) -> String {
    let path = folder.join("data.json");
    let things = [("snow", "white"), ("grass", "green"), ("a clear sky at noon", "blue"), ("coal", "black")];
    let item = |n: usize| {
        let (thing, colour) = things[n % things.len()];
        let input = if n.is_multiple_of(3) { format!("number {n}") } else { String::new() };
        json!({ "instruction": format!("Colour of {thing}?"), "input": input, "output": colour })
    };
    fs_err::write(&path, Value::Array((0..40).map(item).collect()).to_string()).unwrap();
    path.display().to_string()
}

/// Two epochs of five steps of eight examples.
fn sft_settings(folder: &Path) -> SftSettings {
    let settings = SftSettings {
        model: ModelSettings { model: base_model(folder), ..ModelSettings::default() },
        data: vec![instructions(folder)],
        prompt_template: "plain".to_owned(),
        optimization: OptimizationSettings {
            batch_size: 4,
            grad_accum_steps: 2,
            epochs: 2,
            peak_lr: 3e-3,
            warmup_steps: Warmup::Steps(2),
            ..SftSettings::default().optimization
        },
        evaluation: EvaluationSettings { eval_freq: 3, sample_tokens: 6, ..SftSettings::default().evaluation },
        test_answers: 2,
        ..SftSettings::default()
    };
    with(settings, |s| s.run.threads = 2)
}

fn lora(rank: usize) -> AdapterSettings {
    AdapterSettings {
        r: rank,
        lora_dropout: 0.1,
        target_modules: vec!["all-linear".to_owned()],
        ..AdapterSettings::default()
    }
}

/// `settings` with a change.
fn with<S: Settings>(mut settings: S, change: impl FnOnce(&mut S)) -> S {
    change(&mut settings);
    settings
}

/// Sets `stop` once so many steps are done.
struct Watch<'a> {
    stop: &'a AtomicBool,
    at: usize,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Train(record) if record.step == self.at) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs until step `at`, then as if interrupted; step 0 is never.
fn run_sft(settings: &SftSettings, run_dir: &Path, resume: bool, at: usize) -> Result<Outcome, TrainError> {
    let stop = AtomicBool::new(false);
    let base = base(&settings.model.model);
    sft::run(settings, base, run_dir, resume, &mut Watch { stop: &stop, at }, &stop)
}

fn run_classify(settings: &ClassifySettings, run_dir: &Path, resume: bool, at: usize) -> Result<Outcome, TrainError> {
    let stop = AtomicBool::new(false);
    let base = base(&settings.model.model);
    classify::run(settings, base, run_dir, resume, &mut Watch { stop: &stop, at }, &stop)
}

fn all_records(run_dir: &Path) -> Vec<Record> {
    metrics::read_lines(&run_dir.join("metrics.jsonl")).unwrap()
}

/// The records of a run as text, without the fields that depend on the clock.
fn records(run_dir: &Path) -> Vec<String> {
    let timeless = |record| match record {
        Record::Train(mut train) => {
            (train.tokens_per_s, train.mfu, train.step_s) = (0.0, 0.0, 0.0);
            format!("{train:?}")
        }
        Record::Eval(eval) => format!("{eval:?}"),
    };
    all_records(run_dir).into_iter().map(timeless).collect()
}

fn losses(run_dir: &Path) -> Vec<f64> {
    let loss = |record| if let Record::Train(train) = record { Some(train.loss) } else { None };
    all_records(run_dir).into_iter().filter_map(loss).collect()
}

fn evaluations(run_dir: &Path) -> Vec<(f64, Metrics)> {
    let eval = |record| if let Record::Eval(eval) = record { Some((eval.val_loss, eval.metrics)) } else { None };
    all_records(run_dir).into_iter().filter_map(eval).collect()
}

fn summary(run_dir: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(run_dir.join("summary.json")).unwrap()).unwrap()
}

/// Every file of the result and of the last checkpoint, and the logs, have the same bytes.
fn assert_same_run(expected: &Path, found: &Path, result: &str, last: usize) {
    assert_eq!(records(expected), records(found));
    let checkpoint = format!("checkpoints/step-{last}");
    for folder in [result, &checkpoint] {
        let mut seen = 0;
        for entry in fs_err::read_dir(expected.join(folder)).unwrap() {
            let name = entry.unwrap().file_name();
            if name == "state.json" {
                continue;
            }
            let read = |run: &Path| fs_err::read(run.join(folder).join(&name)).unwrap();
            assert!(read(expected) == read(found), "{folder}/{} differs", name.display());
            seen += 1;
        }
        assert!(seen >= 3, "{folder}: {seen}");
    }
    for file in ["samples.jsonl", "summary.json"] {
        let read = |run: &Path| fs_err::read(run.join(file)).unwrap_or_default();
        assert!(read(expected) == read(found), "{file} differs");
    }
}

#[test]
fn fine_tuning_learns_to_answer_and_leaves_what_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let settings = with(sft_settings(folder.path()), |s| s.optimization.epochs = 40);
    let Outcome::Finished(finished) = run_sft(&settings, &run_dir, false, 0).unwrap() else { panic!("not finished") };
    assert_eq!((finished.step, finished.model), (200, run_dir.join("model")));
    let evaluations = evaluations(&run_dir);
    let (first, last) = (evaluations.first().unwrap().0, evaluations.last().unwrap().0);
    // Guessing among 257 bytes costs 5.55; the four answers are known by their first letter, and that by the question.
    assert!((5.0..6.0).contains(&first) && last < 0.3, "{first} to {last}");
    assert!(evaluations.iter().all(|(loss, metrics)| metrics["eval_loss"] == *loss));
    let summary = summary(&run_dir);
    assert_eq!(summary["parts"], json!({ "train": 34, "validation": 4, "test": 2 }));
    assert_eq!(summary["test"]["exact_match"], 2, "{summary}");
    let samples: Vec<SampleRecord> = metrics::read_lines(&run_dir.join("samples.jsonl")).unwrap();
    assert_eq!(samples.len(), 40 * 3);
    let right = samples[117..].iter().filter(|sample| sample.reference.as_ref() == Some(&sample.text)).count();
    assert_eq!(right, 3, "{:?}", &samples[117..]);
    assert!(run_dir.join("model/tokenizer.json").exists() && run_dir.join("model/tokenizer_config.json").exists());
}

#[test]
fn stopped_in_an_epoch_and_resumed_is_bitwise_the_run_never_stopped() {
    for adapter in [AdapterSettings::default(), lora(4), AdapterSettings { use_dora: true, ..lora(2) }] {
        let folder = tempfile::tempdir().unwrap();
        let settings = SftSettings { adapter, ..sft_settings(folder.path()) };
        let result = if settings.adapter.is_on() { "adapter" } else { "model" };
        let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
        run_sft(&settings, &straight, false, 0).unwrap();
        let Outcome::Stopped(at) = run_sft(&settings, &stopped, false, 3).unwrap() else { panic!("not stopped") };
        assert_eq!((at.step, at.model), (3, checkpoint::folder(&stopped, 3)));
        let Outcome::Stopped(_) = run_sft(&settings, &stopped, true, 7).unwrap() else { panic!("not stopped") };
        let Outcome::Finished(_) = run_sft(&settings, &stopped, true, 0).unwrap() else { panic!("not finished") };
        assert_same_run(&straight, &stopped, result, 10);
    }
}

#[test]
fn micro_batches_of_any_size_are_one_batch() {
    let folder = tempfile::tempdir().unwrap();
    let of = |batch_size, grad_accum_steps| {
        let run_dir = folder.path().join(format!("{batch_size}x{grad_accum_steps}"));
        let settings = with(sft_settings(folder.path()), |s| {
            (s.optimization.batch_size, s.optimization.grad_accum_steps) = (batch_size, grad_accum_steps);
        });
        run_sft(&settings, &run_dir, false, 0).unwrap();
        losses(&run_dir)
    };
    let whole = of(8, 1);
    // One example at a time is training without any packing.
    for parts in [of(4, 2), of(1, 8)] {
        assert_eq!(parts.len(), whole.len());
        for (found, expected) in parts.iter().zip(&whole) {
            // A mean of means would be off by some per cent, since answers differ in length.
            assert!((found / expected - 1.0).abs() < 1e-4, "{parts:?} instead of {whole:?}");
        }
    }
}

#[test]
fn a_shared_beginning_gives_the_loss_and_gradients_of_examples_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = sft_settings(folder.path());
    let data = SftData::load(&settings, &base(&settings.model.model)).unwrap();
    let tuned = Tuned::new(base(&settings.model.model), BaseDtype::F32, &settings.adapter, 0).unwrap();
    let model = tuned.model(None, &Device::flex().autodiff()).unwrap();
    let names = ["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.h.1.mlp.c_fc.bias"];
    let learn = |examples: &[Example]| {
        let batch = packed(examples);
        let (gradients, tally) = Answers.learn(&model, &batch, 0.01, PassSettings::default());
        (names.map(|name| gradients.values(name).unwrap()), tally, batch)
    };
    let examples = &data.examples[..5];
    let (together, tally, batch) = learn(examples);
    // All begin with `Colour of `: ten bytes and the template's.
    assert!(Answers.computed_tokens(&batch) + 4 * 10 < Answers.tokens(&batch), "{}", Answers.computed_tokens(&batch));
    let mut sums = together.clone().map(|gradient| vec![0.0; gradient.len()]);
    let mut alone = Tally::default();
    for example in examples {
        let (gradients, tally, batch) = learn(std::slice::from_ref(example));
        assert_eq!(Answers.computed_tokens(&batch) + 1, example.ids.len(), "nothing is shared with nobody");
        alone.merge(&tally);
        for (sums, gradient) in sums.iter_mut().zip(&gradients) {
            sums.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x);
        }
    }
    assert!((tally.mean("loss") / alone.mean("loss") - 1.0).abs() < 1e-6);
    for ((name, together), alone) in names.iter().zip(&together).zip(&sums) {
        let largest = alone.iter().fold(0_f32, |max, x| max.max(x.abs()));
        let apart = alone.iter().zip(together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest > 1e-4 && apart < 1e-5 * largest, "{name}: {apart} of {largest}");
    }
}

#[test]
fn a_new_adapter_changes_nothing_until_it_has_learned() {
    let folder = tempfile::tempdir().unwrap();
    let first = |adapter: AdapterSettings, name: &str| {
        let run_dir = folder.path().join(name);
        run_sft(&SftSettings { adapter, ..sft_settings(folder.path()) }, &run_dir, false, 0).unwrap();
        (evaluations(&run_dir)[0].0, summary(&run_dir)["parameters"].clone())
    };
    let (plain, counts) = first(AdapterSettings::default(), "plain");
    let (adapted, adapter_counts) = first(lora(4), "lora");
    assert_eq!(plain.to_bits(), adapted.to_bits());
    assert_eq!(counts["trainable"], counts["total"]);
    // Each of two blocks: (32 + 96) + (32 + 32) + (32 + 64) + (64 + 32) = 384 by rank 4.
    assert_eq!((&adapter_counts["trainable"], &adapter_counts["base"]), (&json!(3072), &counts["base"]));
}

#[test]
fn an_adapter_learns_over_a_base_in_8_bits_as_over_one_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let of = |base_dtype: BaseDtype, name: &str| {
        let run_dir = folder.path().join(name);
        let mut settings = SftSettings { adapter: lora(4), ..sft_settings(folder.path()) };
        settings.model.base_dtype = base_dtype;
        run_sft(&settings, &run_dir, false, 0).unwrap();
        losses(&run_dir)
    };
    let (exact, rounded) = (of(BaseDtype::F32, "f32"), of(BaseDtype::Int8, "int8"));
    assert!(exact[0] > 1.01 * exact[exact.len() - 1], "nothing was learned: {exact:?}");
    // Over blocks of 8 bits, what meets the weights is not rounded.
    assert!(rounded != exact && rounded != of(BaseDtype::Q8_0, "blocks"));
    for (exact, rounded) in exact.iter().zip(&rounded) {
        assert!((rounded / exact - 1.0).abs() < 5e-3, "{rounded} in 8 bits, {exact} in f32");
    }
}

#[test]
fn another_base_under_the_same_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = SftSettings { adapter: lora(4), ..sft_settings(folder.path()) };
    let run_dir = folder.path().join("run");
    run_sft(&settings, &run_dir, false, 3).unwrap();
    let weights = folder.path().join("base/model.safetensors");
    let mut bytes = fs_err::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&weights, bytes).unwrap();
    let error = run_sft(&settings, &run_dir, true, 0).unwrap_err().to_string();
    assert!(error.contains("step-3") && error.contains("hint:"), "{error}");
}

/// Texts that are told apart by a word, somewhere.
fn labelled(folder: &Path) -> String {
    let path = folder.join("labels.csv");
    let row = |n: usize| {
        let (label, word) = if n.is_multiple_of(2) { ("ham", "lunch") } else { ("spam", "prize") };
        format!("{label},message {n} about {} {word}{}\n", ["a", "the", "your"][n % 3], ["", " now", " today!"][n % 3])
    };
    fs_err::write(&path, format!("label,text\n{}", (0..60).map(row).collect::<String>())).unwrap();
    path.display().to_string()
}

fn classify_settings(folder: &Path) -> ClassifySettings {
    let settings = ClassifySettings {
        model: ModelSettings { model: base_model(folder), ..ModelSettings::default() },
        data: vec![labelled(folder)],
        optimization: OptimizationSettings {
            batch_size: 6,
            epochs: 2,
            peak_lr: 3e-3,
            ..ClassifySettings::default().optimization
        },
        evaluation: EvaluationSettings { eval_freq: 5, ..ClassifySettings::default().evaluation },
        ..ClassifySettings::default()
    };
    with(settings, |s| s.run.threads = 2)
}

#[test]
fn a_classifier_learns_and_its_confusion_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let settings = with(classify_settings(folder.path()), |s| s.optimization.epochs = 20);
    run_classify(&settings, &run_dir, false, 0).unwrap();
    let (first, last) = (evaluations(&run_dir)[0].clone(), evaluations(&run_dir).last().unwrap().clone());
    assert!((first.0 - 2f64.ln()).abs() < 0.5 && last.0 < 0.05, "{first:?} {last:?}");
    assert_eq!(last.1["eval_accuracy"], 1.0);
    let summary = summary(&run_dir);
    assert_eq!(summary["labels"], json!(["ham", "spam"]));
    assert_eq!(summary["test"]["accuracy"], 1.0);
    let confusion = &summary["test"]["confusion"];
    let balance = &summary["class_balance"]["test"];
    assert_eq!((&confusion[0][0], &confusion[1][1]), (&balance[0], &balance[1]));
    assert_eq!((&confusion[0][1], &confusion[1][0]), (&json!(0), &json!(0)));
    let model = Model::load(&run_dir.join("model"), &Device::flex()).unwrap();
    assert_eq!(model.labels(), ["ham", "spam"]);
}

#[test]
fn a_classifier_stopped_in_an_epoch_and_resumed_is_bitwise_the_one_never_stopped() {
    for (adapter, trainable) in [
        (AdapterSettings::default(), Trainable::LastBlock),
        (lora(2), Trainable::All),
        (AdapterSettings::default(), Trainable::All),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let settings = ClassifySettings { adapter, trainable, ..classify_settings(folder.path()) };
        let result = if settings.adapter.is_on() { "adapter" } else { "model" };
        let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
        run_classify(&settings, &straight, false, 0).unwrap();
        let Outcome::Stopped(_) = run_classify(&settings, &stopped, false, 3).unwrap() else { panic!("not stopped") };
        run_classify(&settings, &stopped, true, 0).unwrap();
        assert_same_run(&straight, &stopped, result, 14);
    }
}

#[test]
fn partial_training_leaves_the_rest_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let settings = ClassifySettings { trainable: Trainable::LastBlock, ..classify_settings(folder.path()) };
    run_classify(&settings, &run_dir, false, 0).unwrap();
    let read = |path: &Path| fs_err::read(path.join("model.safetensors")).unwrap();
    let (before, after) = (read(Path::new(&settings.model.model)), read(&run_dir.join("model")));
    let (before, after) = (
        safetensors::SafeTensors::deserialize(&before).unwrap(),
        safetensors::SafeTensors::deserialize(&after).unwrap(),
    );
    let mut changed = Vec::new();
    for name in before.names() {
        let found = after.names().into_iter().find(|other| other.ends_with(name)).unwrap();
        if before.tensor(name).unwrap().data() != after.tensor(found).unwrap().data() {
            changed.push(name.to_owned());
        }
    }
    assert!(changed.iter().all(|name| name.contains("h.1.") || name.contains("ln_f")), "{changed:?}");
    assert!(changed.len() >= 12, "{changed:?}");
}
