//! The bodies of the fuzz targets, shared with the test that replays their corpora.

pub mod targets;
