//! The TLS client against rustls as the server, and against a server that breaks the rules.

mod handshake;
mod records;
mod resumption;
mod support;
