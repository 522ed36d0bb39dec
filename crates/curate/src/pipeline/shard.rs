//! One shard of the input through the steps between two barriers.

use super::barrier::{Signing, Verdicts};
use super::{Counting, Done, Ready, TokenCounter};
use crate::document::Document;
use crate::error::CurateError;
use crate::funnel::Funnel;
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

/// Reads `input`, of whose documents the barrier before has said what `verdicts` hold; writes those that stay.
pub(super) fn shard(
    work: &Work,
    number: u32,
    input: &Part,
    mut verdicts: Option<Verdicts>,
) -> Result<Funnel, CurateError> {
    let name = format!("{number:06}.jsonl");
    let partial = work.out.join(format!("{name}.partial"));
    let file = fs::File::create(&partial).map_err(CurateError::write(&partial))?;
    let mut file = BufWriter::with_capacity(1 << 18, file);
    let mut counting = Counting::new(work.names, work.tokens, work.samples);
    let mut signing = match &work.phase.barrier {
        Some(barrier) => Signing::new(barrier, work.signatures, number, work.budget)?,
        None => None,
    };
    let mut damages = Vec::new();
    let (mut read, mut written) = (0, 0);
    let (mut signature, mut line) = (Vec::new(), Vec::new());
    let mut each = |mut document: Document| {
        if work.stop.load(Ordering::Relaxed) {
            return Err(CurateError::Stopped);
        }
        work.documents.fetch_add(1, Ordering::Relaxed);
        let index = read;
        read += 1;
        if let Some(verdicts) = &mut verdicts {
            // The barrier is the step before this phase's first.
            let step = work.phase.first - 1;
            counting.scratch.forget();
            let (bytes, mut tokens) = (document.text.len(), counting.count(&document));
            counting.funnel.steps[step].input.add(bytes, tokens);
            match verdicts.apply(index, &mut document) {
                Done::Dropped(reason) => {
                    counting.drop(step, &reason, &document, bytes, tokens);
                    return Ok(());
                }
                Done::Changed => {
                    counting.scratch.forget();
                    tokens = counting.count(&document);
                    counting.funnel.steps[step].changed += 1;
                }
                Done::Same => {}
            }
            counting.funnel.steps[step].output.add(document.text.len(), tokens);
        }
        let Some(tokens) = counting.pass(&work.phase.steps, work.phase.first, &mut document) else { return Ok(()) };
        if let Some(signing) = &mut signing {
            signing.push(written, &document, &mut signature)?;
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
    if let Some(signing) = signing {
        signing.finish()?;
    }
    let file =
        file.into_inner().map_err(|error| CurateError::Write { path: partial.clone(), source: error.into_error() })?;
    file.sync_all().map_err(CurateError::write(&partial))?;
    let whole = work.out.join(&name);
    fs::rename(&partial, &whole).map_err(CurateError::write(&whole))?;
    counting.funnel.damages = damages;
    Ok(counting.funnel)
}

/// The inputs of a phase: those of the recipe, or what the phase before wrote.
pub(super) fn inputs_of(phase: usize, inputs: &[Part], work: &Path) -> Vec<Part> {
    if phase == 0 {
        return inputs.to_vec();
    }
    let file = |number| work.join(format!("phase-{}", phase - 1)).join(format!("{number:06}.jsonl"));
    (0..inputs.len()).map(|number| Part::whole(file(number))).collect()
}
