//! The Docker engine: whether it answers, whether it has an image, and what it says when it does not do as asked.
//! Nothing waits for it without a limit.

use std::path::PathBuf;
use std::time::Duration;

use testcontainers::GenericImage;
use testcontainers::bollard::Docker;
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner;

use crate::broker::emqx;
use crate::broker::error::BrokerError;
use crate::broker::spec::EMQX_TAG;

/// Longest the daemon may take for anything quick. It answers within a second, but a machine that builds with all
/// its processors has been seen to keep it for more than ten.
pub(super) const DAEMON_LIMIT: Duration = Duration::from_secs(30);
/// Longest it may take to say whether it is there, when nobody asked for it by name.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Longest a pull may take; an image of EMQX has 100 MB.
const PULL_LIMIT: Duration = Duration::from_secs(180);

/// A client of the engine that testcontainers starts containers with, wherever that one finds it (DOCKER_HOST with or
/// without TLS, the system's socket, a user's own). Nothing in the harness reaches an engine by another way.
pub(super) async fn client() -> Result<Docker, BrokerError> {
    docker_client_instance().await.map_err(|error| BrokerError::NoDocker(with_causes(&error) + &elsewhere()))
}

/// A client of the daemon that has answered.
pub(super) async fn connect() -> Result<Docker, BrokerError> {
    let docker = client().await?;
    let reason = match tokio::time::timeout(DAEMON_LIMIT, docker.ping()).await {
        Ok(Ok(_)) => return Ok(docker),
        Ok(Err(error)) => with_causes(&error),
        Err(_) => format!("no answer within {} s", DAEMON_LIMIT.as_secs()),
    };
    Err(BrokerError::NoDocker(reason + &elsewhere()))
}

/// Where the `docker` program looks for an engine and testcontainers does not: what to do about it, or nothing.
fn elsewhere() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if variable("DOCKER_HOST").is_some() {
        return String::new();
    }
    let config = variable("DOCKER_CONFIG").map(PathBuf::from);
    let folder = config.or_else(|| Some(std::env::home_dir()?.join(".docker")));
    let config = folder.and_then(|folder| std::fs::read_to_string(folder.join("config.json")).ok());
    let context = variable("DOCKER_CONTEXT").or_else(|| current_context(&config?));
    context.filter(|context| context != "default").map_or_else(String::new, |context| {
        format!(
            "; the `docker` program looks elsewhere (context `{context}`), and so does the harness after `export \
             DOCKER_HOST=$(docker context inspect --format '{{{{.Endpoints.docker.Host}}}}')`"
        )
    })
}

/// The context that the configuration of the `docker` program names.
fn current_context(config: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    Some(config.get("currentContext")?.as_str()?.to_owned())
}

pub(super) async fn ensure_image(docker: &Docker, image: &str) -> Result<(), BrokerError> {
    if docker.inspect_image(image).await.is_ok() {
        return Ok(());
    }
    let (name, tag) = split_reference(image);
    // It is silence for minutes otherwise.
    tracing::warn!(
        "the image `{image}` is not on this machine: pulling it, for {} s at most",
        PULL_LIMIT.as_secs()
    );
    let pull = GenericImage::new(name, tag).pull_image();
    let reason = match tokio::time::timeout(PULL_LIMIT, pull).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => with_causes(&error),
        Err(_) => format!("the pull took longer than {} s", PULL_LIMIT.as_secs()),
    };
    Err(BrokerError::NoImage { image: image.to_owned(), reason })
}

/// The digest a registry knows the image by, or its local identifier.
pub(super) async fn digest(docker: &Docker, image: &str) -> Option<String> {
    let inspected = docker.inspect_image(image).await.ok()?;
    inspected.repo_digests.and_then(|digests| digests.into_iter().next()).or(inspected.id)
}

/// The engine that containers would be started by.
#[derive(Debug)]
pub struct DockerEngine {
    /// Its version.
    pub version: String,
    /// Why EMQX of the pinned tag cannot run on it without a download; `None` if it can.
    pub emqx_missing: Option<String>,
}

/// Asks the engine that containers would be started by, through the very connection they would be started through: the
/// `docker` program may speak to another one.
///
/// # Errors
/// [`BrokerError::NoDocker`] if none answers soon.
pub async fn docker_engine() -> Result<DockerEngine, BrokerError> {
    let image = format!("{}:{EMQX_TAG}", emqx::IMAGE);
    let look = async {
        let docker = connect().await?;
        let version = within(LOOK_LIMIT, "ask the engine for its version", docker.version()).await?;
        let emqx_missing =
            docker.inspect_image(&image).await.err().map(|_| {
                format!("the image `{image}` is not on this machine (`docker pull {image}` gets it)")
            });
        Ok(DockerEngine { version: version.version.unwrap_or_else(|| "unknown".into()), emqx_missing })
    };
    let slow = || BrokerError::NoDocker(format!("no answer within {} s", LOOK_LIMIT.as_secs()));
    tokio::time::timeout(LOOK_LIMIT, look).await.unwrap_or_else(|_| Err(slow()))
}

/// Why EMQX of the pinned tag cannot run here without a download; `None` if it can.
pub(in crate::broker) async fn emqx_missing() -> Option<String> {
    match docker_engine().await {
        Ok(engine) => engine.emqx_missing,
        Err(error) => Some(error.to_string()),
    }
}

/// What `asked` of the daemon comes to, unless it takes longer than `limit`.
pub(super) async fn within<T, E: std::error::Error + 'static>(
    limit: Duration,
    what: &str,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answered) => answered.map_err(|error| docker_error(what, &error)),
        Err(_) => Err(docker_text(what, &format!("the daemon does not answer within {} s", limit.as_secs()))),
    }
}

/// Name and tag; a digest stays with the tag's side of testcontainers' `NAME:TAG`.
pub(super) fn split_reference(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

pub(super) fn docker_error(what: &str, error: &(dyn std::error::Error + 'static)) -> BrokerError {
    docker_text(what, &with_causes(error))
}

pub(super) fn docker_text(what: &str, reason: &str) -> BrokerError {
    BrokerError::Docker { what: what.to_owned(), reason: reason.to_owned() }
}

/// An error with everything it was caused by.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_at_the_tag_only() {
        for (image, expected) in [
            ("emqx/emqx:5.8.9", ("emqx/emqx", "5.8.9")),
            ("local", ("local", "latest")),
            ("registry:5000/local", ("registry:5000/local", "latest")),
            ("registry:5000/local:dev", ("registry:5000/local", "dev")),
        ] {
            assert_eq!(split_reference(image), expected);
        }
    }

    #[test]
    fn the_context_of_the_docker_program_is_read_from_its_configuration() {
        let rootless = r#"{"auths": {}, "currentContext": "rootless"}"#;
        assert_eq!(current_context(rootless).as_deref(), Some("rootless"));
        assert_eq!(current_context(r#"{"auths": {}}"#), None);
        assert_eq!(current_context("no JSON"), None);
    }

    #[tokio::test]
    async fn a_daemon_that_hangs_is_given_up() {
        let hangs = std::future::pending::<Result<(), std::io::Error>>();
        let error =
            within(Duration::from_millis(10), "stop the container", hangs).await.expect_err("it hangs");
        assert!(error.to_string().contains("stop the container: the daemon does not answer"), "{error}");
    }
}
