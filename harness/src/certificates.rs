//! The run's own certificate authority: root, intermediate and leaves, made afresh for every run.
//!
//! A leaf is signed by the intermediate and handed out with it, so a client that trusts the root has the
//! chain of three to verify that a deployed broker usually presents. Beside the valid leaf there is one for
//! each way a certificate can be wrong ([`Flaw`]); a client must refuse all of those.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The DNS name every broker of a run is known by. `.test` is reserved (RFC 6761 6.2): it can name nothing real.
pub const SERVER_NAME: &str = "broker.test";

/// Names and addresses the valid leaf covers beside [`SERVER_NAME`]: loopback for the harness itself, the
/// gateway address a board on the virtual network reaches the broker at.
const ALTERNATIVE_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "10.77.0.1"];

/// How far the validity reaches around today. Generous before, because a board's clock may lag.
const VALID_DAYS: i64 = 30;

/// What is wrong with a server certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// Nothing: the certificate a client must accept.
    #[default]
    None,
    /// Issued for another host name.
    WrongName,
    /// Its validity ended some days ago.
    Expired,
    /// Its validity starts in some days.
    NotYetValid,
    /// Signed by an authority the client does not trust, though it bears the same name.
    UnknownAuthority,
    /// Valid for client authentication only (RFC 5280 4.2.1.12).
    WrongUsage,
}

impl Flaw {
    /// Each way a server certificate can be wrong.
    pub const WRONG: [Self; 5] =
        [Self::WrongName, Self::Expired, Self::NotYetValid, Self::UnknownAuthority, Self::WrongUsage];
}

/// The kind of key, hence of signature, all certificates of a run use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256: what most brokers present, and the cheapest ECDSA for a microcontroller.
    #[default]
    P256,
    /// ECDSA on P-384 with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair, CertificateError> {
        let algorithm = match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
        };
        Ok(KeyPair::generate_for(algorithm)?)
    }
}

/// Who signs the leaves of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// The intermediate: a client that trusts the root has a chain of three to verify.
    #[default]
    Intermediate,
    /// The root itself.
    Root,
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("making a certificate of the run's own authority failed: {0}")]
pub struct CertificateError(#[from] rcgen::Error);

/// A leaf with the chain below the root, and its key.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first, then the intermediate; the root is left out, as RFC 8446 4.4.2 allows.
    pub chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// A chain and a key (PKCS #8) from PEM.
    ///
    /// # Errors
    /// Says which of them cannot be read.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, &'static str> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| "the certificate chain is not PEM")?;
        if chain.is_empty() {
            return Err("the certificate chain holds no certificate");
        }
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| "the private key is not PKCS #8 in PEM")?;
        Ok(Self { chain, key })
    }

    /// The private key, as rustls takes it.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    /// The chain as PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    /// The private key as PEM (PKCS #8). A secret: it belongs in no report.
    #[must_use]
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.secret_pkcs8_der())
    }
}

