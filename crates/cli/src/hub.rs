//! Models of the Hugging Face hub: `hf:org/name[@revision]` stands for a folder of the local cache, which is filled when
//! it has to be.
//!
//! The cache is the one that Hugging Face's other tools share. A model is fetched at one commit, its weights last and
//! the name of the revision after everything, so that whatever the cache knows by name is whole.
//!
//! Source: `constants.py` and `file_download.py` of huggingface_hub for the variables of the environment and the folders.

use crate::error::CliError;
use crate::text;
use cavy_files::safetensors::parse_index;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// What a model's name on the hub begins with.
const SCHEME: &str = "hf:";
/// What lies beside the weights, where a model has it.
const BESIDE: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Forms of weights, the wanted ones first; an index names its shards.
const WEIGHTS: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// What is wanted of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything that a model needs.
    Model,
    /// The tokenizer alone.
    Tokenizer,
}

/// A repository of the hub, or one file in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    repo: String,
    revision: String,
    /// A `.gguf` file of the repository, where one is named.
    file: Option<String>,
}

impl Name {
    /// `org/name`, `org/name@revision`, `org/name/FILE.gguf@revision`.
    fn parse(text: &str) -> Result<Self, CliError> {
        let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
        let plain = |part: &str, more: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || more.contains(c);
            !part.is_empty() && !part.starts_with('.') && !part.contains("..") && part.chars().all(known)
        };
        let parts: Vec<&str> = path.splitn(3, '/').collect();
        let file = parts.get(2).copied();
        let is_named = matches!(parts.len(), 2 | 3) && parts[..2].iter().all(|part| plain(part, ""));
        let ends = file.is_none_or(|file| plain(file, "/ +") && is_gguf(file));
        if !is_named || !ends || !plain(revision, "/") {
            let hint = "write `hf:org/name`, `hf:org/name@revision`, or `hf:org/name/FILE.gguf`";
            return Err(CliError::usage(format!("`{SCHEME}{text}` is no model of the hub"), hint));
        }
        let repo = parts[..2].join("/");
        Ok(Self { repo, revision: revision.to_owned(), file: file.map(str::to_owned) })
    }
}

/// Where the hub and its cache are, and who asks.
struct Hub {
    endpoint: String,
    cache: Cache,
    token: Option<String>,
    /// Whether the network may not be used.
    offline: bool,
}

impl Hub {
    /// As the environment says: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT`,
    /// `HF_HUB_OFFLINE`.
    fn from_env() -> Result<Self, CliError> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let under = |root: String, folders: &str| PathBuf::from(root).join(folders);
        let home = var("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| var("XDG_CACHE_HOME").map(|root| under(root, "huggingface")))
            .or_else(|| var("HOME").or_else(|| var("USERPROFILE")).map(|root| under(root, ".cache/huggingface")));
        let Some(home) = home else {
            return Err(CliError::failed("there is no home folder for the cache of models", "set HF_HOME to a folder"));
        };
        // Links in the cache are relative, which needs an absolute path.
        let absolute = |path: PathBuf| std::path::absolute(&path).map_err(CliError::read(path));
        let home = absolute(home)?;
        let cache = var("HF_HUB_CACHE").map_or_else(|| Ok(home.join("hub")), |path| absolute(path.into()))?;
        let file = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = var("HF_TOKEN").or_else(|| fs_err::read_to_string(file).ok());
        let is_set = |name: &str| var(name).is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no"));
        Ok(Self {
            endpoint: var("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".into())
                .trim_end_matches('/')
                .into(),
            cache: Cache::new(cache),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
        })
    }

    /// The folder or file of the cache that holds what is wanted, fetched if it is not there.
    fn local(&self, name: &Name, part: Part) -> Result<PathBuf, CliError> {
        let repo = |revision: &str| Repo::with_revision(name.repo.clone(), RepoType::Model, revision.to_owned());
        let cached = self.cache.repo(repo(&name.revision));
        // A commit is a name of its own.
        let commit = self.commit(name).unwrap_or_else(|| name.revision.clone());
        let folder = cached.pointer_path(&commit);
        if is_whole(&folder, name, part) {
            return Ok(folder);
        }
        if self.offline {
            let (what, place) = (shown(name), self.cache.path().display());
            return Err(CliError::failed(
                format!("{what} is not in the cache {place}, and HF_HUB_OFFLINE is set"),
                "unset HF_HUB_OFFLINE, or copy the cache of a machine that has the model and name it in HF_HOME",
            ));
        }
        let wrong = |error: ApiError| self.explain(name, &error);
        let api = self.api().map_err(wrong)?;
        let info = api.repo(repo(&name.revision)).info().map_err(wrong)?;
        let there: BTreeSet<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let pinned = api.repo(repo(&info.sha));
        let folder = cached.pointer_path(&info.sha);
        let fetch = |file: &str| fetched(&pinned, &folder, file).map_err(wrong);
        for file in wanted(name, part, &there)? {
            let path = fetch(file)?;
            if file.ends_with(".index.json") {
                let index = fs_err::read(&path).map_err(CliError::read(&path))?;
                let shards: BTreeSet<String> = parse_index(&path, &index)?.into_values().collect();
                for shard in shards {
                    fetch(&shard)?;
                }
            }
        }
        if part == Part::Model {
            cached.create_ref(&info.sha).map_err(CliError::write(self.cache.path()))?;
        }
        Ok(folder)
    }

