# collect64: write down the processor state at the end of a case, x86-64.
#
# It takes the place of the code at which the case ends, and is assembled for that linear address.
#
# Who comes here: the code under test.  64-bit code, interrupts off, any tables, a stack of three words.  The three
# words are zero afterwards, whatever the flags were (some are undefined after arithmetic).
# How it leaves: BACK = 0: the exit port, status 0.  Otherwise to BACK, which these tables map to itself.

.include "x86.inc"

.set EXIT_PORT, 0xf4
.set DONE, 0x444e454b                           # KEND
.ifndef BACK
.set BACK, 0
.endif

collect:
    pushfq
    pushq   %rax
    movq    %cr0, %rax
    pushq   %rax
    andl    $~(CR0_WP | CR0_TS | CR0_EM), %eax  # this page may be read-only
    movq    %rax, %cr0
    popq    result_cr0(%rip)
    popq    result_rax(%rip)
    popq    result_rflags(%rip)
    movq    %rsp, result_rsp(%rip)
    pushq   $0
    pushq   $0
    pushq   $0
    movq    %rcx, result_rcx(%rip)
    movq    %rdx, result_rdx(%rip)
    movq    %rbx, result_rbx(%rip)
    movq    %rbp, result_rbp(%rip)
    movq    %rsi, result_rsi(%rip)
    movq    %rdi, result_rdi(%rip)
    movq    %r8, result_r8(%rip)
    movq    %r9, result_r9(%rip)
    movq    %r10, result_r10(%rip)
    movq    %r11, result_r11(%rip)
    movq    %r12, result_r12(%rip)
    movq    %r13, result_r13(%rip)
    movq    %r14, result_r14(%rip)
    movq    %r15, result_r15(%rip)
    movq    %cr2, %rax
    movq    %rax, result_cr2(%rip)
    movq    %cr3, %rax
    movq    %rax, result_cr3(%rip)
    movq    %cr4, %rax
    movq    %rax, result_cr4(%rip)
    movl    %es, %eax
    movl    %eax, result_es(%rip)
    movl    %cs, %eax
    movl    %eax, result_cs(%rip)
    movl    %ss, %eax
    movl    %eax, result_ss(%rip)
    movl    %ds, %eax
    movl    %eax, result_ds(%rip)
    movl    %fs, %eax
    movl    %eax, result_fs(%rip)
    movl    %gs, %eax
    movl    %eax, result_gs(%rip)
    sldt    %eax
    movl    %eax, result_ldtr(%rip)
    str     %eax
    movl    %eax, result_tr(%rip)
    sgdt    result_gdtr(%rip)
    sidt    result_idtr(%rip)

    movl    $MSR_EFER, %ecx
    rdmsr
    movl    %eax, result_efer(%rip)
    movl    %edx, result_efer + 4(%rip)
    movl    $MSR_FS_BASE, %ecx
    rdmsr
    movl    %eax, result_fs_base(%rip)
    movl    %edx, result_fs_base + 4(%rip)
    movl    $MSR_GS_BASE, %ecx
    rdmsr
    movl    %eax, result_gs_base(%rip)
    movl    %edx, result_gs_base + 4(%rip)
    movl    $MSR_KERNEL_GS_BASE, %ecx
    rdmsr
    movl    %eax, result_kernel_gs_base(%rip)
    movl    %edx, result_kernel_gs_base + 4(%rip)

    movq    %cr4, %rax                          # or FXSAVE need not save the XMM registers
    orl     $CR4_OSFXSR, %eax
    movq    %rax, %cr4
    fxsave  result_fpu(%rip)
    movl    $DONE, result_done(%rip)
.if BACK
    movl    $BACK, %eax
    jmp     *%rax
.else
    xorl    %eax, %eax
    outl    %eax, $EXIT_PORT
halted:
    hlt
    jmp     halted
.endif

    .balign 16, 0xcc
result_begin:
result_fpu:             .fill 512, 1, 0
result_rax:             .quad 0
result_rcx:             .quad 0
result_rdx:             .quad 0
result_rbx:             .quad 0
result_rsp:             .quad 0
result_rbp:             .quad 0
result_rsi:             .quad 0
result_rdi:             .quad 0
result_r8:              .quad 0
result_r9:              .quad 0
result_r10:             .quad 0
result_r11:             .quad 0
result_r12:             .quad 0
result_r13:             .quad 0
result_r14:             .quad 0
result_r15:             .quad 0
result_rflags:          .quad 0
result_cr0:             .quad 0
result_cr2:             .quad 0
result_cr3:             .quad 0
result_cr4:             .quad 0
result_efer:            .quad 0
result_fs_base:         .quad 0
result_gs_base:         .quad 0
result_kernel_gs_base:  .quad 0
result_es:              .long 0
result_cs:              .long 0
result_ss:              .long 0
result_ds:              .long 0
result_fs:              .long 0
result_gs:              .long 0
result_ldtr:            .long 0
result_tr:              .long 0
result_gdtr:            .word 0
                        .quad 0
result_idtr:            .word 0
                        .quad 0
result_done:            .long 0
result_end:
