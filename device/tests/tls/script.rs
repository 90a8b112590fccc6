//! A TLS server that follows a script: correct until a test changes one thing.

use crate::support::{ALPN, Authority, CLIENT_PARAMETERS, NAME, SERVER_PARAMETERS, Seeded, now_s, split};
use device::codec::Writer;
use device::crypto::hkdf::{derive_secret, digest, extract, hmac};
use device::crypto::key_exchange::{NamedGroup, PrivateKey};
use device::crypto::{HashAlgorithm, Secret, Software};
use device::tls::{Config, EarlyData, Error, Handshake, Level, Step};
use rustls::SignatureScheme;

const HASH: HashAlgorithm = HashAlgorithm::Sha256;

pub(crate) const SERVER_HELLO: u8 = 2;
pub(crate) const NEW_SESSION_TICKET: u8 = 4;
pub(crate) const ENCRYPTED_EXTENSIONS: u8 = 8;
pub(crate) const CERTIFICATE: u8 = 11;
pub(crate) const CERTIFICATE_REQUEST: u8 = 13;
pub(crate) const CERTIFICATE_VERIFY: u8 = 15;
pub(crate) const FINISHED: u8 = 20;

/// SHA-256 of "HelloRetryRequest".
pub(crate) const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Extensions by type, in order.
pub(crate) type Extensions = Vec<(u16, Vec<u8>)>;

/// Changes a finished message of some type.
type Edit = Box<dyn Fn(u8, &mut Vec<u8>)>;

/// Signs what a CertificateVerify covers.
pub(crate) type Signer = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// What the server will send.
pub(crate) struct Script {
    pub(crate) version: u16,
    pub(crate) random: [u8; 32],
    pub(crate) session_id: Vec<u8>,
    pub(crate) suite: u16,
    pub(crate) compression: u8,
    pub(crate) hello_extensions: Extensions,
    pub(crate) encrypted_extensions: Extensions,
    pub(crate) request_extensions: Extensions,
    pub(crate) certificate_context: Vec<u8>,
    /// Certificates with their encoded extensions.
    pub(crate) chain: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) scheme: u16,
    pub(crate) signing_key: Signer,
    /// The messages, in order, with the level each is sent at.
    pub(crate) order: Vec<(u8, Level)>,
    /// What goes into a NewSessionTicket.
    pub(crate) ticket: Vec<u8>,
    /// Applied to every message before it is sent and hashed.
    pub(crate) edit: Edit,
}

impl Script {
    /// A server that a client trusting `authority` accepts.
    pub(crate) fn new(authority: &Authority) -> Self {
        let certificates = authority.chain().iter();
        Self {
            version: 0x0303,
            random: [9; 32],
            session_id: Vec::new(),
            suite: 0x1303,
            compression: 0,
            // The key share is filled in when the ClientHello is known.
            hello_extensions: vec![(43, vec![3, 4]), (51, Vec::new())],
            encrypted_extensions: vec![
                (16, vec![0, 5, 4, b'm', b'q', b't', b't']),
                (57, SERVER_PARAMETERS.to_vec()),
            ],
            request_extensions: vec![(13, vec![0, 2, 4, 3])],
            certificate_context: Vec::new(),
            chain: certificates.map(|certificate| (certificate.to_vec(), Vec::new())).collect(),
            scheme: 0x0403,
            signing_key: signer(authority),
            order: vec![
                (SERVER_HELLO, Level::Initial),
                (ENCRYPTED_EXTENSIONS, Level::Handshake),
                (CERTIFICATE, Level::Handshake),
                (CERTIFICATE_VERIFY, Level::Handshake),
                (FINISHED, Level::Handshake),
            ],
            ticket: ticket(7200, b"ticket", &[]),
            edit: Box::new(|_, _| {}),
        }
    }

    /// Plays the script to a client with the given configuration, and says at which message it failed.
    pub(crate) fn play(self, config: &Config<'_>) -> Result<(), (u8, Error)> {
        self.play_with(config, EarlyData::Omit)
    }

