//! Certificates and keys as they came over the console. They live here and in no image.

use core::ops::Range;

use pki_types::{CertificateDer, Der, TrustAnchor};
use zeroize::Zeroize;

use crate::control::{Blob, BlobKind, Refusal};
use crate::redacted::redacted_debug;
use crate::tls::ClientAuth;

/// Largest trust anchor in bytes: an RSA-4096 root is about 1.4 KB.
const TRUST_ANCHOR_MAX: usize = 2048;
/// Largest client certificate chain in bytes: two P-256 certificates.
const CLIENT_CERTIFICATE_MAX: usize = 1280;
/// Largest client key in bytes: a P-256 key in PKCS#8 is 138.
const CLIENT_KEY_MAX: usize = 160;
/// Certificates in the client's chain.
const CHAIN_MAX: usize = 2;
/// Where an EC private key's scalar begins in PKCS#8 (RFC 5915 3): version 1, then 32 octets.
const EC_SCALAR_PREFIX: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];

/// What the harness sent.
#[derive(Debug)]
pub(super) struct Credentials {
    trust_anchor: Store<TRUST_ANCHOR_MAX>,
    anchor: Option<Anchor>,
    client_certificate: Store<CLIENT_CERTIFICATE_MAX>,
    client_key: Store<CLIENT_KEY_MAX>,
}

impl Credentials {
    pub(super) const fn new() -> Self {
        Self {
            trust_anchor: Store::new(),
            anchor: None,
            client_certificate: Store::new(),
            client_key: Store::new(),
        }
    }

    /// Takes in a piece.
    pub(super) fn store(&mut self, blob: &Blob) -> Result<(), Refusal> {
        match blob.kind {
            BlobKind::TrustAnchor => {
                self.anchor = None;
                self.trust_anchor.put(blob)?;
                if let Some(certificate) = self.trust_anchor.whole() {
                    self.anchor = Some(Anchor::find(certificate).ok_or(Refusal::BadTrustAnchor)?);
                }
                Ok(())
            }
            BlobKind::ClientCertificate => self.client_certificate.put(blob),
            BlobKind::ClientKey => self.client_key.put(blob),
        }
    }

    /// Checks what a connection would use, so that a mistake is told apart from a failed handshake.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.anchor.as_ref().ok_or(Refusal::BadTrustAnchor)?;
        let none = self.client_certificate.total == 0 && self.client_key.total == 0;
        let usable = self.chain().is_some() && self.scalar().is_some();
        if none || usable { Ok(()) } else { Err(Refusal::BadClientKey) }
    }

    /// The trust anchor, if one was sent.
    pub(super) fn trust_anchor(&self) -> Option<TrustAnchor<'_>> {
        let anchor = self.anchor.as_ref()?;
        let field = |range: &Range<u16>| {
            Der::from_slice(&self.trust_anchor.bytes[usize::from(range.start)..usize::from(range.end)])
        };
        Some(TrustAnchor {
            subject: field(&anchor.subject),
            subject_public_key_info: field(&anchor.public_key),
            name_constraints: anchor.name_constraints.as_ref().map(field),
        })
    }

    /// The identity to show, if one was sent.
    pub(super) fn chain(&self) -> Option<heapless::Vec<&[u8], CHAIN_MAX>> {
        let mut rest = self.client_certificate.whole()?;
        let mut chain = heapless::Vec::new();
        while !rest.is_empty() {
            let (certificate, after) = rest.split_at_checked(der_len(rest)?)?;
            chain.push(certificate).ok()?;
            rest = after;
        }
        Some(chain)
    }

    /// The client key's scalar, if a P-256 key was sent: as it is, or in PKCS#8.
    pub(super) fn scalar(&self) -> Option<&[u8; 32]> {
        let key = self.client_key.whole()?;
        if let Ok(scalar) = key.try_into() {
            return Some(scalar);
        }
        let prefix = key.windows(EC_SCALAR_PREFIX.len()).position(|window| window == EC_SCALAR_PREFIX)?;
        key[prefix + EC_SCALAR_PREFIX.len()..].first_chunk()
    }

    /// The identity, with the chain that [`Credentials::chain`] found.
    pub(super) fn client_auth<'a>(&'a self, chain: Option<&'a [&'a [u8]]>) -> Option<ClientAuth<'a>> {
        Some(ClientAuth { certificates: chain?, private_key: self.scalar()? })
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.client_key.bytes.zeroize();
    }
}

/// Where the fields of a trust anchor stand in its certificate: parsed once, not for each packet.
#[derive(Debug)]
struct Anchor {
    subject: Range<u16>,
    public_key: Range<u16>,
    name_constraints: Option<Range<u16>>,
}

impl Anchor {
    fn find(certificate: &[u8]) -> Option<Self> {
        let wrapped = CertificateDer::from(certificate);
        let anchor = webpki::anchor_from_trusted_cert(&wrapped).ok()?;
        let range = |field: &[u8]| {
            let start = (field.as_ptr() as usize).checked_sub(certificate.as_ptr() as usize)?;
            let range = u16::try_from(start).ok()?..u16::try_from(start + field.len()).ok()?;
            (usize::from(range.end) <= certificate.len()).then_some(range)
        };
        Some(Self {
            subject: range(&anchor.subject)?,
            public_key: range(&anchor.subject_public_key_info)?,
            name_constraints: match &anchor.name_constraints {
                Some(constraints) => Some(range(constraints)?),
                None => None,
            },
        })
    }
}

