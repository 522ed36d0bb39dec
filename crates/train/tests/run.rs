//! Whole runs of tiny models: learning, stopping, resuming, and what goes wrong.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

use cavy_train::Outcome;
use cavy_train::metrics::{self, Event, Observer, Record, SampleRecord};
use cavy_train::pretrain::run;
use cavy_train::settings::{
    Arch, CheckpointSettings, EvaluationSettings, OptimizationSettings, RunSettings, Warmup, WindowOrder,
};
use cavy_train::{PretrainSettings, Settings, TrainError, checkpoint};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sentences of a small grammar, so that there is something to learn.
fn text(sentences: usize) -> String {
    let pick = |n: usize, words: [&'static str; 4]| words[(n * 2_654_435_761 % 4_294_967_296) >> 30];
    let sentence = |n: usize| {
        let who = pick(3 * n + 1, ["the cat", "a dog", "the bird", "my fish"]);
        let what = pick(3 * n + 2, ["sees", "likes", "finds", "hears"]);
        let whom = pick(3 * n + 3, ["the sun", "a ball", "the sea", "a tree"]);
        format!("{who} {what} {whom}. ")
    };
    (0..sentences).map(sentence).collect()
}

/// A character model of some ten thousand parameters on `text(120)`: two epochs of ten steps.
fn settings(folder: &Path) -> PretrainSettings {
    let path = folder.join("text.txt");
    if !path.exists() {
        fs_err::write(&path, text(120)).unwrap();
    }
    PretrainSettings {
        data: vec![path.display().to_string()],
        tokenizer: "char".to_owned(),
        arch: Arch::Custom,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        context_length: 16,
        optimization: OptimizationSettings {
            batch_size: 6,
            grad_accum_steps: 2,
            max_steps: 20,
            initial_lr: 1e-4,
            peak_lr: 3e-3,
            min_lr: 1e-4,
            warmup_steps: Warmup::Steps(4),
            ..OptimizationSettings::default()
        },
        evaluation: EvaluationSettings {
            eval_freq: 5,
            eval_iter: 3,
            sample_every: 6,
            sample_tokens: 12,
            ..EvaluationSettings::default()
        },
        start_context: "the cat ".to_owned(),
        checkpoints: CheckpointSettings { save_every: 0, ..CheckpointSettings::default() },
        run: RunSettings { threads: 2, ..PretrainSettings::default().run },
        ..PretrainSettings::default()
    }
}

/// `settings` with a change.
fn with(mut settings: PretrainSettings, change: impl FnOnce(&mut PretrainSettings)) -> PretrainSettings {
    change(&mut settings);
    settings
}

/// Sets `stop` once so many steps are done, and keeps what it hears.
struct Watch<'a> {
    stop: &'a AtomicBool,
    at: usize,
    notes: Vec<String>,
    checkpoints: Vec<usize>,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Train(record) if record.step == self.at => self.stop.store(true, Ordering::Relaxed),
            Event::Note(text) => self.notes.push(text.clone()),
            Event::Checkpoint { step, .. } => self.checkpoints.push(*step),
            _ => (),
        }
    }
}

/// Runs until step `at`, then as if interrupted.
fn run_until(settings: &PretrainSettings, run_dir: &Path, resume: bool, at: usize) -> Result<Outcome, TrainError> {
    let stop = AtomicBool::new(false);
    run(settings, run_dir, resume, &mut Watch { stop: &stop, at, notes: Vec::new(), checkpoints: Vec::new() }, &stop)
}

fn run_whole(settings: &PretrainSettings, run_dir: &Path) -> Result<Outcome, TrainError> {
    run(settings, run_dir, false, &mut (), &AtomicBool::new(false))
}

/// The records of a run as text, without the fields that depend on the clock. Text, since it shows NaNs and every bit.
fn records(run_dir: &Path) -> Vec<String> {
    let timeless = |record| match record {
        Record::Train(mut train) => {
            (train.tokens_per_s, train.mfu, train.step_s) = (0.0, 0.0, 0.0);
            format!("{train:?}")
        }
        Record::Eval(eval) => format!("{eval:?}"),
    };
    let records = metrics::read_lines(&run_dir.join("metrics.jsonl")).unwrap();
    records.into_iter().map(timeless).collect()
}

