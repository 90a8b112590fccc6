//! Notices at once that a container ended although nobody told it to, so that a run does not wait for what cannot come.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::models::ContainerState;
use testcontainers::bollard::query_parameters::WaitContainerOptionsBuilder;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::engine::{DAEMON_LIMIT, within};
use crate::broker::error::BrokerError;

/// Before the engine is asked again, when it went and left the container.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// Longest a connection to a listener of this machine may take.
const LISTEN_LIMIT: Duration = Duration::from_secs(2);

/// A container that should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: String,
    /// Its plain listener: where clients reach it even when the engine says nothing.
    pub(super) listener: SocketAddr,
}

/// Keeps an eye on the container that should run, whichever that is at the moment.
pub(super) struct Lookout {
    wanted: watch::Sender<Option<Wanted>>,
    lost: watch::Receiver<Option<String>>,
}

impl Lookout {
    /// One that has nothing to look at yet. It ends with its task when it is dropped.
    pub(super) fn start(docker: Docker) -> Self {
        let (wanted, looked_at) = watch::channel(None);
        let (tell, lost) = watch::channel(None);
        tokio::spawn(look(docker, looked_at, tell));
        Self { wanted, lost }
    }

    /// From now on that container should run; `None` when it is told to end.
    pub(super) fn want(&self, wanted: Option<Wanted>) {
        self.wanted.send_replace(wanted);
    }

    /// How it ended, if that was noticed.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.borrow().clone()
    }

    /// Resolves when the container is lost; never, if that does not happen.
    pub(super) fn loss(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut lost = self.lost.clone();
        async move {
            if lost.wait_for(Option::is_some).await.is_err() {
                // Nobody looks any longer.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Looks at whatever container is wanted, until one is lost or nobody is left to be told.
async fn look(
    docker: Docker,
    mut wanted: watch::Receiver<Option<Wanted>>,
    tell: watch::Sender<Option<String>>,
) {
    loop {
        let Some(container) = wanted.borrow_and_update().clone() else {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        let status = tokio::select! {
            status = lost(&docker, &container) => status,
            changed = wanted.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        // It may have been told to end just now.
        if wanted.borrow().as_ref() == Some(&container) {
            tell.send_replace(Some(status));
            return;
        }
    }
}

/// Waits until the container no longer serves; yields how it ended.
async fn lost(docker: &Docker, container: &Wanted) -> String {
    loop {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut waiting = std::pin::pin!(docker.wait_container(&container.id, Some(options)));
        // Whatever this yields - the exit code, or that the engine went - the container itself is looked at.
        let _ = waiting.next().await;
        match ending(docker, &container.id).await {
            Ok(Some(status)) => return status,
            Ok(None) => {}
            // An engine that goes may leave its containers, or take them along.
            Err(error) if !listens(container.listener).await => return untold(&error),
            Err(_) => {}
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// How a container ended whose engine says nothing.
pub(super) fn untold(error: &BrokerError) -> String {
    format!("its engine does not tell how: {error}")
}

/// How a container ended; `None` while it runs.
pub(super) async fn ending(docker: &Docker, id: &str) -> Result<Option<String>, BrokerError> {
    let Some(state) = inspect(docker, id).await? else { return Ok(Some("it was removed".into())) };
    if state.running == Some(true) {
        return Ok(None);
    }
    let code = state.exit_code.map_or_else(|| "no exit code".into(), |code| format!("exit code {code}"));
    let starved = state.oom_killed == Some(true);
    Ok(Some(if starved { format!("{code}, out of memory") } else { code }))
}

/// Whether the engine says that there is no such container.
pub(super) async fn is_gone(docker: &Docker, id: &str) -> bool {
    matches!(inspect(docker, id).await, Ok(None))
}

/// What the container does; `None` if there is none.
async fn inspect(docker: &Docker, id: &str) -> Result<Option<ContainerState>, BrokerError> {
    let look = async {
        match docker.inspect_container(id, None).await {
            Ok(inspected) => Ok(Some(inspected.state.unwrap_or_default())),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    within(DAEMON_LIMIT, "look at the container", look).await
}

/// Whether anything listens there.
pub(super) async fn listens(address: SocketAddr) -> bool {
    tokio::time::timeout(LISTEN_LIMIT, TcpStream::connect(address)).await.is_ok_and(|tried| tried.is_ok())
}
