//! Building firmware for real and emulated RISC-V boards, and reading what came out: images, sizes, addresses.

pub mod build;
pub mod elf;
pub mod secrets;
pub mod size;
pub mod toolchain;
