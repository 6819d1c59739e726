# purgatory, i386: from relocate_new_kernel to the entry of a kernel, as its boot protocol has it.
#
# Who comes here: relocate_new_kernel of the suspended kernel, to purgatory_start, wherever this page was loaded.
# Flat 32-bit segments, paging off, interrupts off, %esp valid (with room for one word), and on top of the stack:
#   preserve   where to jump back to (a return address: purgatory was called)
#   plain      0: nobody to go back to
#
# What it does: verifies what was loaded against the sum that the loader made (and halts for ever on a mismatch, saying so on
# the POST port), and tells the kernel of the way back: where the loader has filled cmdline_end and there is a way
# back, ` kexec_jump_back_entry=0x...` is appended to the command line.  Both once: when a peer whose memory was kept is
# entered here again, it is no longer what was loaded.
#
# How it leaves: a far return to kernel_entry with CS = BOOT_CS, DS = ES = SS = BOOT_DS from a GDT in this page,
# %esi = boot_params, %ebx = %edi = %ebp = 0.  jump_back_entry and callee_stack hold the word found on the stack, and
# the stack pointer with which we were entered; both are also the first two words on our small stack.
# Clobbered: %eax, %ebx, %ecx, %edx, %esi, %edi, %ebp, flags.  DF must be clear.

.include "kexec.inc"
.include "boot.inc"
.include "ports.inc"

.set REGION_SIZE, 4                             # offset in an entry of sum_regions
.set REGION_ENTRY, 8

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

    cmpl    $0, sum_done - here(%ebp)
    jne     kernel_ready
    movl    $1, sum_done - here(%ebp)

    # Is everything as it was loaded?
    leal    sum_regions - here(%ebp), %ebx
    xorl    %eax, %eax
next_region:
    movl    (%ebx), %esi
    movl    REGION_SIZE(%ebx), %ecx
    addl    $REGION_ENTRY, %ebx
    shrl    $2, %ecx
    jz      summed
next_dword:
    roll    $1, %eax
    addl    (%esi), %eax
    addl    $4, %esi
    decl    %ecx
    jnz     next_dword
    jmp     next_region
summed:
    cmpl    sum_expected - here(%ebp), %eax
    je      sum_good
    movb    $POST_SUM_MISMATCH, %al
    outb    %al, $POST_PORT
for_ever:
    hlt
    jmp     for_ever
sum_good:

    # Only now may the command line change.
    movl    cmdline_end - here(%ebp), %edi
    testl   %edi, %edi
    jz      kernel_ready
    movl    jump_back_entry - here(%ebp), %edx
    testl   %edx, %edx
    jz      kernel_ready
    leal    option - here(%ebp), %esi
    movl    $(option_end - option), %ecx
    rep movsb
    xorl    %ebx, %ebx                          # not 0 from the first digit on that is not 0
    movl    $8, %ecx
next_digit:
    roll    $4, %edx
    movl    %edx, %eax
    andl    $0xf, %eax
    orl     %eax, %ebx
    jz      leading_zero
    movb    hex_digits - here(%ebp, %eax), %al
    stosb
leading_zero:
    decl    %ecx
    jnz     next_digit
    movb    $0, (%edi)

kernel_ready:
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
cmdline_end:            .long 0                 # physical address of the NUL of the command line; 0: nothing is appended
sum_expected:           .long 0
sum_regions:            .fill   PURGATORY_REGIONS * REGION_ENTRY, 1, 0  # physical start, size; a size of 0 ends them,
                        .long 0, 0                                      # at the latest this one

sum_done:               .long 0                 # not 0 once the sum has been right

# Read by the kernel, if it knows of us.
jump_back_entry:        .long 0
callee_stack:           .long 0

option:                 .ascii  " kexec_jump_back_entry=0x"
option_end:
hex_digits:             .ascii  "0123456789abcdef"

    .balign 8, 0
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
