//! Random numbers for delays: a SplitMix64. A reactor has one of its own, so that shards do not wait
//! in step.

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number. All 64 bits are equally likely.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `most`. The error of its probability is below `most` in 2^64.
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        let wide = u128::from(self.next()) * (u128::from(most) + 1);
        u64::try_from(wide >> 64).unwrap_or(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each number of the range comes about equally often, its ends included, and another seed
    /// gives other numbers. Method: ten thousand numbers from 0 to 9.
    #[test]
    fn numbers_are_spread() {
        let mut random = Random::new(7);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            counts[usize::try_from(random.up_to(9)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        assert_eq!(Random::new(7).up_to(0), 0);
        assert_ne!(Random::new(7).next(), Random::new(8).next());
        Random::new(1).up_to(u64::MAX);
    }
}
