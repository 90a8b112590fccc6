//! Plays random worlds: `worlds FROM COUNT`, or one of them in full: `worlds trace SEED`.

use simulate::world::{run_many, trace_world};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u64>().ok());
    if arguments.first().is_some_and(|first| first == "trace") {
        let (verdict, plan, lines) = trace_world(number(1).expect("a seed"));
        for line in lines {
            println!("{line}");
        }
        println!("{plan:#?}\n{verdict:#?}");
        return;
    }
    let (from, count) = (number(0).unwrap_or(0), number(1).unwrap_or(100));
    let summary = run_many(from..from + count, 2, |_| ());
    for verdict in &summary.failures {
        println!("seed {}: {}", verdict.seed, verdict.failure.as_deref().unwrap_or_default());
    }
    println!("{:.1} worlds/s, {} failed", summary.rate(), summary.failures.len());
    println!("{summary:?}", summary = simulate::world::Summary { failures: Vec::new(), ..summary });
}
