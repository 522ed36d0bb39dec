//! `cavy bench filters`: FineWeb's filters over JSONL, as the peer's script measures them.

use crate::error::CliError;
use crate::{Ending, text};
use cavy_curate::filters::fineweb_filters;
use cavy_curate::minhash::{MinhashConfig, Signer};
use cavy_curate::read::parse_line;
use cavy_curate::{Document, Scratch};
use clap::Args;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct FiltersArgs {
    /// JSONL of `{"text": ...}`
    #[arg(long)]
    data: PathBuf,
    /// Documents to read at most
    #[arg(long, default_value_t = 2000)]
    limit: usize,
    /// Workers
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Timed passes, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Work::Filters)]
    work: Work,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// Gopher repetition, Gopher quality, C4 and FineWeb
    Filters,
    /// MinHash signatures
    Minhash,
    /// Exact copies: hashing and looking up
    Exact,
}

type Verdicts = BTreeMap<String, usize>;

/// Measures.
pub(crate) fn run(args: &FiltersArgs) -> Result<Ending, CliError> {
    let content = fs_err::read(&args.data).map_err(CliError::read(&args.data))?;
    let mut documents = Vec::new();
    for (number, line) in
        content.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).take(args.limit).enumerate()
    {
        let parsed = parse_line(line).map_err(|found| {
            CliError::failed(
                format!("{}: line {}: {found}", args.data.display(), number + 1),
                "each line is an object with `text`",
            )
        });
        documents.push(parsed?);
    }
    if documents.is_empty() {
        return Err(CliError::usage(
            format!("{} has no documents", args.data.display()),
            "each line is an object with `text`",
        ));
    }
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    let threads = args.threads.max(1);
    let mut best = f64::INFINITY;
    let mut verdicts = Verdicts::new();
    for _ in 0..args.runs.max(1) {
        // Filters change texts, so each pass has copies of its own, made before the clock starts.
        let part = documents.len().div_ceil(threads);
        let mut parts: Vec<Vec<Document>> = documents.chunks(part).map(<[Document]>::to_vec).collect();
        let start = Instant::now();
        let found: Vec<Verdicts> = std::thread::scope(|scope| {
            let workers: Vec<_> = parts.iter_mut().map(|part| scope.spawn(move || measure(args.work, part))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_default()).collect()
        });
        best = best.min(start.elapsed().as_secs_f64());
        verdicts.clear();
        for (verdict, count) in found.into_iter().flatten() {
            *verdicts.entry(verdict).or_default() += count;
        }
    }
    let (rate, speed) = (documents.len() as f64 / best, bytes as f64 / 1e6 / best);
    if args.json {
        let json = serde_json::json!({
            "tool": "cavy", "docs_per_s": rate, "mb_per_s": speed, "verdicts": verdicts, "threads": threads, "peak_mb": super::peak_memory_mb(),
        });
        text::data(&json.to_string());
    } else {
        text::data(&format!("{rate:.0} documents/s, {speed:.1} MB/s, {threads} workers"));
        verdicts.iter().for_each(|(verdict, count)| text::data(&format!("{count:>8} {verdict}")));
    }
    Ok(Ending::Done)
}

fn measure(work: Work, documents: &mut [Document]) -> Verdicts {
    let mut verdicts = Verdicts::new();
    match work {
        Work::Filters => {
            let (filters, mut scratch) = (fineweb_filters(), Scratch::default());
            for document in documents {
                scratch.forget();
                let reason = filters.iter().find_map(|filter| filter.drops(document, &mut scratch));
                let verdict = reason.as_deref().unwrap_or("kept");
                match verdicts.get_mut(verdict) {
                    Some(count) => *count += 1,
                    None => drop(verdicts.insert(verdict.to_owned(), 1)),
                }
            }
        }
        Work::Minhash => {
            let (mut signer, mut signature) = (Signer::new(MinhashConfig::default()), Vec::new());
            let signed = documents.iter().filter(|document| signer.sign(&document.text, &mut signature)).count();
            verdicts.insert("signed".to_owned(), signed);
        }
        Work::Exact => {
            let mut seen: HashSet<u128> = HashSet::new();
            let unique =
                documents.iter().filter(|document| seen.insert(cavy_curate::text_hash(&document.text))).count();
            verdicts.insert("unique".to_owned(), unique);
        }
    }
    verdicts
}
