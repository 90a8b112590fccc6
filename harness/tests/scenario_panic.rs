//! A bug in the harness itself still ends in a report, which names it. In a process of its own, because panics of other
//! tests would be taken for the run's.

use std::sync::Arc;

use harness::broker::{Broker, BrokerOptions, BrokerSpec};
use harness::certificates::{Certificates, SERVER_NAME};
use harness::measure::record::{Blame, Ending};
use harness::report::{Folder, Report};
use harness::run::{BoardKind, Capturing, Progress, Run};
use harness::scenario::library;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_panic_of_the_harness_ends_the_run_with_a_report_that_names_it() {
    let certificates = Arc::new(Certificates::generate().expect("an authority"));
    let mut broker =
        Broker::start(BrokerSpec::Embedded, certificates, BrokerOptions::default()).await.expect("a broker");
    let scenario = library::find("hello").expect("a built-in scenario");
    let root = tempfile::tempdir().expect("a folder");
    let folder = Folder::create(root.path(), "hello", 0, 1).expect("a new folder");
    let run = Run {
        scenario: &scenario,
        board: &BoardKind::Host,
        broker: &mut broker,
        trust: None,
        server_name: SERVER_NAME,
        folder: folder.path(),
        capturing: Capturing::Off,
        command_line: Vec::new(),
        replay: String::new(),
        cancel: CancellationToken::new(),
    };
    let record = run
        .make(|progress| {
            if let Progress::Started { .. } = progress {
                panic!("provoked by a test");
            }
        })
        .await;
    broker.shut_down().await;
    let Ending::Failed { blame, cause, .. } = &record.ending else { panic!("{:?}", record.ending) };
    assert_eq!(*blame, Blame::Harness);
    for word in ["the harness panicked", "provoked by a test", "scenario_panic.rs"] {
        assert!(cause.contains(word), "{word} is missing in {cause}");
    }
    assert_eq!(record.trials.len(), 1, "the trial stays in, and no further one follows");
    let report = Report::new(record, &scenario);
    assert!(!report.verdict.passed);
    folder.write(&report).expect("a report");
    let page = std::fs::read_to_string(folder.file("report.html")).expect("a page");
    assert!(page.contains("provoked by a test"));
}