fn file(run_dir: &Path, path: &str) -> Vec<u8> {
    fs_err::read(run_dir.join(path)).unwrap()
}

fn assert_same_run(expected: &Path, found: &Path) {
    assert_eq!(records(expected), records(found));
    assert_eq!(file(expected, "samples.jsonl"), file(found, "samples.jsonl"));
    for path in ["model/model.safetensors", "checkpoints/step-20/optimizer.safetensors", "model/tokenizer.json"] {
        assert!(file(expected, path) == file(found, path), "{path} differs");
    }
}

#[test]
fn a_run_leaves_everything_it_promises_and_its_model_has_learned() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let settings = with(settings(folder.path()), |s| {
        s.optimization.max_steps = 300;
        (s.evaluation.eval_freq, s.evaluation.eval_iter) = (100, 100);
    });
    let Outcome::Finished(finished) = run_whole(&settings, &run_dir).unwrap() else { panic!("not finished") };
    assert_eq!((finished.step, finished.model), (300, run_dir.join("model")));
    let records: Vec<Record> = metrics::read_lines(&run_dir.join("metrics.jsonl")).unwrap();
    let evaluations: Vec<_> =
        records.iter().filter_map(|r| if let Record::Eval(eval) = r { Some(eval) } else { None }).collect();
    assert_eq!(evaluations.iter().map(|eval| eval.step).collect::<Vec<_>>(), [0, 100, 200, 300]);
    // Guessing among some 20 characters costs ln 20 = 3.0; the three choices of a sentence are 4.2 nats of its 22
    // characters.
    let (first, last) = (evaluations[0], evaluations[3]);
    assert!((2.8..3.3).contains(&first.val_loss), "{first:?}");
    assert!(last.val_loss < 0.9 && last.train_loss < 0.9, "{last:?}");
    assert!((last.val_bits_per_byte.unwrap() - last.val_loss / std::f64::consts::LN_2).abs() < 1e-9);
    assert!((last.val_perplexity - last.val_loss.exp()).abs() < 1e-12);
    assert_eq!(finished.best.map(|best| best.1), Some(300));
    let steps: Vec<_> = records.iter().filter_map(|r| if let Record::Train(t) = r { Some(t) } else { None }).collect();
    assert_eq!(steps.len(), 300);
    assert!(steps.iter().all(|t| t.tokens == 192 * t.step as u64 && t.mfu > 0.0 && t.tokens_per_s > 0.0));
    let samples: Vec<SampleRecord> = metrics::read_lines(&run_dir.join("samples.jsonl")).unwrap();
    assert_eq!(samples.len(), 50);
    assert!(samples.iter().all(|sample| sample.prompt == "the cat " && sample.text.chars().count() == 12));
    let toml: toml::Table = toml::from_str(&String::from_utf8(file(&run_dir, "run.toml")).unwrap()).unwrap();
    assert_eq!(PretrainSettings::from_table(toml).unwrap(), settings);
    let model = cavy_model::Model::load(&run_dir.join("model"), &burn::tensor::Device::flex()).unwrap();
    let characters: std::collections::BTreeSet<char> = text(120).chars().collect();
    assert_eq!(model.config().vocab_size(), characters.len());
    assert!(cavy_text::Tokenizer::from_file(run_dir.join("model/tokenizer.json")).is_ok());
}

