//! Whether a connection was refused as the scenario wants it: by the right side, for the right reason, and told to the
//! other side.

use std::time::{Duration, Instant};

use super::setup::TrialError;
use crate::broker::{Broker, BrokerEvent, BrokerEventKind};
use crate::measure::record::{Blame, Phase, Trial};
use crate::scenario::{Alert, Refusal, RefusedBy};

/// The phase in which a client is to be refused.
pub const PHASE: &str = "refusal";
/// Time an alert has to reach the broker and its log.
const HEARD_LIMIT: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Events of the broker's log up to now, so that later ones can be told from them.
pub fn mark(broker: &Broker) -> usize {
    broker.events().events().len()
}

/// Waits until the broker's own account, which begins at `mark`, is that of this refusal. The link has to stand until
/// then: it carries the alert.
///
/// # Errors
/// What the broker tells instead.
pub async fn heard(refusal: &Refusal, broker: &Broker, mark: usize) -> Result<(), TrialError> {
    if !broker.tells_handshakes() {
        return Ok(());
    }
    let deadline = Instant::now() + HEARD_LIMIT;
    loop {
        let events = broker.events().events();
        match broker_account(refusal, &events[mark.min(events.len())..]) {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK_INTERVAL).await,
            account => return account.map_err(failed),
        }
    }
}

/// Holds what the client says against `refusal`.
///
/// # Errors
/// What is not as it should be.
pub fn judge(refusal: &Refusal, trial: &Trial) -> Result<(), TrialError> {
    client_account(refusal, trial).map_err(failed)
}

fn failed(cause: String) -> TrialError {
    TrialError::new(PHASE, Blame::Subject, cause)
}

/// What the client says.
fn client_account(refusal: &Refusal, trial: &Trial) -> Result<(), String> {
    if trial.connections.is_empty() {
        return Err("the client never tried to connect".to_owned());
    }
    for attempt in &trial.connections {
        if attempt.elapsed_us(Phase::Connack).is_some() {
            return Err("the client connected, though one side should have refused".to_owned());
        }
        let failure = attempt.failure.as_ref().ok_or("an attempt has no end")?;
        let expected = failure.alert.is_some_and(|alert| is_among(&refusal.alerts, alert));
        if !expected {
            let wanted = list(&refusal.alerts);
            return Err(format!("the attempt failed by {}, not by {wanted}", failure.detail));
        }
    }
    Ok(())
}

/// What the broker says: the alert it heard, or that it refused.
fn broker_account(refusal: &Refusal, events: &[BrokerEvent]) -> Result<(), String> {
    let mut last = "nothing of a failed handshake".to_owned();
    for event in events {
        let BrokerEventKind::HandshakeFailed { alert, reason, .. } = &event.kind else { continue };
        match (refusal.by, alert) {
            (RefusedBy::Client, Some(alert)) if is_among(&refusal.alerts, *alert) => return Ok(()),
            (RefusedBy::Broker, None) => return Ok(()),
            _ => last.clone_from(reason),
        }
    }
    Err(match refusal.by {
        RefusedBy::Client => format!("the broker did not hear {}; it knows: {last}", list(&refusal.alerts)),
        RefusedBy::Broker => format!("the broker does not say that it refused; it knows: {last}"),
    })
}

fn is_among(alerts: &[Alert], code: u8) -> bool {
    alerts.iter().any(|alert| alert.code() == code)
}

fn list(alerts: &[Alert]) -> String {
    let names: Vec<_> = alerts.iter().map(|alert| format!("{alert:?} ({})", alert.code())).collect();
    names.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{
        ConnectCause, ConnectFailure, ConnectFailureKind, Connection, Handshake, Mark, Role, Transport,
    };

    fn refusal() -> Refusal {
        Refusal { by: RefusedBy::Client, alerts: vec![Alert::UnknownCa] }
    }

    fn trial(alert: Option<u8>) -> Trial {
        let failure =
            ConnectFailure { kind: ConnectFailureKind::Certificate, detail: "an alert".to_owned(), alert };
        let attempt = Connection {
            cause: ConnectCause::First,
            handshake: Handshake::Full,
            started_us: 0,
            marks: Vec::new(),
            client_to_connack: None,
            server_to_connack: None,
            round_trips: None,
            failure: Some(failure),
        };
        Trial { connections: vec![attempt], ..Trial::new("quic", Transport::Quic, Role::Device, 1) }
    }

    #[test]
    fn only_the_right_alert_will_do() {
        assert_eq!(client_account(&refusal(), &trial(Some(48))), Ok(()));
        for wrong in [trial(Some(42)), trial(None)] {
            let cause = client_account(&refusal(), &wrong).unwrap_err();
            assert_eq!(cause, "the attempt failed by an alert, not by UnknownCa (48)");
        }
        let silent = Trial::new("quic", Transport::Quic, Role::Device, 1);
        assert!(client_account(&refusal(), &silent).unwrap_err().contains("never tried"));
    }

    #[test]
    fn a_client_that_connects_has_not_refused() {
        let mut trial = trial(Some(48));
        trial.connections[0].marks = vec![Mark { phase: Phase::Connack, at_us: 9 }];
        assert!(client_account(&refusal(), &trial).unwrap_err().contains("the client connected"));
    }

    #[test]
    fn the_broker_must_have_heard_it_too() {
        let heard = |alert| BrokerEvent {
            at_us: 0,
            kind: BrokerEventKind::HandshakeFailed {
                transport: Transport::Quic,
                client: "127.0.0.1:1".parse().unwrap(),
                reason: "closed".to_owned(),
                alert,
            },
        };
        assert_eq!(broker_account(&refusal(), &[heard(Some(48))]), Ok(()));
        let cause = broker_account(&refusal(), &[heard(Some(42))]).unwrap_err();
        assert_eq!(cause, "the broker did not hear UnknownCa (48); it knows: closed");
        assert!(broker_account(&refusal(), &[]).is_err());
    }
}
