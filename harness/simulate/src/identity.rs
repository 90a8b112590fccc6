//! Who the simulated server is: certificates, and the trust anchors that go with them.

use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, TrustAnchor};

/// The name in each certificate.
pub const SERVER_NAME: &str = "broker.test";

/// Certificates below the root in the long chain: five intermediates, of the six that webpki accepts.
const LONG_CHAIN: usize = 6;
/// Characters that lengthen each name in it, so that the server's first flight exceeds 3,600 bytes while the
/// Certificate message stays within the 4,096 bytes the device has for one.
const LONG_NAME: usize = 110;
/// Characters with which the Certificate message exceeds these 4,096 bytes.
const TOO_LONG_NAME: usize = 220;

/// A server's certificate chain and key, and the root that vouches for it.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first; the root is left out.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom the client must trust.
    pub anchors: Vec<TrustAnchor<'static>>,
    key: Vec<u8>,
}

impl Identity {
    /// The leaf's private key.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// The leaf's certificates as the device wants them to show them itself.
    #[must_use]
    pub fn certificates(&self) -> Vec<&[u8]> {
        self.chain.iter().map(AsRef::as_ref).collect()
    }

    /// The scalar of the leaf's P-256 key.
    ///
    /// # Panics
    /// If its key is of another kind.
    #[must_use]
    pub fn scalar(&self) -> &[u8; 32] {
        // PKCS#8 around RFC 5915: the scalar is behind the version and the octet string's header.
        let marker = [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = self.key.windows(marker.len()).position(|window| window == marker).expect("a P-256 key");
        self.key[at + marker.len()..].first_chunk().expect("32 bytes follow")
    }

    /// Ed25519 throughout, from fixed keys: every byte is the same on every run.
    #[must_use]
    pub fn fixed() -> Arc<Self> {
        static FIXED: OnceLock<Arc<Identity>> = OnceLock::new();
        FIXED.get_or_init(|| Arc::new(Self::build(1, 0, &mut ed25519))).clone()
    }

    /// As [`Self::fixed`] with so long a chain that the server's first flight exceeds three client datagrams.
    #[must_use]
    pub fn long_chain() -> Arc<Self> {
        static LONG: OnceLock<Arc<Identity>> = OnceLock::new();
        LONG.get_or_init(|| Arc::new(Self::build(LONG_CHAIN, LONG_NAME, &mut ed25519))).clone()
    }

    /// As [`Self::long_chain`], longer than the device has room for.
    #[must_use]
    pub fn too_long_chain() -> Arc<Self> {
        Arc::new(Self::build(LONG_CHAIN, TOO_LONG_NAME, &mut ed25519))
    }

    /// ECDSA P-256, leaf, intermediate and root, as real brokers have. Sizes of signatures vary.
    #[must_use]
    pub fn p256() -> Arc<Self> {
        static P256: OnceLock<Arc<Identity>> = OnceLock::new();
        P256.get_or_init(Self::fresh).clone()
    }

    /// As [`Self::p256`], with keys of its own: a stranger to all others.
    #[must_use]
    pub fn fresh() -> Arc<Self> {
        let mut generate =
            |_| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("ring generates P-256 keys");
        Arc::new(Self::build(2, 0, &mut generate))
    }

    /// A root, and `depth` certificates below it of which the last is the server's.
    fn build(depth: usize, padding: usize, key: &mut dyn FnMut(u8) -> KeyPair) -> Self {
        let root_params = authority("Simulated Root", padding, 0);
        let root_key = key(0);
        let root = root_params.self_signed(&root_key).expect("the parameters are complete");
        let mut issuer = Issuer::new(root_params, root_key);
        let mut chain = Vec::new();
        for level in 1..depth {
            let params = authority(&format!("Simulated Intermediate {level}"), padding, level as u8);
            let own_key = key(level as u8);
            chain.push(
                params.signed_by(&own_key, &issuer).expect("the parameters are complete").der().clone(),
            );
            issuer = Issuer::new(params, own_key);
        }
        let params = leaf(padding, depth as u8);
        let leaf_key = key(depth as u8);
        chain.push(params.signed_by(&leaf_key, &issuer).expect("the parameters are complete").der().clone());
        chain.reverse();
        let anchor = webpki::anchor_from_trusted_cert(root.der()).expect("rcgen writes valid certificates");
        Self { chain, anchors: vec![anchor.to_owned()], key: leaf_key.serialize_der() }
    }
}

fn parameters(name: &str, padding: usize, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    if padding > 0 {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "x".repeat(padding));
    }
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    // A serial number of rcgen's choice could vary in length.
    params.serial_number = Some(SerialNumber::from(vec![0x10 + serial]));
    params
}

/// A server's own certificate.
pub(crate) fn leaf(padding: usize, serial: u8) -> CertificateParams {
    let mut params = parameters(SERVER_NAME, padding, serial);
    params.subject_alt_names =
        vec![rcgen::SanType::DnsName(SERVER_NAME.try_into().expect("a DNS name is ASCII"))];
    params
}

/// One that signs others.
pub(crate) fn authority(name: &str, padding: usize, serial: u8) -> CertificateParams {
    let mut params = parameters(name, padding, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params
}

/// An Ed25519 key whose 32 secret bytes are all `number`: RFC 8410's PKCS#8 around them.
fn ed25519(number: u8) -> KeyPair {
    let mut pkcs8 =
        vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pkcs8.extend([number; 32]);
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)
        .expect("any 32 bytes are an Ed25519 key")
}
