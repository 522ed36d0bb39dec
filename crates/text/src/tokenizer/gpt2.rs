//! GPT-2's vocabulary, built in.

use super::bpe::{Bpe, Merge, byte_order};
use super::words::Pattern;
use flate2::read::GzDecoder;
use std::io::Read;

/// The merges as two arrays of u16; `make_gpt2.py` beside the file made it and says where from.
const MERGES_GZ: &[u8] = include_bytes!("../../data/gpt2.merges.gz");

const N_MERGES: usize = 50_000;

/// GPT-2's 256 bytes and 50,000 merges: tokens 0 to 50255.
pub(super) fn bpe() -> Bpe {
    let mut raw = Vec::with_capacity(4 * N_MERGES);
    GzDecoder::new(MERGES_GZ).read_to_end(&mut raw).expect("the built-in merges decompress");
    let ids: Vec<u32> = raw.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_le_bytes(*pair))).collect();
    let (left, right) = ids.split_at(N_MERGES);
    let mut tokens: Vec<Box<[u8]>> = byte_order().map(|byte| [byte].into()).collect();
    let mut merges = Vec::with_capacity(N_MERGES);
    for (&left, &right) in left.iter().zip(right) {
        merges.push(Merge { left, right, merged: tokens.len() as u32 });
        tokens.push([&tokens[left as usize][..], &tokens[right as usize][..]].concat().into());
    }
    Bpe::new(tokens, merges, Pattern::Gpt2).expect("the built-in merges are those that the script checked")
}
