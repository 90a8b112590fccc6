//! Containers that outlived the harness that made them.

use std::collections::HashMap;
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};

use super::engine::{LOOK_LIMIT, client, docker_error};
use crate::broker::error::BrokerError;

/// Labels on every container of the harness.
pub(super) mod label {
    /// Process identifier of its owner.
    pub(in super::super) const PID: &str = "harness.owner.pid";
    /// When that process started, so that a reused identifier does not pass for it.
    pub(in super::super) const STARTED: &str = "harness.owner.started";
    /// The pid namespace that identifier is of.
    pub(in super::super) const NAMESPACE: &str = "harness.owner.pid-namespace";
    /// Which boot of which machine that was.
    pub(in super::super) const BOOT: &str = "harness.owner.boot";
    /// This one container.
    pub(in super::super) const TOKEN: &str = "harness.token";
}

/// Who this process is.
pub(super) fn owner_labels() -> HashMap<String, String> {
    let pid = std::process::id();
    HashMap::from([
        (label::PID.to_owned(), pid.to_string()),
        (label::STARTED.to_owned(), started(pid).unwrap_or_default()),
        (label::NAMESPACE.to_owned(), namespace()),
        (label::BOOT.to_owned(), boot()),
    ])
}

/// What is known of a process of this pid namespace.
#[derive(Debug, PartialEq, Eq)]
enum Process {
    /// It runs since then, in clock ticks since boot; `None` where that may not be seen.
    Alive(Option<String>),
    /// There is none, or one that is dead and not yet reaped.
    Dead,
}

/// Looks at a process (proc(5), fields 3 and 22 of `stat`).
fn process(pid: u32) -> Process {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        // Where /proc hides other users' processes, a signal still finds them.
        let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let found =
            raw.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
        return if found { Process::Alive(None) } else { Process::Dead };
    };
    // The command may hold spaces and parentheses; the third field follows the last one.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    match fields.next() {
        Some("Z" | "X") => Process::Dead,
        _ => Process::Alive(fields.nth(18).map(str::to_owned)),
    }
}

fn started(pid: u32) -> Option<String> {
    match process(pid) {
        Process::Alive(started) => started,
        Process::Dead => None,
    }
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The pid namespace this process is in, such as `pid:[4026531836]`.
fn namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default()
}

/// Whether the process that made a container is certainly gone.
fn orphaned(labels: &HashMap<String, String>) -> bool {
    let of = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
    if of(label::BOOT) != boot() || of(label::NAMESPACE) != namespace() {
        // Another machine's, if the daemon is shared, or that of a harness in a container of its own which has the
        // daemon's socket: there the same identifier is another process. Whoever can see it has to look after it. What
        // is of an earlier boot does not run: Docker does not restart it.
        return false;
    }
    let Ok(pid) = of(label::PID).parse() else { return false };
    match process(pid) {
        Process::Alive(Some(since)) => since != of(label::STARTED),
        Process::Alive(None) => false,
        Process::Dead => true,
    }
}

/// Removes containers whose harness was killed.
pub(super) async fn sweep(docker: &Docker) -> Result<(), BrokerError> {
    remove_all(docker, &orphans(docker).await?).await;
    Ok(())
}

/// As [`sweep`], for a run that may need no engine: one that does not answer soon is none.
pub(in crate::broker) async fn sweep_quickly() {
    let look = async {
        let docker = client().await.ok()?;
        let found = orphans(&docker).await.ok()?;
        Some((docker, found))
    };
    let Ok(Some((docker, found))) = tokio::time::timeout(LOOK_LIMIT, look).await else { return };
    if tokio::time::timeout(SWEEP_LIMIT, remove_all(&docker, &found)).await.is_err() {
        tracing::warn!("what killed runs left in Docker is not removed within {} s", SWEEP_LIMIT.as_secs());
    }
}

/// Identifiers of the containers whose harness was killed.
async fn orphans(docker: &Docker) -> Result<Vec<String>, BrokerError> {
    let filters = HashMap::from([("label".to_owned(), vec![label::PID.to_owned()])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found = docker
        .list_containers(Some(options))
        .await
        .map_err(|error| docker_error("list the containers", &error))?;
    let orphaned = found.into_iter().filter(|found| found.labels.as_ref().is_some_and(orphaned));
    Ok(orphaned.filter_map(|container| container.id).collect())
}

async fn remove_all(docker: &Docker, found: &[String]) {
    for id in found {
        tracing::info!("removing {id}, left behind by a harness that was killed");
        remove_by_id(docker, id).await;
    }
}

/// Removes the containers with that label; yields how many there were.
pub(super) async fn remove_labelled(docker: &Docker, name: &str, value: &str) -> usize {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{name}={value}")])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found = docker.list_containers(Some(options)).await.unwrap_or_default();
    for id in found.iter().filter_map(|container| container.id.as_deref()) {
        remove_by_id(docker, id).await;
    }
    found.len()
}

/// A container that is being started and that nobody holds yet. If whoever waits for it goes away meanwhile, as
/// when the user interrupts, it is removed.
pub(super) struct Unclaimed(Option<String>);

impl Unclaimed {
    pub(super) fn new(token: &str) -> Self {
        Self(Some(token.to_owned()))
    }

    /// It has a holder now, or was not made.
    pub(super) fn claim(mut self) {
        self.0 = None;
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some(token) = self.0.take() else { return };
        // The runtime this is dropped on may be about to end, and with it every connection to the engine.
        let removal = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                let removal = async {
                    let Ok(docker) = client().await else { return };
                    // The engine may still be making it: what was asked of it cannot be taken back.
                    for _ in 0..LOOKS {
                        if remove_labelled(&docker, label::TOKEN, &token).await > 0 {
                            break;
                        }
                        tokio::time::sleep(LOOK_PAUSE).await;
                    }
                };
                // What is left then, the next run sweeps.
                let _ = tokio::time::timeout(REMOVAL_LIMIT, removal).await;
            });
        });
        let _ = removal.join();
    }
}

/// How often an unclaimed container is looked for before it counts as never made.
const LOOKS: usize = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Time for removing what killed runs left: a container that runs has to be killed first.
const SWEEP_LIMIT: Duration = Duration::from_secs(20);
/// Time for removing an unclaimed container.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

async fn remove_by_id(docker: &Docker, id: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match docker.remove_container(id, Some(options)).await {
        // Gone already, or somebody else is at it: another run sweeps, too.
        Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
        Err(error) => tracing::warn!("container {id} could not be removed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_of_a_living_process_is_no_orphan() {
        let mut labels = owner_labels();
        assert!(!orphaned(&labels));
        labels.insert(label::STARTED.into(), "1".into());
        assert!(orphaned(&labels), "the identifier was reused");
        labels = owner_labels();
        labels.insert(label::PID.into(), "4194305".into());
        assert!(orphaned(&labels), "above the largest process identifier");
        // A child that has ended and was not waited for keeps its entry in /proc.
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        while process(child.id()) != Process::Dead {
            std::thread::yield_now();
        }
        assert!(std::path::Path::new(&format!("/proc/{}/stat", child.id())).exists());
        child.wait().expect("it has ended");
        for (name, value) in [(label::BOOT, "another machine"), (label::NAMESPACE, "pid:[1]")] {
            let mut labels = labels.clone();
            assert!(orphaned(&labels));
            labels.insert(name.into(), value.into());
            assert!(!orphaned(&labels), "{value}: the process cannot be seen from here");
        }
    }
}
