//! The generator of NumPy's `RandomState`, which the hash functions come from.

/// MT19937, seeded by one number.
///
/// Source: Matsumoto and Nishimura 1998; NumPy's `mt19937_seed` and `random_bounded_uint64_fill` with a mask.
#[derive(Clone, Debug)]
pub(crate) struct Mt19937 {
    state: Vec<u32>,
    at: usize,
}

const N: usize = 624;
const M: usize = 397;

impl Mt19937 {
    pub(crate) fn new(seed: u32) -> Self {
        let mut state = Vec::with_capacity(N);
        let mut value = seed;
        for index in 0..N as u32 {
            state.push(value);
            value = 1_812_433_253_u32.wrapping_mul(value ^ (value >> 30)).wrapping_add(index + 1);
        }
        Self { state, at: N }
    }

    fn next_u32(&mut self) -> u32 {
        if self.at == N {
            for index in 0..N {
                let y = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % N] & 0x7fff_ffff);
                let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
                self.state[index] = self.state[(index + M) % N] ^ (y >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number in `low..high`, as `RandomState.randint(low, high, dtype=uint64)` draws it for ranges beyond 32 bits.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let range = high - 1 - low;
        let mask = u64::MAX >> range.leading_zeros();
        loop {
            let upper = u64::from(self.next_u32()) << 32;
            let draw = (upper | u64::from(self.next_u32())) & mask;
            if draw <= range {
                return low + draw;
            }
        }
    }
}
