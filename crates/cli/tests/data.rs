//! `cavy data` as a user meets it.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::path::Path;
use std::process::Command;

/// Runs `cavy` in `folder`: exit code, stdout, stderr.
fn cavy(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cavy"));
    let output =
        command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_made_web_is_curated_with_a_funnel_a_report_and_shards() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (code, _, said) = cavy(folder, &["data", "make", "--out", "web", "--documents", "300", "--held-out", "3"]);
    assert_eq!(code, 0, "{said}");
    let curate = [
        "data",
        "curate",
        "--data",
        "web/raw",
        "--out",
        "clean",
        "--tokenizer",
        "gpt2",
        "--shards",
        "--json",
        "--threads",
        "2",
    ];
    let (code, funnel, said) = cavy(folder, &curate);
    assert_eq!(code, 0, "{said}");
    let funnel: serde_json::Value = serde_json::from_str(&funnel).unwrap();
    let steps = funnel["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    let fineweb = [
        "url_filter",
        "html",
        "language",
        "gopher_repetition",
        "gopher_quality",
        "c4_quality",
        "fineweb_quality",
        "minhash_dedup",
        "pii",
    ];
    assert_eq!(names, fineweb);
    let documents = |step: usize, end: &str| steps[step][end]["documents"].as_u64().unwrap();
    assert_eq!(documents(0, "input"), 300);
    for step in 1..names.len() {
        assert_eq!(documents(step, "input"), documents(step - 1, "output"), "{}", names[step]);
    }
    // About a quarter of the web are copies of twelve texts, two fifths prose of its own.
    let kept = documents(8, "output");
    assert!((90..160).contains(&kept) && documents(7, "input") - kept > 40, "{said}");
    let report = fs_err::read_to_string(folder.join("clean/report.html")).unwrap();
    for part in ["The funnel", "Sets of copies", "Languages found", "minhash_dedup: duplicate", "documents a second"] {
        assert!(report.contains(part), "the report lacks {part}");
    }
    assert!(folder.join("clean/shards/tokens-00000.shard").exists());
    let first = fs_err::read(folder.join("clean/shards/tokens-00000.shard")).unwrap();
    // Once more: nothing is done again, the shards are the same.
    let (code, _, said) = cavy(folder, &curate);
    assert!(code == 0 && said.contains("0 documents read"), "{said}");
    assert_eq!(fs_err::read(folder.join("clean/shards/tokens-00000.shard")).unwrap(), first);
}

/// All files below `folder`, by name.
fn contents(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entries = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs_err::read(&path).unwrap())).collect()
}

#[cfg(unix)]
#[test]
fn killed_in_each_phase_and_run_again_with_other_workers_it_writes_the_same_bytes() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let make = ["data", "make", "--out", "web", "--documents", "2400", "--files", "8", "--held-out", "3"];
    assert_eq!(cavy(folder, &make).0, 0);
    let curate = |out, threads, memory| {
        let data = ["data", "curate", "--data", "web/raw", "--tokenizer", "byte", "--shards", "--out", out];
        data.into_iter().chain(["--threads", threads, "--memory-mb", memory]).collect::<Vec<_>>()
    };
    assert_eq!(cavy(folder, &curate("whole", "1", "2048")).0, 0);
    // Killed after the third shard of the first phase, and after the second of the last.
    for (shard, threads, memory) in [("done-0/000002.json", "2", "0"), ("done-1/000001.json", "1", "1")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cavy"));
        command.args(curate("killed", threads, memory)).current_dir(folder).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        while !folder.join("killed/work").join(shard).exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it was done before {shard} was seen");
    }
    let (code, _, said) = cavy(folder, &curate("killed", "3", "64"));
    assert_eq!(code, 0, "{said}");
    for part in ["data", "shards"] {
        let (whole, killed) = (contents(&folder.join("whole").join(part)), contents(&folder.join("killed").join(part)));
        assert!(whole == killed && whole.values().map(Vec::len).sum::<usize>() > 100_000, "{part}");
    }
    let funnel = |out: &str| fs_err::read_to_string(folder.join(out).join("funnel.json")).unwrap();
    assert_eq!(funnel("killed"), funnel("whole"));
}

#[test]
fn look_says_which_rule_drops_a_document_and_what_it_measured() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs_err::write(folder.join("docs.jsonl"), "{\"text\":\"I am Frank, I am Frank, I am Frank\",\"id\":\"frank\"}\n")
        .unwrap();
    fs_err::write(folder.join("rules.toml"), "[[steps]]\nstep = \"gopher_repetition\"\n").unwrap();
    let (code, said, errors) = cavy(folder, &["data", "look", "--data", "docs.jsonl", "--recipe", "rules.toml"]);
    assert_eq!(code, 0, "{errors}");
    // "I am" three times: 12 of 34 characters.
    assert!(said.contains("DROP gopher_repetition  top_2_gram                       0.3529  at most 0.2"), "{said}");
    assert!(said.contains("dropped by gopher_repetition: top_2_gram"), "{said}");
    let (code, json, _) = cavy(folder, &["data", "look", "--data", "docs.jsonl", "--recipe", "rules.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["verdict"].as_str()), (0, Some("top_2_gram")));
    let (code, _, errors) = cavy(folder, &["data", "look", "--data", "docs.jsonl", "--id", "nobody"]);
    assert!(code == 2 && errors.contains("no such document"), "{errors}");
}

#[test]
fn a_wrong_recipe_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs_err::write(folder.join("r.toml"), "[[steps]]\nstep = \"gopher_quality\"\nmin_words = 3\n").unwrap();
    let (code, _, errors) = cavy(folder, &["data", "curate", "r.toml", "--data", ".", "--out", "out"]);
    assert!(code == 2 && errors.contains("min_words"), "{code} {errors}");
    let (code, _, errors) = cavy(folder, &["data", "curate", "--data", "none/*.jsonl", "--out", "out"]);
    assert!(code == 2 && errors.contains("names no file"), "{code} {errors}");
    let (code, _, errors) = cavy(folder, &["data", "curate", "--data", "r.toml"]);
    assert!(code == 2 && errors.contains("--out"), "{code} {errors}");
}

#[test]
fn bench_filters_prints_the_peers_keys() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    cavy(folder, &["data", "make", "--out", "web", "--documents", "50", "--files", "1"]);
    for (work, verdict) in [("filters", "kept"), ("minhash", "signed"), ("exact", "unique")] {
        let (code, json, errors) = cavy(
            folder,
            &["bench", "filters", "--data", "web/raw/0000.jsonl", "--threads", "2", "--work", work, "--json"],
        );
        assert_eq!(code, 0, "{errors}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["docs_per_s"].as_f64().unwrap() > 0.0 && json["mb_per_s"].as_f64().unwrap() > 0.0);
        assert!(json["verdicts"][verdict].as_u64().unwrap() > 10, "{json}");
        assert_eq!((json["tool"].as_str(), json["peak_mb"].is_u64()), (Some("cavy"), true));
    }
}
