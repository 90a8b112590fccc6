//! The scalar multiplication of ECDSA verification over P-256, in a third of the time of p256's own.
//!
//! Verification handles public values only, so it may branch on them: Jacobian coordinates, whose doubling
//! takes 8 multiplications instead of the 13 of the complete formulas, and signed windows over both scalars
//! at once (Shamir's trick), with the generator's odd multiples in flash. The scalars' arithmetic is p256's. It must
//! never see a secret.
//!
//! Formulas: dbl-2001-b and the usual additions of the Explicit-Formulas Database, for a = -3.

use super::p256_field::Field;
use crate::crypto::key_exchange::split_point;
use p256::Scalar;

/// A public key: a point on the curve, not at infinity.
pub(super) struct Key(Affine);

/// A point as x and y; never the point at infinity.
#[derive(Clone, Copy)]
struct Affine {
    x: Field,
    y: Field,
}

/// A point as (x / z^2, y / z^3); z is zero for the point at infinity.
#[derive(Clone, Copy)]
struct Jacobian {
    x: Field,
    y: Field,
    z: Field,
}

/// A point of the public key's table, with the powers of z that additions use.
#[derive(Clone, Copy)]
struct Cached {
    point: Jacobian,
    z2: Field,
    z3: Field,
}

impl Key {
    /// The key of an uncompressed encoding (SEC 1 2.3.4), if that is a point on the curve.
    #[inline(never)]
    pub(super) fn from_sec1(bytes: &[u8]) -> Option<Self> {
        let (4, [x, y]) = split_point(bytes)? else { return None };
        let point = Affine { x: Field::from_bytes(x)?, y: Field::from_bytes(y)? };
        point.is_on_curve().then_some(Self(point))
    }
}

impl Affine {
    /// y^2 = x^3 - 3 x + b (SEC 2 2.4.2).
    fn is_on_curve(&self) -> bool {
        let cube = mul(&square(&self.x), &self.x);
        let thrice = self.x.double().add(&self.x);
        square(&self.y) == cube.sub(&thrice).add(&CURVE_B)
    }
}

/// Whether the x coordinate of `u1` G + `u2` `key`, reduced modulo the group's order, is `r`.
#[inline(never)]
pub(super) fn x_matches(u1: &Scalar, u2: &Scalar, key: &Key, r: &Scalar) -> bool {
    let sum = multiply_and_add(u1, u2, &key.0);
    if sum.is_infinity() {
        return false;
    }
    // x / z^2 = r without the division. x is below p, which exceeds the order n: x may also be r + n.
    let z2 = square(&sum.z);
    let bytes: [u8; 32] = r.to_bytes().into();
    let Some(r) = Field::from_bytes(&bytes) else { return false };
    let matches = |candidate: &Field| mul(candidate, &z2) == sum.x;
    matches(&r) || (bytes < P_MINUS_N && matches(&r.add(&ORDER)))
}

fn mul(a: &Field, b: &Field) -> Field {
    a.mul(b)
}

fn square(a: &Field) -> Field {
    a.square()
}

fn multiply_and_add(u1: &Scalar, u2: &Scalar, key: &Affine) -> Jacobian {
    let mut generator_digits = Digits::<{ DIGITS.div_ceil(GENERATOR_WINDOW) }>::of(u1, GENERATOR_WINDOW);
    let mut key_digits = Digits::<{ DIGITS.div_ceil(KEY_WINDOW) }>::of(u2, KEY_WINDOW);
    let mut table = [Cached::NONE; 1 << (KEY_WINDOW - 2)];
    fill_odd_multiples(key, &mut table);
    let mut sum = Jacobian::INFINITY;
    for position in (0..DIGITS).rev() {
        sum.double();
        if let Some(digit) = generator_digits.take(position) {
            sum.add_signed(digit, |sum| sum.add_affine(&GENERATOR_MULTIPLES[index(digit)]));
        }
        if let Some(digit) = key_digits.take(position) {
            sum.add_signed(digit, |sum| sum.add(&table[index(digit)]));
        }
    }
    sum
}

