use crate::codec::{DecodeError, NoSpace};

/// A TLS alert description (RFC 8446 6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alert(pub u8);

macro_rules! alerts {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl Alert {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The name RFC 8446 gives the alert.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "unknown alert",
                }
            }
        }
    };
}

alerts! {
    /// The peer sends no more.
    CLOSE_NOTIFY = 0, "close_notify";
    /// A message at the wrong time.
    UNEXPECTED_MESSAGE = 10, "unexpected_message";
    /// A record that does not authenticate.
    BAD_RECORD_MAC = 20, "bad_record_mac";
    /// A record that is too long.
    RECORD_OVERFLOW = 22, "record_overflow";
    /// Nothing offered is acceptable.
    HANDSHAKE_FAILURE = 40, "handshake_failure";
    /// A certificate that cannot be read or whose signature is wrong.
    BAD_CERTIFICATE = 42, "bad_certificate";
    /// A certificate of an unsupported kind.
    UNSUPPORTED_CERTIFICATE = 43, "unsupported_certificate";
    /// A revoked certificate.
    CERTIFICATE_REVOKED = 44, "certificate_revoked";
    /// A certificate that has expired or is not yet valid.
    CERTIFICATE_EXPIRED = 45, "certificate_expired";
    /// A certificate not acceptable for another reason.
    CERTIFICATE_UNKNOWN = 46, "certificate_unknown";
    /// A field out of range or inconsistent with others.
    ILLEGAL_PARAMETER = 47, "illegal_parameter";
    /// No path to a trust anchor.
    UNKNOWN_CA = 48, "unknown_ca";
    /// A valid certificate of a sender that is not allowed in.
    ACCESS_DENIED = 49, "access_denied";
    /// A message that cannot be parsed.
    DECODE_ERROR = 50, "decode_error";
    /// A wrong signature, Finished or binder.
    DECRYPT_ERROR = 51, "decrypt_error";
    /// No common protocol version.
    PROTOCOL_VERSION = 70, "protocol_version";
    /// The server demands more security.
    INSUFFICIENT_SECURITY = 71, "insufficient_security";
    /// A fault on this side.
    INTERNAL_ERROR = 80, "internal_error";
    /// An inappropriate fallback.
    INAPPROPRIATE_FALLBACK = 86, "inappropriate_fallback";
    /// The user gave up.
    USER_CANCELED = 90, "user_canceled";
    /// A required extension is absent.
    MISSING_EXTENSION = 109, "missing_extension";
    /// An extension that was not offered, or not allowed there.
    UNSUPPORTED_EXTENSION = 110, "unsupported_extension";
    /// The server has no identity for that name.
    UNRECOGNIZED_NAME = 112, "unrecognized_name";
    /// An invalid OCSP response.
    BAD_CERTIFICATE_STATUS_RESPONSE = 113, "bad_certificate_status_response";
    /// An unknown PSK identity.
    UNKNOWN_PSK_IDENTITY = 115, "unknown_psk_identity";
    /// The server demands a client certificate.
    CERTIFICATE_REQUIRED = 116, "certificate_required";
    /// No common application protocol.
    NO_APPLICATION_PROTOCOL = 120, "no_application_protocol";
}

impl core::fmt::Display for Alert {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// Who has to change something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The server broke the protocol, or is not the one it should be.
    Peer,
    /// Whatever made the server send the alert; it has closed the connection.
    PeerAlert,
    /// A buffer or bound of this side is too small.
    Resource,
    /// The configuration, or the order of calls.
    Caller,
}

/// Why the handshake or the record layer failed, and the alert to tell the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    /// The alert; QUIC sends it as error 0x100 + alert (RFC 9001 4.8).
    pub alert: Alert,
    /// Who has to change something.
    pub fault: Fault,
    /// What happened, for a human.
    pub cause: &'static str,
}

impl Error {
    pub(crate) const fn peer(alert: Alert, cause: &'static str) -> Self {
        Self { alert, fault: Fault::Peer, cause }
    }

    pub(crate) const fn resource(cause: &'static str) -> Self {
        Self { alert: Alert::INTERNAL_ERROR, fault: Fault::Resource, cause }
    }

    pub(crate) const fn caller(cause: &'static str) -> Self {
        Self { alert: Alert::INTERNAL_ERROR, fault: Fault::Caller, cause }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::peer(Alert::DECODE_ERROR, error.field)
    }
}

impl From<NoSpace> for Error {
    fn from(_: NoSpace) -> Self {
        Self::resource("the output buffer is too small for the handshake message")
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.alert == Alert::DECODE_ERROR {
            write!(f, "TLS {}: cannot decode {}", self.alert, self.cause)
        } else {
            write!(f, "TLS {}: {}", self.alert, self.cause)
        }
    }
}

impl core::error::Error for Error {}
