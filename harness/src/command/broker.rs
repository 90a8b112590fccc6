//! `harness broker`: the embedded broker on its own, in the foreground.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Exit, Failure, print};
use crate::broker::{
    Broker, BrokerError, BrokerOptions, BrokerSpec, ClientAuthentication, Credentials, Ports,
};
use crate::certificates::{Certificates, Flaw, Identity, KeyKind};

/// Serve the embedded broker until Ctrl-C or SIGTERM.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// UDP port for QUIC; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 14567)]
    quic: u16,
    /// TCP port for TLS; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8883)]
    tls: u16,
    /// TCP port for plain MQTT; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 1883)]
    tcp: u16,
    /// Certificate chain to present, as PEM; without it, one is made.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Private key of that certificate, PKCS #8 as PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Ask clients for a certificate that chains to this root, as PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    client_ca: Option<PathBuf>,
    /// Host name or address the certificate made shall also cover; may be repeated.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Make certificates into this folder (ca.pem, cert.pem, key.pem) and end. Any user may read them, as a broker in
    /// a container has to.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["certificate", "client_ca", "sessions"])]
    issue: Option<PathBuf>,
    /// File to write the root certificate to that clients have to trust.
    #[arg(long, value_name = "FILE", conflicts_with = "certificate")]
    ca: Option<PathBuf>,
    /// Keep sessions and retained messages in this folder.
    #[arg(long, value_name = "FOLDER")]
    sessions: Option<PathBuf>,
    /// End when standard input does: nobody is left who needs it.
    #[arg(long, hide = true)]
    attended: bool,
    /// Append TLS secrets to this file, to decode a capture.
    #[arg(long, value_name = "FILE")]
    key_log: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let certificates = Certificates::with_keys(KeyKind::P256, &arguments.name)
        .map_err(|error| Failure::usage(miette::miette!("{error}")))?;
    if let Some(folder) = &arguments.issue {
        issue(&certificates, folder).map_err(|error| environment(&error))?;
        return Ok(Exit::Passed);
    }
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::environment(miette::miette!("no runtime can be started: {error}")))?;
    runtime.block_on(serve(arguments, certificates)).map_err(|error| environment(&error))?;
    Ok(Exit::Passed)
}

fn environment(error: &BrokerError) -> Failure {
    Failure::environment(miette::miette!(help = error.remedy(), "{error}"))
}

/// Writes what a standing broker and its clients need: all of it, or nothing where something is in the way.
fn issue(certificates: &Certificates, folder: &Path) -> Result<(), BrokerError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| BrokerError::File { what: "writing", path, source }
    };
    let server = certificates.server(Flaw::None)?;
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let files = [
        ("ca.pem", certificates.root_pem()),
        ("cert.pem", server.chain_pem()),
        ("key.pem", server.key_pem()),
    ]
    .map(|(name, text)| (folder.join(name), text));
    if let Some((path, _)) = files.iter().find(|(path, _)| path.is_dir()) {
        return Err(BrokerError::FolderInTheWay { path: path.clone() });
    }
    for (path, text) in files {
        write_shared(&path, &text).map_err(failed(&path))?;
    }
    print(&format!("ca.pem, cert.pem and key.pem are in {}\n", folder.display()));
    Ok(())
}

/// Writes a file that the user of a container can read, whatever the umask: EMQX's is another than ours. That goes for the
/// key, too; it is made anew each time, and only clients that were given this `ca.pem` believe it.
fn write_shared(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, BrokerError> {
    std::fs::read(path).map_err(|source| BrokerError::File { what, path: path.to_owned(), source })
}

/// The root that clients have to chain to: as given, or where an image is told so by EMQX's settings.
fn client_ca(arguments: &Arguments) -> Option<PathBuf> {
    arguments.client_ca.clone().or_else(|| crate::broker::client_ca_setting(|name| std::env::var(name).ok()))
}

fn credentials(arguments: &Arguments) -> Result<Option<Credentials>, BrokerError> {
    let (Some(certificate), Some(key)) = (&arguments.certificate, &arguments.key) else {
        return Ok(None);
    };
    let chain = read("reading the certificate chain", certificate)?;
    let key_pem = read("reading the private key", key)?;
    let identity = Identity::from_pem(&chain, &key_pem)
        .map_err(|what| BrokerError::Credentials { path: certificate.clone(), what })?;
    let mut client_roots = rustls::RootCertStore::empty();
    if let Some(path) = client_ca(arguments) {
        client_roots.add_parsable_certificates(crate::broker::read_certificates(&path)?);
    }
    Ok(Some(Credentials { identity, client_roots }))
}

async fn serve(arguments: &Arguments, certificates: Certificates) -> Result<(), BrokerError> {
    let options = BrokerOptions {
        bind: arguments.bind,
        ports: Ports { quic: arguments.quic, tls: arguments.tls, tcp: arguments.tcp },
        credentials: credentials(arguments)?,
        client_authentication: match client_ca(arguments) {
            Some(_) => ClientAuthentication::Required,
            None => ClientAuthentication::None,
        },
        sessions: arguments.sessions.clone(),
        key_log: arguments.key_log.clone(),
        ..BrokerOptions::default()
    };
    if let Some(path) = &arguments.ca {
        std::fs::write(path, certificates.root_pem()).map_err(|source| BrokerError::File {
            what: "writing the root certificate",
            path: path.clone(),
            source,
        })?;
    }
    if arguments.attended {
        hold_on_to_parent();
    }
    let end = end_signal();
    let broker = Broker::start(BrokerSpec::Embedded, Arc::new(certificates), options).await?;
    for (transport, address) in broker.addresses().iter() {
        print(&format!("{transport} {}://{address}\n", crate::broker::scheme(transport)));
    }
    // Whoever starts this in the background waits for the line.
    print("ready\n");
    end.await;
    broker.shut_down().await;
    Ok(())
}

/// Ends the process when its standard input does: whoever started it holds the other end and lets go when it dies,
/// however it dies.
fn hold_on_to_parent() {
    std::thread::spawn(|| {
        // An error is as good as an end.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
}

/// Resolves on Ctrl-C or, where there is such a thing, SIGTERM; listens from the call on.
fn end_signal() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).ok()
    };
    async move {
        let interrupt = tokio::signal::ctrl_c();
        #[cfg(unix)]
        {
            let terminated = async {
                match &mut terminate {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupt => {}
                _ = terminated => {}
            }
        }
        #[cfg(not(unix))]
        let _ = interrupt.await;
    }
}
