//! Random numbers by counter: value `i` of a key is a function of the two, so any part can be made anywhere, in any order.
//!
//! Source: `splitmix64` (Steele, Lea and Flood 2014, <https://doi.org/10.1145/2660193.2660195>); Box and Muller 1958.

use crate::exec::Exec;
use crate::parallel::for_each_chunk;

/// Values of one task; even, since normals come in pairs.
const TASK: usize = 1 << 14;

/// The `splitmix64` finalizer: every bit of the result depends on every bit of `z`.
pub fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A key of its own for use `index` of `key`.
pub fn subkey(key: u64, index: u64) -> u64 {
    mix(mix(key) ^ index)
}

/// A number in (0, 1): value `index` of `key`, with 53 random bits.
pub fn uniform(key: u64, index: u64) -> f64 {
    ((subkey(key, index) >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0
}

/// Fills `out` with values `0..` of the normal distribution with mean 0 and standard deviation `std`.
///
/// Numbers: formed in f64. Same bits for any number of threads.
pub fn fill_normal(exec: Exec, key: u64, std: f32, out: &mut [f32]) {
    for_each_chunk(exec, out, TASK, |task, out| {
        for (pair, out) in out.chunks_mut(2).enumerate() {
            let index = (task * TASK + 2 * pair) as u64;
            let radius = (-2.0 * uniform(key, index).ln()).sqrt() * f64::from(std);
            let (sin, cos) = (std::f64::consts::TAU * uniform(key, index + 1)).sin_cos();
            for (out, value) in out.iter_mut().zip([radius * cos, radius * sin]) {
                *out = value as f32;
            }
        }
    });
}

/// Fills `out` with values `0..` of the uniform distribution between `-bound` and `bound`.
///
/// Numbers: formed in f64. Same bits for any number of threads.
pub fn fill_uniform(exec: Exec, key: u64, bound: f32, out: &mut [f32]) {
    for_each_chunk(exec, out, TASK, |task, out| {
        for (i, out) in out.iter_mut().enumerate() {
            *out = (f64::from(bound) * (2.0 * uniform(key, (task * TASK + i) as u64) - 1.0)) as f32;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniforms_stay_within_their_bound_and_have_its_variance() {
        let n = 100_001;
        let (mut x, mut again) = (vec![0.0; n], vec![0.0; n]);
        fill_uniform(Exec::new(1), 5, 0.5, &mut x);
        fill_uniform(Exec::new(3), 5, 0.5, &mut again);
        assert_eq!(x, again);
        assert!(x.iter().all(|x| x.abs() <= 0.5));
        let moment = |power: i32| x.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / n as f64;
        // Standard errors: sqrt(1/12 / n) = 0.0009; the variance of x^2 is 1/80 - 1/144, so sqrt(0.0056 / n) = 0.0002.
        assert!(moment(1).abs() < 0.004, "{}", moment(1));
        assert!((moment(2) - 1.0 / 12.0).abs() < 0.001, "{}", moment(2));
    }

    #[test]
    fn normals_have_their_moments_and_the_same_bits_on_any_threads() {
        let n = 100_001;
        let (mut x, mut again) = (vec![0.0; n], vec![0.0; n]);
        fill_normal(Exec::new(1), 5, 0.5, &mut x);
        fill_normal(Exec::new(3), 5, 0.5, &mut again);
        assert_eq!(x, again);
        let moment = |power: i32| x.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / n as f64;
        // Standard errors: 0.5 / sqrt n = 0.0016, 0.25 sqrt(2 / n) = 0.0011, 0.0625 sqrt(96 / n) = 0.0019.
        assert!(moment(1).abs() < 0.006, "{}", moment(1));
        assert!((moment(2) - 0.25).abs() < 0.005, "{}", moment(2));
        assert!((moment(4) - 0.1875).abs() < 0.008, "{}", moment(4));
    }

    #[test]
    fn other_keys_give_other_values() {
        let count = (0..1000).filter(|&i| uniform(1, i) < uniform(2, i)).count();
        assert!((400..600).contains(&count), "{count}");
        assert_ne!(subkey(0, 1), subkey(1, 0));
    }
}
