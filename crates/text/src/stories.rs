//! The built-in data: small stories and arithmetic with worked steps, seeded and deterministic.
//!
//! A story is a plot with facts (who, what, where, which trouble) that are settled before it is told, in one of many
//! wordings. A sum is a question, the steps of the school method, and the answer. Which side of the data a document is
//! on follows from a hash of its content (plot and facts; operation and numbers), so training and held-out text share
//! no story and no sum, whatever the seeds. Later stages build on the same parts: [`Plan`] knows what a document is
//! about before it is told.

pub(crate) mod grammar;
mod plots;
mod sums;
mod tasks;
mod verify;
pub(crate) mod words;

pub use tasks::{PreferenceTask, Task, TaskKind, preferences, tasks};
pub use verify::{SumsReport, verify_sums};

use crate::rng::{Rng, hash_bytes, hash3};
use crate::{Document, Place};
use grammar::Facts;
use plots::{PLOTS, Plot};
use sums::{Form, Sum};

/// Which side of the data a document belongs to. The two sides share no story and no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training: nine of ten.
    Train,
    /// Kept apart, for measuring: one of ten.
    HeldOut,
}

/// Decides the sides; another number would move documents between them.
const SPLIT_SEED: u64 = 0xCA77;

/// What a document is about, before it is told.
pub struct Plan {
    facts: Facts,
    kind: Kind,
}

enum Kind {
    Story(&'static Plot),
    Sum(Sum, Form),
}

impl Plan {
    /// Draws a plan: one document in three is a story, which makes about three quarters of the text.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut facts = cast(rng);
        if rng.one_in(3) {
            let plot = rng.pick(PLOTS);
            for table in plot.tables {
                facts.draw(table, rng);
            }
            return Self { facts, kind: Kind::Story(plot) };
        }
        let sum = Sum::draw(rng);
        let form = if rng.one_in(3) && sum.suits_a_story() { Form::Story } else { Form::Bare };
        Self { facts, kind: Kind::Sum(sum, form) }
    }

    /// The side of the data that this plan's content decides.
    pub fn split(&self) -> Split {
        let key = match &self.kind {
            Kind::Story(plot) => format!("{}: {}", plot.name, self.facts.key()),
            Kind::Sum(sum, _) => sum.key(),
        };
        if hash_bytes(SPLIT_SEED, key.as_bytes()).is_multiple_of(10) { Split::HeldOut } else { Split::Train }
    }

    /// Whether it is a story, and not a sum.
    pub fn is_story(&self) -> bool {
        matches!(self.kind, Kind::Story(_))
    }

    /// The document in words; `rng` chooses among wordings, not among facts.
    pub fn tell(&mut self, rng: &mut Rng) -> String {
        match &self.kind {
            Kind::Story(plot) => self.facts.tell(plot.telling, rng),
            Kind::Sum(sum, form) => sum.tell(*form, &mut self.facts, rng),
        }
    }
}

/// Hero and friend, their pronouns, and the time of day.
fn cast(rng: &mut Rng) -> Facts {
    let mut facts = Facts::default();
    let mut person = |names: [&'static str; 4], name: &'static str, rng: &mut Rng, taken: Option<String>| {
        loop {
            let is_girl = rng.one_in(2);
            let chosen = *rng.pick(if is_girl { words::GIRLS } else { words::BOYS });
            if taken.as_deref() == Some(chosen) {
                continue;
            }
            let pronouns = if is_girl { ["she", "her", "her", "girl"] } else { ["he", "him", "his", "boy"] };
            facts.set(name, chosen, rng);
            for (name, pronoun) in names.into_iter().zip(pronouns) {
                facts.set(name, pronoun, rng);
            }
            return chosen.to_owned();
        }
    };
    let hero = person(["he", "him", "his", "kid"], "N", rng, None);
    person(["mhe", "mhim", "mhis", "mkid"], "M", rng, Some(hero));
    facts.set("time", "[morning|afternoon|day]", rng);
    facts.set("kind", "[clever|cheerful|kind|strong|curious]", rng);
    facts
}

/// The documents number 0 to `count` of one side, made from `seed`.
///
/// Law: the same arguments give the same documents, and document i does not depend on `count`.
pub fn generate(seed: u64, split: Split, count: usize) -> Vec<Document> {
    (0..count).map(|number| document(seed, split, number)).collect()
}

/// Document `number` of `seed`.
fn document(seed: u64, split: Split, number: usize) -> Document {
    let side = match split {
        Split::Train => 1,
        Split::HeldOut => 2,
    };
    let mut rng = Rng::new(hash3(seed, side, number as u64));
    loop {
        let mut plan = Plan::draw(&mut rng);
        if plan.split() == split {
            let text = plan.tell(&mut rng);
            return Document { text, place: Place::Made("stories", number) };
        }
    }
}

/// Training and held-out documents of at least so many bytes of text each.
pub fn corpus(seed: u64, train_bytes: usize, heldout_bytes: usize) -> (Vec<Document>, Vec<Document>) {
    let fill = |split, bytes| {
        let (mut documents, mut filled) = (Vec::new(), 0);
        while filled < bytes {
            let document = document(seed, split, documents.len());
            filled += document.text.len();
            documents.push(document);
        }
        documents
    };
    (fill(Split::Train, train_bytes), fill(Split::HeldOut, heldout_bytes))
}

/// Beginnings of `count` held-out documents, for sampling: alternately the first words of a story and a whole question.
pub fn prompts(seed: u64, count: usize) -> Vec<String> {
    let mut rng = Rng::new(hash3(seed, 3, 0));
    let mut prompts = Vec::with_capacity(count);
    while prompts.len() < count {
        let mut plan = Plan::draw(&mut rng);
        let wants_story = prompts.len().is_multiple_of(2);
        if plan.split() != Split::HeldOut || plan.is_story() != wants_story {
            continue;
        }
        let text = plan.tell(&mut rng);
        if wants_story {
            // The first sentence: dialogue never comes first.
            let end = text.find(". ").map_or(text.len(), |at| at + 1);
            prompts.push(text[..end].to_owned());
        } else if let Some((question, _)) = text.split_once("?\n") {
            prompts.push(format!("{question}?\n"));
        }
    }
    prompts
}

/// The text of [`corpus`]'s training documents, joined by blank lines.
#[cfg(test)]
pub(crate) fn text(seed: u64, bytes: usize) -> String {
    let texts: Vec<String> = corpus(seed, bytes, 0).0.into_iter().map(|document| document.text).collect();
    texts.join("\n\n")
}

#[cfg(test)]
mod tests;
