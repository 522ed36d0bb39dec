//! Sequences on one token axis, where those that begin alike share the beginning.
//!
//! Prompts of one task begin with the same words: a template's preamble, a system message. What a causal model computes
//! for them is the same, so a batch computes it once, and gradients of all that continues it meet there.

use cavy_ops::Segments;

/// Fewest tokens worth a segment of their own.
const SHORTEST: usize = 8;

/// Where a sequence goes on, after what it shares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment that it continues; `None` at its first token.
    pub segment: Option<usize>,
    /// Tokens of it that lie there and before.
    pub shared: usize,
}

/// A token axis in the making.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    ids: Vec<u32>,
    segments: Segments,
}

impl Packing {
    /// An axis with the shared beginnings of `prompts`, and for each prompt where it goes on.
    ///
    /// Law: the tokens of a place's chain of segments are the first `shared` of the prompt, and no two prompts go on
    /// alike for eight tokens from the same place.
    pub fn shared(prompts: &[&[u32]]) -> (Self, Vec<Place>) {
        let mut packing = Self::default();
        let mut places = vec![Place { segment: None, shared: 0 }; prompts.len()];
        // What is left to divide: prompts that are the same up to the place that each of them has.
        let mut open: Vec<Vec<usize>> = vec![(0..prompts.len()).collect()];
        while let Some(members) = open.pop() {
            for group in groups(prompts, &members, &places) {
                let Place { segment, shared } = places[group[0]];
                let first = &prompts[group[0]][shared..];
                let same = |&member: &usize| common(first, &prompts[member][shared..]);
                let len = group.iter().map(same).min().unwrap_or(0);
                let segment = packing.push(segment, &first[..len]);
                group
                    .iter()
                    .for_each(|&member| places[member] = Place { segment: Some(segment), shared: shared + len });
                open.push(group);
            }
        }
        (packing, places)
    }

    /// Adds a segment that continues another, or begins a sequence; its index.
    ///
    /// Panics: if `after` is no segment.
    pub fn push(&mut self, after: Option<usize>, ids: &[u32]) -> usize {
        let segments = std::mem::take(&mut self.segments);
        self.segments = match after {
            Some(segment) => segments.with_continuation(segment, ids.len()),
            None => segments.with_segment(ids.len()),
        };
        self.ids.extend_from_slice(ids);
        self.segments.list().len() - 1
    }

    /// Index of the last token of a segment.
    ///
    /// Panics: if it is no segment, or is empty.
    pub fn last(&self, segment: usize) -> usize {
        let segment = self.segments.list()[segment];
        segment.start + segment.len - 1
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The tokens, and the segments in which they lie.
    pub fn finish(self) -> (Vec<u32>, Segments) {
        (self.ids, self.segments)
    }
}

/// Prompts that go on alike from their place, two or more, in the order of the first of each.
fn groups(prompts: &[&[u32]], members: &[usize], places: &[Place]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(&[u32], Vec<usize>)> = Vec::new();
    for &member in members {
        let rest = &prompts[member][places[member].shared..];
        if let Some(start) = rest.get(..SHORTEST) {
            match groups.iter_mut().find(|(known, _)| *known == start) {
                Some((_, group)) => group.push(member),
                None => groups.push((start, vec![member])),
            }
        }
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| group.len() > 1).collect()
}

/// How many tokens two sequences begin with in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(range: std::ops::Range<u32>) -> Vec<u32> {
        range.collect()
    }

    /// The tokens of a chain of segments.
    fn read(ids: &[u32], segments: &Segments, place: Place) -> Vec<u32> {
        let chain: Vec<usize> = place.segment.map_or(Vec::new(), |segment| segments.chain(segment).collect());
        let parts = chain.iter().rev().map(|&segment| segments.list()[segment]);
        parts.flat_map(|part| ids[part.start..part.start + part.len].to_vec()).collect()
    }

    #[test]
    fn what_several_begin_with_is_laid_down_once() {
        let preamble = numbers(0..20);
        let with = |rest: std::ops::Range<u32>| [preamble.clone(), rest.collect()].concat();
        // Two go on alike for ten more tokens, one is the preamble alone, one begins otherwise.
        let prompts = [
            with(100..130),
            with(200..205),
            [with(100..110), numbers(300..303)].concat(),
            with(0..0),
            numbers(1..30),
            with(100..130),
        ];
        let views: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let (packing, places) = Packing::shared(&views);
        let (ids, segments) = packing.finish();
        let shared: Vec<usize> = places.iter().map(|place| place.shared).collect();
        assert_eq!(shared, [50, 20, 30, 20, 0, 50]);
        assert_eq!(ids, [preamble.clone(), numbers(100..130)].concat(), "no token is there twice");
        for (prompt, place) in prompts.iter().zip(&places) {
            assert_eq!(read(&ids, &segments, *place), prompt[..place.shared]);
        }
        assert_eq!(places[0], places[5], "equal prompts are one");
        assert_eq!(segments.positions(), numbers(0..50));
    }

    #[test]
    fn short_beginnings_are_not_worth_a_segment() {
        let (a, b) = (numbers(0..20), [numbers(0..7), numbers(50..60)].concat());
        let (packing, places) = Packing::shared(&[&a, &b]);
        assert_eq!(packing.tokens(), 0);
        assert!(places.iter().all(|place| *place == Place { segment: None, shared: 0 }));
        let (packing, places) = Packing::shared(&[&a, &[numbers(0..8), numbers(50..60)].concat()]);
        assert_eq!((packing.tokens(), places[1].shared), (8, 8));
    }
}
