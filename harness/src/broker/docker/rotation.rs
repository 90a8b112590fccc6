//! Another certificate for a broker in a container, proven by what its listeners then present.

use std::time::Duration;

use testcontainers::bollard::body_full;
use testcontainers::bollard::query_parameters::UploadToContainerOptionsBuilder;
use tokio::time::Instant;

use super::engine::{DAEMON_LIMIT, docker_text, within};
use super::{Containerized, State, files};
use crate::broker::emqx;
use crate::broker::error::BrokerError;
use crate::broker::external::presented;
use crate::certificates::{Certificates, Flaw, SERVER_NAME};
use crate::measure::Transport;
use crate::peer::Target;

/// Longest a listener may take to be back with its new certificate after the command that opens it anew has ended.
const PRESENT_LIMIT: Duration = Duration::from_secs(10);
const PRESENT_PAUSE: Duration = Duration::from_millis(100);

impl Containerized {
    /// Puts a new certificate with that flaw to use, and returns once the listeners present it.
    pub(super) async fn rotate(
        &mut self,
        flaw: Flaw,
        certificates: &Certificates,
    ) -> Result<(), BrokerError> {
        let State::Running(container) = &self.state else {
            return Err(docker_text("put another certificate to use", "the container does not run"));
        };
        let identity = certificates.server(flaw)?;
        let files = files(certificates, &identity, &self.secret);
        let archive = archive(&files)
            .await
            .map_err(|error| docker_text("pack the certificates", &error.to_string()))?;
        // By the daemon, as when the container was made: the broker's user owns neither the files nor, in any image,
        // the folder, and an image need not have a shell.
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let upload =
            self.docker.upload_to_container(container.id(), Some(options), body_full(archive.into()));
        within(DAEMON_LIMIT, "copy the certificates into the container", upload).await?;
        for command in emqx::reload_commands() {
            self.exec_done(&command, emqx::was_done).await?;
        }
        (self.options.certificate, self.files) = (flaw, files);
        for transport in [Transport::Quic, Transport::Tls] {
            self.await_certificate(transport, &identity.chain[0], certificates).await?;
        }
        Ok(())
    }

    /// Waits until a listener presents `leaf`, whatever a client makes of it.
    async fn await_certificate(
        &self,
        transport: Transport,
        leaf: &[u8],
        certificates: &Certificates,
    ) -> Result<(), BrokerError> {
        let address = self.addresses().get(transport).expect("all are published");
        let deadline = Instant::now() + PRESENT_LIMIT;
        loop {
            let mut target = Target::new(transport, address, SERVER_NAME, certificates.trust());
            target.identity = certificates.client("harness").ok();
            let reason = match presented(target, PRESENT_LIMIT).await {
                Ok(chain) if chain.first().is_some_and(|first| first.as_ref() == leaf) => return Ok(()),
                Ok(_) => "it presents another one".to_owned(),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                let (image, limit) = (self.image.clone(), PRESENT_LIMIT);
                return Err(BrokerError::NotRotated { image, transport, limit, reason });
            }
            tokio::time::sleep(PRESENT_PAUSE).await;
        }
    }
}

/// The files as the daemon takes them: with the mode and owner that they had from the beginning.
async fn archive(files: &[(&str, Vec<u8>)]) -> std::io::Result<Vec<u8>> {
    let mut archive = tokio_tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tokio_tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(emqx::FILE_MODE);
        archive.append_data(&mut header, path.trim_start_matches('/'), &bytes[..]).await?;
    }
    archive.into_inner().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_packed_so_that_any_user_may_read_them() {
        let files = [(emqx::path::KEY, b"key".to_vec()), (emqx::path::CERTIFICATE, vec![b'c'; 2000])];
        let packed = archive(&files).await.expect("memory has room");
        // Header, 3 bytes in a block; header, 2000 bytes in four blocks; two blocks at the end.
        assert_eq!(packed.len(), 512 * (2 + 5 + 2));
        for (at, (path, bytes)) in [0, 1024].into_iter().zip(&files) {
            let header = tokio_tar::Header::from_byte_slice(&packed[at..at + 512]);
            assert_eq!(header.path_bytes().as_ref(), &path.as_bytes()[1..]);
            assert_eq!(header.mode().expect("octal"), 0o644);
            assert_eq!(header.entry_size().expect("octal"), bytes.len() as u64);
            assert_eq!(&packed[at + 512..at + 512 + bytes.len()], bytes);
        }
    }
}
