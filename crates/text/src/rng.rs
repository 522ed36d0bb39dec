//! A small documented random generator, and one-shot hashes of counters.

/// SplitMix64: one 64-bit state, one addition and one mix per number.
///
/// The same seed gives the same numbers on every machine and in every version of this crate: saved runs depend on it.
/// Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's finalizer: a bijection of 64 bits in which every input bit moves half of the output bits.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One number from `(seed, a, b)`: a counter-based generator, so that any position is reached without those before it.
pub fn hash3(seed: u64, a: u64, b: u64) -> u64 {
    mix(mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(a).wrapping_add(GOLDEN)).wrapping_add(b).wrapping_add(GOLDEN))
}

/// FNV-1a of `bytes`, mixed. Not for adversaries: it tells contents apart, it does not sign them.
pub fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let start = 0xCBF2_9CE4_8422_2325 ^ mix(seed);
    mix(bytes.iter().fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)))
}

impl Rng {
    /// The generator whose numbers `seed` decides.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A number in `0..below`, every one equally likely.
    ///
    /// Source: Lemire 2019, <https://arxiv.org/abs/1805.10941>.
    ///
    /// # Panics
    /// If `below` is 0.
    pub fn below(&mut self, below: usize) -> usize {
        assert!(below > 0, "there is no number below 0");
        let below = below as u64;
        // Draws that would favour small results are rejected; below 2^32 that is fewer than one in four billion.
        let threshold = below.wrapping_neg() % below;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(below);
            if wide as u64 >= threshold {
                return (wide >> 64) as usize;
            }
        }
    }

    /// One of `items`, every one equally likely.
    ///
    /// # Panics
    /// If `items` is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// True once in `n` on average.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Fisher-Yates: every order of `items` is equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        // First outputs of the reference C code for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_below_a_bound_are_spread_evenly() {
        let mut rng = Rng::new(3);
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        // The standard deviation of a count is 93; five of them would be 465.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 465), "{counts:?}");
    }

    #[test]
    fn every_order_of_three_comes_up_equally_often() {
        let mut rng = Rng::new(9);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..60_000 {
            let mut items = [0, 1, 2];
            rng.shuffle(&mut items);
            *counts.entry(items).or_insert(0usize) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&count| count.abs_diff(10_000) < 465), "{counts:?}");
    }
}
