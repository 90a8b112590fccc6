//! What is compared: variants and the options of their connections.

use std::time::Duration;

use link::units::{Size, Time};

use super::super::spec::{ConnectionTable, File, Streams};
use super::super::{Cipher, ConnectionOptions, KeyExchange, MqttVersion, Reconnect, Resumption, Variant};
use super::Check;
use crate::measure::record::Transport;

impl Check<'_> {
    pub(super) fn variants(&mut self, file: &File) -> Vec<Variant> {
        let transports = match &file.transports {
            Some(transports) if transports.is_empty() => {
                self.value("transports", "no transport is named", "write for example [\"quic\"]");
                vec![Transport::Quic]
            }
            Some(transports) => transports.clone(),
            None => vec![Transport::Quic],
        };
        if let Some(index) =
            (1..transports.len()).find(|index| transports[..*index].contains(&transports[*index]))
        {
            let problem = format!("{} is named twice", transports[index]);
            self.value(&format!("transports[{index}]"), problem, "name each transport once");
        }
        if file.variant.is_empty() {
            let connection = self.connection("connection", &file.connection, &transports);
            let variant = |transport: &Transport| Variant {
                name: transport.name().to_owned(),
                transport: *transport,
                connection,
            };
            return transports.iter().map(variant).collect();
        }
        if file.transports.is_some() {
            let span = self.spans.key("transports");
            let remedy = "leave transports out: each variant names its own".to_owned();
            self.mistakes.add(span, "a scenario with variants takes no transports", Some(remedy));
        }
        let mut variants: Vec<Variant> = Vec::new();
        for (index, entry) in file.variant.iter().enumerate() {
            let path = format!("variant[{index}]");
            let reserved = ["device", "reference", "all"].contains(&entry.name.as_str());
            if reserved || entry.name.is_empty() || entry.name.contains([',', ' ']) {
                let problem = format!("{:?} is no name for a variant", entry.name);
                self.value(&format!("{path}.name"), problem, "use one word, not device, reference or all");
            }
            if variants.iter().any(|variant| variant.name == entry.name) {
                let problem = format!("two variants are called {:?}", entry.name);
                self.value(&format!("{path}.name"), problem, "give each its own name");
            }
            let table = merge(&entry.connection, &file.connection);
            let connection = self.connection(&format!("{path}.connection"), &table, &[entry.transport]);
            variants.push(Variant { name: entry.name.clone(), transport: entry.transport, connection });
        }
        variants
    }

    fn connection(
        &mut self,
        path: &str,
        table: &ConnectionTable,
        transports: &[Transport],
    ) -> ConnectionOptions {
        let quic = transports.contains(&Transport::Quic);
        let only_quic: [(&str, bool); 3] = [
            ("streams", table.streams == Some(Streams::PerTopic)),
            ("quic_keep_alive", table.quic_keep_alive.is_some()),
            ("datagram", table.datagram.is_some()),
        ];
        for (key, set) in only_quic {
            if set && !quic {
                let problem = format!("{key} has no effect without QUIC");
                self.value(&format!("{path}.{key}"), problem, "leave it out, or add quic to transports");
            }
        }
        let mqtt = table.mqtt.unwrap_or(MqttVersion::V5);
        if mqtt == MqttVersion::V311 && table.session_expiry.is_some() {
            let remedy = "leave it out, or use mqtt = \"5.0\"";
            self.value(&format!("{path}.session_expiry"), "MQTT 3.1.1 has no session expiry", remedy);
        }
        let datagram = table.datagram.map_or(DATAGRAM_DEFAULT, Size::bytes);
        if !(DATAGRAM_MIN..=DATAGRAM_MAX).contains(&datagram) {
            let problem = format!("datagram = {datagram} B is outside {DATAGRAM_MIN} B to {DATAGRAM_MAX} B");
            self.value(
                &format!("{path}.datagram"),
                problem,
                "QUIC needs 1200 B (RFC 9000 14); Ethernet has 1472 B",
            );
        }
        self.told_in("idle_timeout", path, table.idle_timeout, Time::from_millis(1), IDLE_MAX);
        self.told_in("quic_keep_alive", path, table.quic_keep_alive, Time::from_millis(1), IDLE_MAX);
        self.told_in("keep_alive", path, table.keep_alive, SECOND, KEEP_ALIVE_MAX);
        self.told_in("session_expiry", path, table.session_expiry, SECOND, EXPIRY_MAX);
        let time = |value: Option<Time>, default: Duration| value.map_or(default, Time::duration);
        ConnectionOptions {
            mqtt,
            streams: table.streams.unwrap_or(Streams::Single),
            resumption: table.resumption.unwrap_or(Resumption::Ticket),
            key_exchange: table.key_exchange.unwrap_or(KeyExchange::X25519),
            cipher: table.cipher.unwrap_or(Cipher::Any),
            client_certificate: table.client_certificate.unwrap_or(false),
            clean_start: table.clean_start.unwrap_or(true),
            session_expiry: time(table.session_expiry, Duration::from_secs(300)),
            keep_alive: time(table.keep_alive, Duration::from_secs(30)),
            idle_timeout: time(table.idle_timeout, Duration::from_secs(30)),
            quic_keep_alive: time(table.quic_keep_alive, Duration::from_secs(15)),
            datagram: u16::try_from(datagram).unwrap_or(u16::MAX),
            reconnect: table.reconnect.unwrap_or(RECONNECT_DEFAULT),
        }
    }
}

