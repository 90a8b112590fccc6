//! Containers that outlived the harness that made them.

use std::collections::HashMap;
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};

use super::engine::docker_error;
use crate::broker::error::BrokerError;

/// Labels on every container of the harness.
pub(super) mod label {
    /// Process identifier of its owner.
    pub(in super::super) const PID: &str = "harness.owner.pid";
    /// When that process started, so that a reused identifier does not pass for it.
    pub(in super::super) const STARTED: &str = "harness.owner.started";
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
        (label::BOOT.to_owned(), boot()),
    ])
}

/// When a process started, in clock ticks since boot (proc(5), fields 3 and 22 of `stat`); `None` if it is
/// gone, or dead and not yet reaped.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold spaces and parentheses; the third field follows the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Whether the process that made a container is gone.
fn orphaned(labels: &HashMap<String, String>) -> bool {
    let of = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
    if of(label::BOOT) != boot() {
        // Another machine's, if the daemon is shared; that machine has to look after it. On this one, Docker
        // does not restart containers after a boot, so nothing runs.
        return false;
    }
    let Ok(pid) = of(label::PID).parse() else { return true };
    started(pid).is_none_or(|since| since != of(label::STARTED))
}

/// Removes containers whose harness was killed.
pub(super) async fn sweep(docker: &Docker) -> Result<(), BrokerError> {
    let filters = HashMap::from([("label".to_owned(), vec![label::PID.to_owned()])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found = docker
        .list_containers(Some(options))
        .await
        .map_err(|error| docker_error("list the containers", &error))?;
    for container in found {
        let (Some(id), Some(labels)) = (container.id, container.labels) else { continue };
        if orphaned(&labels) {
            tracing::info!(target: "broker", "removing {id}, left behind by a harness that was killed");
            remove_by_id(docker, &id).await;
        }
    }
    Ok(())
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
                    let Ok(docker) = Docker::connect_with_defaults() else { return };
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
/// Time for removing an unclaimed container.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

async fn remove_by_id(docker: &Docker, id: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    if let Err(error) = docker.remove_container(id, Some(options)).await {
        tracing::warn!(target: "broker", "container {id} could not be removed: {error}");
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
        while started(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(std::path::Path::new(&format!("/proc/{}/stat", child.id())).exists());
        child.wait().expect("it has ended");
        labels.insert(label::BOOT.into(), "another machine".into());
        assert!(!orphaned(&labels));
    }
}