    /// The same, with 0-RTT if the configuration has a ticket for it.
    pub(crate) fn play_with(self, config: &Config<'_>, early_data: EarlyData) -> Result<(), (u8, Error)> {
        let mut entropy = Seeded(5);
        let mut buffer = [0; 2048];
        let mut out = Writer::new(&mut buffer);
        let parameters = Some(CLIENT_PARAMETERS);
        let mut client = Handshake::<Software>::start(config, &mut entropy, parameters, early_data, &mut out)
            .expect("the configuration is fine");
        let mut server = Server::new(self, out.written());
        for (kind, level) in server.script.order.clone() {
            let message = server.message(kind);
            let mut buffer = [0; 2048];
            let mut out = Writer::new(&mut buffer);
            let step = client.handle_message(config, &mut entropy, level, &message, &mut out);
            let step = step.map_err(|error| (kind, error))?;
            if matches!(step, Step::SecondClientHello) {
                server.restart(out.written());
            }
            if matches!(step, Step::Complete { .. }) {
                server.check_finished(out.written());
            }
        }
        Ok(())
    }
}

/// Plays a script that `change` has spoiled to a default client, and returns where and how it was refused.
pub(crate) fn refused(change: impl FnOnce(&mut Script)) -> (u8, Error) {
    let authority = Authority::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let mut script = Script::new(&authority);
    change(&mut script);
    let anchors = [authority.anchor()];
    script.play(&Config::new(&anchors, NAME, ALPN, now_s())).expect_err("the client must refuse this")
}

/// A NewSessionTicket's body.
pub(crate) fn ticket(lifetime_s: u32, identity: &[u8], extensions: &[u8]) -> Vec<u8> {
    let mut body = [lifetime_s.to_be_bytes(), [1, 2, 3, 4]].concat();
    body.extend([1, 0]);
    body.extend(counted(2, identity));
    body.extend(counted(2, extensions));
    body
}

/// Signs with the authority's leaf key.
pub(crate) fn signer(authority: &Authority) -> Signer {
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(authority.key()).expect("a supported key");
    let all = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
    ];
    let signer = key.choose_scheme(&all).expect("one of them fits");
    Box::new(move |content| signer.sign(content).expect("signing works"))
}

/// The server while it plays.
pub(crate) struct Server {
    script: Script,
    transcript: Vec<u8>,
    early: Secret,
    shared: Vec<u8>,
    client_secret: Secret,
    server_secret: Secret,
}

impl Server {
    pub(crate) fn new(script: Script, hello: &[u8]) -> Self {
        let none = Secret::zero(32);
        let early = extract::<Software>(HASH, &[], none.as_bytes());
        let mut server = Self {
            script,
            transcript: Vec::new(),
            early,
            shared: Vec::new(),
            client_secret: none.clone(),
            server_secret: none,
        };
        server.take_hello(hello);
        server
    }

    /// Replaces the first ClientHello by its hash; the retry request follows, then the second.
    fn restart(&mut self, hello: &[u8]) {
        let (first, retry) = {
            let messages = split(&self.transcript);
            (messages[0].to_vec(), messages[1].to_vec())
        };
        let hash = digest::<Software>(HASH, &[&first]);
        self.transcript = [&[254, 0, 0, 32], hash.as_bytes(), &retry].concat();
        self.script.random = [9; 32];
        self.script.hello_extensions = vec![(43, vec![3, 4]), (51, Vec::new())];
        self.take_hello(hello);
    }

    fn take_hello(&mut self, hello: &[u8]) {
        self.transcript.extend_from_slice(hello);
        let share = key_share(hello);
        let group = NamedGroup::from_id(u16::from_be_bytes([share[0], share[1]])).expect("a known group");
        let key = PrivateKey::generate(group, &mut Seeded(99)).expect("a key");
        self.shared = key.agree(&share[4..]).expect("a valid share").to_vec();
        let mut public = [0; 65];
        let len = key.share(&mut public);
        let value = [&share[..2], &counted(2, &public[..len])].concat();
        for (id, contents) in &mut self.script.hello_extensions {
            if *id == 51 && contents.is_empty() {
                contents.clone_from(&value);
            }
        }
    }

    /// The handshake secrets of client and server, once the ServerHello is out.
    pub(crate) const fn secrets(&self) -> (&Secret, &Secret) {
        (&self.client_secret, &self.server_secret)
    }

