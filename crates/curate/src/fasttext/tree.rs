//! The Huffman tree of hierarchical softmax.

use super::sigmoid;

/// For every label its way from the root: output row, and whether it goes right.
#[derive(Debug, Default)]
pub(super) struct Tree {
    paths: Vec<Vec<(usize, bool)>>,
}

impl Tree {
    /// Merges the two least frequent nodes again and again; a leaf is taken only if it is strictly less frequent than the next
    /// inner node. `counts` stand in falling order, as the file has them.
    pub(super) fn build(counts: &[i64]) -> Self {
        let leaves = counts.len();
        if leaves < 2 {
            return Self { paths: vec![Vec::new(); leaves] };
        }
        let nodes = 2 * leaves - 1;
        let mut count = vec![1_000_000_000_000_000_i64; nodes];
        count[..leaves].copy_from_slice(counts);
        let mut parent = vec![0; nodes];
        let mut right = vec![false; nodes];
        let (mut leaf, mut inner) = (leaves as isize - 1, leaves);
        for node in leaves..nodes {
            let mut pick = || {
                if leaf >= 0 && count[leaf as usize] < count[inner] {
                    leaf -= 1;
                    (leaf + 1) as usize
                } else {
                    inner += 1;
                    inner - 1
                }
            };
            let (left, other) = (pick(), pick());
            count[node] = count[left].saturating_add(count[other]);
            parent[left] = node;
            parent[other] = node;
            right[other] = true;
        }
        let path = |label: usize| {
            let mut path = Vec::new();
            let mut at = label;
            while at != nodes - 1 {
                path.push((parent[at] - leaves, right[at]));
                at = parent[at];
            }
            path
        };
        Self { paths: (0..leaves).map(path).collect() }
    }

    /// Probabilities of all labels, from the score of every output row.
    pub(super) fn probabilities(&self, score: impl Fn(usize) -> f32) -> Vec<f32> {
        let rows = self.paths.len().saturating_sub(1);
        let sides: Vec<f32> = (0..rows).map(|row| sigmoid(score(row))).collect();
        let log = |x: f32| (f64::from(x) + 1e-5).ln();
        let of = |path: &Vec<(usize, bool)>| {
            let sum: f64 =
                path.iter().map(|&(row, right)| log(if right { sides[row] } else { 1.0 - sides[row] })).sum();
            sum.exp() as f32
        };
        self.paths.iter().map(of).collect()
    }
}
