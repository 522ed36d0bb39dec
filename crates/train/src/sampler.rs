//! Which tokens a step sees: a function of the settings, the seed and the step's number.

use crate::TrainError;
use crate::settings::{OptimizationSettings, PretrainSettings, WindowOrder};
use cavy_model::Pass;
use cavy_ops::Segments;
use cavy_text::order::{Epoch, Order};
use cavy_text::rng::hash3;
use cavy_text::{RandomWindows, TokenStore, Windows};
use std::sync::Arc;

/// Separates the sampler's random numbers from others of the same seed.
const PURPOSE: u64 = 0x5A3B;

/// Inputs and targets of a number of windows, packed on one token axis.
///
/// Shapes: `ids` and `targets` are `(N)`, the segments' tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Input tokens.
    pub ids: Arc<[u32]>,
    /// The token that follows each.
    pub targets: Arc<[u32]>,
    /// Which targets carry loss; `None` where all do.
    pub trained: Option<Arc<[bool]>>,
    /// Where the windows lie.
    pub segments: Arc<Segments>,
}

impl Batch {
    /// Segments of tokens, with the targets that `trained` tells carrying loss.
    ///
    /// Panics: if the lengths do not agree.
    pub fn masked(ids: Vec<u32>, targets: Vec<u32>, trained: Vec<bool>, segments: Segments) -> Self {
        assert!(ids.len() == segments.tokens() && trained.len() == targets.len() && ids.len() == targets.len());
        Self { ids: ids.into(), targets: targets.into(), trained: Some(trained.into()), segments: Arc::new(segments) }
    }

    /// Tokens that the model reads.
    pub fn tokens(&self) -> usize {
        self.targets.len()
    }

    /// Tokens that carry loss.
    pub fn trained_tokens(&self) -> usize {
        let trained = |trained: &Arc<[bool]>| trained.iter().filter(|&&trained| trained).count();
        self.trained.as_ref().map_or(self.targets.len(), trained)
    }

    /// `weight` for every token that carries loss, 0 for any other.
    pub fn weights(&self, weight: f32) -> Vec<f32> {
        match &self.trained {
            None => vec![weight; self.targets.len()],
            Some(trained) => trained.iter().map(|&trained| if trained { weight } else { 0.0 }).collect(),
        }
    }

    /// The forward pass over these tokens.
    pub fn pass(&self, dropout_key: Option<u64>) -> Pass {
        Pass::new(Arc::clone(&self.ids), Arc::clone(&self.segments), dropout_key)
    }

    /// `count` windows of `context` tokens, of which `copy` writes inputs and targets.
    fn gather(context: usize, count: usize, mut copy: impl FnMut(usize, &mut [u32], &mut [u32])) -> Self {
        let (mut ids, mut targets) = (vec![0; count * context], vec![0; count * context]);
        let rows = ids.chunks_mut(context).zip(targets.chunks_mut(context));
        rows.enumerate().for_each(|(row, (ids, targets))| copy(row, ids, targets));
        let segments = Arc::new(Segments::uniform(count, context));
        Self { ids: ids.into(), targets: targets.into(), trained: None, segments }
    }
}

/// The order in which a run sees its training text, stateless: any step can be asked for first.
#[derive(Debug)]
pub struct Sampler {
    windows: Windows,
    source: Source,
    batch_size: usize,
    steps_per_epoch: usize,
}

#[derive(Debug)]
enum Source {
    /// Epochs over all windows; the latest epoch's order is kept, since making it takes a pass over all indices.
    Epochs(Order, Option<(usize, Epoch)>),
    /// So many windows a step, anywhere.
    Random(RandomWindows, usize),
}

impl Sampler {
    /// The sampler of a run on so many tokens of training text.
    ///
    /// Errors: the text has not one window, or too few for one step.
    pub fn new(settings: &PretrainSettings, train_tokens: usize) -> Result<Self, TrainError> {
        let (context, per_step) = (settings.context_length, settings.optimization.examples_per_step());
        let stride = settings.stride_tokens();
        let windows = windows("training", train_tokens, context, stride)?;
        let seed = hash3(settings.run.seed, PURPOSE, 0);
        let shuffle = (settings.window_order == WindowOrder::Shuffled).then_some(seed);
        let order = Order::new(windows.count(), per_step, settings.drop_last, shuffle);
        let (source, steps_per_epoch) = if settings.window_order == WindowOrder::Random {
            let per_epoch = (train_tokens / (per_step * context)).max(1);
            (Source::Random(RandomWindows::new(train_tokens, context, seed)?, per_step), per_epoch)
        } else {
            (Source::Epochs(order, None), order.batches_per_epoch())
        };
        if steps_per_epoch == 0 {
            return Err(TrainError::TooFewWindows { windows: windows.count(), context, needed: per_step });
        }
        Ok(Self { windows, source, batch_size: settings.optimization.batch_size, steps_per_epoch })
    }

