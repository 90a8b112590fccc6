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

    /// After its console closed: how it ended, and what it said elsewhere (its standard error, say).
    fn autopsy(&mut self) -> BoxFuture<'_, (Option<String>, String)>;

    /// The process it runs in while it runs; `None` for a real board.
    fn process_id(&self) -> Option<u32> {
        None
    }

    /// The socket at which the virtual NIC is plugged in, once; `None` where the board is on a real network.
    fn take_nic(&mut self) -> Option<UnixListener> {
        None
    }
}

/// An open console: any byte stream.
pub struct Connection {
    /// What the board says.
    pub from_board: Box<dyn AsyncRead + Send + Unpin>,
    /// What it is told.
    pub to_board: Box<dyn AsyncWrite + Send + Unpin>,
}
