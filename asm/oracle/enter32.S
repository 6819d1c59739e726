# enter32: load the recorded processor state of a case and go to its first instruction, i386.
#
# As enter64.S, for 32-bit protected mode, with paging (2-level, PAE) or without.

.include "x86.inc"

enter:
    movl    state_cr4, %eax
    movl    %eax, %cr4
    movl    state_cr3, %eax
    movl    %eax, %cr3

    lgdt    state_gdtr
    lidt    state_idtr
    movl    state_ldtr, %eax
    lldt    %ax
    movl    state_tr, %eax                      # its descriptor is made available beforehand: this makes it busy
    testl   %eax, %eax
    jz      no_task
    ltr     %ax
no_task:
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
    movl    $state_cs, %esp
    lret
in_its_code_segment:

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
    jmp     *state_rip

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
state_gdtr:             .word 0                 # limit
                        .long 0                 # base
state_idtr:             .word 0
                        .long 0
state_es:               .long 0
state_ss:               .long 0
state_ds:               .long 0
state_fs:               .long 0
state_gs:               .long 0
state_ldtr:             .long 0
state_tr:               .long 0
