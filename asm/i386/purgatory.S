# purgatory, i386: from relocate_new_kernel to the entry of a kernel, as its boot protocol has it.
#
# Who comes here: relocate_new_kernel of the suspended kernel, to purgatory_start, wherever this page was loaded.
# Flat 32-bit segments, paging off, interrupts off, %esp valid (with room for one word), and on top of the stack:
#   preserve   where to jump back to (a return address: purgatory was called)
#   plain      0: nobody to go back to
#
# How it leaves: a far return to kernel_entry with CS = BOOT_CS, DS = ES = SS = BOOT_DS from a GDT in this page,
# %esi = boot_params, %ebx = %edi = %ebp = 0.  jump_back_entry and callee_stack hold the word found on the stack, and
# the stack pointer with which we were entered; both are also the first two words on our small stack.
# Clobbered: %eax, %ebx, %ecx, %esi, %edi, %ebp, flags.

.include "kexec.inc"
.include "boot.inc"

purgatory_start:
    movl    (%esp), %eax
    movl    %esp, %ecx
    call    here                                # where are we?
here:
    popl    %ebp
    movl    %eax, jump_back_entry - here(%ebp)
    movl    %ecx, callee_stack - here(%ebp)
    leal    purgatory_stack_top - here(%ebp), %esp

    leal    gdt - here(%ebp), %eax
    movl    %eax, gdt_base - here(%ebp)
    lgdt    gdt_limit - here(%ebp)
    movl    $BOOT_DS, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %ss

    movl    boot_params - here(%ebp), %esi
    pushl   callee_stack - here(%ebp)           # for a kernel that knows of us
    pushl   jump_back_entry - here(%ebp)
    pushl   $BOOT_CS
    pushl   kernel_entry - here(%ebp)
    xorl    %ebx, %ebx
    xorl    %edi, %edi
    xorl    %ebp, %ebp
    lret

    .balign 8, 0xcc

# Filled by the loader.
kernel_entry:           .long 0
boot_params:            .long 0                 # physical address of the zero page

# Read by the kernel, if it knows of us.
jump_back_entry:        .long 0
callee_stack:           .long 0

gdt:                                            # accessed bits set, so that the processor has nothing to write
    .quad 0
    .quad 0
    .quad 0x00cf9b000000ffff                    # BOOT_CS, code
    .quad 0x00cf93000000ffff                    # BOOT_DS, data
gdt_end:
gdt_limit:              .word gdt_end - gdt - 1
gdt_base:               .long 0

    .balign 16, 0
    .fill   256, 1, 0
purgatory_stack_top:
