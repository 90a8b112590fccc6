# Routines that save and restore a function's registers (LLVM's target feature `save-restore`, `-msave-restore` of the
# RISC-V ABI): a call in place of a dozen instructions in each function.
#
# A function is entered with its return address in `ra` and calls `__riscv_save_N` with the return address of that
# call in `t0`; it leaves by a jump to `__riscv_restore_N`. N counts the registers from `s0` on; the frame is a
# multiple of 16 bytes with `ra` on top (RISC-V psABI, and LLVM's `RISCVFrameLowering`, which lays out the rest by it).
#
# Each N has its own pair, for speed: packets pass many small functions, and what they do not use is not moved.
.section .text.save_restore, "ax", @progbits
.balign 4

.macro save_restore n, frame
    .global __riscv_save_\n
__riscv_save_\n:
    addi sp, sp, -\frame
    sw ra, \frame - 4(sp)
    .if \n > 0
    sw s0, \frame - 8(sp)
    .endif
    .if \n > 1
    sw s1, \frame - 12(sp)
    .endif
    .if \n > 2
    sw s2, \frame - 16(sp)
    .endif
    .if \n > 3
    sw s3, \frame - 20(sp)
    .endif
    .if \n > 4
    sw s4, \frame - 24(sp)
    .endif
    .if \n > 5
    sw s5, \frame - 28(sp)
    .endif
    .if \n > 6
    sw s6, \frame - 32(sp)
    .endif
    .if \n > 7
    sw s7, \frame - 36(sp)
    .endif
    .if \n > 8
    sw s8, \frame - 40(sp)
    .endif
    .if \n > 9
    sw s9, \frame - 44(sp)
    .endif
    .if \n > 10
    sw s10, \frame - 48(sp)
    .endif
    .if \n > 11
    sw s11, \frame - 52(sp)
    .endif
    jr t0
    .global __riscv_restore_\n
__riscv_restore_\n:
    lw ra, \frame - 4(sp)
    .if \n > 0
    lw s0, \frame - 8(sp)
    .endif
    .if \n > 1
    lw s1, \frame - 12(sp)
    .endif
    .if \n > 2
    lw s2, \frame - 16(sp)
    .endif
    .if \n > 3
    lw s3, \frame - 20(sp)
    .endif
    .if \n > 4
    lw s4, \frame - 24(sp)
    .endif
    .if \n > 5
    lw s5, \frame - 28(sp)
    .endif
    .if \n > 6
    lw s6, \frame - 32(sp)
    .endif
    .if \n > 7
    lw s7, \frame - 36(sp)
    .endif
    .if \n > 8
    lw s8, \frame - 40(sp)
    .endif
    .if \n > 9
    lw s9, \frame - 44(sp)
    .endif
    .if \n > 10
    lw s10, \frame - 48(sp)
    .endif
    .if \n > 11
    lw s11, \frame - 52(sp)
    .endif
    addi sp, sp, \frame
    ret
.endm

save_restore 0, 16
save_restore 1, 16
save_restore 2, 16
save_restore 3, 16
save_restore 4, 32
save_restore 5, 32
save_restore 6, 32
save_restore 7, 32
save_restore 8, 48
save_restore 9, 48
save_restore 10, 48
save_restore 11, 48
save_restore 12, 64