/// Root and intermediate of one run.
struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn generate(kind: KeyKind) -> Result<Self, CertificateError> {
        let root = CertifiedIssuer::self_signed(
            authority_params("Harness root", BasicConstraints::Unconstrained),
            kind.generate()?,
        )?;
        let intermediate = CertifiedIssuer::signed_by(
            authority_params("Harness intermediate", BasicConstraints::Constrained(0)),
            kind.generate()?,
            &root,
        )?;
        Ok(Self { root, intermediate })
    }

    fn issue(
        &self,
        params: &CertificateParams,
        kind: KeyKind,
        depth: Depth,
    ) -> Result<Identity, CertificateError> {
        let key = kind.generate()?;
        let chain = match depth {
            Depth::Intermediate => {
                let leaf = params.signed_by(&key, &self.intermediate)?;
                vec![leaf.der().clone(), self.intermediate.der().clone()]
            }
            Depth::Root => vec![params.signed_by(&key, &self.root)?.der().clone()],
        };
        Ok(Identity { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }
}

/// The authority of one run and what it issues.
pub struct Certificates {
    kind: KeyKind,
    depth: Depth,
    authority: Authority,
    names: Vec<String>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("kind", &self.kind)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Makes a new authority with P-256 keys.
    ///
    /// # Errors
    /// When the system's random source or the certificate encoder fails.
    pub fn generate() -> Result<Self, CertificateError> {
        Self::with_keys(KeyKind::P256, &[])
    }

    /// Makes a new authority with keys of `kind`, whose server certificates also cover `more_names` (host
    /// names or addresses, such as the address a board on the LAN reaches this machine at).
    ///
    /// # Errors
    /// As [`Self::generate`], and when a name is neither an address nor a DNS name.
    pub fn with_keys(kind: KeyKind, more_names: &[String]) -> Result<Self, CertificateError> {
        let mut names: Vec<String> =
            std::iter::once(SERVER_NAME).chain(ALTERNATIVE_NAMES).map(str::to_owned).collect();
        names.extend(more_names.iter().cloned());
        CertificateParams::new(names.clone())?;
        Ok(Self { kind, depth: Depth::default(), authority: Authority::generate(kind)?, names })
    }

    /// The same, with leaves signed as `depth` says.
    #[must_use]
    pub fn signed_by(self, depth: Depth) -> Self {
        Self { depth, ..self }
    }

    /// Who signs the leaves.
    #[must_use]
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// The kind of key in use.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The root a client has to trust.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        self.authority.root.der()
    }

    /// The root as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem("CERTIFICATE", self.root())
    }

    /// The root in the form rustls verifies against.
    #[must_use]
    pub fn trust(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(self.root().clone()).expect("the root was encoded by this process");
        store
    }

    /// Issues a server certificate, valid or wrong in one respect.
    ///
    /// # Errors
    /// When the certificate cannot be encoded or signed.
    pub fn server(&self, flaw: Flaw) -> Result<Identity, CertificateError> {
        let names = match flaw {
            Flaw::WrongName => vec!["another-host.test".to_owned()],
            _ => self.names.clone(),
        };
        let mut params = CertificateParams::new(names)?;
        let days = match flaw {
            Flaw::Expired => -2 * VALID_DAYS..-2,
            Flaw::NotYetValid => 2..2 * VALID_DAYS,
            _ => -VALID_DAYS..VALID_DAYS,
        };
        let usage = match flaw {
            Flaw::WrongUsage => ExtendedKeyUsagePurpose::ClientAuth,
            _ => ExtendedKeyUsagePurpose::ServerAuth,
        };
        describe(&mut params, SERVER_NAME, days);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        if flaw == Flaw::UnknownAuthority {
            return Authority::generate(self.kind)?.issue(&params, self.kind, self.depth);
        }
        self.authority.issue(&params, self.kind, self.depth)
    }

    /// Issues a client certificate for mutual TLS.
    ///
    /// # Errors
    /// When the certificate cannot be encoded or signed.
    pub fn client(&self, common_name: &str) -> Result<Identity, CertificateError> {
        let mut params = CertificateParams::default();
        describe(&mut params, common_name, -VALID_DAYS..VALID_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.authority.issue(&params, self.kind, self.depth)
    }
}

fn authority_params(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    describe(&mut params, name, -VALID_DAYS..VALID_DAYS);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn describe(params: &mut CertificateParams, common_name: &str, days: std::ops::Range<i64>) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    let today = days_since_epoch();
    let (year, month, day) = civil_from_days(today + days.start);
    params.not_before = rcgen::date_time_ymd(year, month, day);
    let (year, month, day) = civil_from_days(today + days.end);
    params.not_after = rcgen::date_time_ymd(year, month, day);
}

