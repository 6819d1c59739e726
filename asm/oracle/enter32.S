# enter32: load the recorded processor state of a case and go to its first instruction, i386.
#
# As enter64.S, for 32-bit protected mode, with paging (2-level, PAE) or without.

.include "x86.inc"

.ifndef TAKE_IRQ                                # 1: the case begins with IF set
.set TAKE_IRQ, 0
.endif

enter:
    movl    state_cr4, %eax
    movl    %eax, %cr4
    movl    state_cr3, %eax
    movl    %eax, %cr3

    lgdt    state_load_gdtr                 # of tables that hold what the segment registers hold
    lidt    state_idtr
    movl    state_load_ldtr, %eax
    lldt    %ax
    movl    state_ds, %eax
    movl    %eax, %ds
    movl    state_es, %eax
    movl    %eax, %es
    movl    state_fs, %eax
    movl    %eax, %fs
    movl    state_gs, %eax
    movl    %eax, %gs
    movl    state_ss, %eax
    movl    %eax, %ss
    movl    state_ldtr, %eax
    lldt    %ax
    movl    state_tr, %eax                      # its descriptor is available there: this makes it busy
    testl   %eax, %eax
    jz      no_task
    ltr     %ax
no_task:
    movl    $state_cs, %esp
    lret
in_its_code_segment:
    lgdt    state_gdtr

    movl    state_cr2, %eax
    movl    %eax, %cr2
    movl    state_cr0, %eax                     # WP last: LTR may need to write
    movl    %eax, %cr0
    jmp     in_its_mode
in_its_mode:
    movl    $state_rflags, %esp
    popfl
    movl    state_rax, %eax
    movl    state_rcx, %ecx
    movl    state_rdx, %edx
    movl    state_rbx, %ebx
    movl    state_rsp, %esp
    movl    state_rbp, %ebp
    movl    state_rsi, %esi
    movl    state_rdi, %edi
.if TAKE_IRQ                                    # one is pending, whose frame comes to lie where this one is
    pushl   state_frame + 8
    pushl   state_frame + 4
    pushl   state_frame
    iretl
.else
    jmp     *state_rip
.endif

    .balign 4, 0xcc
state_cs:               .long in_its_code_segment, 0
state_cr0:              .long 0
state_cr2:              .long 0
state_cr3:              .long 0
state_cr4:              .long 0
state_rax:              .long 0
state_rcx:              .long 0
state_rdx:              .long 0
state_rbx:              .long 0
state_rsp:              .long 0
state_rbp:              .long 0
state_rsi:              .long 0
state_rdi:              .long 0
state_rip:              .long 0
state_rflags:           .long 0
state_frame:            .long 0, 0, 0           # EIP, CS, EFLAGS with IF: for iret
state_gdtr:             .word 0                 # limit
                        .long 0                 # base
state_load_gdtr:        .word 0
                        .long 0
state_idtr:             .word 0
                        .long 0
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
