//! Progress of runs that are trained side by side: one bar for all of them.

use super::design::Rung;
use crate::text::{count, duration, say};
use cavy_train::metrics::{Event, Observer};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const QUIET: Duration = Duration::from_secs(20);

/// What all runs of a ladder have come to.
pub(super) struct Board {
    bar: Option<ProgressBar>,
    /// FLOPs of all rungs, of those found finished, and spent since the start.
    total: f64,
    found: f64,
    spent: f64,
    began: Instant,
    spoke: Instant,
}

impl Board {
    /// A board for so many FLOPs.
    pub(super) fn new(total: f64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000);
            if let Ok(style) = ProgressStyle::with_template("{bar:24.cyan} {msg}") {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar
        });
        Self { bar, total, found: 0.0, spent: 0.0, began: Instant::now(), spoke: Instant::now() }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    /// Adds work that was done, and says so now and then.
    fn spend(&mut self, flops: f64) {
        self.spent += flops;
        let share = (self.found + self.spent) / self.total;
        let elapsed = self.began.elapsed().as_secs_f64();
        let left = (self.total - self.found - self.spent).max(0.0) * elapsed / self.spent.max(1.0);
        let message = format!(
            "{:.0} % of the work, {} + {}, {}FLOP/s",
            100.0 * share,
            duration(elapsed),
            duration(left),
            count(self.spent / elapsed)
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position((1000.0 * share) as u64);
                bar.set_message(message);
            }
            None if self.spoke.elapsed() >= QUIET => {
                self.spoke = Instant::now();
                say(&message);
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Watches one run.
pub(super) struct RungWatch<'a> {
    board: &'a Mutex<Board>,
    name: String,
    flops_per_step: f64,
    steps: usize,
}

impl<'a> RungWatch<'a> {
    /// A watch of `rung`.
    pub(super) fn new(board: &'a Mutex<Board>, rung: &Rung) -> Self {
        Self { board, name: rung.name(), flops_per_step: rung.flops() / rung.steps as f64, steps: rung.steps }
    }

    fn board(&self) -> MutexGuard<'a, Board> {
        self.board.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The run was finished before.
    pub(super) fn skip(&mut self) {
        let mut board = self.board();
        board.found += self.flops_per_step * self.steps as f64;
        board.line(&format!("{}: finished before", self.name));
    }
}

impl Observer for RungWatch<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started(started) if started.first_step > 0 => {
                let mut board = self.board();
                board.found += self.flops_per_step * started.first_step as f64;
                board.line(&format!("{}: resumed after step {}", self.name, started.first_step));
            }
            Event::Train(_) => self.board().spend(self.flops_per_step),
            Event::Eval(record) if record.step == self.steps => {
                self.board().line(&format!("{}: loss {:.4}", self.name, record.val_loss));
            }
            Event::Note(note) if note.contains("skipped") => self.board().line(&format!("{}: {note}", self.name)),
            _ => {}
        }
    }
}