    /// The message of this type, as the script wants it.
    pub(crate) fn message(&mut self, kind: u8) -> Vec<u8> {
        let script = &self.script;
        let body = match kind {
            SERVER_HELLO => {
                let mut body = script.version.to_be_bytes().to_vec();
                body.extend(script.random);
                body.extend(counted(1, &script.session_id));
                body.extend(script.suite.to_be_bytes());
                body.push(script.compression);
                body.extend(encode(&script.hello_extensions));
                body
            }
            ENCRYPTED_EXTENSIONS => encode(&script.encrypted_extensions),
            CERTIFICATE_REQUEST => [vec![0], encode(&script.request_extensions)].concat(),
            CERTIFICATE => {
                let list: Vec<u8> = script
                    .chain
                    .iter()
                    .flat_map(|(data, extensions)| [counted(3, data), counted(2, extensions)].concat())
                    .collect();
                [counted(1, &script.certificate_context), counted(3, &list)].concat()
            }
            CERTIFICATE_VERIFY => {
                let content =
                    [&[b' '; 64], &b"TLS 1.3, server CertificateVerify\0"[..], self.hash().as_bytes()]
                        .concat();
                let signature = (script.signing_key)(&content);
                [script.scheme.to_be_bytes().to_vec(), counted(2, &signature)].concat()
            }
            FINISHED => self.mac(&self.server_secret).as_bytes().to_vec(),
            NEW_SESSION_TICKET => script.ticket.clone(),
            _ => Vec::new(),
        };
        let mut message = [vec![kind], counted(3, &body)].concat();
        (self.script.edit)(kind, &mut message);
        self.transcript.extend_from_slice(&message);
        if kind == SERVER_HELLO {
            self.derive_secrets();
        }
        message
    }

    fn derive_secrets(&mut self) {
        let empty = digest::<Software>(HASH, &[]);
        let derived = derive_secret::<Software>(HASH, &self.early, b"derived", empty.as_bytes());
        let secret = extract::<Software>(HASH, derived.as_bytes(), &self.shared);
        let hash = self.hash();
        self.client_secret = derive_secret::<Software>(HASH, &secret, b"c hs traffic", hash.as_bytes());
        self.server_secret = derive_secret::<Software>(HASH, &secret, b"s hs traffic", hash.as_bytes());
    }

    fn check_finished(&self, flight: &[u8]) {
        let expected = self.mac(&self.client_secret);
        let last = *split(flight).last().expect("a Finished");
        if split(flight).len() == 1 {
            assert_eq!(last[4..], *expected.as_bytes(), "the client's Finished");
        }
    }

    fn mac(&self, secret: &Secret) -> Secret {
        let key = derive_secret::<Software>(HASH, secret, b"finished", &[]);
        hmac::<Software>(HASH, key.as_bytes(), &[self.hash().as_bytes()])
    }

    fn hash(&self) -> Secret {
        digest::<Software>(HASH, &[&self.transcript])
    }
}

/// The only key share of a ClientHello: group, length, key.
fn key_share(hello: &[u8]) -> Vec<u8> {
    extensions_of_hello(hello).into_iter().find(|(id, _)| *id == 51).expect("a key share").1[2..].to_vec()
}

/// The extensions of a ClientHello.
pub(crate) fn extensions_of_hello(hello: &[u8]) -> Extensions {
    let suites = 4 + 2 + 32 + 1;
    let suites_len = usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    let mut rest = &hello[suites + 2 + suites_len + 2 + 2..];
    let mut extensions = Vec::new();
    while let [a, b, c, d, ..] = *rest {
        let len = usize::from(u16::from_be_bytes([c, d]));
        extensions.push((u16::from_be_bytes([a, b]), rest[4..4 + len].to_vec()));
        rest = &rest[4 + len..];
    }
    extensions
}

fn encode(extensions: &Extensions) -> Vec<u8> {
    let encoded: Vec<u8> = extensions
        .iter()
        .flat_map(|(id, value)| [id.to_be_bytes().to_vec(), counted(2, value)].concat())
        .collect();
    counted(2, &encoded)
}

/// `bytes` behind a length of `width` bytes.
pub(crate) fn counted(width: usize, bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u32).to_be_bytes();
    [&len[4 - width..], bytes].concat()
}
