//! Sets of duplicates from pairs of them.

use std::collections::HashMap;

/// Union-find over 64-bit names. The root of a set is always its smallest member, whatever the order of the pairs, so the
/// document that stays does not depend on how the work was shared.
#[derive(Debug, Default)]
pub struct Clusters {
    slots: HashMap<u64, usize>,
    names: Vec<u64>,
    parent: Vec<usize>,
}

impl Clusters {
    fn slot(&mut self, name: u64) -> usize {
        *self.slots.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.parent.push(self.parent.len());
            self.parent.len() - 1
        })
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.parent[at] != at {
            // Path halving: every other node of the path skips one.
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    /// `a` and `b` are copies of each other.
    pub fn join(&mut self, a: u64, b: u64) {
        let (a, b) = (self.slot(a), self.slot(b));
        let (a, b) = (self.root(a), self.root(b));
        if self.names[a] < self.names[b] {
            self.parent[b] = a;
        } else {
            self.parent[a] = b;
        }
    }

    /// Every member of a set with its root, in order of name.
    pub fn members(&mut self) -> Vec<(u64, u64)> {
        let mut members = Vec::with_capacity(self.names.len());
        for at in 0..self.names.len() {
            let root = self.root(at);
            members.push((self.names[at], self.names[root]));
        }
        members.sort_unstable();
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_member_is_the_root_in_any_order() {
        let pairs = [(5, 9), (2, 7), (9, 2), (30, 31), (31, 32)];
        let sets = |order: &[usize]| {
            let mut clusters = Clusters::default();
            order.iter().for_each(|&index| clusters.join(pairs[index].0, pairs[index].1));
            clusters.members()
        };
        let expected = vec![(2, 2), (5, 2), (7, 2), (9, 2), (30, 30), (31, 30), (32, 30)];
        assert_eq!(sets(&[0, 1, 2, 3, 4]), expected);
        assert_eq!(sets(&[4, 2, 0, 3, 1]), expected);
    }
}