/// Where a table of odd multiples holds the one of an odd digit's size.
const fn index(digit: i8) -> usize {
    (digit.unsigned_abs() / 2) as usize
}

/// 1, 3, 5 ... times `key`. Filled in place: returned by value the table would be on the stack twice. Out of line, so
/// that its temporaries are gone when the table is used.
#[inline(never)]
fn fill_odd_multiples(key: &Affine, table: &mut [Cached; 1 << (KEY_WINDOW - 2)]) {
    let first = Jacobian { x: key.x, y: key.y, z: Field::ONE };
    let mut twice = Cached::NONE;
    twice.point = first;
    twice.point.double();
    twice.complete();
    table[0].point = first;
    table[0].complete();
    for index in 1..table.len() {
        table[index].point = table[index - 1].point;
        table[index].point.add(&twice);
        table[index].complete();
    }
}

/// The digits of a scalar that are not zero, at most `N`.
struct Digits<const N: usize>(heapless::Vec<Digit, N>);

/// A digit's position above six bits that are its value and 32.
#[derive(Clone, Copy)]
struct Digit(u16);

impl Digit {
    const fn new(position: usize, value: i16) -> Self {
        Self((position as u16) << 6 | (value + 32) as u16)
    }

    const fn position(self) -> usize {
        (self.0 >> 6) as usize
    }

    const fn value(self) -> i8 {
        (self.0 & 63) as i8 - 32
    }
}

impl<const N: usize> Digits<N> {
    /// The digits of `scalar` from the lowest up: odd and below 2^(window - 1) in size, with at least `window` - 1 zeros
    /// after each (non-adjacent form of that width). Kept are these alone: with all zeros between them there would be
    /// 257.
    #[inline(never)]
    fn of(scalar: &Scalar, window: usize) -> Self {
        let bytes = scalar.to_bytes();
        let bit = |position: usize| {
            let byte = bytes.len().checked_sub(1 + position / 8).map_or(0, |index| bytes[index]);
            i16::from(byte >> (position % 8) & 1)
        };
        let mut digits = heapless::Vec::new();
        let mut carry = 0;
        let mut position = 0;
        while position < DIGITS {
            if bit(position) == carry {
                position += 1;
                continue;
            }
            let value = carry + (0..window).map(|offset| bit(position + offset) << offset).sum::<i16>();
            carry = value >> (window - 1);
            let digit = Digit::new(position, value - (carry << window));
            digits.push(digit).ok().expect("one digit in each window, and N windows");
            position += window;
        }
        Self(digits)
    }

    /// The digit at `position`, if it is not zero; to be asked from the highest position down.
    fn take(&mut self, position: usize) -> Option<i8> {
        let digit = *self.0.last()?;
        (digit.position() == position).then(|| {
            self.0.pop();
            digit.value()
        })
    }
}

impl Jacobian {
    const INFINITY: Self = Self { x: Field::ONE, y: Field::ONE, z: Field::ZERO };

    fn is_infinity(&self) -> bool {
        self.z.is_zero()
    }

    #[inline(never)]
    fn double(&mut self) {
        let delta = square(&self.z);
        let gamma = square(&self.y);
        let beta = mul(&self.x, &gamma);
        let product = mul(&self.x.sub(&delta), &self.x.add(&delta));
        let alpha = product.double().add(&product);
        let beta4 = beta.double().double();
        self.x = square(&alpha).sub(&beta4.double());
        self.z = square(&self.y.add(&self.z)).sub(&gamma).sub(&delta);
        let gamma_squared8 = square(&gamma).double().double().double();
        self.y = mul(&alpha, &beta4.sub(&self.x)).sub(&gamma_squared8);
    }

