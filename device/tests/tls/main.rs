//! The TLS client against rustls as the server, and against a server that breaks the rules.

mod handshake;
mod hostile;
mod over_quic;
mod records;
mod resumption;
mod script;
mod support;
