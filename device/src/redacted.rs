//! `Debug` that keeps passwords, keys and the buffers they pass through to itself.

use core::fmt::{Debug, Formatter, Result};

/// Stands for bytes that are not shown: says how many there are.
pub(crate) struct Length(pub(crate) usize);

impl Debug for Length {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "({} bytes)", self.0)
    }
}

/// Stands for a value of which not even the length is shown.
pub(crate) struct Hidden;

impl Debug for Hidden {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("(hidden)")
    }
}

/// Bytes that [`Debug`] shows the number of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Opaque<'a>(pub &'a [u8]);

impl Debug for Opaque<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        Length(self.0.len()).fmt(f)
    }
}

/// Implements `Debug` for a struct: fields that are `shown`, those of which the `length` is shown, and optional ones of
/// which is shown only whether they are there (`hidden`). A field that is in no list does not compile.
macro_rules! redacted_debug {
    (
        [$($generics:tt)*] $type:ty, $name:literal,
        shown: [$($shown:ident),*], length: [$($length:ident),*], hidden: [$($hidden:ident),*]
    ) => {
        impl<$($generics)*> core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let Self { $($shown,)* $($length,)* $($hidden,)* } = self;
                f.debug_struct($name)
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($length), &$crate::redacted::Length($length.len())))*
                    $(.field(stringify!($hidden), &$hidden.as_ref().map(|_| $crate::redacted::Hidden)))*
                    .finish()
            }
        }
    };
}
pub(crate) use redacted_debug;

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;

    use std::format;
    use std::string::String;

    use super::*;
    use crate::codec::Reader;
    use crate::control::{Blob, BlobKind, Request, Wifi, clipped};
    use crate::crypto::{CipherSuite, Secret, TAG_LEN};
    use crate::mqtt::packet::{Auth, Connect, Packet};
    use crate::mqtt::{Options, Properties, Property, ReasonCode, Version};
    use crate::quic::StreamId;
    use crate::quic::cid::{ConnectionId, ResetToken};
    use crate::quic::frame::{Crypto, Frame, NewConnectionId, NewToken, Stream};
    use crate::quic::packet::RetryPacket;
    use crate::quic::transport_parameters::PeerParameters;
    use crate::tls::Step;

    /// Four bytes that no other value shows by chance, in text or as numbers.
    pub(crate) const SECRET: &[u8; 16] = b"Zq}#Zq}#Zq}#Zq}#";

    /// Fails if `value` shows any of [`SECRET`]: as text, in decimal or in hexadecimal.
    pub(crate) fn assert_hides(value: &dyn Debug) {
        for shown in [format!("{value:?}"), format!("{value:#?}"), format!("{value:x?}")] {
            let dense: String = shown.chars().filter(|char| !char.is_whitespace()).collect();
            for trace in ["Zq}", "90,113,", "5a,71,", "5a71"] {
                assert!(!dense.contains(trace), "{shown}");
            }
        }
    }

    #[test]
    #[should_panic = "Zq}#"]
    fn text_is_noticed() {
        assert_hides(&core::str::from_utf8(SECRET).expect("ASCII"));
    }

    #[test]
    #[should_panic = "90, 113"]
    fn numbers_are_noticed() {
        assert_hides(SECRET);
    }

    #[test]
    fn passwords_are_not_shown() {
        let authentication = [Property::AuthenticationData(Opaque(SECRET))];
        let properties = Properties::of(&authentication);
        let options = Options { password: Some(SECRET), properties, ..Options::new("client") };
        assert_hides(&options);
        assert!(format!("{options:?}").contains("password: Some((hidden))"), "{options:?}");
        let connect = Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive_s: 60,
            properties,
            client_id: "client",
            will: None,
            user_name: None,
            password: Some(SECRET),
        };
        assert_hides(&Packet::Connect(connect));
        assert!(format!("{:?}", Connect { password: None, ..connect }).contains("password: None"));
        let auth = Auth { reason: ReasonCode::SUCCESS, properties };
        assert_hides(&auth);
        let mut wire = [0; 64];
        let mut w = crate::codec::Writer::new(&mut wire);
        properties.write_values(&mut w).expect("fits");
        assert_hides(&Properties::from_values(w.written()));
        let password = clipped(core::str::from_utf8(SECRET).expect("ASCII"));
        assert_hides(&Request::Wifi(Wifi { ssid: clipped("lab"), password }));
    }

    #[test]
    fn keys_and_tokens_are_not_shown() {
        assert_hides(&Secret::from_slice(SECRET).expect("16 bytes"));
        assert_hides(&ResetToken(*SECRET));
        let cid = ConnectionId::new(b"cid").expect("3 bytes");
        let (source, tag) = (ConnectionId::EMPTY, [0; TAG_LEN]);
        assert_hides(&RetryPacket { source, token: SECRET, covered: SECRET, tag });
        assert_hides(&NewConnectionId { sequence: 1, retire_prior_to: 0, cid, token: ResetToken(*SECRET) });
        let bytes = [&[2, 16][..], SECRET].concat();
        assert_hides(&PeerParameters::decode(&bytes));
        let secret = || Secret::from_slice(SECRET).expect("16 bytes");
        let (suite, client, server) = (CipherSuite::Aes128GcmSha256, secret(), secret());
        assert_hides(&Step::HandshakeKeys { suite, client, server });
        assert_hides(&Step::EncryptedExtensions {
            transport_parameters: Some(&bytes),
            early_data_accepted: true,
            record_size_limit: None,
        });
        let kind = BlobKind::ClientKey;
        let bytes = heapless::Vec::from_slice(SECRET).expect("a chunk");
        assert_hides(&Request::Blob(Blob { kind, total: 16, offset: 0, bytes }));
    }

    #[test]
    fn what_passes_through_frames_is_not_shown() {
        let stream = Stream { id: StreamId(0), offset: 0, fin: false, data: SECRET };
        assert_hides(&Frame::Stream(stream));
        assert!(format!("{stream:?}").contains("data: (16 bytes)"), "{stream:?}");
        assert_hides(&Frame::Crypto(Crypto { offset: 0, data: SECRET }));
        assert_hides(&Frame::NewToken(NewToken { token: SECRET }));
        assert_hides(&Reader::new(SECRET));
        assert_hides(&crate::codec::Writer::new(&mut SECRET.clone()));
        assert_hides(&crate::control::frame::Piece::Message(SECRET));
        assert_hides(&crate::control::frame::Piece::Damaged(SECRET));
    }

    #[test]
    fn buffers_do_not_show_what_is_in_them() {
        let mut buffer = crate::quic::stream::SendBuffer::<32>::new();
        assert_eq!(buffer.write(SECRET), SECRET.len());
        assert_hides(&buffer);
        let mut memory = crate::quic::stream::ReceiveMemory::<2>::new();
        memory.as_mut_bytes()[..SECRET.len()].copy_from_slice(SECRET);
        memory.deal(1, 0);
        assert_hides(&memory);
        assert_hides(&memory.of(0));
        let mut decoder = crate::control::frame::Decoder::<64>::new();
        assert!(decoder.next(&mut &SECRET[..]).is_none());
        assert_hides(&decoder);
    }
}
