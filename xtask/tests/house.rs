//! The house rules, as plain tests that read the tree.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which workspace crates each crate may name. A new arrow is a design decision: write it here first.
const MAY_USE: &[(&str, &[&str])] = &[
    ("kernels", &[]),
    ("files", &[]),
    ("text", &[]),
    ("reward", &[]),
    ("curate", &[]),
    ("scaling", &[]),
    ("ops", &["kernels"]),
    ("model", &["ops", "files"]),
    ("generate", &["model", "ops", "text", "reward", "curate", "scaling"]),
    ("train", &["generate", "model", "ops", "text", "reward", "curate", "scaling"]),
    ("cli", &["train", "generate", "model", "ops", "kernels", "files", "text", "reward", "curate", "scaling"]),
];
/// The only crates that may name Burn.
const NAME_BURN: [&str; 4] = ["ops", "model", "generate", "train"];
/// Lines of a source file, at most.
const MOST_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file under `folder` with one of these endings.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    let found: Vec<_> = ["crates", "xtask"].iter().flat_map(|folder| files(&root().join(folder), &["rs"])).collect();
    assert!(found.len() > 20, "the tree was not found");
    found
}

#[expect(clippy::disallowed_methods, reason = "this crate has no dependencies, and the message names the path")]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The crates that a manifest depends on: the names before `=` or `.` in its sections of dependencies.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut names = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            if let Some(name) = line.trim_matches(['[', ']']).split("dependencies.").nth(1) {
                names.insert(name.to_owned());
            }
        } else if section.ends_with("dependencies]") && !line.starts_with('#') && line.contains('=') {
            names.insert(line.split(['=', '.', ' ']).next().unwrap_or_default().to_owned());
        }
    }
    names
}

#[test]
fn crates_name_only_those_they_may() {
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let allowed = MAY_USE.iter().find(|(known, _)| *known == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("crates/{name} has no row in MAY_USE"));
        for dependency in dependencies(&read(&folder.join("Cargo.toml"))) {
            if let Some(other) = dependency.strip_prefix("cavy-") {
                assert!(allowed.contains(&other), "crates/{name} may not use cavy-{other}");
            }
            let burn = dependency == "burn" || dependency.starts_with("burn-");
            assert!(!burn || NAME_BURN.contains(&name.as_str()), "crates/{name} may not name {dependency}");
        }
    }
}

#[test]
fn dependencies_are_found_in_every_way_of_writing_them() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nb.workspace = true\n# c = \"1\"\n\
                    [dev-dependencies]\nd = { version = \"1\" }\n[target.'cfg(unix)'.dependencies.e]\nversion = \"1\"\n";
    let expected = ["a", "b", "d", "e"].map(str::to_owned);
    assert_eq!(dependencies(manifest), expected.into());
}

#[test]
fn files_stay_within_their_budget() {
    for path in sources() {
        let lines = read(&path).lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines, at most {MOST_LINES}", path.display());
    }
}

#[test]
fn every_path_named_in_the_architecture_exists() {
    let page = root().join("ARCHITECTURE.md");
    let text = read(&page);
    let mut seen = 0;
    // A path stands between backticks and has a slash; those with placeholders are patterns, not paths.
    for name in text.split('`').skip(1).step_by(2) {
        let is_path = name.contains('/') && !name.contains([' ', '<', '*', '{', ':', '|', '(', '$', '\n']);
        let starts = ["crates/", "recipes/", "benches/", "testdata/", "xtask/", ".ci/", "peers/"];
        if is_path && starts.iter().any(|start| name.starts_with(start)) {
            assert!(root().join(name).exists(), "ARCHITECTURE.md names `{name}`, which does not exist");
            seen += 1;
        }
    }
    assert!(seen > 5, "ARCHITECTURE.md names {seen} paths");
}

#[test]
fn nothing_in_the_tree_is_left_unrun() {
    // Written in parts, so that this file does not find itself.
    let ignored_test = ["#[", "ignore"].concat();
    let ignored_example = ["```", "ignore"].concat();
    let unfinished = ["todo", "!("].concat();
    for path in sources() {
        let text = read(&path);
        for forbidden in [&ignored_test, &ignored_example, &unfinished] {
            assert!(!text.contains(forbidden.as_str()), "{} has {forbidden}", path.display());
        }
    }
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let allowed = ["#[", "allow("].concat();
    for path in sources() {
        for (index, line) in read(&path).lines().enumerate() {
            let bare = line.contains(&allowed) && !line.contains("reason");
            assert!(!bare, "{}:{}: an allow without a reason", path.display(), index + 1);
        }
    }
}

#[test]
fn every_crate_follows_the_workspaces_lints() {
    for path in files(&root().join("crates"), &["toml"]) {
        if path.ends_with("Cargo.toml") {
            assert!(read(&path).contains("[lints]\nworkspace = true"), "{} has lints of its own", path.display());
        }
    }
}

#[test]
fn cargo_run_has_one_binary_to_run() {
    let manifests = files(&root(), &["toml"]).into_iter().filter(|path| path.ends_with("Cargo.toml"));
    let members = manifests.filter(|path| !path.components().any(|part| part.as_os_str() == "fuzz"));
    let binaries = |path: PathBuf| {
        let mains = usize::from(path.with_file_name("src").join("main.rs").exists());
        let named = read(&path).lines().filter(|line| line.trim() == "[[bin]]").count();
        mains.max(named)
    };
    assert_eq!(members.map(binaries).sum::<usize>(), 1, "`cargo run` asks which binary to run");
}
