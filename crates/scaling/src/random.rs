//! Random numbers for the bootstrap: SplitMix64, seeded by whoever asks.

/// A generator whose numbers its seed decides.
///
/// Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Random {
    /// The generator number `stream` of `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(stream)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// In `[0, 1)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An index below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// From the normal distribution of mean 0 and deviation 1, by Box and Muller's transformation.
    pub(crate) fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        let mut random = Random::new(7, 0);
        let (mut uniform, mut normal, mut square, mut counts) = (0.0, 0.0, 0.0, [0; 5]);
        for _ in 0..20_000 {
            uniform += random.uniform() / 20_000.0;
            let z = random.normal();
            normal += z / 20_000.0;
            square += z * z / 20_000.0;
            counts[random.below(5)] += 1;
        }
        assert!((uniform - 0.5).abs() < 0.01 && normal.abs() < 0.03 && (square - 1.0).abs() < 0.05);
        assert!(counts.iter().all(|count| (3800..4200).contains(count)), "{counts:?}");
        assert_ne!(Random::new(7, 1).uniform(), Random::new(7, 2).uniform());
    }
}
