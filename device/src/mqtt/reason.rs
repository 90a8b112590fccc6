//! Reason codes (MQTT 5.0 2.4) and the error that carries one.

/// Why a packet was sent, or how the request it answers ended: one byte on the wire.
///
/// Codes of 0x80 and more are failures. Codes that this client does not know are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonCode(pub u8);

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)+) => {
        impl ReasonCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)+

            /// The code's name in the standard's words.
            pub const fn name(self) -> &'static str {
                match self.0 { $($code => $text,)+ _ => "unknown reason code" }
            }
        }
    };
}

reason_codes! {
    /// Success, normal disconnection or granted QoS 0.
    SUCCESS = 0x00, "success";
    /// Granted QoS 1.
    GRANTED_QOS_1 = 0x01, "granted QoS 1";
    /// Granted QoS 2.
    GRANTED_QOS_2 = 0x02, "granted QoS 2";
    /// The client asks the server to publish its will.
    DISCONNECT_WITH_WILL = 0x04, "disconnect with will message";
    /// Nobody subscribes to the topic.
    NO_MATCHING_SUBSCRIBERS = 0x10, "no matching subscribers";
    /// UNSUBSCRIBE of a filter that was not subscribed to.
    NO_SUBSCRIPTION_EXISTED = 0x11, "no subscription existed";
    /// AUTH: continue.
    CONTINUE_AUTHENTICATION = 0x18, "continue authentication";
    /// AUTH: start over.
    RE_AUTHENTICATE = 0x19, "re-authenticate";
    /// The sender does not say what went wrong.
    UNSPECIFIED_ERROR = 0x80, "unspecified error";
    /// The packet does not follow the format.
    MALFORMED_PACKET = 0x81, "malformed packet";
    /// The packet is well-formed but not allowed here.
    PROTOCOL_ERROR = 0x82, "protocol error";
    /// The receiver does not accept the packet.
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83, "implementation specific error";
    /// The server does not speak this version.
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "unsupported protocol version";
    /// The server refuses the client identifier.
    CLIENT_IDENTIFIER_NOT_VALID = 0x85, "client identifier not valid";
    /// Wrong user name or password.
    BAD_USER_NAME_OR_PASSWORD = 0x86, "bad user name or password";
    /// Not authorized.
    NOT_AUTHORIZED = 0x87, "not authorized";
    /// The server cannot serve now.
    SERVER_UNAVAILABLE = 0x88, "server unavailable";
    /// The server is busy.
    SERVER_BUSY = 0x89, "server busy";
    /// An administrator banned this client.
    BANNED = 0x8a, "banned";
    /// The server is shutting down.
    SERVER_SHUTTING_DOWN = 0x8b, "server shutting down";
    /// The authentication method is not supported.
    BAD_AUTHENTICATION_METHOD = 0x8c, "bad authentication method";
    /// Nothing was heard within 1.5 times the keep alive.
    KEEP_ALIVE_TIMEOUT = 0x8d, "keep alive timeout";
    /// Another connection uses the same client identifier.
    SESSION_TAKEN_OVER = 0x8e, "session taken over";
    /// The topic filter is not accepted.
    TOPIC_FILTER_INVALID = 0x8f, "topic filter invalid";
    /// The topic name is not accepted.
    TOPIC_NAME_INVALID = 0x90, "topic name invalid";
    /// The packet identifier is in use.
    PACKET_IDENTIFIER_IN_USE = 0x91, "packet identifier in use";
    /// The packet identifier is not known.
    PACKET_IDENTIFIER_NOT_FOUND = 0x92, "packet identifier not found";
    /// More unacknowledged publications than the receive maximum.
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "receive maximum exceeded";
    /// A topic alias of zero or beyond the maximum.
    TOPIC_ALIAS_INVALID = 0x94, "topic alias invalid";
    /// Larger than the maximum packet size.
    PACKET_TOO_LARGE = 0x95, "packet too large";
    /// Data comes too fast.
    MESSAGE_RATE_TOO_HIGH = 0x96, "message rate too high";
    /// A quota is used up.
    QUOTA_EXCEEDED = 0x97, "quota exceeded";
    /// An administrator closed the connection.
    ADMINISTRATIVE_ACTION = 0x98, "administrative action";
    /// The payload does not match its format indicator.
    PAYLOAD_FORMAT_INVALID = 0x99, "payload format invalid";
    /// The server does not retain messages.
    RETAIN_NOT_SUPPORTED = 0x9a, "retain not supported";
    /// The QoS is higher than the server supports.
    QOS_NOT_SUPPORTED = 0x9b, "QoS not supported";
    /// Use another server for now.
    USE_ANOTHER_SERVER = 0x9c, "use another server";
    /// Use another server from now on.
    SERVER_MOVED = 0x9d, "server moved";
    /// Shared subscriptions are not supported.
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9e, "shared subscriptions not supported";
    /// Too many connections.
    CONNECTION_RATE_EXCEEDED = 0x9f, "connection rate exceeded";
    /// The connection lasted as long as is allowed.
    MAXIMUM_CONNECT_TIME = 0xa0, "maximum connect time";
    /// Subscription identifiers are not supported.
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xa1, "subscription identifiers not supported";
    /// Wildcard subscriptions are not supported.
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xa2, "wildcard subscriptions not supported";
}