    /// Optimizer steps in one pass over the text. At random offsets: the steps that see as many tokens as it has.
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// The micro-batches of step `step`, counted from 0: windows in order, `batch_size` at a time.
    ///
    /// Law: `grad_accum_steps` of `batch_size` hold the windows of one micro-batch of their product, in the same order.
    pub fn step(&mut self, store: &TokenStore, step: usize) -> Vec<Batch> {
        let (context, windows, batch_size) = (self.windows.context(), self.windows, self.batch_size);
        match &mut self.source {
            Source::Random(random, per_step) => {
                let rows: Vec<usize> = (0..*per_step).collect();
                let gather = |rows: &[usize]| {
                    Batch::gather(context, rows.len(), |row, ids, targets| {
                        random.copy(store, step, rows[row], ids, targets);
                    })
                };
                rows.chunks(batch_size).map(gather).collect()
            }
            Source::Epochs(order, latest) => {
                let (epoch, batch) = order.locate(step);
                if latest.as_ref().is_none_or(|(known, _)| *known != epoch) {
                    *latest = Some((epoch, order.epoch(epoch)));
                }
                let indices = latest.as_ref().map_or(&[][..], |(_, order)| order.batch(batch));
                let gather = |indices: &[usize]| {
                    Batch::gather(context, indices.len(), |row, ids, targets| {
                        windows.copy(store, indices[row], ids, targets);
                    })
                };
                indices.chunks(batch_size).map(gather).collect()
            }
        }
    }
}

/// The order in which a run meets examples, stateless: any step can be asked for first.
#[derive(Debug)]
pub struct Items {
    order: Order,
    latest: Option<(usize, Epoch)>,
    batch_size: usize,
}

impl Items {
    /// The order of `count` examples; `shuffle` is the seed of another one each epoch, or `None` for theirs.
    ///
    /// Errors: there are too few examples for one step.
    pub fn new(
        settings: &OptimizationSettings,
        count: usize,
        drop_last: bool,
        shuffle: Option<u64>,
    ) -> Result<Self, TrainError> {
        let needed = settings.examples_per_step();
        let order = Order::new(count, needed, drop_last, shuffle);
        if order.batches_per_epoch() == 0 {
            return Err(TrainError::TooFewExamples { examples: count, needed });
        }
        Ok(Self { order, latest: None, batch_size: settings.batch_size })
    }

    /// Optimizer steps in one pass over the examples.
    pub fn steps_per_epoch(&self) -> usize {
        self.order.batches_per_epoch()
    }

    /// The examples of step `step`, counted from 0, in micro-batches.
    pub fn step(&mut self, step: usize) -> Vec<Vec<usize>> {
        let (epoch, batch) = self.order.locate(step);
        if self.latest.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.latest = Some((epoch, self.order.epoch(epoch)));
        }
        let indices = self.latest.as_ref().map_or(&[][..], |(_, order)| order.batch(batch));
        indices.chunks(self.batch_size).map(<[usize]>::to_vec).collect()
    }
}

/// The windows of a split, or an error that says which split is too short and what would do.
pub(crate) fn windows(
    split: &'static str,
    tokens: usize,
    context: usize,
    stride: usize,
) -> Result<Windows, TrainError> {
    if tokens <= context {
        let shorter = format!("choose a `context_length` of at most {}", tokens.saturating_sub(1));
        let way_out = match (tokens, split) {
            (0 | 1, _) => "name other files in `data`".to_owned(),
            (_, "validation") => format!("raise `val_fraction`, or {shorter}"),
            _ => shorter,
        };
        return Err(TrainError::TooShort { split, tokens, context, needed: context + 1, way_out });
    }
    Ok(Windows::new(tokens, context, stride)?)
}

