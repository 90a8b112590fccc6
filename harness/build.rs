//! Lists the scenarios to be built into the program. A file that comes or goes in `scenarios/` rebuilds it.

use std::fmt::Write as _;
use std::path::PathBuf;

fn main() {
    let variable =
        |name: &str| PathBuf::from(std::env::var_os(name).expect("cargo sets it for build scripts"));
    let folder = variable("CARGO_MANIFEST_DIR").join("../scenarios");
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = std::fs::read_dir(&folder).expect("scenarios/ lies beside harness/");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("scenarios/ can be read").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut table = String::from("&[\n");
    for path in paths {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("scenario names are plain text");
        writeln!(table, "({name:?}, include_str!({path:?})),").expect("writing to a string cannot fail");
    }
    table.push_str("]\n");
    std::fs::write(variable("OUT_DIR").join("scenarios.rs"), table)
        .expect("cargo's output folder can be written");
}
