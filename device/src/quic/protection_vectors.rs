//! The vectors of RFC 9001 A. It has none for AES-256: there rustls is the judge.

extern crate std;

use super::*;
use crate::crypto::Software;
use crate::quic::packet::Packet;
use crate::tls::{Transport, next_application_secret};
use std::vec::Vec;

const CLIENT_PAYLOAD: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c000004130113\
         02010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d00170018001000070005\
         04616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce1\
         5d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c0002400100\
         3900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806\
         048000ffff";
const CLIENT_PACKET: &str = "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c\
         0bab7df5976d27cd449f63300099f3991c260ec4c60d17b31f8429157bb35a1282a643a8d2262cad67500cadb8e7378c\
         8eb7539ec4d4905fed1bee1fc8aafba17c750e2c7ace01e6005f80fcb7df621230c83711b39343fa028cea7f7fb5ff89\
         eac2308249a02252155e2347b63d58c5457afd84d05dfffdb20392844ae812154682e9cf012f9021a6f0be17ddd0c208\
         4dce25ff9b06cde535d0f920a2db1bf362c23e596d11a4f5a6cf3948838a3aec4e15daf8500a6ef69ec4e3feb6b1d98e\
         610ac8b7ec3faf6ad760b7bad1db4ba3485e8a94dc250ae3fdb41ed15fb6a8e5eba0fc3dd60bc8e30c5c4287e53805db\
         059ae0648db2f64264ed5e39be2e20d82df566da8dd5998ccabdae053060ae6c7b4378e846d29f37ed7b4ea9ec5d82e7\
         961b7f25a9323851f681d582363aa5f89937f5a67258bf63ad6f1a0b1d96dbd4faddfcefc5266ba6611722395c906556\
         be52afe3f565636ad1b17d508b73d8743eeb524be22b3dcbc2c7468d54119c7468449a13d8e3b95811a198f3491de3e7\
         fe942b330407abf82a4ed7c1b311663ac69890f4157015853d91e923037c227a33cdd5ec281ca3f79c44546b9d90ca00\
         f064c99e3dd97911d39fe9c5d0b23a229a234cb36186c4819e8b9c5927726632291d6a418211cc2962e20fe47feb3edf\
         330f2c603a9d48c0fcb5699dbfe5896425c5bac4aee82e57a85aaf4e2513e4f05796b07ba2ee47d80506f8d2c25e50fd\
         14de71e6c418559302f939b0e1abd576f279c4b2e0feb85c1f28ff18f58891ffef132eef2fa09346aee33c28eb130ff2\
         8f5b766953334113211996d20011a198e3fc433f9f2541010ae17c1bf202580f6047472fb36857fe843b19f5984009dd\
         c324044e847a4f4a0ab34f719595de37252d6235365e9b84392b061085349d73203a4a13e96f5432ec0fd4a1ee65accd\
         d5e3904df54c1da510b0ff20dcc0c77fcb2c0e0eb605cb0504db87632cf3d8b4dae6e705769d1de354270123cb11450e\
         fc60ac47683d7b8d0f811365565fd98c4c8eb936bcab8d069fc33bd801b03adea2e1fbc5aa463d08ca19896d2bf59a07\
         1b851e6c239052172f296bfb5e72404790a2181014f3b94a4e97d117b438130368cc39dbb2d198065ae3986547926cd2\
         162f40a29f0c3c8745c0f50fba3852e566d44575c29d39a03f0cda721984b6f440591f355e12d439ff150aab7613499d\
         bd49adabc8676eef023b15b65bfc5ca06948109f23f350db82123535eb8a7433bdabcb909271a6ecbcb58b936a88cd4e\
         8f2e6ff5800175f113253d8fa9ca8885c2f552e657dc603f252e1a8e308f76f0be79e2fb8f5d5fbbe2e30ecadd220723\
         c8c0aea8078cdfcb3868263ff8f0940054da48781893a7e49ad5aff4af300cd804a6b6279ab3ff3afb64491c85194aab\
         760d58a606654f9f4400e8b38591356fbf6425aca26dc85244259ff2b19c41b9f96f3ca9ec1dde434da7d2d392b905dd\
         f3d1f9af93d1af5950bd493f5aa731b4056df31bd267b6b90a079831aaf579be0a39013137aac6d404f518cfd4684064\
         7e78bfe706ca4cf5e9c5453e9f7cfd2b8b4c8d169a44e55c88d4a9a7f9474241e221af44860018ab0856972e194cd934";
