//! The host board.
