//! Assembly that makes the rest of the program shorter: functions save and restore their registers through it.

core::arch::global_asm!(include_str!("../../save_restore.s"));