/// Length of the DER value at the start of `bytes`, header included.
fn der_len(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [_, short @ 0..=0x7f, ..] => Some(2 + usize::from(short)),
        [_, 0x81, len, ..] => Some(3 + usize::from(len)),
        [_, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    }
}

/// One blob, in pieces until it is whole.
struct Store<const N: usize> {
    bytes: [u8; N],
    len: usize,
    total: usize,
}

redacted_debug! { [const N: usize] Store<N>, "Store", shown: [len, total], length: [bytes], hidden: [] }

impl<const N: usize> Store<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], len: 0, total: 0 }
    }

    fn put(&mut self, blob: &Blob) -> Result<(), Refusal> {
        let (total, offset) = (usize::from(blob.total), usize::from(blob.offset));
        if total > N {
            return Err(Refusal::BlobTooLarge { limit: N as u16 });
        }
        if offset == 0 {
            // Nothing stays of a key that another one replaces.
            self.bytes.zeroize();
            self.len = 0;
            self.total = total;
        }
        let end = offset + blob.bytes.len();
        if offset != self.len || total != self.total || end > total {
            return Err(Refusal::BlobOrder { expected: self.len as u16 });
        }
        self.bytes[offset..end].copy_from_slice(&blob.bytes);
        self.len = end;
        Ok(())
    }

    fn whole(&self) -> Option<&[u8]> {
        (self.total > 0 && self.len == self.total).then(|| &self.bytes[..self.len])
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::control::CHUNK_MAX;

    fn send(credentials: &mut Credentials, kind: BlobKind, bytes: &[u8]) -> Result<(), Refusal> {
        for (index, chunk) in bytes.chunks(CHUNK_MAX).enumerate() {
            credentials.store(&Blob {
                kind,
                total: bytes.len() as u16,
                offset: (index * CHUNK_MAX) as u16,
                bytes: heapless::Vec::from_slice(chunk).expect("a chunk fits"),
            })?;
        }
        Ok(())
    }

    fn authority() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().expect("P-256");
        let mut params = rcgen::CertificateParams::new([]).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).expect("a root")
    }

    #[test]
    fn a_trust_anchor_sent_in_pieces_is_the_certificate_s() {
        let certificate = authority();
        let mut credentials = Credentials::new();
        send(&mut credentials, BlobKind::TrustAnchor, certificate.der()).expect("in order");
        let expected = webpki::anchor_from_trusted_cert(certificate.der()).expect("rcgen's own");
        assert_eq!(credentials.trust_anchor(), Some(expected));
        assert_eq!(credentials.check(), Ok(()));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused_at_once() {
        let mut credentials = Credentials::new();
        assert_eq!(send(&mut credentials, BlobKind::TrustAnchor, &[0x30; 300]), Err(Refusal::BadTrustAnchor));
        assert_eq!(credentials.check(), Err(Refusal::BadTrustAnchor));
    }

    #[test]
    fn a_client_s_certificate_and_pkcs8_key_become_an_identity() {
        let key = rcgen::KeyPair::generate().expect("P-256");
        let leaf = rcgen::CertificateParams::new([]).expect("no names").self_signed(&key).expect("signs");
        let mut credentials = Credentials::new();
        send(&mut credentials, BlobKind::TrustAnchor, authority().der()).expect("in order");
        send(&mut credentials, BlobKind::ClientCertificate, leaf.der()).expect("in order");
        assert_eq!(credentials.check(), Err(Refusal::BadClientKey), "the key is missing");
        send(&mut credentials, BlobKind::ClientKey, key.serialized_der()).expect("in order");
        assert_eq!(credentials.check(), Ok(()));
        let chain = credentials.chain();
        let identity = credentials.client_auth(chain.as_deref()).expect("both are there");
        assert_eq!(identity.certificates, [leaf.der().as_ref()]);
        let signing = p256::ecdsa::SigningKey::from_slice(identity.private_key).expect("a scalar");
        let public = signing.verifying_key().to_sec1_point(false);
        let pkcs8 = key.serialized_der();
        assert!(pkcs8.windows(public.len()).any(|window| window == public.as_bytes()));
    }

    #[test]
    fn a_key_is_not_shown() {
        use crate::redacted::tests::{SECRET, assert_hides};
        let mut credentials = Credentials::new();
        send(&mut credentials, BlobKind::ClientKey, SECRET).expect("fits");
        assert_hides(&credentials);
    }

    #[test]
    fn a_missing_piece_is_named() {
        let piece = |offset, len| Blob {
            kind: BlobKind::ClientKey,
            total: 100,
            offset,
            bytes: heapless::Vec::from_slice(&[7; 100][..len]).expect("fits"),
        };
        let mut credentials = Credentials::new();
        assert_eq!(credentials.store(&piece(0, 40)), Ok(()));
        assert_eq!(credentials.store(&piece(60, 40)), Err(Refusal::BlobOrder { expected: 40 }));
        assert_eq!(credentials.store(&piece(40, 60)), Ok(()));
        assert_eq!(credentials.store(&piece(0, 100)), Ok(()), "offset 0 starts anew");
    }

    #[test]
    fn a_blob_beyond_the_limit_is_refused_before_anything_is_stored() {
        let mut credentials = Credentials::new();
        let blob = Blob { kind: BlobKind::ClientKey, total: 999, offset: 0, bytes: heapless::Vec::new() };
        assert_eq!(credentials.store(&blob), Err(Refusal::BlobTooLarge { limit: CLIENT_KEY_MAX as u16 }));
    }
}
