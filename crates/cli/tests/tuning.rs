//! Fine-tuning as a user meets it: what it shows before it begins, and what it says of data that cannot be used.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs `cavy` in `folder`.
fn cavy(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cavy"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG").env("COLUMNS", "110");
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A folder with `base/`, a byte-level model after one step.
fn folder_with_model(width: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sizes = ["--arch", "custom", "--hidden-size", width, "--num-hidden-layers", "2", "--num-attention-heads", "2"];
    let data = ["pretrain", "--data", "builtin:stories:1", "--tokenizer", "byte", "--context-length", "256"];
    let run = ["--max-steps", "1", "--batch-size", "1", "--eval-freq", "0", "--eval-iter", "1", "--sample-tokens", "0"];
    let all = [&data[..], &sizes, &run, &["--out", "base"]].concat();
    let output = cavy(folder.path(), &all);
    assert!(output.status.success(), "{}", text(&output));
    folder
}

/// Instructions, one of them as given.
fn write_items(folder: &Path, odd: &str) {
    let mut items: Vec<String> = (0..20)
        .map(|n| format!(r#"{{"instruction": "Add one to {n}.", "input": "", "output": "{}"}}"#, n + 1))
        .collect();
    items[3] = odd.into();
    fs_err::write(folder.join("items.jsonl"), items.join("\n")).unwrap();
}

const GOOD: &str = r#"{"instruction": "Say hello.", "input": "in French", "output": "Bonjour"}"#;

#[test]
fn a_dry_run_shows_what_is_learned_and_how_much_is_trained() {
    let folder = folder_with_model("32");
    write_items(folder.path(), GOOD);
    let flags =
        ["sft", "--model", "base", "--data", "items.jsonl", "--r", "4", "--target-modules", "all-linear", "--dry-run"];
    let output = cavy(folder.path(), &flags);
    assert!(output.status.success(), "{}", text(&output));
    let shown = String::from_utf8(output.stdout).unwrap();
    // What the machine can do differs from one to the next.
    let steady: Vec<&str> = shown.lines().filter(|line| !line.starts_with("time ")).collect();
    insta::assert_snapshot!(steady.join("\n"));
}

#[test]
fn a_run_writes_answers_a_summary_and_a_report_and_predicts_labels() {
    let folder = folder_with_model("32");
    write_items(folder.path(), GOOD);
    let flags = [
        "sft",
        "--model",
        "base",
        "--data",
        "items.jsonl",
        "--epochs",
        "1",
        "--out",
        "answers",
        "--sample-tokens",
        "4",
    ];
    let output = cavy(folder.path(), &flags);
    assert!(output.status.success(), "{}", text(&output));
    let page = fs_err::read_to_string(folder.path().join("answers/report.html")).unwrap();
    assert!(page.contains("cavy sft") && page.contains("What it answers") && page.contains("test loss"));
    let flags =
        ["classify", "--model", "base", "--data", "builtin:spam:60", "--out", "spam", "--trainable", "last-block"];
    let output = cavy(folder.path(), &flags);
    assert!(output.status.success(), "{}", text(&output));
    let page = fs_err::read_to_string(folder.path().join("spam/report.html")).unwrap();
    assert!(page.contains("Which label it took for which") && page.contains("Right labels"));
    let output = cavy(folder.path(), &["predict", "--model", "spam", "--json", "You have won", "See you at lunch"]);
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2);
    for line in lines.lines() {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        let sum: f64 = found["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{line}");
    }
    let output = cavy(folder.path(), &["report", "answers", "spam", "--out", "both.html"]);
    assert!(output.status.success(), "{}", text(&output));
    let both = fs_err::read_to_string(folder.path().join("both.html")).unwrap();
    assert!(both.contains("right on the test part") && both.contains("parameters trained"));
}

#[test]
fn data_that_cannot_be_used_is_named_with_its_line() {
    let folder = folder_with_model("32");
    let mut said = String::new();
    let mut case = |name: &str, item: &str, more: &[&str]| {
        write_items(folder.path(), item);
        let model: &[&str] = if more.contains(&"--model") { &[] } else { &["--model", "base"] };
        let flags = [&["sft", "--data", "items.jsonl", "--dry-run"], model, more].concat();
        let output = cavy(folder.path(), &flags);
        assert!(!output.status.success(), "{name}: {}", text(&output));
        said += &["## ", name, "\n", &String::from_utf8_lossy(&output.stderr), "\n"].concat();
    };
    case("an empty answer", r#"{"instruction": "Say hello.", "input": "", "output": " "}"#, &[]);
    case("a missing field", r#"{"instruction": "Say hello.", "answer": "hello"}"#, &[]);
    case("a broken line", r#"{"instruction": "Say hello.", "#, &[]);
    case("no place for the answer", GOOD, &["--prompt-template", "Q: {instruction}"]);
    case("no model", GOOD, &["--model", "nowhere"]);
    case("a flag of adapters without a rank", GOOD, &["--use-dora"]);
    case("a layer that is not there", GOOD, &["--r", "4", "--target-modules", "q_proj"]);
    case("shares that are none", GOOD, &["--split", "all"]);
    insta::assert_snapshot!(said);
}

#[test]
fn an_adapter_for_another_model_is_refused_by_its_tensors() {
    let folder = folder_with_model("32");
    write_items(folder.path(), GOOD);
    let train =
        ["sft", "--model", "base", "--data", "items.jsonl", "--r", "2", "--out", "answers", "--sample-tokens", "0"];
    let output = cavy(folder.path(), &train);
    assert!(output.status.success(), "{}", text(&output));
    let other = folder_with_model("48");
    write_items(other.path(), GOOD);
    let adapter = folder.path().join("answers/adapter");
    let flags = ["sft", "--model", "base", "--data", "items.jsonl", "--init-adapter", adapter.to_str().unwrap()];
    let output = cavy(other.path(), &flags);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("lora_A") && said.contains("32") && said.contains("48"), "{said}");
}

#[test]
fn a_reward_model_judges_a_models_own_answers_and_dpo_learns_from_them() {
    let folder = folder_with_model("32");
    let run = |line: &str| {
        let output = cavy(folder.path(), &line.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{line}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run("reward --model base --data builtin:preferences:40 --prompt-template plain --max-length 96 --overlong drop \
         --equal-pairs keep --epochs 1 --batch-size 8 --out judge");
    write_items(folder.path(), GOOD);
    run("data preferences --model base --data items.jsonl --prompt-template plain --judge reward:judge --n 3 \
         --max-new-tokens 6 --limit 12 --out own.jsonl");
    let lines = fs_err::read_to_string(folder.path().join("own.jsonl")).unwrap();
    assert!(lines.lines().count() > 6, "{lines}");
    for line in lines.lines() {
        let pair: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(pair["score_chosen"].as_f64() > pair["score_rejected"].as_f64(), "{line}");
        let rate = |answer: &str| -> f64 {
            let (prompt, answer) = (pair["prompt"].as_str().unwrap(), pair[answer].as_str().unwrap());
            let flags = ["score", "--model", "judge", "--prompt", prompt, "--text", answer];
            String::from_utf8(cavy(folder.path(), &flags).stdout).unwrap().trim().parse().unwrap()
        };
        // The scores are those that the judge gives when it is asked alone, as far as they are printed.
        assert!((rate("chosen") - pair["score_chosen"].as_f64().unwrap()).abs() < 1e-4, "{line}");
    }
    run(
        "dpo --model base --data own.jsonl --split 60/20/20 --epochs 1 --batch-size 4 --sample-tokens 4 --out preferred",
    );
    let page = fs_err::read_to_string(folder.path().join("preferred/report.html")).unwrap();
    for part in ["Margin of rewards", "Better answer ahead", "held out", "before training", "The margin"] {
        assert!(page.contains(part), "`{part}` is missing");
    }
    let output =
        cavy(folder.path(), &["data", "preferences", "--model", "base", "--data", "items.jsonl", "--judge", "best"]);
    assert!(text(&output).contains("a judge is `reward:MODEL`"), "{}", text(&output));
}
