# purgatory, x86-64: from relocate_new_kernel to the entry of a kernel, as its boot protocol has it.
#
# Who comes here: relocate_new_kernel of the suspended kernel, to purgatory_start, wherever this page was loaded.
# 64-bit code, interrupts off, identity mapping, %rsp valid, and on top of the stack:
#   preserve   where to jump back to (a return address: purgatory was called)
#   plain      0: nobody to go back to
#
# How it leaves: a far return to kernel_entry with CS = BOOT_CS, DS = ES = SS = BOOT_DS from a GDT in this page,
# %rsi = boot_params, %rbx = %rdi = %rbp = 0.  jump_back_entry and callee_stack hold the word found on the stack, and
# the stack pointer with which we were entered; both are also the first two words on our small stack.
# Clobbered: %rax, %rbx, %rsi, %rdi, %rbp, flags.

.include "kexec.inc"
.include "boot.inc"

purgatory_start:
    movq    (%rsp), %rax
    movq    %rax, jump_back_entry(%rip)
    movq    %rsp, callee_stack(%rip)
    leaq    purgatory_stack_top(%rip), %rsp

    leaq    gdt(%rip), %rax                     # only now do we know where it is
    movq    %rax, gdt_base(%rip)
    lgdt    gdt_limit(%rip)
    movl    $BOOT_DS, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %ss

    movq    boot_params(%rip), %rsi
    pushq   callee_stack(%rip)                  # for a kernel that knows of us
    pushq   jump_back_entry(%rip)
    xorl    %ebx, %ebx
    xorl    %edi, %edi
    xorl    %ebp, %ebp
    pushq   $BOOT_CS
    pushq   kernel_entry(%rip)
    lretq

    .balign 8, 0xcc

# Filled by the loader.
kernel_entry:           .quad 0
boot_params:            .quad 0                 # physical address of the zero page

# Read by the kernel, if it knows of us.
jump_back_entry:        .quad 0
callee_stack:           .quad 0

gdt:                                            # accessed bits set, so that the processor has nothing to write
    .quad 0
    .quad 0
    .quad 0x00af9b000000ffff                    # BOOT_CS, 64-bit code
    .quad 0x00cf93000000ffff                    # BOOT_DS, data
gdt_end:
gdt_limit:              .word gdt_end - gdt - 1
gdt_base:               .quad 0

    .balign 16, 0
    .fill   256, 1, 0
purgatory_stack_top:
