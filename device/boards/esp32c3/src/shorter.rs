//! Assembly that makes the rest of the program shorter.
//!
//! Functions save and restore their registers through the routines of `../../save_restore.s`. And copying memory, the
//! most frequent call of all, reaches the ROM's routines by way of a stub that is near enough for a call of 4 bytes
//! instead of 8.

use core::arch::global_asm;

global_asm!(include_str!("../../save_restore.s"));

// The ROM's addresses are part of its interface (`esp32c3.rom.libc.ld` of ESP-IDF; esp-rom-sys links to the same).
// `lui` and the jump's offset make them: 0x4000_0000 + offset.
global_asm!(
    ".section .text.memory, \"ax\", @progbits",
    ".balign 4",
    ".global memset",
    "memset:",
    "lui t1, 0x40000",
    "jr 0x354(t1)",
    ".global memcpy",
    "memcpy:",
    "lui t1, 0x40000",
    "jr 0x358(t1)",
    ".global memmove",
    "memmove:",
    "lui t1, 0x40000",
    "jr 0x35c(t1)",
    ".global memcmp",
    "memcmp:",
    "lui t1, 0x40000",
    "jr 0x360(t1)",
);
