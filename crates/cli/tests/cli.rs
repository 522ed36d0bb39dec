//! The program as a user meets it: help, errors, exit codes.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs `cavy` in `folder`.
fn cavy_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cavy"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG").env("COLUMNS", "110");
    command.output().unwrap()
}

/// Exit code and everything the program said.
fn said(arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = cavy_in(folder.path(), arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn help_lists_the_verbs() {
    let (code, text) = said(&["--help"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!(text);
}

#[test]
fn help_of_pretrain_lists_every_setting_with_its_default() {
    let (code, text) = said(&["pretrain", "--help"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!(text);
}

#[test]
fn a_misspelled_key_is_shown_in_its_file_with_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("train.toml"), "data = \"story.txt\"\nbach_size = 4\n").unwrap();
    let output = cavy_in(folder.path(), &["pretrain", "--config", "train.toml"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap());
}

#[test]
fn a_negative_size_is_refused_with_its_flag() {
    let (code, text) = said(&["pretrain", "--data", "story.txt", "--batch-size", "-3"]);
    assert_eq!(code, 2);
    insta::assert_snapshot!(text);
}

#[test]
fn heads_that_do_not_divide_the_width_are_refused_with_numbers_that_do() {
    let (code, text) = said(&["pretrain", "--data", "story.txt", "--num-attention-heads", "7"]);
    assert_eq!(code, 2);
    insta::assert_snapshot!(text);
}

#[test]
fn a_missing_file_fails_with_its_name() {
    let (code, text) = said(&["pretrain", "--data", "nowhere.txt"]);
    assert_eq!(code, 1);
    assert!(text.contains("nowhere.txt"), "{text}");
}

#[test]
fn the_schedule_is_drawn_and_its_rates_are_printed_for_machines() {
    let flags = ["schedule", "--epochs", "15", "--steps-per-epoch", "9", "--warmup-steps", "0.2"];
    let (code, text) = said(&flags);
    assert_eq!(code, 0);
    assert!(text.contains("135 steps: 27 of warmup"), "{text}");
    let (_, json) = said(&[&flags[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["total_steps"].as_u64(), json["lr"].as_array().map(Vec::len)), (Some(135), Some(135)));
}

#[test]
fn a_report_needs_no_network_and_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    fs_err::create_dir(&run).unwrap();
    let line = r#"{"kind":"eval","step":5,"epoch":0.5,"tokens":2560,"train_loss":9.5,"val_loss":9.75,"val_perplexity":17154.2,"val_bits_per_byte":null}"#;
    fs_err::write(run.join("metrics.jsonl"), format!("{line}\n")).unwrap();
    let output = cavy_in(folder.path(), &["report", "run"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page = fs_err::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("Validation loss is 9.75 at the only evaluation."));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page names {outside}");
    }
    assert!(run.join("plots/loss.png").exists() && run.join("plots/loss.svg").exists());
}

#[test]
fn the_precision_in_use_is_said_in_the_dry_run_and_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = "pretrain --data builtin:stories:1 --tokenizer byte --context-length 16 --hidden-size 8 --num-hidden-layers 1 \
                 --num-attention-heads 1 --max-steps 2 --sample-tokens 0 --out run --precision mixed";
    let run = |more: &[&str]| {
        let arguments: Vec<&str> = sizes.split_whitespace().chain(more.iter().copied()).collect();
        let output = cavy_in(folder.path(), &arguments);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        text
    };
    // Which of the two depends on the machine.
    let said = |text: &str| {
        text.contains("f32, since this CPU has no half-precision products")
            || text.contains("mixed, as set")
                && ["BF16", "F16"]
                    .iter()
                    .any(|format| text.contains(&format!("operands of matrix products are rounded to {format}, ")))
    };
    let plan = run(&["--dry-run"]);
    assert!(plan.lines().any(|line| line.starts_with("precision ") && said(line)), "{plan}");
    let log = run(&[]);
    assert!(log.lines().any(|line| line.starts_with("precision: ") && said(line)), "{log}");
    let page = fs_err::read_to_string(folder.path().join("run/report.html")).unwrap();
    let line = page.lines().find(|line| line.contains("Precision: ")).unwrap();
    assert!(said(line), "{line}");
}