/// The first `limit` batches (0: all) of `store` in the order of the text, windows side by side, the last one as short
/// as it comes out.
///
/// Errors: as [`Sampler::new`], with the name of the split.
pub(crate) fn in_order<'a>(
    split: &'static str,
    store: &'a TokenStore,
    (context, batch_size, limit): (usize, usize, usize),
) -> Result<impl Iterator<Item = Batch> + 'a, TrainError> {
    let windows = windows(split, store.len(), context, context)?;
    let starts = (0..windows.count()).step_by(batch_size);
    let batches = starts.map(move |first| {
        let count = batch_size.min(windows.count() - first);
        Batch::gather(context, count, |row, ids, targets| windows.copy(store, first + row, ids, targets))
    });
    Ok(batches.take(if limit == 0 { usize::MAX } else { limit }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OptimizationSettings;

    fn store(tokens: u32) -> TokenStore {
        TokenStore::from_tokens((0..tokens).collect(), tokens as usize, u64::from(tokens)).unwrap()
    }

    fn settings(window_order: WindowOrder) -> PretrainSettings {
        sized(2, 1, PretrainSettings { context_length: 4, window_order, ..PretrainSettings::default() })
    }

    fn sized(batch_size: usize, grad_accum_steps: usize, settings: PretrainSettings) -> PretrainSettings {
        let optimization = OptimizationSettings { batch_size, grad_accum_steps, ..settings.optimization.clone() };
        PretrainSettings { optimization, ..settings }
    }

    /// First input of every window of a step.
    fn starts(batches: &[Batch]) -> Vec<u32> {
        batches.iter().flat_map(|batch| batch.ids.iter().step_by(4)).copied().collect()
    }

    #[test]
    fn an_epoch_sees_every_window_once_and_targets_follow_inputs() {
        let store = store(41);
        let mut sampler = Sampler::new(&settings(WindowOrder::Shuffled), store.len()).unwrap();
        assert_eq!(sampler.steps_per_epoch(), 5);
        for epoch in 0..2 {
            let mut seen = Vec::new();
            for step in 0..5 {
                let batches = sampler.step(&store, epoch * 5 + step);
                assert!(batches.iter().all(|b| b.targets.iter().zip(&*b.ids).all(|(target, id)| *target == id + 1)));
                seen.extend(starts(&batches));
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..10).map(|window| window * 4).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn a_step_is_the_same_whichever_was_asked_before() {
        let store = store(200);
        for order in [WindowOrder::Shuffled, WindowOrder::Sequential, WindowOrder::Random] {
            let mut straight = Sampler::new(&settings(order), store.len()).unwrap();
            let all: Vec<Vec<Batch>> = (0..60).map(|step| straight.step(&store, step)).collect();
            let mut resumed = Sampler::new(&settings(order), store.len()).unwrap();
            for step in [37, 3, 59] {
                assert_eq!(resumed.step(&store, step), all[step], "{order:?}, step {step}");
            }
            let differing = all.iter().filter(|batches| **batches != all[0]).count();
            assert!(differing > 50, "{order:?}: {differing}");
        }
    }

    #[test]
    fn accumulated_micro_batches_are_the_windows_of_one_large_batch() {
        let store = store(200);
        for order in [WindowOrder::Shuffled, WindowOrder::Random] {
            let many = sized(3, 4, settings(order));
            let one = sized(12, 1, settings(order));
            let parts = Sampler::new(&many, store.len()).unwrap().step(&store, 2);
            let whole = Sampler::new(&one, store.len()).unwrap().step(&store, 2);
            assert_eq!((parts.len(), whole.len()), (4, 1));
            assert_eq!(starts(&parts), starts(&whole));
        }
    }

    #[test]
    fn a_last_batch_that_is_not_full_is_left_out_or_taken_as_it_is() {
        let store = store(46);
        let kept = PretrainSettings { drop_last: false, ..sized(4, 1, settings(WindowOrder::Sequential)) };
        let mut sampler = Sampler::new(&kept, store.len()).unwrap();
        assert_eq!(sampler.steps_per_epoch(), 3);
        assert_eq!(starts(&sampler.step(&store, 2)), [32, 36, 40]);
        let dropped = PretrainSettings { drop_last: true, ..kept };
        assert_eq!(Sampler::new(&dropped, store.len()).unwrap().steps_per_epoch(), 2);
    }

    #[test]
    fn text_that_is_too_short_is_told_apart_by_split_and_reason() {
        let error = |tokens, batch_size| {
            let settings = sized(batch_size, 1, settings(WindowOrder::Shuffled));
            Sampler::new(&settings, tokens).unwrap_err().to_string()
        };
        insta::assert_snapshot!(error(4, 2), @"the training text is too short: it has 4 tokens, a context of 4 needs at least 5, hint: give more text, or choose a `context_length` of at most 3");
        insta::assert_snapshot!(error(13, 4), @"the training text makes 3 windows of 4 tokens, one step takes 4, hint: lower `batch_size` or `grad_accum_steps`, or set `drop_last = false`");
        let store = store(3);
        let error = in_order("validation", &store, (4, 2, 0)).err().unwrap().to_string();
        insta::assert_snapshot!(error, @"the validation text is too short: it has 3 tokens, a context of 4 needs at least 5, hint: give more text, or raise `val_fraction`, or choose a `context_length` of at most 2");
    }

    #[test]
    fn evaluation_takes_the_first_batches_in_the_order_of_the_text() {
        let store = store(31);
        let first: Vec<Batch> = in_order("validation", &store, (4, 3, 2)).unwrap().collect();
        assert_eq!(starts(&first), [0, 4, 8, 12, 16, 20]);
        let all: Vec<Batch> = in_order("validation", &store, (4, 3, 0)).unwrap().collect();
        assert_eq!(all.iter().map(Batch::tokens).collect::<Vec<_>>(), [12, 12, 4]);
    }
}
