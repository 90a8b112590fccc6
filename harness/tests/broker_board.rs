//! A board on a cable and a broker in a container at loopback, as on a CI runner that has both: the board's packets go to the
//! harness, which passes them on. Runs when `HARNESS_DOCKER_IMAGE` names an image that `harness/docker/build-image.sh` made.

mod bench_c3;

use bench_c3::bench::Bench;
use bench_c3::device::Script;
use bench_c3::errors;

#[test]
fn a_scripted_board_outlives_the_restart_of_a_broker_in_a_container() {
    let Ok(image) = std::env::var("HARNESS_DOCKER_IMAGE") else {
        eprintln!("HARNESS_DOCKER_IMAGE is not set: no container is started");
        return;
    };
    let bench = Bench::new(Script::default());
    let broker = format!("docker:{image}");
    for name in ["lossy-wifi", "broker-restart"] {
        let (output, _) = bench.run(name, &["--transport", "quic", "--broker", &broker]);
        let told = format!("{}\n{}", errors(&output), String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.code(), Some(0), "{name}: {told}");
        let report = bench.json(name).to_string();
        assert!(report.contains(&format!("Docker image {image}")), "{name}: {report}");
        assert!(bench.run_folder(name).join("broker.log").exists(), "{name}");
    }
}
