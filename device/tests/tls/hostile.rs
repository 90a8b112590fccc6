//! A server that breaks the rules one at a time: each violation ends in the alert of RFC 8446 6.2.

use crate::script::{
    CERTIFICATE, CERTIFICATE_REQUEST, CERTIFICATE_VERIFY, ENCRYPTED_EXTENSIONS, FINISHED, NEW_SESSION_TICKET,
    RETRY, SERVER_HELLO, Script, counted, extensions_of_hello, refused, signer, ticket,
};
use crate::support::{ALPN, Authority, NAME, Seeded, now_s};
use device::codec::Writer;
use device::crypto::Software;
use device::entropy::Entropy;
use device::tls::{Alert, Config, EarlyData, Error, Fault, Handshake, Level};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use std::cell::Cell;

/// Asserts that a spoiled script fails at the given message with the given alert, and blames the peer.
macro_rules! refuses {
    ($($(#[$meta:meta])* $name:ident: $message:ident, $alert:ident, $change:expr;)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            let (message, error) = refused($change);
            assert_eq!((message, error.alert), ($message, Alert::$alert), "{error}");
            assert_eq!(error.fault, Fault::Peer);
        }
    )*};
}

fn retry_with(script: &mut Script, extensions: Vec<(u16, Vec<u8>)>) {
    script.random = RETRY;
    script.hello_extensions = extensions;
    script.order.insert(0, (SERVER_HELLO, Level::Initial));
}

/// A retry for the sake of a cookie, and then a ServerHello that `spoil` changes.
fn after_retry(script: &mut Script, spoil: impl Fn(&mut [u8]) + 'static) {
    retry_with(script, vec![version(), (44, counted(2, b"cookie"))]);
    let hellos = Cell::new(0);
    script.edit = Box::new(move |kind, message| {
        if kind == SERVER_HELLO && hellos.replace(hellos.get() + 1) == 1 {
            spoil(message);
        }
    });
}

/// supported_versions of TLS 1.3.
fn version() -> (u16, Vec<u8>) {
    (43, vec![3, 4])
}

#[test]
fn unchanged_script_is_accepted() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    Script::new(&authority).play(&config).expect("a correct server");
    let mut with_ticket = Script::new(&authority);
    with_ticket.order.push((NEW_SESSION_TICKET, Level::Application));
    with_ticket.play(&config).expect("a correct server");
    let mut with_cookie = Script::new(&authority);
    retry_with(&mut with_cookie, vec![version(), (44, counted(2, b"cookie"))]);
    with_cookie.play(&config).expect("a correct server");
}

