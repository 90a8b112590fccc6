//! How much of a path the device gets. The runner downloads 10 and 25 MB; the device's window of 2,944 bytes is filled by less.

use core::time::Duration;

use simulate::reference::ReferenceClient;
use simulate::{Pair, PairOptions, QuicClient, Source};

use crate::{SECOND, one_handshake};

/// Bytes per download.
const LEN: u64 = 100_000;

fn kbit_per_s(len: u64, time: Duration) -> f64 {
    len as f64 * 8.0 / 1_000.0 / time.as_secs_f64()
}

fn connected(seed: u64) -> Pair<QuicClient, Source> {
    let mut pair = PairOptions::seeded(seed).serving(Source::default()).captured();
    pair.run_until_connected();
    pair.run_until_confirmed();
    pair
}

#[test]
fn goodput() {
    for seed in 40..45 {
        let mut pair = connected(seed);
        pair.download(LEN, 60 * SECOND);
        let wire = one_handshake(&pair);
        let rate = kbit_per_s(LEN, wire.server_time());
        println!("seed {seed}: {rate:.0} kbit/s");
        assert_eq!(pair.client.stats().packets_lost, 0);
        // 2,944 bytes per round trip of 30 ms without waiting for an update of the window would be 785 kbit/s.
        assert!((650.0..785.0).contains(&rate), "seed {seed}: {rate:.0} kbit/s");
    }
}

#[test]
fn crosstraffic() {
    for seed in 50..55 {
        let alone = kbit_per_s(LEN, connected(seed).download(LEN, 60 * SECOND));
        let mut pair = PairOptions::seeded(seed).serving(Source::default());
        pair.client.cross_traffic = Some(Box::new(ReferenceClient::new(seed)));
        pair.run_until_connected();
        pair.run_until_confirmed();
        let cross = pair.client.cross_traffic.as_mut().expect("put there");
        cross.download(25_000_000);
        // Time to leave its slow start.
        pair.run_for(2 * SECOND);
        let (start, before) = (pair.now(), pair.client.cross_traffic.as_ref().expect("there").downloaded);
        let beside = kbit_per_s(LEN, pair.download(LEN, 60 * SECOND));
        let cross = pair.client.cross_traffic.as_ref().expect("there").downloaded - before;
        let cross = kbit_per_s(cross, pair.now().elapsed() - start.elapsed());
        println!("seed {seed}: {alone:.0} kbit/s alone, {beside:.0} beside {cross:.0} of CUBIC");
        assert!(cross > 7_000.0, "the other flow must fill the link: {cross:.0} kbit/s");
        assert!(beside > alone / 4.0, "seed {seed}: {beside:.0} of {alone:.0} kbit/s");
    }
}
