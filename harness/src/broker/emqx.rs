//! What is particular to EMQX in a container: settings, paths, readiness, API, commands. Read from EMQX 5.8.9's
//! sources and documentation; the tests below hold the forms found there.
//!
//! - A setting `listeners.quic.default.enable` is the variable `EMQX_LISTENERS__QUIC__DEFAULT__ENABLE`: upper
//!   case, `__` for each dot.
//! - The image has no QUIC listener by default, and does not EXPOSE UDP 14567.
//! - It runs as uid 1000, so the key file has to be readable by that user.
//! - Its entry point names the node after the container's address unless told otherwise, and EMQX keeps what is on its
//!   disk under that name: a container that comes back with another address would find nothing.
//! - It is ready when `GET :18083/status` answers 200; `emqx ctl listeners` then shows `quic:default`.
//! - `emqx ctl COMMAND` ends with exit code 0 whenever the node hears it: that a command failed, or that its form is
//!   unknown, is told by its output only.
//! - API keys of a bootstrap file work from the first start on: one `KEY:SECRET:ROLE` per line.

use std::path::PathBuf;

use crate::broker::options::{BrokerOptions, ClientAuthentication, Durability};

/// The image without its tag.
pub(super) const IMAGE: &str = "emqx/emqx";

/// Whether an image is EMQX's own, of whatever tag or digest, from whatever registry.
pub(super) fn is_image(reference: &str) -> bool {
    let name = reference.split('@').next().unwrap_or_default();
    // A colon before a slash belongs to a registry's port.
    let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
    name == IMAGE || name.strip_suffix(IMAGE).is_some_and(|registry| registry.ends_with('/'))
}

/// Ports inside the container.
pub(super) mod port {
    /// UDP, MQTT over QUIC.
    pub(in crate::broker) const QUIC: u16 = 14_567;
    /// TCP, MQTT over TLS.
    pub(in crate::broker) const TLS: u16 = 8_883;
    /// TCP, plain MQTT.
    pub(in crate::broker) const TCP: u16 = 1_883;
    /// TCP, dashboard, status and API.
    pub(in crate::broker) const API: u16 = 18_083;
}

/// Paths inside the container.
pub(super) mod path {
    /// Certificate chain.
    pub(in crate::broker) const CERTIFICATE: &str = "/opt/emqx/etc/certs/harness.pem";
    /// Its key.
    pub(in crate::broker) const KEY: &str = "/opt/emqx/etc/certs/harness.key";
    /// Root that client certificates have to chain to.
    pub(in crate::broker) const CLIENT_CA: &str = "/opt/emqx/etc/certs/harness-ca.pem";
    /// API keys to begin with.
    pub(in crate::broker) const API_KEYS: &str = "/opt/emqx/etc/harness-api-keys";
    /// The command line tool.
    pub(in crate::broker) const CTL: &str = "/opt/emqx/bin/emqx";
}

/// Mode of the files copied in: the daemon copies them as root, EMQX reads them as uid 1000. It could not write to them:
/// whoever wants other content there has the daemon copy them again.
pub(super) const FILE_MODE: u32 = 0o644;

/// Name of the one node, whatever the container's address is after a restart.
const NODE: &str = "emqx@127.0.0.1";

/// Name of the API key; its secret is the run's own.
pub(super) const API_KEY: &str = "harness";

