//! What the harness configured: borrowed by each call of the client, never copied into it.

use super::credentials::Credentials;
use super::translate;
use crate::client::Config;
use crate::control::Settings;
use crate::time::Instant;
use crate::tls;

/// Settings and certificates.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) settings: Option<Settings>,
    pub(super) credentials: Credentials,
    /// When the settings came: their wall clock counts from here.
    configured_at: Instant,
}

impl Setup {
    pub(super) const fn new() -> Self {
        Self { settings: None, credentials: Credentials::new(), configured_at: Instant::ZERO }
    }

    /// Replaces the settings.
    pub(super) fn configure(&mut self, now: Instant, settings: &Settings) {
        self.settings = Some(settings.clone());
        self.configured_at = now;
    }

    /// Calls `act` with the settings and the client's view of them; `None` before [`Setup::configure`].
    pub(super) fn with_config<R>(
        &self,
        now: Instant,
        act: impl FnOnce(&Settings, &Config<'_>) -> R,
    ) -> Option<R> {
        let settings = self.settings.as_ref()?;
        let elapsed_s = now.saturating_since(self.configured_at).as_micros() / 1_000_000;
        let anchor = self.credentials.trust_anchor();
        let chain = self.credentials.chain();
        let tls = tls::Config {
            cipher_suites: translate::ciphers(settings.ciphers),
            groups: translate::groups(settings.key_exchange),
            client_auth: self.credentials.client_auth(chain.as_deref()),
            ..tls::Config::new(
                anchor.as_slice(),
                &settings.server_name,
                translate::alpn(settings.transport),
                settings.unix_time_s + elapsed_s,
            )
        };
        let config = Config {
            tls,
            quic: translate::quic(settings),
            mqtt: translate::options(settings),
            policy: translate::policy(settings),
        };
        Some(act(settings, &config))
    }
}
