//! From signatures to sets of duplicates, with files in between: memory is bounded by the budget, whatever the corpus.
//!
//! Stage 1 writes sorted runs of records per bucket, stage 2 merges the runs of a bucket and pairs equal neighbours, stage 3
//! joins the pairs, stage 4 (the reader's) leaves out all members of a set but its first.

use super::MinhashConfig;
use crate::clusters::Clusters;
use crate::error::CurateError;
use fs_err as fs;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of signatures for which room is made beforehand, at most.
const RESERVED_BYTES: usize = 256 << 20;

/// Stage 1 of one shard: takes signatures, writes them sorted.
#[derive(Debug)]
pub struct SignatureWriter {
    folder: PathBuf,
    shard: u32,
    config: MinhashConfig,
    /// Signatures that wait, one after another, and whose they are.
    waiting: Vec<u64>,
    documents: Vec<u32>,
    /// Documents of a run.
    run_documents: usize,
    runs: usize,
}

impl SignatureWriter {
    /// Writes into `folder`, at most `budget_bytes` of signatures in memory. What an earlier writer of the shard left goes.
    ///
    /// Errors: if the folder cannot be made or emptied.
    pub fn new(folder: &Path, shard: u32, config: &MinhashConfig, budget_bytes: usize) -> Result<Self, CurateError> {
        for bucket in 0..config.num_buckets {
            let bucket = folder.join(bucket_name(bucket));
            fs::create_dir_all(&bucket).map_err(CurateError::write(folder))?;
            // What a call that was killed has left: with another budget it would not be written over.
            for left in (0..).map(|run| bucket.join(run_name(shard, run))).take_while(|left| left.exists()) {
                fs::remove_file(&left).map_err(CurateError::write(&left))?;
            }
        }
        let bytes = config.num_buckets * config.hashes_per_bucket * 8 + 4;
        // Sorting takes the order of one bucket besides.
        let run_documents = (budget_bytes / (bytes + 8)).max(64);
        // All at once, since a vector that grows is there twice while it moves.
        let reserved = run_documents.min(RESERVED_BYTES / bytes);
        Ok(Self {
            folder: folder.to_owned(),
            shard,
            config: config.clone(),
            waiting: Vec::with_capacity(reserved * config.num_buckets * config.hashes_per_bucket),
            documents: Vec::with_capacity(reserved),
            run_documents,
            runs: 0,
        })
    }

    /// The signature of a document.
    ///
    /// Errors: if a full run cannot be written.
    pub fn push(&mut self, document: u32, signature: &[u64]) -> Result<(), CurateError> {
        self.waiting.extend_from_slice(signature);
        self.documents.push(document);
        if self.documents.len() >= self.run_documents { self.write_run() } else { Ok(()) }
    }

    /// Writes what waits.
    ///
    /// Errors: if it cannot be written.
    pub fn finish(mut self) -> Result<(), CurateError> {
        if self.documents.is_empty() { Ok(()) } else { self.write_run() }
    }

    fn write_run(&mut self) -> Result<(), CurateError> {
        let (width, r) = (self.config.num_buckets * self.config.hashes_per_bucket, self.config.hashes_per_bucket);
        let mut order: Vec<u32> = (0..self.documents.len() as u32).collect();
        for bucket in 0..self.config.num_buckets {
            let key = |index: u32| {
                let start = index as usize * width + bucket * r;
                &self.waiting[start..start + r]
            };
            order.sort_unstable_by(|&i, &j| {
                key(i).cmp(key(j)).then_with(|| self.documents[i as usize].cmp(&self.documents[j as usize]))
            });
            let path = self.folder.join(bucket_name(bucket)).join(run_name(self.shard, self.runs));
            let file = fs::File::create(&path).map_err(CurateError::write(&path))?;
            let mut file = BufWriter::with_capacity(1 << 18, file);
            let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(CurateError::write(&path));
            for &index in &order {
                for &hash in key(index) {
                    write(&hash.to_le_bytes())?;
                }
                write(&self.documents[index as usize].to_le_bytes())?;
            }
            file.flush().map_err(CurateError::write(&path))?;
        }
        self.waiting.clear();
        self.documents.clear();
        self.runs += 1;
        Ok(())
    }
}

pub(crate) fn bucket_name(bucket: usize) -> String {
    format!("bucket_{bucket:03}")
}

fn run_name(shard: u32, run: usize) -> String {
    format!("{shard:06}-{run:04}.minhash.sig")
}

