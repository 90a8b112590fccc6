//! The field of P-256's coordinates, for public values only.
//!
//! p256's own field arithmetic takes the same time for every value, as secrets demand, by code that serves every
//! modulus; on a 32-bit core without a carry flag it makes up most of a handshake. Verification has no secrets, so
//! here comparisons and corrections branch, and the reduction uses the form of the prime: p = 2^256 - 2^224 + 2^192 +
//! 2^96 - 1 is -1 modulo 2^32, so that Montgomery's quotient digit is the lowest limb itself and its product with p is
//! made of shifts (P. L. Montgomery, "Modular multiplication without trial division", 1985).

/// An element, below p, as the element times 2^256 (Montgomery's form); limbs of 32 bits, lowest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field([u32; LIMBS]);

const LIMBS: usize = 8;
const P: [u32; LIMBS] = [u32::MAX, u32::MAX, u32::MAX, 0, 0, 0, 1, u32::MAX];
/// 2^256 modulo p.
const R: Field = Field([1, 0, 0, u32::MAX, u32::MAX, u32::MAX, 0xffff_fffe, 0]);
/// 2^512 modulo p.
const R2: Field = Field([3, 0, u32::MAX, 0xffff_fffb, 0xffff_fffe, u32::MAX, 0xffff_fffd, 4]);

impl Field {
    pub(super) const ZERO: Self = Self([0; LIMBS]);
    pub(super) const ONE: Self = R;

    /// The element of a big-endian number, if that is below p.
    pub(super) const fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let mut limbs = [0; LIMBS];
        let mut index = 0;
        while index < LIMBS {
            let at = 28 - 4 * index;
            limbs[index] = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            index += 1;
        }
        if is_below_p(&limbs) { Some(Self(limbs).mul(&R2)) } else { None }
    }

    /// The element of 64 hexadecimal digits, for constants.
    ///
    /// # Panics
    /// If `hex` is anything else, or not below p.
    #[expect(clippy::panic, reason = "constants are made while compiling")]
    pub(super) const fn from_hex(hex: &str) -> Self {
        let digits = hex.as_bytes();
        assert!(digits.len() == 64);
        let mut bytes = [0; 32];
        let mut index = 0;
        while index < digits.len() {
            let digit = match digits[index] {
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'f' => digit - b'a' + 10,
                _ => panic!("not a hexadecimal digit"),
            };
            bytes[index / 2] = bytes[index / 2] << 4 | digit;
            index += 1;
        }
        Self::from_bytes(&bytes).expect("below p")
    }

    pub(super) fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        let mut sum = [0; LIMBS];
        let mut carry = 0;
        for (sum, (a, b)) in sum.iter_mut().zip(self.0.iter().zip(&other.0)) {
            let wide = u64::from(*a) + u64::from(*b) + carry;
            *sum = wide as u32;
            carry = wide >> 32;
        }
        reduce_once(sum, carry as u32)
    }

    pub(super) fn double(&self) -> Self {
        self.add(self)
    }

    pub(super) fn sub(&self, other: &Self) -> Self {
        let (mut difference, borrow) = subtract(&self.0, &other.0);
        if borrow {
            let mut carry = 0;
            for (limb, p) in difference.iter_mut().zip(&P) {
                let wide = u64::from(*limb) + u64::from(*p) + carry;
                *limb = wide as u32;
                carry = wide >> 32;
            }
        }
        Self(difference)
    }

    pub(super) fn neg(&self) -> Self {
        Self::ZERO.sub(self)
    }

    /// Out of line: it has 40 uses.
    #[inline(never)]
    pub(super) const fn mul(&self, other: &Self) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = self.0;
        let [mut t0, mut t1, mut t2, mut t3, mut t4, mut t5, mut t6, mut t7, mut t8] = [0_u32; LIMBS + 1];
        let mut index = 0;
        while index < LIMBS {
            let b = other.0[index] as u64;
            // t + a b, each step below 2^64: (2^32 - 1)^2 + 2 (2^32 - 1).
            let mut wide = t0 as u64 + a0 as u64 * b;
            let m = wide as u32;
            wide = t1 as u64 + a1 as u64 * b + (wide >> 32);
            t1 = wide as u32;
            wide = t2 as u64 + a2 as u64 * b + (wide >> 32);
            t2 = wide as u32;
            wide = t3 as u64 + a3 as u64 * b + (wide >> 32);
            t3 = wide as u32;
            wide = t4 as u64 + a4 as u64 * b + (wide >> 32);
            t4 = wide as u32;
            wide = t5 as u64 + a5 as u64 * b + (wide >> 32);
            t5 = wide as u32;
            wide = t6 as u64 + a6 as u64 * b + (wide >> 32);
            t6 = wide as u32;
            wide = t7 as u64 + a7 as u64 * b + (wide >> 32);
            t7 = wide as u32;
            let top = t8 as u64 + (wide >> 32);

            // Plus m p = m (2^256 - 2^224) + m 2^192 + m 2^96 - m, which clears the lowest limb; then down a limb.
            let high = ((m as u64) << 32) - m as u64;
            t0 = t1;
            t1 = t2;
            wide = t3 as u64 + m as u64;
            t2 = wide as u32;
            wide = t4 as u64 + (wide >> 32);
            t3 = wide as u32;
            wide = t5 as u64 + (wide >> 32);
            t4 = wide as u32;
            wide = t6 as u64 + m as u64 + (wide >> 32);
            t5 = wide as u32;
            wide = t7 as u64 + (high & 0xffff_ffff) + (wide >> 32);
            t6 = wide as u32;
            wide = top + (high >> 32) + (wide >> 32);
            t7 = wide as u32;
            t8 = (wide >> 32) as u32;
            index += 1;
        }
        reduce_once([t0, t1, t2, t3, t4, t5, t6, t7], t8)
    }

    pub(super) fn square(&self) -> Self {
        self.mul(self)
    }
}

