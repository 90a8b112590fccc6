//! Puts the linker script on the link line, so that plain `cargo build` works from any directory.

fn main() {
    println!("cargo:rustc-link-arg-bins=-Tlinkall.x");
}
