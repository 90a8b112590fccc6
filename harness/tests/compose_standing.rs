//! A broker that `docker-compose.yml` keeps standing, and `--broker compose`. It runs when `HARNESS_DOCKER_IMAGE` names an
//! image that `harness/docker/build-image.sh` made and a compose program is there, as in CI on a machine with Docker; the
//! broker stands at the ports of the file.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest a container may take to serve on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The compose program: Docker's own, or the one before it.
fn compose_program() -> Option<Vec<&'static str>> {
    let answers = |words: &[&str]| {
        let asked = Command::new(words[0]).args(&words[1..]).arg("version").stdin(Stdio::null()).output();
        asked.is_ok_and(|output| output.status.success())
    };
    let program =
        [vec!["docker", "compose"], vec!["docker-compose"]].into_iter().find(|words| answers(words));
    if program.is_none() {
        eprintln!("neither `docker compose` nor `docker-compose` is there: no broker stands");
    }
    program
}

/// The project's compose file in a folder of its own, which nothing outlives.
struct Standing<'t> {
    program: Vec<&'static str>,
    project: String,
    folder: &'t Path,
}

impl Standing<'_> {
    fn compose(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.program[0]);
        command.args(&self.program[1..]).args(["-p", &self.project, "--profile", "reference"]);
        command.args(["-f", "docker-compose.yml", "-f", "image.yml"]).args(arguments);
        command.current_dir(self.folder).stdin(Stdio::null()).output().expect("the compose program")
    }

    fn composed(&self, arguments: &[&str]) -> String {
        let output = self.compose(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        told(&output)
    }

    /// Containers and networks of the project.
    fn left(&self) -> String {
        let filter = format!("label=com.docker.compose.project={}", self.project);
        let listed = |what: &[&str]| {
            let output = Command::new("docker").args(what).args(["-q", "--filter", &filter]).output();
            String::from_utf8(output.expect("the client").stdout).expect("identifiers")
        };
        listed(&["ps", "-a"]) + &listed(&["network", "ls"])
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.compose(&["down", "--volumes"]);
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn harness(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().expect("the harness")
}

#[test]
fn the_reference_broker_stands_serves_a_scenario_and_leaves_nothing() {
    let Ok(image) = std::env::var("HARNESS_DOCKER_IMAGE") else {
        eprintln!("HARNESS_DOCKER_IMAGE is not set: no container is started");
        return;
    };
    let Some(program) = compose_program() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker-compose.yml");
    std::fs::copy(file, folder.join("docker-compose.yml")).expect("the compose file");
    // The image may have another name here than in the file.
    let image = format!("services:\n  reference:\n    image: {image}\n");
    std::fs::write(folder.join("image.yml"), image).expect("a file");
    let project = format!("harness-test-{}", std::process::id());
    let standing = Standing { program, project, folder };
    let services = standing.composed(&["config", "--services"]);
    assert!(services.contains("emqx") && services.contains("reference"), "{services}");

    // Too early: it says what is missing, and leaves nothing in its way.
    let early = standing.compose(&["up", "-d", "reference"]);
    assert!(
        !early.status.success() && told(&early).contains("reports/compose-broker/cert.pem"),
        "{}",
        told(&early)
    );
    assert!(!folder.join("reports").exists(), "{}", told(&early));

    let issued = harness(folder, &["broker", "--issue", "reports/compose-broker"]);
    assert_eq!(issued.status.code(), Some(0), "{}", told(&issued));
    let hello = ["scenario", "hello", "--repeat", "1", "--broker", "compose", "--format", "json"];
    let nobody = harness(folder, &hello);
    assert_eq!(nobody.status.code(), Some(3), "nobody else uses the ports of the file: {}", told(&nobody));
    // The message wraps its lines.
    let words = told(&nobody).split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("standing broker of docker-compose.yml cannot be used: no broker answers"),
        "{words}"
    );
    assert!(words.contains("docker compose up -d emqx"), "{words}");

    standing.composed(&["up", "-d", "reference"]);
    let started = Instant::now();
    while !standing.composed(&["logs", "reference"]).contains("ready") {
        assert!(started.elapsed() < LIMIT, "{}", standing.composed(&["logs", "reference"]));
        std::thread::sleep(Duration::from_millis(100));
    }
    let served = harness(folder, &hello);
    assert_eq!(served.status.code(), Some(0), "{}", told(&served));
    let report: serde_json::Value = serde_json::from_slice(&served.stdout).expect("JSON");
    assert!(report.to_string().contains("the broker at compose"), "it is named: {report}");

    standing.composed(&["down", "--volumes"]);
    assert_eq!(standing.left(), "");
    let gone = harness(folder, &hello);
    assert_eq!(gone.status.code(), Some(3), "{}", told(&gone));
}
