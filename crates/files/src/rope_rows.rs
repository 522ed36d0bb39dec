//! The two orders in which rows of query and key projections are stored, and how to go from one to the other.
//!
//! Rotary embeddings turn pairs of a head's elements. Meta's Llama, llama2.c and GGUF files of architecture `llama` keep
//! the two of a pair side by side (interleaved: 0 and 1, 2 and 3, ...); Hugging Face keeps them half a head apart (0 and
//! `E/2`, 1 and `E/2 + 1`, ...). The rows of `q_proj` and `k_proj`, and their biases, are stored accordingly.
//!
//! Source: `permute` of `convert_llama_weights_to_hf.py` in huggingface/transformers, and `LlamaModel.permute` of
//! `convert_hf_to_gguf.py` in ggml-org/llama.cpp, which undoes it.

/// For each row in Hugging Face's order, the row of the interleaved order that belongs there. `heads` heads of
/// `head_dim` rows.
///
/// Law: [`halves_to_interleaved`] is its inverse.
///
/// Panics: if `head_dim` is odd.
pub fn interleaved_to_halves(heads: usize, head_dim: usize) -> Vec<usize> {
    assert!(head_dim.is_multiple_of(2), "a head of {head_dim} rows");
    let half = head_dim / 2;
    // Row j * E/2 + i of a head is member j of pair i, which the interleaved order has at 2 i + j.
    let within = move |row: usize| 2 * (row % half) + row / half;
    (0..heads * head_dim).map(|row| row / head_dim * head_dim + within(row % head_dim)).collect()
}

/// For each row in the interleaved order, the row of Hugging Face's order that belongs there.
///
/// Panics: if `head_dim` is odd.
pub fn halves_to_interleaved(heads: usize, head_dim: usize) -> Vec<usize> {
    assert!(head_dim.is_multiple_of(2), "a head of {head_dim} rows");
    let half = head_dim / 2;
    let within = move |row: usize| row % 2 * half + row / 2;
    (0..heads * head_dim).map(|row| row / head_dim * head_dim + within(row % head_dim)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_heads_of_six_rows_by_hand() {
        // Pairs (0 1) (2 3) (4 5) of each head: first all first members, then all second ones.
        assert_eq!(interleaved_to_halves(2, 6), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        assert_eq!(halves_to_interleaved(2, 6), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }

    #[test]
    fn each_undoes_the_other() {
        for (heads, head_dim) in [(1, 2), (3, 4), (9, 64), (4, 80)] {
            let (there, back) = (interleaved_to_halves(heads, head_dim), halves_to_interleaved(heads, head_dim));
            assert!((0..heads * head_dim).all(|row| back[there[row]] == row && there[back[row]] == row));
        }
    }

    /// Scores of rotated queries and keys are the same in both orders, which is what the permutation is for.
    #[test]
    fn rotating_pairs_in_either_order_gives_the_same_vector_up_to_the_order() {
        let (head_dim, position) = (8, 3.0_f64);
        let x: Vec<f64> = (0..head_dim).map(|i| f64::from(i as u32).sin()).collect();
        let angle = |pair: usize| position * 10_000_f64.powf(-2.0 * pair as f64 / head_dim as f64);
        let rotate = |x: &[f64], pairs: &dyn Fn(usize) -> (usize, usize)| {
            let mut y = x.to_vec();
            for pair in 0..head_dim / 2 {
                let ((a, b), (sin, cos)) = (pairs(pair), angle(pair).sin_cos());
                (y[a], y[b]) = (x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin);
            }
            y
        };
        let order = interleaved_to_halves(1, head_dim);
        let pick = |x: &[f64]| order.iter().map(|&row| x[row]).collect::<Vec<f64>>();
        let interleaved = rotate(&x, &|pair| (2 * pair, 2 * pair + 1));
        let halves = rotate(&pick(&x), &|pair| (pair, pair + head_dim / 2));
        assert_eq!(pick(&interleaved), halves);
    }
}