/// The element of a number below 2 p, whose bit 256 is `carry`.
const fn reduce_once(limbs: [u32; LIMBS], carry: u32) -> Field {
    if carry == 0 && is_below_p(&limbs) { Field(limbs) } else { Field(subtract(&limbs, &P).0) }
}

const fn is_below_p(limbs: &[u32; LIMBS]) -> bool {
    // Nearly always decided by the highest limb.
    limbs[LIMBS - 1] != P[LIMBS - 1] || subtract(limbs, &P).1
}

/// The difference modulo 2^256, and whether it was negative.
const fn subtract(a: &[u32; LIMBS], b: &[u32; LIMBS]) -> ([u32; LIMBS], bool) {
    let mut difference = [0; LIMBS];
    let mut borrow = 0;
    let mut index = 0;
    while index < LIMBS {
        let wide = (a[index] as u64).wrapping_sub(b[index] as u64).wrapping_sub(borrow);
        difference[index] = wide as u32;
        borrow = wide >> 63;
        index += 1;
    }
    (difference, borrow != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heapless::Vec;
    use p256::NistP256;
    use p256::elliptic_curve::hazmat::FieldArithmetic;

    type Reference = <NistP256 as FieldArithmetic>::FieldElement;

    /// Numbers at the edges of limbs and of the prime, and some without a pattern.
    fn numbers() -> Vec<[u8; 32], 64> {
        let mut p = [0; 32];
        for (bytes, limb) in p.chunks_exact_mut(4).zip(P.iter().rev()) {
            bytes.copy_from_slice(&limb.to_be_bytes());
        }
        let mut numbers = Vec::from_slice(&[[0; 32]]).expect("room");
        for (at, value) in [(31, 1), (31, 2), (28, 0x80), (20, 1), (16, 0xff), (7, 1), (4, 0xff), (1, 0xff)] {
            let mut number = [0; 32];
            number[at] = value;
            numbers.push(number).expect("room for all");
            number[at..].fill(0xff);
            numbers.push(number).expect("room for all");
        }
        for below in 1..4 {
            let mut number = p;
            number[31] -= below;
            numbers.push(number).expect("room for all");
        }
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..40 {
            let mut number = [0; 32];
            for byte in &mut number {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            number[0] &= 0x7f;
            numbers.push(number).expect("room for all");
        }
        numbers
    }

    fn pair(bytes: &[u8; 32]) -> (Field, Reference) {
        let reference = Reference::from_bytes(&(*bytes).into()).into_option().expect("below p");
        (Field::from_bytes(bytes).expect("below p"), reference)
    }

    fn of(reference: Reference) -> Field {
        Field::from_bytes(&reference.to_bytes().into()).expect("below p")
    }

    #[test]
    fn arithmetic_agrees_with_p256() {
        for a in numbers() {
            let (a, reference_a) = pair(&a);
            assert_eq!(a.neg(), of(reference_a.neg()));
            assert_eq!(a.double(), of(reference_a.double()));
            assert_eq!(a.square(), of(reference_a.square()));
            for b in numbers() {
                let (b, reference_b) = pair(&b);
                assert_eq!(a.add(&b), of(reference_a.add(&reference_b)), "{a:?} + {b:?}");
                assert_eq!(a.sub(&b), of(reference_a.sub(&reference_b)), "{a:?} - {b:?}");
                assert_eq!(a.mul(&b), of(reference_a.multiply(&reference_b)), "{a:?} * {b:?}");
            }
        }
    }

    #[test]
    fn numbers_from_p_on_are_no_elements() {
        let mut p = [0xff; 32];
        p[4..8].copy_from_slice(&[0, 0, 0, 1]);
        p[8..20].fill(0);
        assert_eq!(Field::from_bytes(&p), None);
        assert_eq!(Field::from_bytes(&[0xff; 32]), None);
        p[31] -= 1;
        assert_eq!(Field::from_bytes(&p), Some(Field::ONE.neg()));
    }
}