const SERVER_PAYLOAD: &str = "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1200\
         130100002e00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00\
         020304";
const SERVER_PACKET: &str = "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb3\
         8cc5a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84\
         022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee";
const RETRY_PACKET: &str = "ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba";

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn original() -> ConnectionId {
    ConnectionId::new(&bytes("8394c8f03e515708")).expect("eight bytes")
}

/// The keys of the server: what it sends with is what the client receives with.
fn keys() -> LevelKeys<Software> {
    LevelKeys::initial(&original())
}

#[test]
fn client_initial_of_a2() {
    let mut packet = bytes("c300000001088394c8f03e5157080000449e00000002");
    let number = packet.len() - 4..packet.len();
    packet.extend(bytes(CLIENT_PAYLOAD));
    packet.resize(number.end + 1162, 0);
    packet.resize(packet.len() + TAG_LEN, 0);
    let keys = keys();
    protect(&mut packet, 2, number, &keys.local.packet, &keys.local.header);
    assert_eq!(packet, bytes(CLIENT_PACKET));
}

#[test]
fn server_initial_of_a3() {
    let mut packet = bytes("c1000000010008f067a5502a4262b50040750001");
    let number = packet.len() - 2..packet.len();
    packet.extend(bytes(SERVER_PAYLOAD));
    packet.resize(packet.len() + TAG_LEN, 0);
    let keys = keys();
    protect(&mut packet, 1, number, &keys.remote.packet, &keys.remote.header);
    assert_eq!(packet, bytes(SERVER_PACKET));

    let Ok(Packet::Long(long)) = Packet::parse(&packet) else { panic!("an Initial") };
    assert_eq!(long.end, packet.len());
    let header = keys.remote.header.remove(&mut packet, long.number_at, 0).expect("long enough");
    assert_eq!((header.number, header.header_len), (1, 20));
    assert!(header.reserved_bits_are_zero());
    let len = keys.remote.packet.open(1, &mut packet, header.header_len).expect("authentic");
    assert_eq!(packet[20..20 + len], bytes(SERVER_PAYLOAD));
}

#[test]
fn a_single_changed_bit_is_noticed() {
    let keys = keys();
    for at in [1, 8, 18, 30, 130] {
        let mut packet = bytes(SERVER_PACKET);
        packet[at] ^= 4;
        let header = keys.remote.header.remove(&mut packet, 18, 0).expect("long enough");
        assert_eq!(keys.remote.packet.open(header.number, &mut packet, header.header_len), Err(BadTag));
    }
}

#[test]
fn a_packet_too_short_for_a_sample_is_no_packet() {
    let keys = keys();
    for len in 0..SAMPLE_OFFSET + SAMPLE_LEN {
        assert_eq!(keys.remote.header.remove(&mut bytes(SERVER_PACKET)[..18 + len], 18, 0), None);
    }
}

#[test]
fn retry_of_a4() {
    let mut datagram = bytes(RETRY_PACKET);
    let Ok(Packet::Retry(retry)) = Packet::parse(&datagram) else { panic!("a Retry") };
    assert_eq!(retry.token, b"token");
    assert_eq!(retry.source.as_bytes(), bytes("f067a5502a4262b5"));
    assert!(is_retry_authentic::<Software>(&retry, &original()));
    assert!(!is_retry_authentic::<Software>(&retry, &ConnectionId::EMPTY));
    datagram[16] ^= 1;
    let Ok(Packet::Retry(retry)) = Packet::parse(&datagram) else { panic!("a Retry") };
    assert!(!is_retry_authentic::<Software>(&retry, &original()));
}

