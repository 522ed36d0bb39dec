//! Models by their name on the hub, against a server on this machine: what is fetched, what is not fetched twice, and
//! what is said when it cannot be.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use cavy_files::{Outgoing, Safetensors, safetensors};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// A hub with three repositories of the same files: `org/open`, `org/gated`, which asks for a token, and `org/cut`, whose
/// weights end in their middle.
struct Server {
    endpoint: String,
    /// What was asked for, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(files: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (files, log) = (files.to_path_buf(), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, log) = (files.clone(), Arc::clone(&log));
                std::thread::spawn(move || answer(&stream, &files, &log));
            }
        });
        Self { endpoint, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Answers one request, and closes.
fn answer(mut stream: &TcpStream, files: &Path, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    log.lock().unwrap().push(path.clone());
    let close = "Connection: close\r\n\r\n";
    let status = |code: u16| format!("HTTP/1.1 {code} No\r\nContent-Length: 0\r\n{close}").into_bytes();
    let repo = ["org/open", "org/gated", "org/cut"].into_iter().find(|repo| path.contains(repo));
    let allowed = repo != Some("org/gated") || headers.contains(&format!("authorization: bearer {TOKEN}"));
    let reply = if !allowed {
        status(401)
    } else if repo.is_some() && (path.ends_with("/revision/main") || path.ends_with("/revision/v1")) {
        let names = fs_err::read_dir(files).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let siblings: Vec<_> = names.map(|name| json!({"rfilename": name})).collect();
        let body = json!({"siblings": siblings, "sha": COMMIT}).to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}{body}", body.len()).into_bytes()
    } else if let (Some(repo), Some((_, file))) = (repo, path.split_once(&format!("/resolve/{COMMIT}/"))) {
        let Ok(bytes) = fs_err::read(files.join(file)) else { return stream.write_all(&status(404)).unwrap() };
        let range = headers.iter().find_map(|header| header.strip_prefix("range: bytes=")).unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let start: usize = start.parse().unwrap();
        let end = end.parse().map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len()));
        let head = format!(
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\nETag: \"{file}\"\r\n\
             X-Repo-Commit: {COMMIT}\r\n{close}",
            end.max(1) - 1,
            bytes.len(),
            end - start,
        );
        let sent = if repo == "org/cut" && end - start > 4000 { start + 2000 } else { end };
        [head.as_bytes(), &bytes[start..sent]].concat()
    } else {
        status(404)
    };
    stream.write_all(&reply).unwrap();
}

/// A command that knows nothing of this machine's own hub and proxies.
fn cavy(folder: &Path, endpoint: &str, more: &[(&str, &str)], arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cavy"));
    command.args(arguments.split_whitespace()).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG");
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        command.env_remove(name);
    }
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", folder.join("home")).env("HF_ENDPOINT", endpoint);
    command.envs(more.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small model of ours in `run/model`, its weights in two shards with an index.
fn sharded(folder: &Path) -> PathBuf {
    let settings = "pretrain --data builtin:stories:1 --tokenizer bpe:300 --arch custom --hidden-size 32 \
        --num-hidden-layers 1 --num-attention-heads 2 --context-length 32 --batch-size 2 --max-steps 1 --out run \
        --sample-tokens 0 --eval-iter 1";
    let output = cavy(folder, "", &[], settings);
    assert!(output.status.success(), "{}", said(&output));
    let model = folder.join("run/model");
    let whole = model.join("model.safetensors");
    let tensors = Safetensors::load(&whole).unwrap().tensors;
    let mut shards = BTreeMap::new();
    for (number, shard) in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].iter().enumerate() {
        let part = tensors.infos().enumerate().filter(|(i, _)| i % 2 == number).map(|(_, info)| {
            shards.insert(info.name.clone(), *shard);
            let bytes = tensors.bytes(&info.name).unwrap().to_vec();
            let bytes: cavy_files::Producer = Box::new(move || Ok(bytes.into()));
            Outgoing { name: info.name.clone(), dtype: info.dtype, shape: info.shape.clone(), bytes }
        });
        safetensors::save(&model.join(shard), &BTreeMap::new(), part.collect::<Vec<_>>()).unwrap();
    }
    let index = json!({"metadata": {}, "weight_map": shards}).to_string();
    fs_err::write(model.join("model.safetensors.index.json"), index).unwrap();
    fs_err::write(model.join("README.md"), "not wanted").unwrap();
    // Of shards, one file again: the same bytes.
    fs_err::rename(&whole, folder.join("whole")).unwrap();
    assert!(cavy(folder, "", &[], "convert --model run --out single").status.success());
    let bytes = |path: &str| fs_err::read(folder.join(path)).unwrap();
    assert!(bytes("single/model.safetensors") == bytes("whole"), "shards came back as another model");
    model
}