#[test]
fn stopped_at_step_seven_and_resumed_is_bitwise_the_run_that_was_never_stopped() {
    for window_order in [WindowOrder::Shuffled, WindowOrder::Random] {
        let folder = tempfile::tempdir().unwrap();
        let settings = PretrainSettings { drop_rate: 0.2, window_order, ..settings(folder.path()) };
        let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
        run_whole(&settings, &straight).unwrap();
        let Outcome::Stopped(at) = run_until(&settings, &stopped, false, 7).unwrap() else { panic!("not stopped") };
        assert_eq!((at.step, at.model), (7, checkpoint::folder(&stopped, 7)));
        assert!(!stopped.join("model").exists());
        let Outcome::Stopped(at) = run_until(&settings, &stopped, true, 13).unwrap() else { panic!("not stopped") };
        assert_eq!(at.step, 13);
        let Outcome::Finished(_) = run_until(&settings, &stopped, true, 0).unwrap() else { panic!("not finished") };
        assert_same_run(&straight, &stopped);
    }
}

#[test]
fn killed_between_checkpoints_and_resumed_is_bitwise_the_run_that_was_never_killed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = with(settings(folder.path()), |s| {
        s.drop_rate = 0.2;
        s.checkpoints.save_every = 5;
    });
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    run_whole(&settings, &straight).unwrap();
    run_until(&settings, &killed, false, 7).unwrap();
    // What a kill after step 7 leaves: the checkpoint of step 5, and logs that are longer and end in half a line.
    fs_err::remove_dir_all(checkpoint::folder(&killed, 7)).unwrap();
    let mut metrics = file(&killed, "metrics.jsonl");
    metrics.extend_from_slice(b"{\"kind\":\"train\",\"st");
    fs_err::write(killed.join("metrics.jsonl"), metrics).unwrap();
    run_until(&settings, &killed, true, 0).unwrap();
    assert_same_run(&straight, &killed);
}

#[test]
fn killed_before_any_checkpoint_a_run_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    run_whole(&settings, &straight).unwrap();
    run_until(&settings, &killed, false, 3).unwrap();
    fs_err::remove_dir_all(killed.join("checkpoints")).unwrap();
    run_until(&settings, &killed, true, 0).unwrap();
    assert_same_run(&straight, &killed);
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let run_dir = folder.path().join("run");
    run_whole(&settings, &run_dir).unwrap();
    let before = (file(&run_dir, "metrics.jsonl"), file(&run_dir, "samples.jsonl"));
    let Outcome::Finished(finished) = run_until(&settings, &run_dir, true, 0).unwrap() else { panic!("not finished") };
    assert_eq!(finished.step, 20);
    assert_eq!(before, (file(&run_dir, "metrics.jsonl"), file(&run_dir, "samples.jsonl")));
    let error = run_whole(&settings, &run_dir).unwrap_err().to_string();
    assert!(error.contains("holds a run already") && error.contains("--resume"), "{error}");
}

#[test]
fn threads_change_no_bit_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let one = with(settings(folder.path()), |s| {
        s.drop_rate = 0.1;
        s.run.threads = 1;
    });
    run_whole(&one, &folder.path().join("one")).unwrap();
    run_whole(&with(one, |s| s.run.threads = 2), &folder.path().join("two")).unwrap();
    assert_same_run(&folder.path().join("one"), &folder.path().join("two"));
}

#[test]
fn a_run_that_diverges_skips_steps_and_then_gives_up_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let settings = with(settings(folder.path()), |s| {
        (s.optimization.peak_lr, s.optimization.warmup_steps) = (1e38, Warmup::Steps(0));
        (s.optimization.max_skipped_steps, s.optimization.max_norm) = (3, 0.0);
        s.evaluation.eval_freq = 0;
    });
    let run_dir = folder.path().join("run");
    let stop = AtomicBool::new(false);
    let mut watch = Watch { stop: &stop, at: 0, notes: Vec::new(), checkpoints: Vec::new() };
    let error = run(&settings, &run_dir, false, &mut watch, &stop).unwrap_err();
    let TrainError::Diverged { skipped: 3, step, .. } = &error else { panic!("{error}") };
    let message = error.to_string();
    assert!(message.contains("lower `peak_lr`") && message.contains("warmup_steps"), "{message}");
    let skips = watch.notes.iter().filter(|note| note.contains("skipped")).count();
    assert_eq!(skips, 2);
    let records: Vec<Record> = metrics::read_lines(&run_dir.join("metrics.jsonl")).unwrap();
    let Some(Record::Train(last)) = records.last() else { panic!("no record") };
    assert_eq!((last.step, last.skipped_steps), (*step, 3));
}