/// Environment variables for the settings a run needs.
pub(super) fn environment(options: &BrokerOptions) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| settings.push((variable(name), value.to_owned()));
    // Not a setting, but read by 6.3 and later: anonymous clients and wildcard binds as in 5.8.
    set("security_profile", "legacy");
    set("node.name", NODE);
    set("log.console.enable", "true");
    set("log.console.level", "info");
    set("api_key.bootstrap_file", path::API_KEYS);
    // Sessions outlive a restart on disk only.
    set("durable_sessions.enable", if options.durability == Durability::Disk { "true" } else { "false" });
    set("mqtt.max_packet_size", &options.packet_size_max.to_string());
    set("listeners.tcp.default.bind", &format!("0.0.0.0:{}", port::TCP));
    for (listener, port) in [("listeners.quic.default", port::QUIC), ("listeners.ssl.default", port::TLS)] {
        set(&format!("{listener}.enable"), "true");
        set(&format!("{listener}.bind"), &format!("0.0.0.0:{port}"));
        set(&format!("{listener}.ssl_options.certfile"), path::CERTIFICATE);
        set(&format!("{listener}.ssl_options.keyfile"), path::KEY);
        if options.client_authentication == ClientAuthentication::Required {
            set(&format!("{listener}.ssl_options.cacertfile"), path::CLIENT_CA);
            set(&format!("{listener}.ssl_options.verify"), "verify_peer");
            if listener.contains("ssl.") {
                // QUIC listeners always require it then.
                set(&format!("{listener}.ssl_options.fail_if_no_peer_cert"), "true");
            }
        }
    }
    if let Some(timeout) = options.idle_timeout {
        // Milliseconds without a unit. `idle_timeout`, which has one, is read and dropped since 5.1.
        set("listeners.quic.default.idle_timeout_ms", &timeout.as_millis().to_string());
    }
    settings
}

/// The root that clients have to chain to, where the variables above say that they have to: what makes an image of
/// the embedded broker do as EMQX does.
pub fn client_ca_setting(read: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let option = |name: &str| read(&variable(&format!("listeners.ssl.default.ssl_options.{name}")));
    (option("verify")? == "verify_peer").then_some(())?;
    option("cacertfile").map(PathBuf::from)
}

/// The variable of a setting.
fn variable(setting: &str) -> String {
    format!("EMQX_{}", setting.replace('.', "__").to_uppercase())
}

/// Content of the bootstrap file.
pub(super) fn api_keys(secret: &str) -> String {
    format!("{API_KEY}:{secret}:administrator\n")
}

