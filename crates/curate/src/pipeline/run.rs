//! A recipe from start to end: shards over workers and machines, markers of what is done, barriers where all must be.

use super::barrier::{self, Verdicts};
use super::shard::{Phase, Work, inputs_of, shard};
use super::{TokenCounter, prepare};
use crate::error::CurateError;
use crate::funnel::Funnel;
use crate::minhash::DuplicateSets;
use crate::read::{Part, expand, parts};
use crate::recipe::{Recipe, Step};
use fs_err as fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Larger files of lines are cut into parts of this size, a shard each.
const PART_BYTES: u64 = 64 << 20;

/// This machine's part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Workers.
    pub threads: usize,
    /// Which machine this is, of `world_size` that share the folder.
    pub rank: usize,
    /// How many machines there are.
    pub world_size: usize,
}

impl Default for Machine {
    fn default() -> Self {
        Self { threads: 1, rank: 0, world_size: 1 }
    }
}

/// How far the work is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The phase, of how many.
    pub phase: usize,
    /// How many phases there are.
    pub phases: usize,
    /// Shards of the phase that are done.
    pub done: usize,
    /// Shards of the phase.
    pub shards: usize,
    /// Documents read since the start.
    pub documents: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// All counts.
    pub funnel: Funnel,
    /// The files of the output, in order.
    pub files: Vec<PathBuf>,
    /// Documents that were read in this call, over all phases.
    pub documents_read: u64,
}

/// Runs `recipe`, paths in its steps from `base`. What an earlier call has done is not done again. The output does not depend on
/// `machine`: neither on threads nor on how many machines share the work.
///
/// Errors: those of the files and the recipe, a folder that another recipe wrote, and [`CurateError::Stopped`].
pub fn run(
    recipe: &Recipe,
    base: &Path,
    machine: Machine,
    tokens: Option<TokenCounter>,
    stop: &AtomicBool,
    progress: &(dyn Fn(&Progress) + Sync),
) -> Result<Outcome, CurateError> {
    recipe.check()?;
    let inputs = parts(&expand(&recipe.data)?, PART_BYTES)?;
    let out = recipe.out.clone();
    let work_folder = out.join("work");
    same_work(&work_folder, recipe, &inputs)?;
    let phases = phases(recipe, base)?;
    let names: Vec<&str> = recipe.steps.iter().map(crate::recipe::Step::name).collect();
    let documents = AtomicU64::new(0);
    let mut found: Option<(&Step, DuplicateSets)> = None;
    let mut funnel = Funnel::default();
    for (index, phase) in phases.iter().enumerate() {
        let is_last = index + 1 == phases.len();
        let out = if is_last { out.join("data") } else { work_folder.join(format!("phase-{index}")) };
        let signatures = work_folder.join(format!("signatures-{index}"));
        fs::create_dir_all(&out).map_err(CurateError::write(&out))?;
        let markers = work_folder.join(format!("done-{index}"));
        fs::create_dir_all(&markers).map_err(CurateError::write(&markers))?;
        let work = Work {
            phase,
            names: &names,
            out: &out,
            signatures: &signatures,
            budget: signature_bytes(recipe.memory_mb) / machine.threads.max(1),
            is_last,
            tokens,
            samples: recipe.samples,
            stop,
            documents: &documents,
        };
        let shards = inputs_of(index, &inputs, &work_folder);
        let report = |done| {
            progress(&Progress {
                phase: index,
                phases: phases.len(),
                done,
                shards: shards.len(),
                documents: documents.load(Ordering::Relaxed),
            });
        };
        share(&work, &shards, &markers, found.as_ref(), machine, &report)?;
        wait_for(&markers, shards.len(), stop, &report)?;
        for number in 0..shards.len() {
            funnel.merge(read_json(&marker(&markers, number))?, recipe.samples);
        }
        found = None;
        if let Some(barrier) = &phase.barrier {
            let find = || barrier::find(barrier, &signatures, base, shards.len(), signature_bytes(recipe.memory_mb));
            let sets = duplicates(&work_folder, index, &find, machine.rank, stop)?;
            sets.sizes.iter().for_each(|(&size, &count)| *funnel.cluster_sizes.entry(size).or_default() += count);
            found = Some((barrier, sets));
        }
    }
    let files = (0..inputs.len()).map(|number| out.join("data").join(format!("{number:06}.jsonl"))).collect();
    Ok(Outcome { funnel, files, documents_read: documents.load(Ordering::Relaxed) })
}

/// Bytes of signatures in memory: half of what the program itself, which takes some tens of megabytes, leaves of the budget.
/// Documents and buffers have the rest.
fn signature_bytes(memory_mb: usize) -> usize {
    memory_mb.saturating_sub(48).max(memory_mb / 4) << 19
}

