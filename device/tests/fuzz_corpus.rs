//! Replays the checked-in corpora of the fuzz targets: what once was interesting must stay harmless.

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::path::Path;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let data = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Shown by the test harness if the target panics.
        println!("{}", path.display());
        target(&data);
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn datagram() {
    replay("datagram", targets::datagram);
}

#[test]
fn payload() {
    replay("payload", targets::payload);
}

#[test]
fn tls_messages() {
    replay("tls_messages", targets::tls_messages);
}

#[test]
fn mqtt_packet() {
    replay("mqtt_packet", targets::mqtt_packet);
}

#[test]
fn mqtt_session() {
    replay("mqtt_session", targets::mqtt_session);
}

#[test]
fn operations() {
    replay("operations", targets::operations);
}
