# enter64: load the recorded processor state of a case and go to its first instruction, x86-64.
#
# It lies in a gap of the page that holds the case's first instruction, because that page is mapped by the case's own
# tables; it is assembled for its linear address there.
#
# Who comes here: loader64.S, in 64-bit mode, on tables that map this page where the case's tables do.
# How it leaves: a jump to the case's first instruction with every register as in the data below.

.include "x86.inc"

.ifndef TAKE_IRQ                                # 1: the case begins with IF set
.set TAKE_IRQ, 0
.endif

enter:
    movq    state_cr4(%rip), %rax
    movq    %rax, %cr4
    movq    state_cr3(%rip), %rax
    movq    %rax, %cr3

    lgdt    state_load_gdtr(%rip)             # of tables that hold what the segment registers hold
    lidt    state_idtr(%rip)
    movl    state_load_ldtr(%rip), %eax
    lldt    %ax
    movl    state_ds(%rip), %eax
    movl    %eax, %ds
    movl    state_es(%rip), %eax
    movl    %eax, %es
    movl    state_fs(%rip), %eax
    movl    %eax, %fs
    movl    state_gs(%rip), %eax
    movl    %eax, %gs
    movl    state_ss(%rip), %eax
    movl    %eax, %ss
    movl    state_ldtr(%rip), %eax
    lldt    %ax
    movl    state_tr(%rip), %eax                # its descriptor is available there: this makes it busy
    testl   %eax, %eax
    jz      no_task
    ltr     %ax
no_task:
    leaq    state_cs(%rip), %rsp
    lretq
in_its_code_segment:
    lgdt    state_gdtr(%rip)

    movl    $MSR_FS_BASE, %ecx                  # after the selectors, which change the bases
    movl    state_fs_base(%rip), %eax
    movl    state_fs_base + 4(%rip), %edx
    wrmsr
    movl    $MSR_GS_BASE, %ecx
    movl    state_gs_base(%rip), %eax
    movl    state_gs_base + 4(%rip), %edx
    wrmsr
    movl    $MSR_KERNEL_GS_BASE, %ecx
    movl    state_kernel_gs_base(%rip), %eax
    movl    state_kernel_gs_base + 4(%rip), %edx
    wrmsr

    movq    state_cr2(%rip), %rax
    movq    %rax, %cr2
    movq    state_cr0(%rip), %rax               # WP last: LTR and LGDT's accessed bits may need to write
    movq    %rax, %cr0

    leaq    state_rflags(%rip), %rsp
    popfq
    movq    state_rax(%rip), %rax
    movq    state_rcx(%rip), %rcx
    movq    state_rdx(%rip), %rdx
    movq    state_rbx(%rip), %rbx
    movq    state_rsp(%rip), %rsp
    movq    state_rbp(%rip), %rbp
    movq    state_rsi(%rip), %rsi
    movq    state_rdi(%rip), %rdi
    movq    state_r8(%rip), %r8
    movq    state_r9(%rip), %r9
    movq    state_r10(%rip), %r10
    movq    state_r11(%rip), %r11
    movq    state_r12(%rip), %r12
    movq    state_r13(%rip), %r13
    movq    state_r14(%rip), %r14
    movq    state_r15(%rip), %r15
.if TAKE_IRQ                                    # one is pending; after sti a machine may be late to see it
    leaq    state_frame(%rip), %rsp
    iretq
.else
    jmp     *state_rip(%rip)
.endif

    .balign 8, 0xcc
state_cs:               .quad in_its_code_segment, 0
state_cr0:              .quad 0
state_cr2:              .quad 0
state_cr3:              .quad 0
state_cr4:              .quad 0
state_rax:              .quad 0
state_rcx:              .quad 0
state_rdx:              .quad 0
state_rbx:              .quad 0
state_rsp:              .quad 0
state_rbp:              .quad 0
state_rsi:              .quad 0
state_rdi:              .quad 0
state_r8:               .quad 0
state_r9:               .quad 0
state_r10:              .quad 0
state_r11:              .quad 0
state_r12:              .quad 0
state_r13:              .quad 0
state_r14:              .quad 0
state_r15:              .quad 0
state_rip:              .quad 0
state_rflags:           .quad 0
state_frame:            .quad 0, 0, 0, 0, 0     # RIP, CS, RFLAGS with IF, RSP, SS: for iretq
state_fs_base:          .quad 0
state_gs_base:          .quad 0
state_kernel_gs_base:   .quad 0
state_gdtr:             .word 0                 # limit
                        .quad 0                 # base
state_load_gdtr:        .word 0
                        .quad 0
state_idtr:             .word 0
                        .quad 0
state_es:               .long 0
state_ss:               .long 0
state_ds:               .long 0
state_fs:               .long 0
state_gs:               .long 0
state_ldtr:             .long 0
state_load_ldtr:        .long 0
state_tr:               .long 0
    .balign 8, 0
state_table:            .fill 256, 1, 0
state_local_table:      .fill 32, 1, 0
