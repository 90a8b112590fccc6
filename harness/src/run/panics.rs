//! Panics of the harness itself. A run that meets one still ends with a report, which names it.

use std::panic::PanicHookInfo;
use std::sync::{Mutex, Once, PoisonError};

use crate::measure::record::{Blame, Ending, Trial};

/// Panics that no trial was charged with yet, in any thread or task.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on panics are kept, besides being told on stderr.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            panics().push(describe(info));
            told(info);
        }));
    });
}

/// A trial during which the harness panicked has failed, whatever it says itself.
pub fn charge(mut trial: Trial) -> Trial {
    let mut panics = std::mem::take(&mut *panics()).into_iter();
    if let Some(first) = panics.next() {
        let cause = format!("the harness panicked, which is a bug of its own: {first}");
        trial.ending = Ending::Failed { phase: "run".to_owned(), cause, blame: Blame::Harness };
        trial.notes.extend(panics.map(|further| format!("the harness panicked further: {further}")));
    }
    trial
}

fn panics() -> std::sync::MutexGuard<'static, Vec<String>> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("without a message");
    match info.location() {
        Some(place) => format!("{message} ({}:{})", place.file(), place.line()),
        None => message.to_owned(),
    }
}
