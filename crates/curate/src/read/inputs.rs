//! Files, folders and patterns to a list of files.

use super::Kind;
use crate::error::CurateError;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What one worker reads at a time: a file, or the lines that begin in a range of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The file.
    pub path: PathBuf,
    /// The range, of a file of lines that was cut; `None` for all of it.
    pub bytes: Option<Range<u64>>,
}

impl Part {
    /// All of a file.
    pub fn whole(path: PathBuf) -> Self {
        Self { path, bytes: None }
    }
}

/// `files` in parts: JSONL that is not compressed is cut into parts of about `part_bytes`, where it is larger than two of them, so
/// that several workers can share one file.
///
/// Errors: if a file cannot be read.
pub fn parts(files: &[PathBuf], part_bytes: u64) -> Result<Vec<Part>, CurateError> {
    let mut parts = Vec::with_capacity(files.len());
    for path in files {
        let bytes = if Kind::of(path) == Kind::Jsonl { plain_bytes(path)? } else { 0 };
        if bytes <= 2 * part_bytes {
            parts.push(Part::whole(path.clone()));
            continue;
        }
        let count = bytes.div_ceil(part_bytes);
        let cut = |index: u64| (u128::from(bytes) * u128::from(index) / u128::from(count)) as u64;
        parts.extend((0..count).map(|index| Part { path: path.clone(), bytes: Some(cut(index)..cut(index + 1)) }));
    }
    Ok(parts)
}

/// The length of a file that is not compressed; 0 for one that is.
fn plain_bytes(path: &Path) -> Result<u64, CurateError> {
    let mut file = fs_err::File::open(path).map_err(CurateError::read(path))?;
    let mut start = Vec::new();
    file.by_ref().take(4).read_to_end(&mut start).map_err(CurateError::read(path))?;
    let compressed = start.starts_with(&super::GZIP) || start.starts_with(&super::ZSTD);
    Ok(if compressed { 0 } else { file.metadata().map_err(CurateError::read(path))?.len() })
}

/// The files that `inputs` name, in order: a file is itself, a folder all files in and below it, a name with `*`, `?` or `**` what
/// fits; `-` is standard input. Hidden files are skipped in folders and patterns.
///
/// Errors: if a name stands for no file.
pub fn expand(inputs: &[String]) -> Result<Vec<PathBuf>, CurateError> {
    let mut files = Vec::new();
    for input in inputs {
        let path = Path::new(input);
        let before = files.len();
        if input == "-" {
            files.push(path.to_owned());
        } else if path.is_dir() {
            walk(path, &mut files)?;
        } else if path.exists() {
            files.push(path.to_owned());
        } else if input.contains(['*', '?']) {
            let fixed: PathBuf =
                path.components().take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?'])).collect();
            let root = if fixed.as_os_str().is_empty() { Path::new(".") } else { &fixed };
            let mut found = Vec::new();
            walk(root, &mut found)?;
            let pattern: Vec<&str> = input.trim_start_matches("./").split('/').collect();
            files.extend(found.into_iter().filter(|file| {
                let name = file.to_string_lossy();
                fits(&pattern, &name.trim_start_matches("./").split('/').collect::<Vec<_>>())
            }));
        }
        if files.len() == before {
            return Err(CurateError::Recipe {
                found: format!("`{input}` names no file"),
                hint: "give files, folders, patterns such as `crawl/*.warc.gz`, or `-`".to_owned(),
            });
        }
        files[before..].sort();
    }
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CurateError> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs_err::read_dir(folder).map_err(CurateError::read(folder))? {
        let path = entry.map_err(CurateError::read(folder))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() { walk(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// Whether the parts of a path fit those of a pattern; `**` stands for any number of folders.
fn fits(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skipped| fits(rest, &path[skipped..])),
        (Some((part, pattern)), Some((name, path))) => {
            part_fits(part.as_bytes(), name.as_bytes()) && fits(pattern, path)
        }
        _ => false,
    }
}

fn part_fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => (0..=name.len()).any(|skipped| part_fits(&pattern[1..], &name[skipped..])),
        (Some(b'?'), Some(_)) => part_fits(&pattern[1..], &name[1..]),
        (Some(a), Some(b)) => a == b && part_fits(&pattern[1..], &name[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_of_lines_are_cut_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, start: &[u8], bytes: usize| {
            let path = folder.path().join(name);
            fs_err::write(&path, [start, &vec![b' '; bytes - start.len()]].concat()).unwrap();
            path
        };
        // Compressed is what its bytes say, not its name.
        let files = [
            path("a.jsonl", b"", 201),
            path("b.jsonl", b"", 200),
            path("c.jsonl", &[0x1f, 0x8b], 999),
            path("d.txt", b"", 999),
        ];
        let ranges: Vec<_> = parts(&files, 100).unwrap().into_iter().map(|part| part.bytes).collect();
        assert_eq!(ranges, [Some(0..67), Some(67..134), Some(134..201), None, None, None]);
    }

    #[test]
    fn folders_and_patterns_name_their_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_string_lossy().into_owned();
        for name in ["b/2.jsonl", "b/1.jsonl", "a.txt", "b/c/3.jsonl", ".hidden", "b/x.warc.gz"] {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        let check = |input: &str, expected: &[&str]| {
            let found = expand(&[format!("{root}{input}")]).unwrap();
            let found: Vec<String> =
                found.iter().map(|path| path.to_string_lossy().replace(&format!("{root}/"), "")).collect();
            assert_eq!(found, expected, "{input}");
        };
        check("", &["a.txt", "b/1.jsonl", "b/2.jsonl", "b/c/3.jsonl", "b/x.warc.gz"]);
        check("/a.txt", &["a.txt"]);
        check("/b/*.jsonl", &["b/1.jsonl", "b/2.jsonl"]);
        check("/**/?.jsonl", &["b/1.jsonl", "b/2.jsonl", "b/c/3.jsonl"]);
        let error = expand(&[format!("{root}/*.none")]).unwrap_err().to_string();
        assert!(error.contains("names no file"), "{error}");
    }
}