    /// Lets `add` add a multiple by the size of `digit`, or, if that is below zero, take it away:
    /// a - b = -(-a + b), which copies no multiple.
    fn add_signed(&mut self, digit: i8, add: impl FnOnce(&mut Self)) {
        self.negate_if(digit < 0);
        add(self);
        self.negate_if(digit < 0);
    }

    fn negate_if(&mut self, is_negative: bool) {
        if is_negative {
            self.y = self.y.neg();
        }
    }

    #[inline(never)]
    fn add(&mut self, other: &Cached) {
        let Cached { point, z2, z3 } = other;
        if self.is_infinity() {
            *self = *point;
            return;
        }
        if point.is_infinity() {
            return;
        }
        let u1 = mul(&self.x, z2);
        let s1 = mul(&self.y, z3);
        self.add_scaled(&u1, &s1, &point.x, &point.y, |z, h| mul(&mul(z, &point.z), h));
    }

    /// Out of line, as [`Self::add`] is: its temporaries need not lie beside the tables.
    #[inline(never)]
    fn add_affine(&mut self, other: &Affine) {
        if self.is_infinity() {
            *self = Self { x: other.x, y: other.y, z: Field::ONE };
            return;
        }
        let Self { x, y, .. } = *self;
        self.add_scaled(&x, &y, &other.x, &other.y, mul);
    }

    /// Adds (`x2`, `y2`) to this point, which is (`u1`, `s1`) on the other one's scale.
    fn add_scaled(
        &mut self,
        u1: &Field,
        s1: &Field,
        x2: &Field,
        y2: &Field,
        z_times: impl FnOnce(&Field, &Field) -> Field,
    ) {
        let z1_squared = square(&self.z);
        let h = mul(x2, &z1_squared).sub(u1);
        let r = mul(y2, &mul(&self.z, &z1_squared)).sub(s1);
        if h.is_zero() {
            return if r.is_zero() { self.double() } else { *self = Self::INFINITY };
        }
        let h2 = square(&h);
        let h3 = mul(&h, &h2);
        let v = mul(u1, &h2);
        self.x = square(&r).sub(&h3).sub(&v.double());
        self.y = mul(&r, &v.sub(&self.x)).sub(&mul(s1, &h3));
        self.z = z_times(&self.z, &h);
    }
}

impl Cached {
    const NONE: Self = Self { point: Jacobian::INFINITY, z2: Field::ZERO, z3: Field::ZERO };

    /// The powers of z that belong to the point.
    fn complete(&mut self) {
        self.z2 = square(&self.point.z);
        self.z3 = mul(&self.point.z, &self.z2);
    }
}

const fn affine(x: &str, y: &str) -> Affine {
    Affine { x: Field::from_hex(x), y: Field::from_hex(y) }
}

/// A scalar's bits, and one for the last carry.
const DIGITS: usize = 257;
/// Every seventh digit of the generator's scalar takes an addition, from a table of 1 KB in flash.
const GENERATOR_WINDOW: usize = 6;
/// Eight multiples of the key, computed anew for each signature: the cheapest width there.
const KEY_WINDOW: usize = 5;

/// The curve's b (SEC 2 2.4.2).
const CURVE_B: Field = Field::from_hex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b");
/// The group's order n as a field element.
const ORDER: Field = Field::from_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
/// p - n, big-endian.
const P_MINUS_N: [u8; 32] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x43, 0x19, 0x05, 0x53, 0x58, 0xe8, 0x61, 0x7b, 0x0c,
    0x46, 0x35, 0x3d, 0x03, 0x9c, 0xda, 0xae,
];