refuses! {
    // ServerHello
    tls_1_2_is_refused: SERVER_HELLO, PROTOCOL_VERSION, |s| s.hello_extensions.clear();
    tls_1_1_is_refused: SERVER_HELLO, PROTOCOL_VERSION, |s| s.version = 0x0302;
    downgrade_to_tls_1_2_is_detected: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        s.hello_extensions.clear();
        s.random[24..].copy_from_slice(b"DOWNGRD\x01");
    };
    downgrade_to_tls_1_1_is_detected: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        s.hello_extensions.clear();
        s.random[24..].copy_from_slice(b"DOWNGRD\x00");
    };
    version_that_was_not_offered: SERVER_HELLO, ILLEGAL_PARAMETER, |s| s.hello_extensions[0].1 = vec![3, 5];
    session_id_that_was_not_sent: SERVER_HELLO, ILLEGAL_PARAMETER, |s| s.session_id = vec![1; 32];
    suite_that_was_not_offered: SERVER_HELLO, ILLEGAL_PARAMETER, |s| s.suite = 0x1304;
    compression: SERVER_HELLO, ILLEGAL_PARAMETER, |s| s.compression = 1;
    missing_key_share: SERVER_HELLO, MISSING_EXTENSION, |s| s.hello_extensions.truncate(1);
    key_share_of_another_group: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        s.hello_extensions[1].1 = [vec![0, 23], counted(2, &[4; 65])].concat();
    };
    all_zero_key_share: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        s.hello_extensions[1].1 = [vec![0, 29], counted(2, &[0; 32])].concat();
    };
    short_key_share: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        s.hello_extensions[1].1 = [vec![0, 29], counted(2, &[9; 31])].concat();
    };
    key_share_with_trailing_bytes: SERVER_HELLO, DECODE_ERROR, |s| {
        s.hello_extensions[1].1 = [vec![0, 29], counted(2, &[9; 32]), vec![0]].concat();
    };
    psk_that_was_not_offered: SERVER_HELLO, UNSUPPORTED_EXTENSION, |s| s.hello_extensions.push((41, vec![0, 0]));
    duplicate_extension_in_server_hello: SERVER_HELLO, ILLEGAL_PARAMETER, |s| s.hello_extensions.push(version());
    alpn_in_server_hello: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        s.hello_extensions.push((16, vec![0, 5, 4, b'm', b'q', b't', b't']));
    };
    unknown_extension_in_server_hello: SERVER_HELLO, UNSUPPORTED_EXTENSION, |s| {
        s.hello_extensions.push((0x0a0a, vec![]));
    };
    cookie_in_server_hello: SERVER_HELLO, ILLEGAL_PARAMETER, |s| s.hello_extensions.push((44, counted(2, b"c")));
    truncated_server_hello: SERVER_HELLO, DECODE_ERROR, |s| {
        s.edit = Box::new(|_, message| {
            message.pop();
            message[3] -= 1;
        });
    };
    wrong_message_length: SERVER_HELLO, DECODE_ERROR, |s| s.edit = Box::new(|_, message| message.push(0));
    server_hello_under_handshake_keys: SERVER_HELLO, UNEXPECTED_MESSAGE, |s| s.order[0].1 = Level::Handshake;
    message_before_server_hello: CERTIFICATE, UNEXPECTED_MESSAGE, |s| {
        s.order.insert(0, (CERTIFICATE, Level::Initial));
    };

    // HelloRetryRequest
    retry_that_changes_nothing: SERVER_HELLO, ILLEGAL_PARAMETER, |s| retry_with(s, vec![version()]);
    retry_for_the_group_already_sent: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        retry_with(s, vec![version(), (51, vec![0, 29])]);
    };
    retry_for_a_group_not_offered: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        retry_with(s, vec![version(), (51, vec![0, 24])]);
    };
    retry_with_an_empty_cookie: SERVER_HELLO, DECODE_ERROR, |s| {
        retry_with(s, vec![version(), (44, vec![0, 0])]);
    };
    retry_with_an_unknown_extension: SERVER_HELLO, UNSUPPORTED_EXTENSION, |s| {
        retry_with(s, vec![version(), (51, vec![0, 23]), (0x0a0a, vec![])]);
    };
    second_retry: SERVER_HELLO, UNEXPECTED_MESSAGE, |s| {
        after_retry(s, |second| second[6..38].copy_from_slice(&RETRY));
    };
    suite_changed_after_retry: SERVER_HELLO, ILLEGAL_PARAMETER, |s| {
        after_retry(s, |second| second[39..41].copy_from_slice(&[0x13, 0x01]));
    };
    retry_without_version: SERVER_HELLO, PROTOCOL_VERSION, |s| retry_with(s, vec![(51, vec![0, 23])]);

    // EncryptedExtensions
    other_application_protocol: ENCRYPTED_EXTENSIONS, ILLEGAL_PARAMETER, |s| {
        s.encrypted_extensions[0].1 = vec![0, 5, 4, b'h', b't', b't', b'p'];
    };
    two_application_protocols: ENCRYPTED_EXTENSIONS, DECODE_ERROR, |s| {
        s.encrypted_extensions[0].1 = vec![0, 7, 4, b'm', b'q', b't', b't', 1, b'x'];
    };
    no_application_protocol: ENCRYPTED_EXTENSIONS, NO_APPLICATION_PROTOCOL, |s| {
        s.encrypted_extensions.remove(0);
    };
    missing_transport_parameters: ENCRYPTED_EXTENSIONS, MISSING_EXTENSION, |s| {
        s.encrypted_extensions.pop();
    };
    duplicate_transport_parameters: ENCRYPTED_EXTENSIONS, ILLEGAL_PARAMETER, |s| {
        s.encrypted_extensions.push((57, vec![]));
    };
    early_data_that_was_not_offered: ENCRYPTED_EXTENSIONS, UNSUPPORTED_EXTENSION, |s| {
        s.encrypted_extensions.push((42, vec![]));
    };
    key_share_in_encrypted_extensions: ENCRYPTED_EXTENSIONS, ILLEGAL_PARAMETER, |s| {
        s.encrypted_extensions.push((51, vec![0, 29]));
    };
    record_size_limit_over_quic: ENCRYPTED_EXTENSIONS, UNSUPPORTED_EXTENSION, |s| {
        s.encrypted_extensions.push((28, vec![16, 0]));
    };
    unknown_encrypted_extension: ENCRYPTED_EXTENSIONS, UNSUPPORTED_EXTENSION, |s| {
        s.encrypted_extensions.push((0x1234, vec![]));
    };
    very_many_extensions: ENCRYPTED_EXTENSIONS, UNSUPPORTED_EXTENSION, |s| {
        s.encrypted_extensions.extend((0x2000..0x3000).map(|id| (id, vec![])));
    };
    encrypted_extensions_in_plaintext: ENCRYPTED_EXTENSIONS, UNEXPECTED_MESSAGE, |s| {
        s.order[1].1 = Level::Initial;
    };
    skipped_encrypted_extensions: CERTIFICATE, UNEXPECTED_MESSAGE, |s| {
        s.order.remove(1);
    };

    // CertificateRequest
    request_without_algorithms: CERTIFICATE_REQUEST, MISSING_EXTENSION, |s| {
        s.request_extensions.clear();
        s.order.insert(2, (CERTIFICATE_REQUEST, Level::Handshake));
    };
    request_with_context: CERTIFICATE_REQUEST, ILLEGAL_PARAMETER, |s| {
        s.order.insert(2, (CERTIFICATE_REQUEST, Level::Handshake));
        s.edit = Box::new(|kind, message| {
            if kind == CERTIFICATE_REQUEST {
                message[3] += 1;
                message[4] = 1;
                message.insert(5, 7);
            }
        });
    };
    two_requests: CERTIFICATE_REQUEST, UNEXPECTED_MESSAGE, |s| {
        s.order.insert(2, (CERTIFICATE_REQUEST, Level::Handshake));
        s.order.insert(2, (CERTIFICATE_REQUEST, Level::Handshake));
    };
    request_after_the_handshake: CERTIFICATE_REQUEST, UNEXPECTED_MESSAGE, |s| {
        s.order.push((CERTIFICATE_REQUEST, Level::Application));
    };

    // Certificate
    no_certificate: CERTIFICATE, DECODE_ERROR, |s| s.chain.clear();
    empty_certificate: CERTIFICATE, DECODE_ERROR, |s| s.chain[0].0.clear();
    garbage_certificate: CERTIFICATE, BAD_CERTIFICATE, |s| s.chain[0].0 = vec![0x30; 300];
    certificate_with_context: CERTIFICATE, ILLEGAL_PARAMETER, |s| s.certificate_context = vec![1];
    certificate_with_an_extension_not_offered: CERTIFICATE, UNSUPPORTED_EXTENSION, |s| {
        s.chain[0].1 = vec![0, 5, 0, 0];
    };
    endless_chain: CERTIFICATE, BAD_CERTIFICATE, |s| {
        let intermediate = s.chain[1].clone();
        s.chain.extend(vec![intermediate; 20]);
    };
    missing_intermediate: CERTIFICATE, UNKNOWN_CA, |s| s.chain.truncate(1);
    altered_certificate: CERTIFICATE, BAD_CERTIFICATE, |s| {
        // A byte of the signature's last integer: the structure stays valid.
        *s.chain[0].0.last_mut().expect("a certificate") ^= 1;
    };
    skipped_certificate: CERTIFICATE_VERIFY, UNEXPECTED_MESSAGE, |s| {
        s.order.remove(2);
    };

    // CertificateVerify
    skipped_certificate_verify: FINISHED, UNEXPECTED_MESSAGE, |s| {
        s.order.remove(3);
    };
    scheme_that_was_not_offered: CERTIFICATE_VERIFY, ILLEGAL_PARAMETER, |s| s.scheme = 0x0203;
    scheme_of_another_key: CERTIFICATE_VERIFY, ILLEGAL_PARAMETER, |s| s.scheme = 0x0807;
    pkcs1_in_certificate_verify: CERTIFICATE_VERIFY, ILLEGAL_PARAMETER, |s| s.scheme = 0x0401;
    signature_of_another_key: CERTIFICATE_VERIFY, DECRYPT_ERROR, |s| {
        s.signing_key = signer(&Authority::new(&PKCS_ECDSA_P256_SHA256));
    };
    signature_over_something_else: CERTIFICATE_VERIFY, DECRYPT_ERROR, |s| {
        let sign = std::mem::replace(&mut s.signing_key, Box::new(|_| Vec::new()));
        s.signing_key = Box::new(move |content| {
            let mut content = content.to_vec();
            content[0] ^= 1;
            sign(&content)
        });
    };
    empty_signature: CERTIFICATE_VERIFY, DECRYPT_ERROR, |s| s.signing_key = Box::new(|_| Vec::new());

    // Finished
    wrong_finished: FINISHED, DECRYPT_ERROR, |s| {
        s.edit = Box::new(|kind, message| {
            if kind == FINISHED {
                message[20] ^= 1;
            }
        });
    };
    short_finished: FINISHED, DECODE_ERROR, |s| {
        s.edit = Box::new(|kind, message| {
            if kind == FINISHED {
                message.truncate(4 + 31);
                message[3] = 31;
            }
        });
    };
    finished_too_early: FINISHED, UNEXPECTED_MESSAGE, |s| s.order.insert(2, (FINISHED, Level::Handshake));
    second_finished: FINISHED, UNEXPECTED_MESSAGE, |s| s.order.push((FINISHED, Level::Handshake));

    // After the handshake
    key_update_over_quic: KEY_UPDATE, UNEXPECTED_MESSAGE, |s| s.order.push((KEY_UPDATE, Level::Application));
    ticket_under_handshake_keys: NEW_SESSION_TICKET, UNEXPECTED_MESSAGE, |s| {
        s.order.push((NEW_SESSION_TICKET, Level::Handshake));
    };
    ticket_before_the_handshake_is_complete: NEW_SESSION_TICKET, UNEXPECTED_MESSAGE, |s| {
        s.order.insert(4, (NEW_SESSION_TICKET, Level::Application));
    };
    ticket_that_lives_too_long: NEW_SESSION_TICKET, ILLEGAL_PARAMETER, |s| {
        s.ticket = ticket(604_801, b"ticket", &[]);
        s.order.push((NEW_SESSION_TICKET, Level::Application));
    };
    empty_ticket: NEW_SESSION_TICKET, DECODE_ERROR, |s| {
        s.ticket = ticket(100, b"", &[]);
        s.order.push((NEW_SESSION_TICKET, Level::Application));
    };
    ticket_with_a_short_early_data_size: NEW_SESSION_TICKET, DECODE_ERROR, |s| {
        s.ticket = ticket(100, b"ticket", &[0, 42, 0, 2, 1, 1]);
        s.order.push((NEW_SESSION_TICKET, Level::Application));
    };
}