    /// The commit that the cache knows by this revision.
    fn commit(&self, name: &Name) -> Option<String> {
        let repo = Repo::with_revision(name.repo.clone(), RepoType::Model, String::new());
        let path = self.cache.path().join(repo.folder_name()).join("refs").join(&name.revision);
        let commit = fs_err::read_to_string(path).ok()?;
        let commit = commit.trim();
        commit.chars().all(|c| c.is_ascii_alphanumeric()).then(|| commit.to_owned())
    }

    fn api(&self) -> Result<Api, ApiError> {
        ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(std::io::stderr().is_terminal())
            .with_user_agent("cavy", env!("CARGO_PKG_VERSION"))
            .build()
    }

    /// What went wrong, and the way out.
    fn explain(&self, name: &Name, error: &ApiError) -> CliError {
        let (what, page) = (shown(name), format!("{}/{}", self.endpoint, name.repo));
        let cause = match error {
            ApiError::RequestError(error) => error.as_ref(),
            ApiError::IoError(error) => {
                let hint = "check the connection and the space on the disk; what has arrived is kept, so run it again";
                return CliError::failed(format!("{what} cannot be fetched: {error}"), hint);
            }
            error => {
                let hint = "HF_ENDPOINT may name a server that is not the hub, or the answer was cut short";
                return CliError::failed(format!("{what} cannot be fetched from {}: {error}", self.endpoint), hint);
            }
        };
        let (message, hint) = match cause {
            ureq::Error::StatusCode(401 | 403) if self.token.is_none() => (
                format!("{what}: the hub lets only those in who may; the model is private, or gated, or misspelled"),
                format!("accept its terms at {page} if it has any, and set HF_TOKEN to a token of your account"),
            ),
            ureq::Error::StatusCode(code @ (401 | 403)) => (
                format!("{what}: the hub refuses your token ({code})"),
                format!("check HF_TOKEN, and that its account may read {page}"),
            ),
            ureq::Error::StatusCode(404) => (
                format!("{what}: the hub has no such model or revision"),
                format!("check the spelling at {page}; a private model needs HF_TOKEN"),
            ),
            ureq::Error::StatusCode(429) => {
                (format!("{what}: the hub asks to come later (429)"), "wait, or set HF_TOKEN for a higher limit".into())
            }
            ureq::Error::StatusCode(code) => {
                (format!("{what}: the hub answers {code}"), "try again later; what has arrived is kept".into())
            }
            error => (
                format!("{what}: {} cannot be reached: {error}", self.endpoint),
                "check the connection, a proxy (HTTPS_PROXY) or HF_ENDPOINT; models in the cache need none of them"
                    .into(),
            ),
        };
        CliError::failed(message, hint)
    }
}

/// Whether a file of a repository is a GGUF, by its name.
fn is_gguf(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// A name as messages show it.
fn shown(name: &Name) -> String {
    let Name { repo, revision, file } = name;
    let file = file.as_ref().map(|file| format!("/{file}")).unwrap_or_default();
    let revision = if revision == "main" { String::new() } else { format!("@{revision}") };
    format!("`{SCHEME}{repo}{file}{revision}`")
}

/// A file of the cache, fetched if it is not there.
fn fetched(repo: &ApiRepo, folder: &Path, file: &str) -> Result<PathBuf, ApiError> {
    let path = folder.join(file);
    if path.is_file() {
        return Ok(path);
    }
    let path = repo.download(file)?;
    if !std::io::stderr().is_terminal() {
        let bytes = fs_err::metadata(&path).map_or(0, |file| file.len());
        text::say(&format!("fetched {file}, {}", text::bytes(bytes as f64)));
    }
    Ok(path)
}

/// The files to fetch, in order: weights last.
fn wanted<'a>(name: &'a Name, part: Part, there: &BTreeSet<&str>) -> Result<Vec<&'a str>, CliError> {
    let lacks = |what: &str, hint: String| Err(CliError::failed(format!("{} has no {what}", shown(name)), hint));
    if let Some(file) = name.file.as_deref().filter(|_| part == Part::Model) {
        if there.contains(file) {
            return Ok(vec![file]);
        }
        return lacks("such file", offered(name, there));
    }
    let mut files: Vec<&str> = BESIDE.into_iter().filter(|file| there.contains(file)).collect();
    if part == Part::Tokenizer {
        files.retain(|file| file.contains("token"));
        if !files.contains(&"tokenizer.json") {
            return lacks("`tokenizer.json`", "choose the tokenizer of a model that has one".into());
        }
        return Ok(files);
    }
    if !files.contains(&"config.json") {
        return lacks("`config.json`", offered(name, there));
    }
    let Some(weights) = WEIGHTS.into_iter().find(|file| there.contains(file)) else {
        return lacks("weights in safetensors or PyTorch's form", offered(name, there));
    };
    files.push(weights);
    Ok(files)
}

