//! The committed baselines: each belongs to a scenario, variants and a board there are. Whether runs meet them is asked by
//! `harness scenario all --baseline reports/baselines`.

use std::path::{Path, PathBuf};

use harness::report::baseline::Baseline;
use harness::scenario::library;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/baselines")
}

#[test]
fn every_baseline_is_of_a_scenario_and_variants_there_are() {
    let files: Vec<_> = std::fs::read_dir(folder()).expect("committed baselines").flatten().collect();
    let mut found = 0;
    for file in
        files.iter().map(std::fs::DirEntry::path).filter(|path| path.extension().is_some_and(|e| e == "toml"))
    {
        let baseline = Baseline::load(&file).unwrap_or_else(|error| panic!("{error}"));
        let name = format!("{}-{}.toml", baseline.scenario, baseline.board);
        assert!(file.ends_with(&name), "{} should be called {name}", file.display());
        let scenario = library::find(&baseline.scenario).unwrap_or_else(|error| panic!("{error}"));
        assert!(!baseline.figure.is_empty(), "{name} holds nothing");
        for figure in &baseline.figure {
            assert!(
                scenario.variant(&figure.variant).is_some(),
                "{name}: there is no variant {}",
                figure.variant
            );
        }
        found += 1;
    }
    assert!(found > 0, "there is no baseline in {}", folder().display());
}
