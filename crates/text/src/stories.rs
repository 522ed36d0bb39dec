//! The built-in data: small stories and arithmetic with worked steps, seeded and deterministic.

use crate::Document;

/// Which side of the data a document belongs to. The two sides share no story and no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Train,
    /// Kept apart, for measuring.
    HeldOut,
}

/// Some text of stories, at least `bytes` long.
pub fn text(seed: u64, bytes: usize) -> String {
    let mut rng = crate::rng::Rng::new(seed);
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(rng.pick::<&str>(&["the ", "cat ", "sat ", "on ", "a mat. "]));
    }
    text
}

/// Documents, training and held out.
pub fn corpus(seed: u64, train_bytes: usize, heldout_bytes: usize) -> (Vec<Document>, Vec<Document>) {
    let made = |bytes| vec![Document { text: text(seed, bytes), place: crate::Place::Made("stories", 0) }];
    (made(train_bytes), made(heldout_bytes))
}