#[test]
fn a_model_of_the_hub_is_fetched_once_and_runs_without_it_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = sharded(folder);
    let server = Server::new(&model);
    let generate = |more: &[(&str, &str)], model: &str| {
        let arguments = format!("generate --model {model} --prompt The --max-new-tokens 8 --temperature 0");
        cavy(folder, &server.endpoint, more, &arguments)
    };
    let expected = generate(&[], "run").stdout;
    assert!(server.asked().is_empty(), "a folder needs no network");

    let first = generate(&[], "hf:org/open");
    assert!(first.status.success(), "{}", said(&first));
    assert_eq!(first.stdout, expected);
    assert!(said(&first).contains("model-00002-of-00002.safetensors"));
    let asked = server.asked();
    let last = asked.last().unwrap();
    assert!(last.ends_with("of-00002.safetensors"), "weights come last: {asked:?}");
    assert!(!asked.iter().any(|path| path.contains("README")), "{asked:?}");
    assert!(folder.join(format!("home/hub/models--org--open/snapshots/{COMMIT}/config.json")).is_file());

    // From the cache: asked for nothing, with the hub gone and said to be gone as well.
    let again = generate(&[], "hf:org/open@main");
    assert_eq!((again.stdout, server.asked().len()), (expected.clone(), 0));
    let offline = generate(&[("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", "http://127.0.0.1:1")], "hf:org/open");
    assert_eq!(offline.stdout, expected, "{}", said(&offline));
    // A commit is a revision too; another revision is asked for, and shares what is there.
    assert_eq!(generate(&[("HF_HUB_OFFLINE", "1")], &format!("hf:org/open@{COMMIT}")).stdout, expected);
    assert_eq!(generate(&[], "hf:org/open@v1").stdout, expected);
    assert_eq!(server.asked(), ["/api/models/org/open/revision/v1"]);
    // Where a file is missing, that one is fetched.
    let snapshot = folder.join(format!("home/hub/models--org--open/snapshots/{COMMIT}"));
    fs_err::remove_file(snapshot.join("model-00001-of-00002.safetensors")).unwrap();
    assert_eq!(generate(&[], "hf:org/open").stdout, expected);
    assert!(server.asked().iter().all(|path| path.contains("/api/") || path.contains("00001-of")));
    // A tokenizer alone, and a token from its file.
    fs_err::write(folder.join("home/token"), format!("{TOKEN}\n")).unwrap();
    let arguments = "generate --model run --tokenizer hf:org/gated --prompt The --max-new-tokens 8 --temperature 0";
    let tokenizer = cavy(folder, &server.endpoint, &[], arguments);
    assert_eq!(tokenizer.stdout, expected, "{}", said(&tokenizer));
    assert!(!server.asked().iter().any(|path| path.contains(".safetensors")));
}

#[test]
fn what_the_hub_refuses_is_said_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = Server::new(&sharded(folder));
    let inspect =
        |more: &[(&str, &str)], model: &str| cavy(folder, &server.endpoint, more, &format!("inspect {model}"));
    for (more, model, code, named) in [
        (vec![], "hf:org/gated", 1, vec!["private, or gated", "HF_TOKEN", "/org/gated"]),
        (vec![("HF_TOKEN", "wrong")], "hf:org/gated", 1, vec!["refuses your token (401)", "HF_TOKEN"]),
        (vec![], "hf:org/absent", 1, vec!["no such model or revision", "spelling"]),
        (vec![], "hf:org/open@v9", 1, vec!["hf:org/open@v9", "no such model or revision"]),
        (vec![("HF_HUB_OFFLINE", "1")], "hf:org/open", 1, vec!["not in the cache", "HF_HUB_OFFLINE"]),
        (vec![("HF_ENDPOINT", "http://127.0.0.1:1")], "hf:org/open", 1, vec!["cannot be reached", "connection"]),
        (vec![], "hf:org/cut", 1, vec!["hf:org/cut", "kept"]),
        (vec![], "hf:org/open/absent.gguf", 1, vec!["no such file"]),
        (vec![], "hf:gpt2", 2, vec!["hf:org/name"]),
    ] {
        let output = inspect(&more, model);
        let text = said(&output).replace("\n  \u{2502} ", "").replace('\n', " ");
        assert_eq!(output.status.code(), Some(code), "{model}: {text}");
        for part in named {
            assert!(text.contains(part), "{model}: no `{part}` in {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
    // With the right token it opens; what was cut is completed by the next run from where it ended.
    assert!(inspect(&[("HF_TOKEN", TOKEN)], "hf:org/gated").status.success());
}