/// An HTTP/1.1 request to the API, as it goes over the wire.
pub(super) fn request(method: &str, target: &str, secret: Option<&str>) -> String {
    let authorization = secret.map_or_else(String::new, |secret| {
        let credentials = crate::certificates::base64(format!("{API_KEY}:{secret}").as_bytes());
        format!("Authorization: Basic {credentials}\r\n")
    });
    format!(
        "{method} {target} HTTP/1.1\r\nHost: emqx\r\n{authorization}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

/// Status code of an HTTP/1.1 response.
pub(super) fn status(response: &[u8]) -> Option<u16> {
    let line = response.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next()?.starts_with("HTTP/1.").then_some(())?;
    words.next()?.parse().ok()
}

/// API path of one client; kicking is DELETE on it.
pub(super) fn client_path(client_id: &str) -> String {
    let mut path = String::from("/api/v5/clients/");
    for byte in client_id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// Whether the output of `emqx ctl listeners` shows the QUIC listener running.
///
/// ```text
/// quic:default
///   listen_on       : 0.0.0.0:14567
///   acceptors       : 16
///   proxy_protocol  : undefined
///   enbale          : true
///   running         : true
///   current_conn    : 0
/// ```
pub(super) fn quic_runs(listeners: &str) -> bool {
    listeners
        .lines()
        .skip_while(|line| line.trim_end() != "quic:default")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .any(|line| line.split_once(':').is_some_and(|(k, v)| k.trim() == "running" && v.trim() == "true"))
}

/// The command whose output [`quic_runs`] reads.
pub(super) const LISTENERS: [&str; 3] = [path::CTL, "ctl", "listeners"];

/// Commands that put a changed certificate to use: forget cached PEM files, then open the listeners anew.
pub(super) fn reload_commands() -> [Vec<&'static str>; 3] {
    [
        vec![path::CTL, "ctl", "pem_cache", "clean", "all"],
        vec![path::CTL, "ctl", "listeners", "restart", "quic:default"],
        vec![path::CTL, "ctl", "listeners", "restart", "ssl:default"],
    ]
}

/// Whether the output of one of [`reload_commands`] says that it was done: "PEM cache clean OK", "Restarted quic:default
/// listener successfully." Whatever else it may say is a failure, whatever the exit code.
pub(super) fn was_done(output: &str) -> bool {
    output.lines().map(str::trim_end).any(|line| line.ends_with(" OK") || line.ends_with(" successfully."))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::broker::options::{Limits, Overload};

    fn variables(options: &BrokerOptions) -> HashMap<String, String> {
        let all = environment(options);
        let map: HashMap<_, _> = all.iter().cloned().collect();
        assert_eq!(map.len(), all.len(), "each is set once");
        map
    }

    #[test]
    fn its_image_is_known_by_tag_digest_and_registry() {
        for (reference, known) in [
            ("emqx/emqx", true),
            ("emqx/emqx:5.8.9", true),
            ("emqx/emqx:5.8.9@sha256:0123", true),
            ("registry.example:5000/mirror/emqx/emqx:5.8.9", true),
            ("registry.example:5000/emqx/emqx", true),
            ("emqx/emqx-edge:1", false),
            ("notemqx/emqx:5.8.9", false),
            ("emqx/other", false),
        ] {
            assert_eq!(is_image(reference), known, "{reference}");
        }
    }

    #[test]
    fn the_quic_listener_is_on_with_the_certificates_of_the_run() {
        let variables = variables(&BrokerOptions::default());
        for (name, value) in [
            ("EMQX_SECURITY_PROFILE", "legacy"),
            ("EMQX_NODE__NAME", "emqx@127.0.0.1"),
            ("EMQX_LISTENERS__QUIC__DEFAULT__ENABLE", "true"),
            ("EMQX_LISTENERS__QUIC__DEFAULT__BIND", "0.0.0.0:14567"),
            ("EMQX_LISTENERS__QUIC__DEFAULT__SSL_OPTIONS__CERTFILE", "/opt/emqx/etc/certs/harness.pem"),
            ("EMQX_LISTENERS__QUIC__DEFAULT__SSL_OPTIONS__KEYFILE", "/opt/emqx/etc/certs/harness.key"),
            ("EMQX_LISTENERS__SSL__DEFAULT__SSL_OPTIONS__CERTFILE", "/opt/emqx/etc/certs/harness.pem"),
            ("EMQX_LOG__CONSOLE__LEVEL", "info"),
            ("EMQX_DURABLE_SESSIONS__ENABLE", "false"),
            ("EMQX_MQTT__MAX_PACKET_SIZE", "1048576"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!variables.keys().any(|name| name.contains("MAX_CONNECTIONS") || name.contains("VERIFY")));
    }

    /// `docker-compose.yml` is written by hand; it has to say the same.
    #[test]
    fn compose_file_has_the_same_settings_ports_and_paths() {
        let compose = include_str!("../../../docker-compose.yml");
        for (name, value) in environment(&BrokerOptions::default()) {
            // Kicking a client is for brokers the harness starts itself.
            if name != variable("api_key.bootstrap_file") {
                assert!(compose.contains(&format!("      {name}: \"{value}\"\n")), "{name}: {value}");
            }
        }
        assert!(compose.contains(&format!("image: {IMAGE}:{}\n", crate::broker::EMQX_TAG)));
        let bind = "${HARNESS_BROKER_BIND:-127.0.0.1}";
        assert!(compose.contains(&format!("{bind}:{0}:{0}/udp\n", port::QUIC)));
        for port in [port::TLS, port::TCP, port::API] {
            assert!(compose.contains(&format!("{bind}:{port}:{port}\n")), "{port}");
        }
        for path in [path::CERTIFICATE, path::KEY] {
            assert!(compose.contains(&format!("target: {path}\n")), "{path}");
        }
        let folder = crate::broker::COMPOSE_CA.strip_suffix("/ca.pem").expect("as `--issue` names it");
        assert!(compose.contains(&format!("--issue {folder} ")), "{folder}");
    }

    #[test]
    fn options_reach_their_settings() {
        let options = BrokerOptions {
            client_authentication: ClientAuthentication::Required,
            limits: Limits { connections: 3, overload: Overload::Close },
            idle_timeout: Some(Duration::from_secs(2)),
            durability: Durability::Disk,
            ..BrokerOptions::default()
        };
        let variables = variables(&options);
        for (name, value) in [
            ("EMQX_LISTENERS__QUIC__DEFAULT__SSL_OPTIONS__VERIFY", "verify_peer"),
            ("EMQX_LISTENERS__QUIC__DEFAULT__SSL_OPTIONS__CACERTFILE", "/opt/emqx/etc/certs/harness-ca.pem"),
            ("EMQX_LISTENERS__SSL__DEFAULT__SSL_OPTIONS__FAIL_IF_NO_PEER_CERT", "true"),
            ("EMQX_LISTENERS__QUIC__DEFAULT__IDLE_TIMEOUT_MS", "2000"),
            ("EMQX_DURABLE_SESSIONS__ENABLE", "true"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        // EMQX reads the one and drops it, and holds QUIC clients to no number.
        for name in
            ["EMQX_LISTENERS__QUIC__DEFAULT__IDLE_TIMEOUT", "EMQX_LISTENERS__QUIC__DEFAULT__MAX_CONNECTIONS"]
        {
            assert!(!variables.contains_key(name), "{name}");
        }
    }

    #[test]
    fn an_image_of_the_embedded_broker_reads_whom_it_has_to_ask() {
        let read = |options: &BrokerOptions| {
            let variables = variables(options);
            client_ca_setting(|name| variables.get(name).cloned())
        };
        assert_eq!(read(&BrokerOptions::default()), None);
        let asking = BrokerOptions {
            client_authentication: ClientAuthentication::Required,
            ..BrokerOptions::default()
        };
        assert_eq!(read(&asking), Some(PathBuf::from(path::CLIENT_CA)));
    }

    #[test]
    fn requests_carry_the_key_and_escape_the_client_identifier() {
        let request = request("DELETE", &client_path("board 1/ä"), Some("s3cret"));
        assert!(request.starts_with("DELETE /api/v5/clients/board%201%2F%C3%A4 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nAuthorization: Basic aGFybmVzczpzM2NyZXQ=\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"));
        assert_eq!(api_keys("s3cret"), "harness:s3cret:administrator\n");
    }

    #[test]
    fn a_changed_certificate_is_put_to_use_by_commands_in_the_form_that_emqx_knows() {
        let commands: Vec<String> = reload_commands().iter().map(|command| command.join(" ")).collect();
        let form = [
            // The cache comes first: a listener that opens before it is clean reads the old file from there.
            "/opt/emqx/bin/emqx ctl pem_cache clean all",
            "/opt/emqx/bin/emqx ctl listeners restart quic:default",
            "/opt/emqx/bin/emqx ctl listeners restart ssl:default",
        ];
        assert_eq!(commands, form);
        assert_eq!(LISTENERS.join(" "), "/opt/emqx/bin/emqx ctl listeners");
    }

    /// Each of these comes with exit code 0.
    #[test]
    fn only_words_of_success_are_taken_for_it() {
        for done in [
            "PEM cache clean OK\n",
            "WARNING: Default (insecure) Erlang cookie is in use.\nPEM cache clean OK\n",
            "Restarted quic:default listener successfully.\n",
        ] {
            assert!(was_done(done), "{done}");
        }
        for failed in [
            "",
            "ok\n",
            "PEM cache clean FAILED\ntimeout\n",
            "Failed to restart quic:default listener: {listener_not_found,'quic:default'}\n",
            "Invalid listener: <<\"quic:default\">>\n",
            "pem_cache clean all         # Clears x509 certificate cache on all nodes\n\
             pem_cache clean node <Node> # Clears x509 certificate cache on given node\n",
        ] {
            assert!(!was_done(failed), "{failed}");
        }
    }

    #[test]
    fn status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\nNode is started"), Some(200));
        assert_eq!(status(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), Some(503));
        assert_eq!(status(b"garbage"), None);
        assert_eq!(status(b""), None);
    }

    #[test]
    fn quic_listener_is_found_running_among_the_others() {
        let running = "ssl:default\n  listen_on       : 0.0.0.0:8883\n  running         : true\n\
                       quic:default\n  listen_on       : 0.0.0.0:14567\n  running         : true\n\
                       tcp:default\n  listen_on       : 0.0.0.0:1883\n  running         : true\n";
        assert!(quic_runs(running));
        let stopped =
            running.replacen("14567\n  running         : true", "14567\n  running         : false", 1);
        assert!(!quic_runs(&stopped));
        assert!(!quic_runs("tcp:default\n  running         : true\n"));
        assert!(!quic_runs(""));
    }
}
