# purgatory, x86-64: from relocate_new_kernel to the entry of a kernel, as its boot protocol has it.
#
# Who comes here: relocate_new_kernel of the suspended kernel, to purgatory_start, wherever this page was loaded.
# 64-bit code, interrupts off, identity mapping, %rsp valid, and on top of the stack:
#   preserve   where to jump back to (a return address: purgatory was called)
#   plain      0: nobody to go back to
#
# What it does, once: sums up what was loaded, and halts for ever where that is not what the loader loaded; then
# appends the word to the kernel's command line, where the loader wants that.  A peer that is entered here again, its
# memory kept, has changed what was loaded.
#
# How it leaves: a far return to kernel_entry with CS = BOOT_CS, DS = ES = SS = BOOT_DS from a GDT in this page,
# %rsi = boot_params, %rbx = %rdi = %rbp = 0.  jump_back_entry and callee_stack hold the word found on the stack, and
# the stack pointer with which we were entered; both are also the first two words on our small stack.
# Clobbered: %rax, %rbx, %rcx, %rdx, %rsi, %rdi, %rbp, flags.

.include "kexec.inc"
.include "boot.inc"
.include "ports.inc"

.set NIBBLES, 16                                # of an address

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

    cmpl    $0, sum_done(%rip)
    jne     enter_kernel
    call    verify
    call    append_back_entry
    movl    $1, sum_done(%rip)

enter_kernel:
    movq    boot_params(%rip), %rsi
    pushq   callee_stack(%rip)                  # for a kernel that knows of us
    pushq   jump_back_entry(%rip)
    xorl    %ebx, %ebx
    xorl    %edi, %edi
    xorl    %ebp, %ebp
    pushq   $BOOT_CS
    pushq   kernel_entry(%rip)
    lretq

# verify: the sum over all ranges, each step rotate left by one and add; does not return where it is wrong.
#   Clobbers %rax, %rcx, %rdx, %rsi, %rdi.
verify:
    xorl    %edx, %edx                          # the sum
    leaq    sum_regions(%rip), %rdi
    leaq    sum_regions_end(%rip), %rax
next_region:
    cmpq    %rax, %rdi
    je      compare
    movq    (%rdi), %rsi
    movq    8(%rdi), %rcx
    addq    $16, %rdi
    shrq    $2, %rcx                            # dwords
    jz      compare
next_dword:
    roll    $1, %edx
    addl    (%rsi), %edx
    addq    $4, %rsi
    decq    %rcx
    jnz     next_dword
    jmp     next_region
compare:
    cmpl    sum_expected(%rip), %edx
    jne     mismatch
    ret

mismatch:
    movb    $POST_SUM_MISMATCH, %al
    outb    %al, $POST_PORT
    cli
forever:
    hlt
    jmp     forever

# append_back_entry: " kexec_jump_back_entry=0x<hex>" to the command line.  Clobbers %rax, %rcx, %rsi, %rdi.
append_back_entry:
    movq    cmdline_end(%rip), %rdi
    testq   %rdi, %rdi
    jz      appended
    cmpq    $0, jump_back_entry(%rip)           # nobody to go back to: the line stays as it is
    je      appended
    cld
    leaq    option_text(%rip), %rsi
    movl    $(option_text_end - option_text), %ecx
    rep movsb
    movq    jump_back_entry(%rip), %rsi
    movl    $NIBBLES, %ecx
skip_zero:                                      # leading zeros
    rolq    $4, %rsi
    testb   $0xf, %sil
    jnz     have_nibble
    decl    %ecx
    jmp     skip_zero
next_nibble:
    rolq    $4, %rsi
have_nibble:
    movl    %esi, %eax
    andl    $0xf, %eax
    addb    $'0', %al
    cmpb    $'9', %al
    jbe     have_digit
    addb    $('a' - '9' - 1), %al
have_digit:
    stosb
    decl    %ecx
    jnz     next_nibble
    movb    $0, (%rdi)
appended:
    ret

    .balign 8, 0xcc

# Filled by the loader.
kernel_entry:           .quad 0
boot_params:            .quad 0                 # physical address of the zero page
cmdline_end:            .quad 0                 # physical address of the NUL of the command line; 0: append nothing
sum_regions:                                    # (start, size) in bytes, multiples of 4; a size of 0 ends them
    .fill   PURGATORY_REGIONS * 16, 1, 0
sum_regions_end:
sum_expected:           .long 0
sum_done:               .long 0                 # ours: 1 when verified and appended

# Read by the kernel, if it knows of us.
jump_back_entry:        .quad 0
callee_stack:           .quad 0

option_text:
    .ascii  " kexec_jump_back_entry=0x"
option_text_end:

    .balign 8, 0
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