/// The steps between the barriers. There is always a phase after the last barrier, which writes the output.
fn phases(recipe: &Recipe, base: &Path) -> Result<Vec<Phase>, CurateError> {
    let mut phases = vec![Phase { first: 0, steps: Vec::new(), barrier: None }];
    for (index, step) in recipe.steps.iter().enumerate() {
        let last = phases.last_mut().expect("there is one from the start");
        if let Some(ready) = prepare(step, base)? {
            last.steps.push(ready);
        } else {
            last.barrier = Some(step.clone());
            phases.push(Phase { first: index + 1, steps: Vec::new(), barrier: None });
        }
    }
    Ok(phases)
}

/// Refuses to go on in a folder where another recipe, or other inputs, were at work.
fn same_work(folder: &Path, recipe: &Recipe, inputs: &[Part]) -> Result<(), CurateError> {
    fs::create_dir_all(folder).map_err(CurateError::write(folder))?;
    let path = folder.join("recipe.toml");
    let line = |part: &Part| match &part.bytes {
        None => format!("# {}", part.path.display()),
        Some(bytes) => format!("# {} bytes {}..{}", part.path.display(), bytes.start, bytes.end),
    };
    let list: Vec<String> = inputs.iter().map(line).collect();
    // Memory does not change what is written.
    let decided = Recipe { memory_mb: 0, ..recipe.clone() };
    let text = toml::to_string(&decided)
        .map_err(|error| CurateError::Recipe { found: error.to_string(), hint: "report this".into() })?;
    let text = format!("{text}\n# Inputs:\n{}\n", list.join("\n"));
    if path.exists() {
        let found = fs::read_to_string(&path).map_err(CurateError::read(&path))?;
        if found != text {
            return Err(CurateError::Recipe {
                found: format!("{} holds the work of another recipe or of other inputs", folder.display()),
                hint: "choose another `out`, or delete that folder".to_owned(),
            });
        }
        return Ok(());
    }
    write_whole(&path, text.as_bytes())
}

fn marker(markers: &Path, number: usize) -> PathBuf {
    markers.join(format!("{number:06}.json"))
}

/// Does this machine's shards of a phase that are not done, on its threads.
fn share(
    work: &Work,
    shards: &[Part],
    markers: &Path,
    found: Option<&(&Step, DuplicateSets)>,
    machine: Machine,
    report: &(dyn Fn(usize) + Sync),
) -> Result<(), CurateError> {
    let mine: Vec<usize> =
        (0..shards.len()).filter(|number| number % machine.world_size.max(1) == machine.rank).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failure: Mutex<Option<CurateError>> = Mutex::new(None);
    let failed = || failure.lock().is_ok_and(|failure| failure.is_some());
    let worker = || {
        while let Some(&number) = mine.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed() {
                return;
            }
            let path = marker(markers, number);
            let verdicts = found.map(|(barrier, sets)| Verdicts::of(barrier, sets, number as u32));
            let result = if path.exists() {
                Ok(())
            } else {
                shard(work, number as u32, &shards[number], verdicts).and_then(|funnel| write_json(&path, &funnel))
            };
            if let Err(error) = result {
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(error);
                }
                return;
            }
            report(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..machine.threads.max(1) {
            scope.spawn(worker);
        }
        worker();
    });
    failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Waits until the other machines have done their shards, too.
fn wait_for(
    markers: &Path,
    shards: usize,
    stop: &AtomicBool,
    report: &(dyn Fn(usize) + Sync),
) -> Result<(), CurateError> {
    loop {
        let done = (0..shards).filter(|&number| marker(markers, number).exists()).count();
        if done == shards {
            return Ok(());
        }
        report(done);
        pause(stop)?;
    }
}

fn pause(stop: &AtomicBool) -> Result<(), CurateError> {
    if stop.load(Ordering::Relaxed) {
        return Err(CurateError::Stopped);
    }
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

/// The copies that the signatures of a phase show; the first machine finds them, the others read what it found.
fn duplicates(
    work: &Path,
    index: usize,
    find: &dyn Fn() -> Result<DuplicateSets, CurateError>,
    rank: usize,
    stop: &AtomicBool,
) -> Result<DuplicateSets, CurateError> {
    let path = work.join(format!("duplicates-{index}.json"));
    while !path.exists() {
        if rank == 0 {
            write_json(&path, &find()?)?;
        } else {
            pause(stop)?;
        }
    }
    read_json(&path)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), CurateError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| CurateError::Format { path: path.to_owned(), found: error.to_string() })?;
    write_whole(path, &bytes)
}

/// Writes a file aside and gives it its name when it is whole.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), CurateError> {
    // Machines, or threads, that write the same file at once each have an own name until then.
    static WRITES: AtomicUsize = AtomicUsize::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_extension(format!("{}-{number}.partial", std::process::id()));
    fs::write(&partial, bytes).map_err(CurateError::write(&partial))?;
    fs::rename(&partial, path).map_err(CurateError::write(path))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CurateError> {
    let bytes = fs::read(path).map_err(CurateError::read(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| CurateError::Format { path: path.to_owned(), found: error.to_string() })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
