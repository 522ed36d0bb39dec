//! One shard of the input through the steps between two barriers.

use super::{Counting, Ready, TokenCounter};
use crate::document::Document;
use crate::error::CurateError;
use crate::funnel::Funnel;
use crate::minhash::{MinhashConfig, SignatureWriter, Signer};
use crate::read::{Part, read_part, write_line};
use crate::recipe::Step;
use fs_err as fs;
use serde_json::Value;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A stretch of steps without a barrier, and the barrier at its end.
#[derive(Debug)]
pub(super) struct Phase {
    /// Index of the first step in the recipe.
    pub(super) first: usize,
    pub(super) steps: Vec<Ready>,
    pub(super) barrier: Option<Step>,
}

/// What all shards of a phase share.
pub(super) struct Work<'a> {
    pub(super) phase: &'a Phase,
    /// Names of all steps of the recipe.
    pub(super) names: &'a [&'a str],
    /// Where the phase's documents go.
    pub(super) out: &'a Path,
    /// Where its signatures go.
    pub(super) signatures: &'a Path,
    /// Bytes of signatures that one worker may hold.
    pub(super) budget: usize,
    /// Whether what is written is the output, with the token count.
    pub(super) is_last: bool,
    pub(super) tokens: Option<TokenCounter<'a>>,
    pub(super) samples: usize,
    pub(super) stop: &'a AtomicBool,
    pub(super) documents: &'a AtomicU64,
}

/// The shape of the signature that a barrier compares.
pub(super) fn shape(barrier: &Step) -> MinhashConfig {
    match barrier {
        Step::MinhashDedup(config) => config.clone(),
        // The 128 bits of the text's hash as one bucket of two.
        _ => MinhashConfig { num_buckets: 1, hashes_per_bucket: 2, ..MinhashConfig::default() },
    }
}

/// Reads `input`, of which the documents numbered in `remove` are copies found by the barrier before; writes those that stay.
pub(super) fn shard(work: &Work, number: u32, input: &Part, remove: Option<&[u32]>) -> Result<Funnel, CurateError> {
    let name = format!("{number:06}.jsonl");
    let partial = work.out.join(format!("{name}.partial"));
    let file = fs::File::create(&partial).map_err(CurateError::write(&partial))?;
    let mut file = BufWriter::with_capacity(1 << 18, file);
    let mut counting = Counting::new(work.names, work.tokens, work.samples);
    let mut signing = match &work.phase.barrier {
        Some(barrier) => {
            Some((signer(barrier), SignatureWriter::new(work.signatures, number, &shape(barrier), work.budget)?))
        }
        None => None,
    };
    let mut damages = Vec::new();
    let (mut read, mut written, mut next_removed) = (0, 0, 0);
    let (mut signature, mut line) = (Vec::new(), Vec::new());
    let mut each = |mut document: Document| {
        if work.stop.load(Ordering::Relaxed) {
            return Err(CurateError::Stopped);
        }
        work.documents.fetch_add(1, Ordering::Relaxed);
        let index = read;
        read += 1;
        if let Some(remove) = remove {
            // The barrier is the step before this phase's first.
            let step = work.phase.first - 1;
            counting.scratch.forget();
            let (bytes, tokens) = (document.text.len(), counting.count(&document));
            counting.funnel.steps[step].input.add(bytes, tokens);
            if remove.get(next_removed) == Some(&index) {
                next_removed += 1;
                counting.drop(step, "duplicate", &document, bytes, tokens);
                return Ok(());
            }
            counting.funnel.steps[step].output.add(bytes, tokens);
        }
        let Some(tokens) = counting.pass(&work.phase.steps, work.phase.first, &mut document) else { return Ok(()) };
        if let Some((signer, writer)) = &mut signing
            && sign(signer.as_mut(), &document.text, &mut signature)
        {
            writer.push(written, &signature)?;
        }
        if work.is_last {
            let words = counting.scratch.word_count(&document.text).max(1);
            *counting.funnel.lengths.entry(words.ilog2()).or_default() += 1;
            if work.tokens.is_some() {
                document.metadata.insert("token_count".to_owned(), Value::from(tokens));
            }
        }
        line.clear();
        write_line(&document, &mut line);
        line.push(b'\n');
        written += 1;
        file.write_all(&line).map_err(CurateError::write(&partial))
    };
    read_part(input, &mut each, &mut |damage| damages.push(damage))?;
    if let Some((_, writer)) = signing {
        writer.finish()?;
    }
    let file =
        file.into_inner().map_err(|error| CurateError::Write { path: partial.clone(), source: error.into_error() })?;
    file.sync_all().map_err(CurateError::write(&partial))?;
    let whole = work.out.join(&name);
    fs::rename(&partial, &whole).map_err(CurateError::write(&whole))?;
    counting.funnel.damages = damages;
    Ok(counting.funnel)
}

fn signer(barrier: &Step) -> Option<Signer> {
    match barrier {
        Step::MinhashDedup(config) => Some(Signer::new(config.clone())),
        _ => None,
    }
}

fn sign(signer: Option<&mut Signer>, text: &str, signature: &mut Vec<u64>) -> bool {
    if let Some(signer) = signer {
        signer.sign(text, signature)
    } else {
        let hash = crate::text_hash(text);
        signature.clear();
        signature.extend([(hash >> 64) as u64, hash as u64]);
        true
    }
}

/// The inputs of a phase: those of the recipe, or what the phase before wrote.
pub(super) fn inputs_of(phase: usize, inputs: &[Part], work: &Path) -> Vec<Part> {
    if phase == 0 {
        return inputs.to_vec();
    }
    let file = |number| work.join(format!("phase-{}", phase - 1)).join(format!("{number:06}.jsonl"));
    (0..inputs.len()).map(|number| Part::whole(file(number))).collect()
}