impl ReasonCode {
    /// Whether the code says that something failed.
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// The 5.0 code that says what a 3.1.1 CONNACK return code says (MQTT 3.1.1 table 3.1); `None` for the
    /// reserved ones.
    pub const fn from_connack_v3(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::SUCCESS,
            1 => Self::UNSUPPORTED_PROTOCOL_VERSION,
            2 => Self::CLIENT_IDENTIFIER_NOT_VALID,
            3 => Self::SERVER_UNAVAILABLE,
            4 => Self::BAD_USER_NAME_OR_PASSWORD,
            5 => Self::NOT_AUTHORIZED,
            _ => return None,
        })
    }
}

impl core::fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#04x} {}", self.0, self.name())
    }
}

impl core::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({:#04x})", self.name(), self.0)
    }
}

/// The peer broke a rule: which field, and the reason code that answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    /// The code for DISCONNECT.
    pub reason: ReasonCode,
    /// The field, as `packet.field`.
    pub field: &'static str,
}

impl Error {
    /// The bytes do not follow the packet's format (MQTT 5.0 1.2, malformed packet).
    pub const fn malformed(field: &'static str) -> Self {
        Self { reason: ReasonCode::MALFORMED_PACKET, field }
    }

    /// A well-formed packet that is not allowed here (MQTT 5.0 1.2, protocol error).
    pub const fn protocol(field: &'static str) -> Self {
        Self { reason: ReasonCode::PROTOCOL_ERROR, field }
    }
}

impl From<crate::codec::DecodeError> for Error {
    fn from(error: crate::codec::DecodeError) -> Self {
        Self::malformed(error.field)
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} in {}", self.reason, self.field)
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_start_at_0x80() {
        assert!(!ReasonCode::NO_SUBSCRIPTION_EXISTED.is_error());
        assert!(ReasonCode::UNSPECIFIED_ERROR.is_error());
        assert_eq!(ReasonCode(0x8e).name(), "session taken over");
        assert_eq!(ReasonCode(0xff).name(), "unknown reason code");
    }

    #[test]
    fn return_codes_of_3_1_1_are_told_in_the_words_of_5_0() {
        assert_eq!(ReasonCode::from_connack_v3(0), Some(ReasonCode::SUCCESS));
        assert_eq!(ReasonCode::from_connack_v3(5), Some(ReasonCode::NOT_AUTHORIZED));
        assert_eq!(ReasonCode::from_connack_v3(6), None);
    }
}