/// Which GGUF files a repository has to offer.
fn offered(name: &Name, there: &BTreeSet<&str>) -> String {
    let gguf: Vec<&str> = there.iter().copied().filter(|file| is_gguf(file)).take(6).collect();
    match gguf.first() {
        Some(first) => format!("it has {}; write `{SCHEME}{}/{first}`", gguf.join(", "), name.repo),
        None => "choose a repository with a language model in safetensors or GGUF".into(),
    }
}

/// Whether a folder of the cache holds all that is wanted.
fn is_whole(folder: &Path, name: &Name, part: Part) -> bool {
    let has = |file: &str| folder.join(file).is_file();
    match (part, &name.file) {
        (Part::Model, Some(file)) => has(file),
        (Part::Tokenizer, _) => has("tokenizer.json"),
        (Part::Model, None) => has("config.json") && WEIGHTS.iter().any(|file| has(file) && has_shards(folder, file)),
    }
}

/// Whether all shards of an index are there; true of a file that is no index.
fn has_shards(folder: &Path, file: &str) -> bool {
    if !file.ends_with(".index.json") {
        return true;
    }
    let path = folder.join(file);
    let index = fs_err::read(&path).ok().and_then(|text| parse_index(&path, &text).ok());
    index.is_some_and(|index| index.values().all(|shard| folder.join(shard).is_file()))
}

/// The path behind a name of the hub, fetched if need be; `None` for any other path.
pub(crate) fn local(path: &Path, part: Part) -> Result<Option<PathBuf>, CliError> {
    let text = path.to_string_lossy();
    let Some(name) = text.strip_prefix(SCHEME) else { return Ok(None) };
    let name = Name::parse(name)?;
    let folder = Hub::from_env()?.local(&name, part)?;
    Ok(Some(match (part, name.file) {
        (Part::Model, Some(file)) => folder.join(file),
        (Part::Model, None) => folder,
        (Part::Tokenizer, _) => folder.join("tokenizer.json"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_owner_and_may_have_a_revision_and_a_file() {
        let name = |repo: &str, revision: &str, file: Option<&str>| Name {
            repo: repo.into(),
            revision: revision.into(),
            file: file.map(Into::into),
        };
        for (text, expected) in [
            ("a/b", name("a/b", "main", None)),
            ("a-1/b.2_c@v1.0", name("a-1/b.2_c", "v1.0", None)),
            ("a/b@refs/pr/1", name("a/b", "refs/pr/1", None)),
            ("a/b/q/c-Q4_0.gguf@x", name("a/b", "x", Some("q/c-Q4_0.gguf"))),
        ] {
            assert_eq!(Name::parse(text).unwrap(), expected);
        }
        for text in [
            "",
            "gpt2",
            "a/",
            "/b",
            "a/b@",
            "a/../b",
            "../b",
            "a/b/c.safetensors",
            "a/b@../../x",
            "a b/c",
            "a/b/../c.gguf",
        ] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn weights_come_last_and_safetensors_before_pickles() {
        let name = Name::parse("a/b").unwrap();
        let files = |names: &[&'static str]| wanted(&name, Part::Model, &names.iter().copied().collect());
        let all = ["pytorch_model.bin", "model.safetensors", "config.json", "README.md", "tokenizer.json"];
        assert_eq!(files(&all).unwrap(), ["config.json", "tokenizer.json", "model.safetensors"]);
        assert_eq!(files(&["pytorch_model.bin", "config.json"]).unwrap(), ["config.json", "pytorch_model.bin"]);
        let error = files(&["q4.gguf", "q8.gguf"]).unwrap_err();
        assert!(format!("{:?}", miette::Report::new(error)).contains("hf:a/b/q4.gguf"));
        assert!(files(&["config.json"]).is_err());
        let tokenizer = wanted(&name, Part::Tokenizer, &all.into_iter().collect()).unwrap();
        assert_eq!(tokenizer, ["tokenizer.json"]);
    }
}