#[test]
fn bad_input_is_named_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let good = settings(folder.path());
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        vec![path.display().to_string()]
    };
    let short = write("short.txt", b"the cat sees.");
    let broken = write("broken.txt", b"the cat \xff\xfe sees");
    let empty = write("empty.txt", b"");
    let cases = [
        (PretrainSettings { data: vec!["nowhere.txt".to_owned()], ..good.clone() }, "nowhere.txt"),
        (PretrainSettings { data: empty, ..good.clone() }, "empty.txt"),
        (PretrainSettings { data: broken, ..good.clone() }, "broken.txt: byte 8"),
        (PretrainSettings { data: short, ..good.clone() }, "needs at least 17"),
        (PretrainSettings { num_attention_heads: 5, ..good.clone() }, "num_attention_heads"),
        (PretrainSettings { vocab_size: 7, ..good.clone() }, "`vocab_size` is 7"),
        (PretrainSettings { tokenizer: "none.json".to_owned(), ..good.clone() }, "none.json"),
        (PretrainSettings { start_context: "Über".to_owned(), ..good.clone() }, "start context"),
        (with(good.clone(), |s| s.optimization.batch_size = 4000), "one step takes 8000"),
    ];
    for (settings, named) in cases {
        let run_dir = folder.path().join("run");
        let error = run_whole(&settings, &run_dir).unwrap_err();
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message = format!("{message}: {source}");
        }
        assert!(message.contains(named) && message.contains("hint:"), "{named}: {message}");
        assert!(!run_dir.exists(), "{named}");
    }
}

#[test]
fn a_truncated_checkpoint_is_named_and_the_one_before_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = with(settings(folder.path()), |s| s.checkpoints.save_every = 5);
    let (straight, broken) = (folder.path().join("straight"), folder.path().join("broken"));
    run_whole(&settings, &straight).unwrap();
    run_until(&settings, &broken, false, 12).unwrap();
    let path = checkpoint::folder(&broken, 12).join("model.safetensors");
    let bytes = fs_err::read(&path).unwrap();
    fs_err::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let error = run_until(&settings, &broken, true, 0).unwrap_err().to_string();
    assert!(error.contains("step-12") && error.contains("model.safetensors"), "{error}");
    assert!(error.contains("goes on from step 10"), "{error}");
    fs_err::remove_dir_all(checkpoint::folder(&broken, 12)).unwrap();
    run_until(&settings, &broken, true, 0).unwrap();
    assert_same_run(&straight, &broken);
}

/// A file system of so many KiB, unmounted at the end. `None` without the right to mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(kib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mount = ["-t", "tmpfs", "-o", &size, "none"];
        let done = std::process::Command::new("mount").args(mount).arg(folder.path()).output();
        done.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_disk_that_fills_up_is_named_and_the_checkpoint_before_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    // A checkpoint is about 330 KiB: one fits, and half of another.
    let Some(disk) = SmallDisk::mount(500) else {
        eprintln!("not tested: mounting a small disk needs root");
        return;
    };
    let settings = with(settings(folder.path()), |s| s.checkpoints.save_every = 4);
    let run_dir = disk.0.path().join("run");
    let error = run_whole(&settings, &run_dir).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("step-8") && message.contains("hint:"), "{message}");
    assert_eq!(checkpoint::list(&run_dir).unwrap(), [4]);
    // On a larger disk the run goes on as if nothing had happened.
    let (straight, moved) = (folder.path().join("straight"), folder.path().join("moved"));
    let copied = std::process::Command::new("cp").arg("-r").arg(&run_dir).arg(&moved).status();
    assert!(copied.unwrap().success());
    run_until(&settings, &moved, true, 0).unwrap();
    run_whole(&settings, &straight).unwrap();
    assert_same_run(&straight, &moved);
}
