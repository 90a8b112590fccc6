//! Whether the broker in a container serves.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::loss::{Wanted, ending, listens, untold};
use super::{Containerized, State, reachable};
use crate::broker::emqx;
use crate::broker::error::BrokerError;
use crate::broker::external::preflight_connect;
use crate::broker::options::ClientAuthentication;
use crate::certificates::{Certificates, Flaw, SERVER_NAME};
use crate::measure::Transport;
use crate::peer::Target;

const READY_PAUSE: Duration = Duration::from_millis(100);
/// One attempt to connect while it gets ready.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Lines of log shown when a container ends too early.
const LAST_LINES: usize = 20;

impl Containerized {
    /// Waits until each listener has accepted an MQTT client, and EMQX says it is ready, too.
    pub(super) async fn wait_until_ready(&self, certificates: &Certificates) -> Result<(), BrokerError> {
        let deadline = Instant::now() + self.options.ready_limit;
        let mut last = None;
        while Instant::now() < deadline {
            self.check_alive().await?;
            // One try has limits of its own, which add up to more than what may be left.
            match tokio::time::timeout_at(deadline, self.try_once(certificates)).await {
                Ok(Ok(())) => {
                    self.look_out();
                    return Ok(());
                }
                Ok(Err(reason)) => last = Some(reason),
                Err(_) => {
                    let before = last.map_or_else(String::new, |reason| format!("; before that: {reason}"));
                    last = Some(format!("it was still being asked{before}"));
                }
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
        Err(BrokerError::NotReady {
            image: self.image.clone(),
            limit: self.options.ready_limit,
            reason: last.unwrap_or_else(|| "nothing was tried".into()),
            log: self.last_lines(),
        })
    }

    async fn try_once(&self, certificates: &Certificates) -> Result<(), String> {
        if self.is_emqx {
            let status = self.api("GET", "/status", None).await?;
            if status != 200 {
                return Err(format!("the status endpoint answers {status}"));
            }
            let listeners = self.exec(&emqx::LISTENERS).await.map_err(|error| error.to_string())?;
            if !emqx::quic_runs(&listeners) {
                return Err("`emqx ctl listeners` does not show quic:default running".into());
            }
        }
        if self.options.client_authentication == ClientAuthentication::Required {
            self.refuses_strangers(certificates).await?;
        }
        // A wrong certificate is what a scenario wants to see refused: then the plain listener has to do.
        let transports: &[Transport] = match self.options.certificate {
            Flaw::None => &Transport::ALL,
            _ => &[Transport::Tcp],
        };
        for transport in transports {
            let address = self.addresses().get(*transport).expect("all are published");
            let mut target = Target::new(*transport, address, SERVER_NAME, certificates.trust());
            target.identity = certificates.client("harness").ok();
            preflight_connect(target, ATTEMPT_LIMIT)
                .await
                .map_err(|error| format!("{transport}: {error}"))?;
        }
        Ok(())
    }

    /// Whether clients without a certificate are turned away, as the run's options have it: an image that does not know
    /// the setting would let everybody in, and a client that shows a certificate would prove nothing.
    async fn refuses_strangers(&self, certificates: &Certificates) -> Result<(), String> {
        for transport in [Transport::Quic, Transport::Tls] {
            let address = self.addresses().get(transport).expect("all are published");
            let target = Target::new(transport, address, SERVER_NAME, certificates.trust());
            if preflight_connect(target, ATTEMPT_LIMIT).await.is_ok() {
                return Err(format!("{transport}: a client without a certificate is let in"));
            }
        }
        Ok(())
    }

    async fn check_alive(&self) -> Result<(), BrokerError> {
        match self.ending().await? {
            None => Ok(()),
            Some(status) => {
                let (image, log) = (self.image.clone(), self.last_words().await);
                Err(BrokerError::ContainerExited { image, status, log })
            }
        }
    }

    /// What became of the container, if it should run and does not.
    pub(in crate::broker) async fn lost(&self) -> Option<BrokerError> {
        let status = match self.lookout.lost() {
            Some(status) => status,
            None => match self.ending().await {
                Ok(status) => status?,
                // An engine that goes may leave its containers, or take them along.
                Err(_) if listens(self.listener()).await => return None,
                Err(error) => untold(&error),
            },
        };
        Some(BrokerError::ContainerLost { image: self.image.clone(), status, log: self.last_words().await })
    }

    /// Where its plain listener is.
    fn listener(&self) -> SocketAddr {
        self.addresses().tcp.expect("it is published")
    }

    /// Has the end of the container noticed from now on.
    pub(super) fn look_out(&self) {
        if let State::Running(container) = &self.state {
            let wanted = Wanted { id: container.id().to_owned(), listener: self.listener() };
            self.lookout.want(Some(wanted));
        }
    }

    /// How the container ended, if it should run and does not.
    async fn ending(&self) -> Result<Option<String>, BrokerError> {
        let (State::Running(container) | State::Paused(container)) = &self.state else { return Ok(None) };
        ending(&self.docker, container.id()).await
    }

    async fn last_words(&self) -> String {
        // The log follows the end by a moment.
        tokio::time::sleep(READY_PAUSE).await;
        self.last_lines()
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// A request to EMQX's API or status endpoint; yields the status code.
    pub(super) async fn api(&self, method: &str, target: &str, secret: Option<&str>) -> Result<u16, String> {
        let address = SocketAddr::new(reachable(self.options.bind), self.ports.api);
        let exchange = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(emqx::request(method, target, secret).as_bytes()).await?;
            let mut response = Vec::new();
            stream.take(64 * 1024).read_to_end(&mut response).await?;
            Ok::<_, std::io::Error>(response)
        };
        let response = tokio::time::timeout(ATTEMPT_LIMIT, exchange)
            .await
            .map_err(|_| format!("{target} does not answer"))?
            .map_err(|error| format!("{target}: {error}"))?;
        emqx::status(&response).ok_or_else(|| format!("{target} does not speak HTTP"))
    }
}
