# collect32: write down the processor state at the end of a case, i386.
#
# As collect64.S, for 32-bit protected mode, with paging or without.

.include "x86.inc"

.set EXIT_PORT, 0xf4
.set DONE, 0x444e454b                           # KEND
.ifndef BACK
.set BACK, 0
.endif

collect:
    pushfl
    pushl   %eax
    movl    %cr0, %eax
    pushl   %eax
    andl    $~(CR0_WP | CR0_TS | CR0_EM), %eax  # this page may be read-only
    movl    %eax, %cr0
    popl    result_cr0
    popl    result_rax
    popl    result_rflags
    movl    %esp, result_rsp
    pushl   $0
    pushl   $0
    pushl   $0
    movl    %ecx, result_rcx
    movl    %edx, result_rdx
    movl    %ebx, result_rbx
    movl    %ebp, result_rbp
    movl    %esi, result_rsi
    movl    %edi, result_rdi
    movl    %cr2, %eax
    movl    %eax, result_cr2
    movl    %cr3, %eax
    movl    %eax, result_cr3
    movl    %cr4, %eax
    movl    %eax, result_cr4
    movl    %es, %eax
    movl    %eax, result_es
    movl    %cs, %eax
    movl    %eax, result_cs
    movl    %ss, %eax
    movl    %eax, result_ss
    movl    %ds, %eax
    movl    %eax, result_ds
    movl    %fs, %eax
    movl    %eax, result_fs
    movl    %gs, %eax
    movl    %eax, result_gs
    sldt    %eax
    movl    %eax, result_ldtr
    str     %eax
    movl    %eax, result_tr
    sgdt    result_gdtr
    sidt    result_idtr

    movl    $MSR_EFER, %ecx
    rdmsr
    movl    %eax, result_efer

    movl    %cr4, %eax                          # or FXSAVE need not save the XMM registers
    orl     $CR4_OSFXSR, %eax
    movl    %eax, %cr4
    fxsave  result_fpu
    movl    $DONE, result_done
.if BACK
    movl    $BACK, %eax
    jmp     *%eax
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
result_rax:             .long 0
result_rcx:             .long 0
result_rdx:             .long 0
result_rbx:             .long 0
result_rsp:             .long 0
result_rbp:             .long 0
result_rsi:             .long 0
result_rdi:             .long 0
result_rflags:          .long 0
result_cr0:             .long 0
result_cr2:             .long 0
result_cr3:             .long 0
result_cr4:             .long 0
result_efer:            .long 0
result_es:              .long 0
result_cs:              .long 0
result_ss:              .long 0
result_ds:              .long 0
result_fs:              .long 0
result_gs:              .long 0
result_ldtr:            .long 0
result_tr:              .long 0
result_gdtr:            .word 0
                        .long 0
result_idtr:            .word 0
                        .long 0
result_done:            .long 0
result_end:
