//! What tells runs at one broker apart.

use std::hash::{BuildHasher, RandomState};

/// Names a run's topics, clients and payloads: runs against a standing broker must not see each other's messages, not
/// even those of the same moment, of the same process number in another container.
///
/// Random, of the system's own randomness. Never 0, nor anything that numbers counted from it could bring to 0, which in
/// a payload means "nobody's".
#[must_use]
pub fn token() -> u32 {
    // The keys of each state are the system's random bits.
    let random = RandomState::new().hash_one("token");
    (random as u32 & (u32::MAX >> 1)) | 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_of_one_process_and_moment_differ_in_all_their_bits() {
        let tokens: Vec<u32> = (0..64).map(|_| token()).collect();
        assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), tokens.len(), "{tokens:x?}");
        let (all, any) = tokens.iter().fold((u32::MAX, 0), |(all, any), token| (all & token, any | token));
        // By chance, one bit in 2^64 such tries is the same in all of them.
        assert_eq!((all, any), (1, u32::MAX >> 1), "{tokens:x?}");
    }
}