/// What stage 3 found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DuplicateSets {
    /// Per shard the documents to leave out, in order.
    pub remove: HashMap<u32, Vec<u32>>,
    /// How many sets there are of each size.
    pub sizes: std::collections::BTreeMap<usize, usize>,
    /// Per shard the documents that stay and how many copies of each go, in order; where that was asked for.
    #[serde(default)]
    pub copies: HashMap<u32, Vec<(u32, u32)>>,
    /// Per shard documents, and sentences at which a run begins that is left out of them, in order.
    #[serde(default)]
    pub sentences: HashMap<u32, Vec<(u32, u32)>>,
}

impl DuplicateSets {
    /// Leaves the first member of every set.
    pub(crate) fn of(clusters: &mut Clusters) -> Self {
        let mut sets = Self::default();
        let mut by_root: HashMap<u64, usize> = HashMap::new();
        for (name, root) in clusters.members() {
            *by_root.entry(root).or_default() += 1;
            if name != root {
                sets.remove.entry((name >> 32) as u32).or_default().push(name as u32);
            }
        }
        by_root.values().for_each(|&size| *sets.sizes.entry(size).or_default() += 1);
        sets
    }
}

/// Stages 2 and 3 over the files of stage 1, with at most about `memory_bytes` for reading them.
///
/// Errors: if a file cannot be read or its records are not in order.
pub fn find_duplicates(
    folder: &Path,
    config: &MinhashConfig,
    memory_bytes: usize,
) -> Result<DuplicateSets, CurateError> {
    let mut clusters = Clusters::default();
    for bucket in 0..config.num_buckets {
        let folder = folder.join(bucket_name(bucket));
        merge_bucket(&folder, config.hashes_per_bucket, memory_bytes, &mut |last, record| {
            if let Some(last) = last.filter(|last| last.0 == record.0) {
                clusters.join(name(last), name(record));
            }
        })?;
    }
    Ok(DuplicateSets::of(&mut clusters))
}

/// One file of sorted records.
struct Run {
    path: PathBuf,
    shard: u32,
    file: BufReader<fs::File>,
    record: Vec<u8>,
}

/// The numbers of a signature, and the shard and number of the document.
pub(crate) type Record = (Vec<u64>, u32, u32);

impl Run {
    fn next(&mut self) -> Result<Option<Record>, CurateError> {
        let mut filled = 0;
        while filled < self.record.len() {
            let read = self.file.read(&mut self.record[filled..]).map_err(CurateError::read(&self.path))?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        if filled == 0 {
            return Ok(None);
        }
        if filled < self.record.len() {
            return Err(CurateError::Signatures { path: self.path.clone(), found: "its last record is cut off" });
        }
        let (hashes, document) = self.record.split_at(self.record.len() - 4);
        let hashes =
            hashes.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes"))).collect();
        Ok(Some((hashes, self.shard, u32::from_le_bytes(document.try_into().expect("four bytes")))))
    }
}

/// Hands the records of all runs in `folder` to `each`, in order, each with the one before.
///
/// Errors: if a file cannot be read or its records are not in order.
pub(crate) fn merge_bucket(
    folder: &Path,
    hashes: usize,
    memory_bytes: usize,
    each: &mut dyn FnMut(Option<&Record>, &Record),
) -> Result<(), CurateError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(CurateError::read(folder))? {
        paths.push(entry.map_err(CurateError::read(folder))?.path());
    }
    paths.sort();
    let buffer_bytes = (memory_bytes / paths.len().max(1)).clamp(1 << 12, 1 << 18);
    let mut runs = Vec::with_capacity(paths.len());
    let mut heap = BinaryHeap::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(shard) =
            name.get(..6).and_then(|digits| digits.parse().ok()).filter(|_| name.ends_with(".minhash.sig"))
        else {
            continue;
        };
        let file = BufReader::with_capacity(buffer_bytes, fs::File::open(&path).map_err(CurateError::read(&path))?);
        let mut run = Run { path, shard, file, record: vec![0; hashes * 8 + 4] };
        if let Some(record) = run.next()? {
            heap.push(Reverse((record, runs.len())));
            runs.push(run);
        }
    }
    let mut last: Option<Record> = None;
    while let Some(Reverse((record, run))) = heap.pop() {
        if last.as_ref().is_some_and(|last| *last > record) {
            return Err(CurateError::Signatures {
                path: runs[run].path.clone(),
                found: "its records are not in order",
            });
        }
        each(last.as_ref(), &record);
        if let Some(next) = runs[run].next()? {
            heap.push(Reverse((next, run)));
        }
        last = Some(record);
    }
    Ok(())
}

fn name((_, shard, document): &Record) -> u64 {
    u64::from(*shard) << 32 | u64::from(*document)
}
