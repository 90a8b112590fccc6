//! Faults acted out on a container.

use std::sync::Arc;
use std::time::Duration;

use testcontainers::bollard::query_parameters::{KillContainerOptionsBuilder, LogsOptionsBuilder};
use testcontainers::{ContainerAsync, GenericImage};

use super::engine::{DAEMON_LIMIT, docker_text, within};
use super::{Containerized, State};
use crate::broker::emqx;
use crate::broker::error::BrokerError;
use crate::broker::fault::{Fault, SessionState};
use crate::broker::options::Durability;
use crate::certificates::Certificates;

/// How long a stopping broker has until it is killed, in seconds.
const STOP_S: i32 = 10;
/// What the daemon gets for stopping it: that, and its own time.
const STOP_LIMIT: Duration = Duration::from_secs(STOP_S.unsigned_abs() as u64 + DAEMON_LIMIT.as_secs());

impl Containerized {
    pub(in crate::broker) async fn apply(
        &mut self,
        fault: &Fault,
        certificates: &Certificates,
    ) -> Result<(), BrokerError> {
        match fault {
            Fault::Stop => {
                let container = self.take_to_end(fault)?;
                let stopping = container.stop_with_timeout(Some(STOP_S));
                let stopped = within(STOP_LIMIT, "stop the container", stopping).await;
                self.state = State::Stopped(container);
                stopped
            }
            Fault::Kill => {
                let container = self.take_to_end(fault)?;
                let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
                let killing = self.docker.kill_container(container.id(), Some(options));
                let killed = within(DAEMON_LIMIT, "kill the container", killing).await;
                self.state = State::Stopped(container);
                killed
            }
            Fault::Start(sessions) => self.start_again(fault, *sessions, certificates).await,
            Fault::Freeze => {
                let container = self.take_running(fault)?;
                let paused = within(DAEMON_LIMIT, "pause the container", container.pause()).await;
                self.state = State::Paused(container);
                paused
            }
            Fault::Resume => match std::mem::replace(&mut self.state, State::Gone) {
                State::Paused(container) => {
                    let resumed = within(DAEMON_LIMIT, "resume the container", container.unpause()).await;
                    self.state = State::Running(container);
                    resumed
                }
                other => self.out_of_place(fault, other),
            },
            Fault::Kick { client_id } if self.is_emqx => {
                self.require_running(fault)?;
                let path = emqx::client_path(client_id);
                match self.api("DELETE", &path, Some(&self.secret)).await {
                    Ok(204) => Ok(()),
                    Ok(404) => Err(BrokerError::NoSuchClient { client_id: client_id.clone() }),
                    Ok(status) => Err(docker_text("kick a client", &format!("the API answers {status}"))),
                    Err(reason) => Err(docker_text("kick a client", &reason)),
                }
            }
            Fault::RotateCertificate(flaw) if self.is_emqx => {
                self.require_running(fault)?;
                self.rotate(*flaw, certificates).await
            }
            _ => Err(BrokerError::FaultUnsupported {
                broker: format!("Docker image {}", self.image),
                fault: fault.to_string(),
            }),
        }
    }

    /// Starts the same container again, whose disk has what was kept there; or a new one, which has nothing.
    async fn start_again(
        &mut self,
        fault: &Fault,
        sessions: SessionState,
        certificates: &Certificates,
    ) -> Result<(), BrokerError> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Stopped(container) if sessions == SessionState::Lost => {
                // It is stopped; should its removal fail, the next sweep takes it.
                let _ = within(STOP_LIMIT, "remove the container", container.rm()).await;
                self.create(certificates).await
            }
            State::Stopped(container) if self.options.durability == Durability::Disk => {
                let started = tokio::time::timeout(DAEMON_LIMIT, container.start()).await;
                self.state = State::Running(container);
                match started {
                    Ok(started) => started.map_err(|error| self.start_error(&error))?,
                    Err(_) => {
                        return Err(docker_text("start the container again", "the daemon does not answer"));
                    }
                }
                self.follow_log();
                self.wait_until_ready(certificates).await
            }
            State::Stopped(container) => {
                self.state = State::Stopped(container);
                Err(BrokerError::FaultUnsupported {
                    broker: format!("Docker image {} (sessions in memory)", self.image),
                    fault: fault.to_string(),
                })
            }
            other => self.out_of_place(fault, other),
        }
    }

    /// testcontainers follows the log up to the first end of the container.
    fn follow_log(&self) {
        use futures_util::StreamExt as _;
        let State::Running(container) = &self.state else { return };
        let (docker, id, log) = (self.docker.clone(), container.id().to_owned(), Arc::clone(&self.log));
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i32::try_from(since.as_secs()).unwrap_or(i32::MAX));
        tokio::spawn(async move {
            let options =
                LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).since(since).build();
            let mut lines = docker.logs(&id, Some(options));
            while let Some(Ok(line)) = lines.next().await {
                log.lock().expect("no holder of this lock panics").push(&line.into_bytes());
            }
        });
    }

    fn take_running(&mut self, fault: &Fault) -> Result<Box<ContainerAsync<GenericImage>>, BrokerError> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Running(container) => Ok(container),
            other => self.out_of_place(fault, other),
        }
    }

    /// As [`Self::take_running`], from a container that ends by our own hand.
    fn take_to_end(&mut self, fault: &Fault) -> Result<Box<ContainerAsync<GenericImage>>, BrokerError> {
        let container = self.take_running(fault)?;
        self.lookout.want(None);
        Ok(container)
    }

    fn require_running(&mut self, fault: &Fault) -> Result<(), BrokerError> {
        self.state = State::Running(self.take_running(fault)?);
        Ok(())
    }

    fn out_of_place<T>(&mut self, fault: &Fault, state: State) -> Result<T, BrokerError> {
        let name = match &state {
            State::Running(_) => "running",
            State::Paused(_) => "frozen",
            State::Stopped(_) | State::Gone => "stopped",
        };
        self.state = state;
        Err(BrokerError::FaultOutOfPlace { fault: fault.to_string(), state: name })
    }
}