/// 1, 3, 5 ... 31 times the generator; a test recomputes them.
const GENERATOR_MULTIPLES: [Affine; 16] = [
    affine(
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
    ),
    affine(
        "5ecbe4d1a6330a44c8f7ef951d4bf165e6c6b721efada985fb41661bc6e7fd6c",
        "8734640c4998ff7e374b06ce1a64a2ecd82ab036384fb83d9a79b127a27d5032",
    ),
    affine(
        "51590b7a515140d2d784c85608668fdfef8c82fd1f5be52421554a0dc3d033ed",
        "e0c17da8904a727d8ae1bf36bf8a79260d012f00d4d80888d1d0bb44fda16da4",
    ),
    affine(
        "8e533b6fa0bf7b4625bb30667c01fb607ef9f8b8a80fef5b300628703187b2a3",
        "73eb1dbde03318366d069f83a6f5900053c73633cb041b21c55e1a86c1f400b4",
    ),
    affine(
        "ea68d7b6fedf0b71878938d51d71f8729e0acb8c2c6df8b3d79e8a4b90949ee0",
        "2a2744c972c9fce787014a964a8ea0c84d714feaa4de823fe85a224a4dd048fa",
    ),
    affine(
        "3ed113b7883b4c590638379db0c21cda16742ed0255048bf433391d374bc21d1",
        "9099209accc4c8a224c843afa4f4c68a090d04da5e9889dae2f8eefce82a3740",
    ),
    affine(
        "177c837ae0ac495a61805df2d85ee2fc792e284b65ead58a98e15d9d46072c01",
        "63bb58cd4ebea558a24091adb40f4e7226ee14c3a1fb4df39c43bbe2efc7bfd8",
    ),
    affine(
        "f0454dc6971abae7adfb378999888265ae03af92de3a0ef163668c63e59b9d5f",
        "b5b93ee3592e2d1f4e6594e51f9643e62a3b21ce75b5fa3f47e59cde0d034f36",
    ),
    affine(
        "47776904c0f1cc3a9c0984b66f75301a5fa68678f0d64af8ba1abce34738a73e",
        "aa005ee6b5b957286231856577648e8381b2804428d5733f32f787ff71f1fcdc",
    ),
    affine(
        "cb6d2861102c0c25ce39b7c17108c507782c452257884895c1fc7b74ab03ed83",
        "58d7614b24d9ef515c35e7100d6d6ce4a496716e30fa3e03e39150752bcecdaa",
    ),
    affine(
        "3250fcf686637c7b2e4ac86eb473bca53a582139f42b1523fd76364e67399e83",
        "42e7c342667d359397b3090d1d7eb88c897cd3c33b566a8215de24a071d48c09",
    ),
    affine(
        "0e91c7239c2640d7d28a3e39d4583fa63c0bc0a5df64a4fe672e573045ca7896",
        "5df65c3b550dba221a22733bb8e0bd6d7e68833575e7a5ae138046543140ad55",
    ),
    affine(
        "3a67e2554b0c0bb685f4f52d8c07fa8441652fc5b76f1b2484a4dc45f200d687",
        "27d0f1872f1fcf4326daf267163afb0d8c188af735a7618aa9ed16b302f79324",
    ),
    affine(
        "184ffa5819d80d51deba2fac4611f378576355bd683e54abf2e201173b0883d1",
        "c0a66e276688f359a4c6d90826cb999545bdeccc63f0491620d242c260906e6f",
    ),
    affine(
        "d6d33adefa195b07a7c36da090853b8cfd8cd1c688b58a41dedd693d1c784def",
        "84aaba16ee195d7e3f78245f558a5dcb09a166ab4b95eded550c124593d1bca6",
    ),
    affine(
        "301d9e502dc7e05da85da026a7ae9aa0fac9db7d52a95b3e3e3f9aa0a1b45b8b",
        "6551b6f6b3061223e0d23c026b017d72298d9ae46887ca61d58db6aea17ee267",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Entropy;
    use p256::elliptic_curve::ops::Reduce;
    use p256::elliptic_curve::sec1::ToSec1Point;
    use p256::{ProjectivePoint, PublicKey, U256};

    struct SplitMix(u64);

    impl Entropy for SplitMix {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                *byte = (mixed ^ (mixed >> 27)) as u8;
            }
        }
    }

    fn scalar(entropy: &mut SplitMix) -> Scalar {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        Scalar::reduce(&U256::from_be_slice(&bytes))
    }

    fn small(value: u64) -> Scalar {
        Scalar::from(value)
    }

    /// The sum as p256 computes it.
    fn expected(u1: &Scalar, u2: &Scalar, key: &PublicKey) -> ProjectivePoint {
        ProjectivePoint::GENERATOR * u1 + key.to_projective() * u2
    }

    fn affine_of(key: &PublicKey) -> Affine {
        Key::from_sec1(key.to_sec1_point(false).as_bytes()).expect("a public key").0
    }

    fn assert_same(u1: &Scalar, u2: &Scalar, key: &PublicKey) {
        let sum = multiply_and_add(u1, u2, &affine_of(key));
        let Ok(expected) = PublicKey::from_affine(expected(u1, u2, key).to_affine()) else {
            return assert!(sum.is_infinity(), "{u1:?} {u2:?}");
        };
        let point = expected.to_sec1_point(false);
        let z2 = sum.z.square();
        let coordinate =
            |bytes: &p256::FieldBytes| Field::from_bytes(&(*bytes).into()).expect("a coordinate");
        let x = coordinate(point.x().expect("uncompressed")).mul(&z2);
        let y = coordinate(point.y().expect("uncompressed")).mul(&z2.mul(&sum.z));
        assert!(!sum.is_infinity() && x == sum.x && y == sum.y, "{u1:?} {u2:?}");
    }

    fn key(scalar: &Scalar) -> PublicKey {
        PublicKey::from_affine((ProjectivePoint::GENERATOR * scalar).to_affine()).expect("a scalar not zero")
    }

    #[test]
    fn only_uncompressed_points_on_the_curve_are_keys() {
        let point = key(&small(7)).to_sec1_point(false);
        let good = point.as_bytes();
        assert!(Key::from_sec1(good).is_some());
        let mut bytes = [0; 65];
        for (changed, what) in [(0, "another tag"), (1, "another x"), (64, "another y")] {
            bytes.copy_from_slice(good);
            bytes[changed] ^= 1;
            assert!(Key::from_sec1(&bytes).is_none(), "{what}");
        }
        assert!(Key::from_sec1(&good[..64]).is_none(), "cut off");
        assert!(Key::from_sec1(key(&small(7)).to_sec1_point(true).as_bytes()).is_none(), "compressed");
        bytes[1..].fill(0xff);
        bytes[0] = 4;
        assert!(Key::from_sec1(&bytes).is_none(), "coordinates above p");
    }

    #[test]
    fn generator_table_holds_odd_multiples() {
        for (index, entry) in GENERATOR_MULTIPLES.iter().enumerate() {
            let expected = affine_of(&key(&small(2 * index as u64 + 1)));
            assert!(entry.x == expected.x && entry.y == expected.y, "multiple {index}");
        }
    }

    #[test]
    fn order_and_difference_fit_the_field() {
        let difference = Field::from_bytes(&P_MINUS_N).expect("a small number");
        assert!(difference.add(&ORDER).is_zero());
    }

    #[test]
    fn random_sums_agree_with_p256() {
        let mut entropy = SplitMix(0x5eed);
        for _ in 0..40 {
            let key = key(&scalar(&mut entropy));
            assert_same(&scalar(&mut entropy), &scalar(&mut entropy), &key);
        }
    }

    #[test]
    fn special_sums_agree_with_p256() {
        let zero = small(0);
        let one = small(1);
        let largest = zero - one;
        for secret in [small(1), small(2), small(3), largest, zero - small(2)] {
            let key = key(&secret);
            let values = [zero, one, small(2), small(31), small(32), small(33), largest, zero - small(64)];
            for u1 in &values {
                for u2 in &values {
                    assert_same(u1, u2, &key);
                }
            }
            // Opposite and equal halves meet in the sum.
            assert_same(&secret, &largest, &key);
            assert_same(&secret, &one, &key);
        }
    }
}