impl Check<'_> {
    /// Refuses a time other than none that does not fit the field it is told in.
    fn told_in(&mut self, key: &str, path: &str, value: Option<Time>, least: Time, most: Time) {
        let Some(value) = value.filter(|value| *value != Time::ZERO) else { return };
        if value < least || value > most {
            let problem = format!("{key} = {value} is outside {least} to {most}");
            self.value(&format!("{path}.{key}"), problem, "write a time between them, or \"0 s\" for none");
        }
    }
}

/// A variant's options, and the scenario's where it has none.
fn merge(own: &ConnectionTable, base: &ConnectionTable) -> ConnectionTable {
    ConnectionTable {
        mqtt: own.mqtt.or(base.mqtt),
        streams: own.streams.or(base.streams),
        resumption: own.resumption.or(base.resumption),
        key_exchange: own.key_exchange.or(base.key_exchange),
        cipher: own.cipher.or(base.cipher),
        client_certificate: own.client_certificate.or(base.client_certificate),
        clean_start: own.clean_start.or(base.clean_start),
        session_expiry: own.session_expiry.or(base.session_expiry),
        keep_alive: own.keep_alive.or(base.keep_alive),
        idle_timeout: own.idle_timeout.or(base.idle_timeout),
        quic_keep_alive: own.quic_keep_alive.or(base.quic_keep_alive),
        datagram: own.datagram.or(base.datagram),
        reconnect: own.reconnect.or(base.reconnect),
    }
}

const SECOND: Time = Time::from_millis(1000);
/// Longer than any run, and milliseconds of it fit 32 bits.
const IDLE_MAX: Time = Time::from_millis(24 * 60 * 60 * 1000);
/// Two bytes of seconds (MQTT 5.0 3.1.2.10).
const KEEP_ALIVE_MAX: Time = Time::from_millis(65_535 * 1000);
/// Four bytes of seconds (MQTT 5.0 3.1.2.11.2).
const EXPIRY_MAX: Time = Time::from_millis(u32::MAX as u64 * 1000);
/// RFC 9000 14.
const DATAGRAM_MIN: u64 = 1200;
const DATAGRAM_DEFAULT: u64 = 1200;
/// Ethernet's 1500 less IP and UDP headers.
const DATAGRAM_MAX: u64 = 1472;
const RECONNECT_DEFAULT: Reconnect =
    Reconnect { first: Time::from_millis(100), max: Time::from_millis(5000), attempts: 100 };
