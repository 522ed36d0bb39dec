//! A real run, killed and stopped in the middle: resumed, it leaves the bits of a run that was left alone.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// 20 steps of some hundredths of a second each, so that a signal falls in the middle.
const SETTINGS: &str = "--data builtin:stories:1 --tokenizer byte --arch custom --hidden-size 128 \
    --num-hidden-layers 4 --num-attention-heads 4 --context-length 128 --batch-size 8 --max-steps 20 --drop-rate 0.1 \
    --save-every 7 --log-every 1 --eval-freq 5 --eval-iter 2 --sample-every 10 --sample-tokens 8";

fn cavy(arguments: &str, out: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cavy"));
    command.arg("pretrain").args(arguments.split_whitespace()).arg("--out").arg(out);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until `ready`, while the program runs.
fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before it could be stopped");
        assert!(began.elapsed() < Duration::from_mins(2), "the run does not get there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn steps_logged(run: &Path) -> usize {
    let metrics = fs_err::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    metrics.lines().filter(|line| line.contains(r#""kind":"train""#)).count()
}

/// The lines of `metrics.jsonl` without what depends on the clock.
fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let timeless = |line: &str| {
        let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = record.as_object_mut().unwrap();
        ["tokens_per_s", "mfu", "step_s"].iter().for_each(|field| drop(fields.remove(*field)));
        record
    };
    fs_err::read_to_string(run.join("metrics.jsonl")).unwrap().lines().map(timeless).collect()
}

fn assert_same(run: &Path, straight: &Path) {
    for file in ["model/model.safetensors", "samples.jsonl"] {
        assert!(fs_err::read(run.join(file)).unwrap() == fs_err::read(straight.join(file)).unwrap(), "{file} differs");
    }
    let (found, expected) = (metrics(run), metrics(straight));
    assert!(expected.len() >= 20);
    assert_eq!(found, expected);
}

fn resume(run: &Path) -> ExitStatus {
    cavy("--resume", run).wait().unwrap()
}

#[test]
fn a_run_killed_or_interrupted_after_step_seven_resumes_to_the_bits_of_one_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [straight, killed, interrupted] = ["straight", "killed", "interrupted"].map(|name| folder.path().join(name));
    assert!(cavy(SETTINGS, &straight).wait().unwrap().success());

    let mut child = cavy(SETTINGS, &killed);
    wait_until(&mut child, || killed.join("checkpoints/step-7").exists());
    child.kill().unwrap(); // SIGKILL.
    assert_eq!(child.wait().unwrap().code(), None);
    assert!(!killed.join("model").exists());
    assert!(resume(&killed).success());
    assert_same(&killed, &straight);

    let mut child = cavy(SETTINGS, &interrupted);
    wait_until(&mut child, || steps_logged(&interrupted) >= 7);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!interrupted.join("model").exists());
    assert!(resume(&interrupted).success());
    assert_same(&interrupted, &straight);
}