const KEY_UPDATE: u8 = 24;

/// Plays a server with a leaf certificate changed by `adjust` at `unix_time_s`.
fn certificate_refused(unix_time_s: u64, adjust: impl FnOnce(&mut CertificateParams)) -> Error {
    let authority = Authority::with_leaf(&PKCS_ECDSA_P256_SHA256, adjust);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, unix_time_s);
    let (message, error) = Script::new(&authority).play(&config).expect_err("the client must refuse this");
    assert_eq!(message, CERTIFICATE);
    error
}

#[test]
fn certificate_for_another_name() {
    let error = certificate_refused(now_s(), |params| {
        let other = rcgen::string::Ia5String::try_from("other.example").expect("ASCII");
        params.subject_alt_names = vec![rcgen::SanType::DnsName(other)];
    });
    assert_eq!(error.alert, Alert::BAD_CERTIFICATE);
    assert!(error.cause.contains("another server name"));
}

#[test]
fn expired_certificate() {
    let error = certificate_refused(now_s(), |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert_eq!(error.alert, Alert::CERTIFICATE_EXPIRED);
    assert!(error.cause.contains("expired"));
}

#[test]
fn certificate_that_is_not_valid_yet() {
    let error = certificate_refused(now_s(), |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    assert_eq!(error.alert, Alert::CERTIFICATE_EXPIRED);
    assert!(error.cause.contains("not valid yet"));
}

#[test]
fn unset_clock_is_a_certificate_not_valid_yet() {
    let error = certificate_refused(0, |params| params.not_before = rcgen::date_time_ymd(2024, 1, 1));
    assert!(error.cause.contains("clock"));
}

#[test]
fn certificate_for_clients_only() {
    let error = certificate_refused(now_s(), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(error.alert, Alert::UNSUPPORTED_CERTIFICATE);
}

#[test]
fn certificate_whose_key_must_not_sign() {
    let error =
        certificate_refused(now_s(), |params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(error.alert, Alert::UNSUPPORTED_CERTIFICATE);
    assert!(error.cause.contains("key usage"));
}

#[test]
fn ca_certificate_as_the_servers_own() {
    let error = certificate_refused(now_s(), |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert_eq!(error.alert, Alert::BAD_CERTIFICATE);
}

#[test]
fn certificate_issued_by_one_that_is_no_authority() {
    for is_ca in [rcgen::IsCa::NoCa, rcgen::IsCa::ExplicitNoCa] {
        let authority = Authority::with_intermediate(&PKCS_ECDSA_P256_SHA256, |params| params.is_ca = is_ca);
        let anchors = [authority.anchor()];
        let config = Config::new(&anchors, NAME, ALPN, now_s());
        let (message, error) = Script::new(&authority).play(&config).expect_err("anybody could issue one");
        assert_eq!((message, error.alert), (CERTIFICATE, Alert::BAD_CERTIFICATE), "{error}");
    }
}

#[test]
fn certificate_of_an_unknown_authority() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let stranger = Authority::with_root_name(&PKCS_ECDSA_P256_SHA256, "another root");
    let anchors = [stranger.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let (message, error) = Script::new(&authority).play(&config).expect_err("the client must refuse this");
    assert_eq!((message, error.alert), (CERTIFICATE, Alert::UNKNOWN_CA));
}

#[test]
fn authority_with_the_same_name_and_another_key() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let impostor = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let (message, error) = Script::new(&impostor).play(&config).expect_err("the client must refuse this");
    assert_eq!((message, error.alert), (CERTIFICATE, Alert::BAD_CERTIFICATE));
}

#[test]
fn no_trust_anchors_trust_nobody() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let config = Config::new(&[], NAME, ALPN, now_s());
    let (_, error) = Script::new(&authority).play(&config).expect_err("the client must refuse this");
    assert_eq!(error.alert, Alert::UNKNOWN_CA);
}

#[test]
fn ip_address_is_checked_and_not_sent_as_a_name() {
    let authority = Authority::with_leaf(&PKCS_ECDSA_P256_SHA256, |params| {
        params.subject_alt_names = vec![rcgen::SanType::IpAddress([10, 77, 0, 1].into())];
    });
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, "10.77.0.1", ALPN, now_s());
    Script::new(&authority).play(&config).expect("the certificate is for this address");
    let other = Config { server_name: "10.77.0.3", ..config };
    let (_, error) = Script::new(&authority).play(&other).expect_err("it is not for that one");
    assert_eq!(error.alert, Alert::BAD_CERTIFICATE);
    let acknowledges_a_name = || {
        let mut script = Script::new(&authority);
        script.encrypted_extensions.push((0, vec![]));
        script
    };
    let (message, error) = acknowledges_a_name().play(&config).expect_err("no name was sent");
    assert_eq!((message, error.alert), (ENCRYPTED_EXTENSIONS, Alert::UNSUPPORTED_EXTENSION));
    let named = Config { server_name: NAME, ..config };
    let (message, _) = acknowledges_a_name().play(&named).expect_err("the certificate is for an address");
    assert_eq!(message, CERTIFICATE, "where a name was sent it may be acknowledged");

    let mut buffer = [0; 1024];
    let mut out = Writer::new(&mut buffer);
    Handshake::<Software>::start(&config, &mut Seeded(1), None, EarlyData::Omit, &mut out).expect("room");
    assert!(extensions_of_hello(out.written()).iter().all(|(id, _)| *id != 0));
}

#[test]
fn failed_handshake_stays_failed() {
    let anchors = [];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let mut buffer = [0; 1024];
    let mut out = Writer::new(&mut buffer);
    let mut client = Handshake::<Software>::start(&config, &mut Seeded(1), None, EarlyData::Omit, &mut out)
        .expect("room for a ClientHello");
    for fault in [Fault::Peer, Fault::Caller] {
        let error = client.handle_message(&config, &mut Seeded(1), Level::Initial, &[2, 0, 0, 0], &mut out);
        assert_eq!(error.expect_err("an empty ServerHello").fault, fault);
    }
}

#[test]
fn every_truncation_of_every_message_is_an_error_and_not_a_panic() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    for spoiled in [SERVER_HELLO, ENCRYPTED_EXTENSIONS, CERTIFICATE_VERIFY, FINISHED] {
        for len in 0..48 {
            let mut script = Script::new(&authority);
            script.edit = Box::new(move |kind, message| {
                if kind == spoiled && message.len() > 4 + len {
                    message.truncate(4 + len);
                    message[1..4].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
                }
            });
            let result = script.play(&config);
            let whole = match spoiled {
                FINISHED => 32,
                ENCRYPTED_EXTENSIONS => 2 + 11 + 4 + 27,
                _ => 48,
            };
            assert_eq!(result.is_ok(), len >= whole, "{len} bytes of message {spoiled}: {result:?}");
        }
    }
}

#[test]
fn random_damage_never_panics() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    for seed in 0..300 {
        let mut entropy = Seeded(seed);
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        let [which, action, at_high, at_low, value, ..] = bytes;
        let kinds = [
            SERVER_HELLO,
            ENCRYPTED_EXTENSIONS,
            CERTIFICATE,
            CERTIFICATE_VERIFY,
            FINISHED,
            NEW_SESSION_TICKET,
        ];
        let spoiled = kinds[usize::from(which) % kinds.len()];
        let mut script = Script::new(&authority);
        script.order.push((NEW_SESSION_TICKET, Level::Application));
        script.edit = Box::new(move |kind, message| {
            if kind != spoiled {
                return;
            }
            let at = usize::from(u16::from_be_bytes([at_high, at_low])) % message.len();
            match action % 3 {
                0 => message[at] ^= value | 1,
                1 => message.truncate(at),
                _ => message.insert(at, value),
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script.play(&config)));
        let result = result.unwrap_or_else(|_| panic!("seed {seed} panics"));
        // What the signature and the MACs cover after the client has seen it cannot be damaged unnoticed.
        if spoiled == CERTIFICATE_VERIFY || spoiled == FINISHED {
            assert!(result.is_err(), "seed {seed} goes unnoticed");
        }
    }
}
