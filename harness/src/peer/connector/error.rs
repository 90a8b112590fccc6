//! Why no connection came about, from what quinn, rustls and the operating system say.

use std::fmt;
use std::io;
use std::time::Duration;

use super::phases::PhaseLog;
use crate::measure::record::{ConnectFailure, ConnectFailureKind};

/// A connection could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The settings are unusable.
    #[error("the client's settings are refused: {0}")]
    Settings(String),
    /// The network refused.
    #[error("{0}")]
    Network(String),
    /// The server's certificate is refused.
    #[error("the broker's certificate is refused: {0}")]
    Certificate(rustls::CertificateError),
    /// The handshake failed for another reason.
    #[error("the handshake failed: {reason}")]
    Handshake {
        /// Why.
        reason: String,
        /// The broker's alert, if it sent one.
        alert: Option<u8>,
    },
    /// No application protocol in common.
    #[error("the broker refuses the application protocol `mqtt`")]
    Alpn,
    /// The broker refused the CONNECT, with its CONNACK code.
    #[error("the broker refused the CONNECT with code {0:#04x}")]
    Refused(u8),
    /// Nothing came within the limit.
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The connection ended before CONNACK.
    #[error("the connection ended before CONNACK: {reason}")]
    Closed {
        /// Why.
        reason: String,
        /// The broker's alert, if that was its reason.
        alert: Option<u8>,
    },
}

impl ConnectError {
    /// The failure in the report's terms.
    #[must_use]
    pub fn to_record(&self) -> ConnectFailure {
        let kind = match self {
            Self::Certificate(_) => ConnectFailureKind::Certificate,
            Self::Alpn | Self::Refused(_) | Self::Handshake { .. } | Self::Closed { .. } => {
                ConnectFailureKind::Refused
            }
            Self::TimedOut(_) => ConnectFailureKind::Timeout,
            Self::Settings(_) | Self::Network(_) => ConnectFailureKind::Other,
        };
        ConnectFailure { kind, detail: self.to_string(), alert: self.alert() }
    }

    /// The TLS alert that gave the reason, sent or received (RFC 8446 6.2).
    #[must_use]
    pub fn alert(&self) -> Option<u8> {
        match self {
            Self::Certificate(reason) => Some(rustls::AlertDescription::from(reason.clone()).into()),
            Self::Alpn => Some(NO_APPLICATION_PROTOCOL),
            Self::Handshake { alert, .. } | Self::Closed { alert, .. } => *alert,
            Self::Settings(_) | Self::Network(_) | Self::Refused(_) | Self::TimedOut(_) => None,
        }
    }

    /// The connection ended for a reason that is no alert.
    pub(in crate::peer) fn closed(reason: impl fmt::Display) -> Self {
        Self::Closed { reason: reason.to_string(), alert: None }
    }
}

pub(super) fn network(error: io::Error) -> ConnectError {
    ConnectError::Network(error.to_string())
}

pub(super) fn tls_failure(error: io::Error) -> ConnectError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => ConnectError::Certificate(reason.clone()),
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
            ConnectError::Alpn
        }
        Some(other) => ConnectError::Handshake { reason: other.to_string(), alert: received_alert(&error) },
        None => ConnectError::Network(error.to_string()),
    }
}

/// The alert a TLS connection ended with, if it came from the other side.
pub(crate) fn received_alert(error: &io::Error) -> Option<u8> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some((*alert).into()),
        _ => None,
    }
}

/// The alert a QUIC connection ended with, if it came from the other side (RFC 9001 4.8).
pub(crate) fn received_quic_alert(error: &quinn::ConnectionError) -> Option<u8> {
    let quinn::ConnectionError::ConnectionClosed(close) = error else { return None };
    (0..=u8::MAX).find(|alert| quinn::TransportErrorCode::crypto(*alert) == close.error_code)
}

/// TLS alert no_application_protocol (RFC 8446 6.2), as a QUIC error (RFC 9001 4.8).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// What a failed QUIC connection means. quinn hands on the text of a TLS error only, so the verifier's verdict
/// comes from where it was given.
pub(super) fn quic_failure(error: &quinn::ConnectionError, phases: &PhaseLog) -> ConnectError {
    use quinn::ConnectionError as Error;
    let alpn = quinn::TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL);
    match error {
        Error::TransportError(error) => match phases.refusal() {
            Some(reason) => ConnectError::Certificate(reason),
            None if error.code == alpn => ConnectError::Alpn,
            None => ConnectError::Handshake { reason: error.to_string(), alert: None },
        },
        Error::ConnectionClosed(close) if close.error_code == alpn => ConnectError::Alpn,
        Error::ConnectionClosed(_) | Error::VersionMismatch => {
            ConnectError::Handshake { reason: error.to_string(), alert: received_quic_alert(error) }
        }
        Error::TimedOut | Error::Reset => ConnectError::Network(error.to_string()),
        other => ConnectError::closed(other),
    }
}
