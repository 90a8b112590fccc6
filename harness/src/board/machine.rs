//! What differs between boards.

use std::future::Future;
use std::os::unix::net::UnixListener;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use super::BoardError;

/// A future of a trait object's method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The thing the firmware runs on.
///
/// Dropping it leaves nothing running.
pub trait Machine: Send {
    /// Starts it from power-off, or resets it, and opens its console.
    fn start(&mut self) -> BoxFuture<'_, Result<Connection, BoardError>>;

    /// Stops it for good, or holds it in reset.
    fn stop(&mut self) -> BoxFuture<'_, ()>;

    /// After its console closed: what can be told of its end.
    fn autopsy(&mut self) -> BoxFuture<'_, Autopsy>;

    /// Where the firmware is, of a machine that runs but does not answer.
    fn locate(&mut self) -> BoxFuture<'_, Place> {
        Box::pin(std::future::ready(Place::default()))
    }

    /// The process it runs in while it runs; `None` for a real board.
    fn process_id(&self) -> Option<u32> {
        None
    }

    /// The socket at which the virtual NIC is plugged in, once; `None` where the board is on a real network.
    fn take_nic(&mut self) -> Option<UnixListener> {
        None
    }
}

/// What a machine can tell of its firmware's end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Autopsy {
    /// The cause in a few words, such as `stack overflow`.
    pub cause: Option<String>,
    /// How its process or machine ended.
    pub status: Option<String>,
    /// What it said outside its console, such as on its standard error.
    pub errors: String,
    /// Functions and lines, innermost first.
    pub backtrace: Vec<String>,
    /// What to do, where something outside the firmware ended it.
    pub remedy: Option<String>,
}

/// Where a firmware stands that runs but does not answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Functions and lines, innermost first; empty where that cannot be told.
    pub backtrace: Vec<String>,
    /// Why it cannot be told, and what it would take.
    pub unknown: Option<String>,
}

impl Place {
    /// A place that is not known, and why.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self { backtrace: Vec::new(), unknown: Some(why.into()) }
    }
}

impl std::fmt::Display for Place {
    /// The innermost frames, or why there are none, for the end of a sentence.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&super::error::at(&self.backtrace))?;
        self.unknown.iter().try_for_each(|why| write!(f, "; {why}"))
    }
}

/// An open console: any byte stream.
pub struct Connection {
    /// What the board says.
    pub from_board: Box<dyn AsyncRead + Send + Unpin>,
    /// What it is told.
    pub to_board: Box<dyn AsyncWrite + Send + Unpin>,
}