fn days_since_epoch() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the system clock is past 1970");
    i64::try_from(since.as_secs() / 86_400).expect("days since 1970 fit")
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Counts in eras of 400 years that start in March, so that the leap day is the last day of a year.
fn civil_from_days(days: i64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (
        i32::try_from(year).expect("the year fits"),
        u8::try_from(month).expect("1..=12"),
        u8::try_from(day).expect("1..=31"),
    )
}

/// RFC 7468 textual encoding.
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        text.push_str(&base64(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Bytes in Base64, with padding (RFC 4648 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for sextet in 0..4 {
            if sextet <= group.len() {
                let index = (bits >> (18 - 6 * sextet)) & 0x3f;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{CertificateError as Verdict, Error};

    use super::*;

    fn verify(certificates: &Certificates, identity: &Identity, name: &str) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(certificates.trust()), provider)
            .build()
            .expect("one root");
        verifier
            .verify_server_cert(
                &identity.chain[0],
                &identity.chain[1..],
                &ServerName::try_from(name.to_owned()).expect("a server name"),
                &[],
                UnixTime::now(),
            )
            .map(|_| ())
    }

    #[test]
    fn valid_leaf_is_accepted_for_each_of_its_names() {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
            let certificates =
                Certificates::with_keys(kind, &["192.0.2.7".to_owned()]).expect("an authority");
            let identity = certificates.server(Flaw::None).expect("a leaf");
            for name in [SERVER_NAME, "localhost", "127.0.0.1", "10.77.0.1", "192.0.2.7"] {
                verify(&certificates, &identity, name).expect(name);
            }
        }
    }

    #[test]
    fn a_leaf_signed_by_the_root_comes_alone_and_is_accepted() {
        let certificates = Certificates::generate().expect("an authority").signed_by(Depth::Root);
        let identity = certificates.server(Flaw::None).expect("a leaf");
        assert_eq!(identity.chain.len(), 1);
        verify(&certificates, &identity, SERVER_NAME).expect("a chain of two");
    }

    #[test]
    fn each_flaw_is_refused_for_its_own_reason() {
        let certificates = Certificates::generate().expect("an authority");
        let reason = |flaw| {
            let identity = certificates.server(flaw).expect("a leaf");
            match verify(&certificates, &identity, SERVER_NAME) {
                Err(Error::InvalidCertificate(reason)) => reason,
                other => panic!("{flaw:?} gave {other:?}"),
            }
        };
        assert!(matches!(
            reason(Flaw::WrongName),
            Verdict::NotValidForName | Verdict::NotValidForNameContext { .. }
        ));
        assert!(matches!(reason(Flaw::Expired), Verdict::Expired | Verdict::ExpiredContext { .. }));
        assert!(matches!(
            reason(Flaw::NotYetValid),
            Verdict::NotValidYet | Verdict::NotValidYetContext { .. }
        ));
        assert!(matches!(reason(Flaw::UnknownAuthority), Verdict::UnknownIssuer | Verdict::BadSignature));
        assert!(matches!(
            reason(Flaw::WrongUsage),
            Verdict::InvalidPurpose | Verdict::InvalidPurposeContext { .. }
        ));
    }

    #[test]
    fn pem_reads_back_as_the_same_der() {
        let certificates = Certificates::generate().expect("an authority");
        let identity = certificates.server(Flaw::None).expect("a leaf");
        let chain: Vec<_> = CertificateDer::pem_slice_iter(identity.chain_pem().as_bytes())
            .collect::<Result<_, _>>()
            .expect("valid PEM");
        assert_eq!(chain, identity.chain);
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).expect("valid PEM");
        assert_eq!(key.secret_der(), identity.key().secret_der());
    }

    #[test]
    fn calendar_matches_known_days() {
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil_from_days(11_016), (2000, 2, 29));
        assert_eq!(civil_from_days(11_017), (2000, 3, 1));
        assert_eq!(civil_from_days(20_819), (2027, 1, 1));
        assert_eq!(civil_from_days(-1), (1969, 12, 31));
    }
}