#[test]
fn chacha20_short_header_of_a5() {
    let suite = CipherSuite::ChaCha20Poly1305Sha256;
    let secret = bytes("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b");
    let secret = Secret::from_slice(&secret).expect("32 bytes");
    let keys = Direction::<Software>::derive(suite, &secret);
    let mut packet = bytes("4200bff401");
    packet.resize(packet.len() + TAG_LEN, 0);
    protect(&mut packet, 654_360_564, 1..4, &keys.packet, &keys.header);
    assert_eq!(packet, bytes("4cfe4189655e5cd55c41f69080575d7999c25a5bfb"));

    assert_eq!(Packet::parse(&packet), Ok(Packet::Short));
    let header = keys.header.remove(&mut packet, 1, 654_360_560).expect("long enough");
    assert_eq!(header, Unprotected { first: 0x42, number: 654_360_564, header_len: 4 });
    assert_eq!(keys.packet.open(header.number, &mut packet, 4), Ok(1));

    let next = next_application_secret::<Software>(Transport::Quic, suite, &secret);
    assert!(next.matches(&bytes("1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9")));
}

/// Initial keys with another suite than RFC 9001 5.2 has: the one way in which rustls makes keys of what is known.
#[cfg(feature = "aes256")]
#[test]
fn aes256_protects_and_unprotects_as_rustls_does() {
    use rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384;
    use rustls::quic::{Keys, Version};
    let (suite, hash) = (CipherSuite::Aes256GcmSha384, HashAlgorithm::Sha384);
    let initial = hkdf::extract::<Software>(hash, &INITIAL_SALT, original().as_bytes());
    let client = hkdf::derive_secret::<Software>(hash, &initial, b"client in", &[]);
    let server = hkdf::derive_secret::<Software>(hash, &initial, b"server in", &[]);
    let ours = LevelKeys::<Software>::derive(suite, &client, &server);
    let tls13 = TLS13_AES_256_GCM_SHA384.tls13().expect("a suite of TLS 1.3");
    let algorithm = tls13.quic.expect("ring speaks QUIC");
    let theirs = Keys::initial(Version::V1, tls13, algorithm, original().as_bytes(), rustls::Side::Server);

    let payload = b"from the client";
    let mut packet = bytes("4200bff4");
    packet.extend(payload);
    packet.resize(packet.len() + TAG_LEN, 0);
    protect(&mut packet, 0xbff4, 1..4, &ours.local.packet, &ours.local.header);
    let (first, rest) = packet.split_at_mut(1);
    let (number, rest) = rest.split_at_mut(3);
    theirs.remote.header.decrypt_in_place(&rest[1..17], &mut first[0], number).expect("a sample");
    assert_eq!((first[0], &*number), (0x42, &[0, 0xbf, 0xf4][..]));
    let header = [first, number].concat();
    let plain = theirs.remote.packet.decrypt_in_place(0xbff4, &header, rest).expect("authentic");
    assert_eq!(plain, payload);

    let payload = b"from the server";
    let header = [0x43, 0, 0, 0, 9];
    let mut body = payload.to_vec();
    let tag = theirs.local.packet.encrypt_in_place(9, &header, &mut body).expect("no limit is near");
    body.extend(tag.as_ref());
    let mut packet = [&header[..], &body].concat();
    let (head, body) = packet.split_at_mut(5);
    let (first, number) = head.split_at_mut(1);
    theirs.local.header.encrypt_in_place(&body[..16], &mut first[0], number).expect("a sample");
    let header = ours.remote.header.remove(&mut packet, 1, 0).expect("long enough");
    assert_eq!(header, Unprotected { first: 0x43, number: 9, header_len: 5 });
    let len = ours.remote.packet.open(9, &mut packet, 5).expect("authentic");
    assert_eq!(packet[5..5 + len], *payload);
}
