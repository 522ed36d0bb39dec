//! `cavy bench filters`: FineWeb's filters over JSONL, as the peer's script measures them.

use crate::error::CliError;
use crate::{Ending, text};
use cavy_curate::filters::fineweb_filters;
use cavy_curate::minhash::{MinhashConfig, Signer};
use cavy_curate::read::parse_line;
use cavy_curate::{Document, Reason, Scratch};
use clap::Args;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
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
        let parts: Vec<Mutex<Vec<Document>>> = documents.chunks(PART).map(|part| Mutex::new(part.to_vec())).collect();
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        let found: Vec<Verdicts> = std::thread::scope(|scope| {
            let worker = || measure(args.work, &parts, &next);
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
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

/// Documents that a worker takes at a time.
const PART: usize = 16;

/// What one worker finds: it takes parts until there are none.
fn measure(work: Work, parts: &[Mutex<Vec<Document>>], next: &AtomicUsize) -> Verdicts {
    match work {
        Work::Filters => {
            let (filters, mut scratch) = (fineweb_filters(), Scratch::default());
            each_document(parts, next, |document| {
                scratch.forget();
                filters.iter().find_map(|filter| filter.drops(document, &mut scratch)).unwrap_or("kept".into())
            })
        }
        Work::Minhash => {
            let (mut signer, mut signature) = (Signer::new(MinhashConfig::default()), Vec::new());
            each_document(parts, next, |document| {
                if signer.sign(&document.text, &mut signature) { "signed".into() } else { "short".into() }
            })
        }
        Work::Exact => {
            let mut seen: HashSet<u128> = HashSet::new();
            each_document(parts, next, |document| {
                if seen.insert(cavy_curate::text_hash(&document.text)) { "unique".into() } else { "copy".into() }
            })
        }
    }
}

fn each_document(
    parts: &[Mutex<Vec<Document>>],
    next: &AtomicUsize,
    mut verdict: impl FnMut(&mut Document) -> Reason,
) -> Verdicts {
    let mut verdicts = Verdicts::new();
    while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        for document in part.iter_mut() {
            let verdict = verdict(document);
            match verdicts.get_mut(&*verdict) {
                Some(count) => *count += 1,
                None => drop(verdicts.insert(verdict.into_owned(), 1)),
            }
        }
    }
    verdicts
}
