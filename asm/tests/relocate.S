# relocate_new_kernel: the state in which it enters the next kernel, and how A's call returns.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel
# may change:  ax cx dx si di r8 r9 r10 r11 stack context swap
#              cs ss ds es idtr

.include "claims.inc"
.include "stubs.inc"

.set WORD, BITS / 8
.set CR0_DROPPED, CR0_AM | CR0_WP | CR0_TS | CR0_EM

# ---- There and back ------------------------------------------------------------------------------------------------

claim a_peer_that_only_returns_leaves_a_as_it_was
    call_relocate $IND_DONE, $peer_that_returns, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer_that_returns, %eax
holds

peer_that_returns:
    ret

claim the_peer_may_say_in_its_slot_where_to_be_entered_next_time
    call_relocate $IND_DONE, $peer_that_names_an_entry, $RELOCATE_PRESERVE_CONTEXT
    equall  $0x123450, %eax
holds

peer_that_names_an_entry:
.if BITS == 64
    movq    $0x123450, 8(%rsp)
.else
    movl    $0x123450, 4(%esp)
.endif
    ret

claim a_peer_that_calls_back_is_entered_again_behind_its_call, "peer_stack peer_visits"
    call_relocate $IND_DONE, $peer_that_calls, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer_again, %eax
    equall  $1, peer_visits
    call_relocate $IND_DONE, %eax, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer_third, %eax
    equall  $0x11, peer_visits
holds

peer_that_calls:
.if BITS == 64
    movq    (%rsp), %rax
    movl    $peer_stack_top, %esp
    incl    peer_visits
    call    *%rax
.else
    movl    (%esp), %eax
    movl    $peer_stack_top, %esp
    incl    peer_visits
    call    *%eax
.endif
peer_again:
    addl    $0x10, peer_visits
    word_op pop, ax
.if BITS == 64
    call    *%rax
.else
    call    *%eax
.endif
peer_third:
    hlt

    .balign 8, 0
peer_visits:    .long 0, 0
peer_stack:     .fill 64, 1, 0
peer_stack_top: .quad 0

claim nothing_that_the_peer_spoils_matters, "dr7 cr2"
    call_relocate $IND_DONE, $peer_that_spoils, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer_that_spoils, %eax
holds

peer_that_spoils:
    movl    $0xaaa8, %ebx
    movl    %ebx, %ebp
.if BITS == 64
    movl    %ebx, %r10d
    movl    %ebx, %r11d
    movl    %ebx, %r12d
    movl    %ebx, %r13d
    movl    %ebx, %r14d
    movl    %ebx, %r15d
    movl    $MSR_EFER, %ecx
    rdmsr
    andl    $~(EFER_NXE | EFER_SCE), %eax
    wrmsr
    movq    %cr4, %rax
    orl     $(CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT), %eax
    movq    %rax, %cr4
    movq    %cr0, %rax
    orl     $CR0_DROPPED, %eax
    movq    %rax, %cr0
    xorl    %eax, %eax
    movl    %eax, %ds
    movl    %eax, %es
.else
    movl    $MSR_EFER, %ecx
    rdmsr
    xorl    $EFER_NXE, %eax
    wrmsr
    movl    $(CR4_PGE | CR4_PAE | CR4_PSE | CR4_OSXMMEXCPT), %eax
    movl    %eax, %cr4
    movl    %cr0, %eax
    orl     $CR0_DROPPED, %eax
    movl    %eax, %cr0
.endif
    lgdt    no_table
    lidt    no_table
.if BITS == 64
    pushq   $(EFLAGS_AC|EFLAGS_NT|EFLAGS_DF)
    popfq
.else
    pushl   $(EFLAGS_AC|EFLAGS_NT|EFLAGS_DF)
    popfl
.endif
    ret

    .balign 8, 0
no_table:       .quad 0, 0

# ---- How the next kernel is entered --------------------------------------------------------------------------------

# What both paths promise, but for the stack.  Clobbers ax, cx.
.macro next_kernels_mode
.if BITS == 64
    movq    %cr0, %rax
    equall  $(CR0_PG|CR0_NE|CR0_MP|CR0_ET|CR0_PE), %eax
    movq    %cr3, %rax
    equalq  kexec_root, %rax
    movq    %cr4, %rax
    andl    $~CR4_LA57, %eax
    equall  $CR4_PAE, %eax
    movl    %cs, %eax
    equalw  $CODE, %ax
    movl    %ds, %eax
    equalw  $DATA, %ax
    movl    %es, %eax
    equalw  $DATA, %ax
    movl    %ss, %eax
    equalw  $DATA, %ax
    sgdt    table_register
    movq    relocate.kexec_debug_gdt, %rax
    equalq  %rax, table_register+2
    movzwl  table_register, %eax
    equall  $31, %eax
    sidt    table_register
    movq    relocate.kexec_debug_idt, %rax
    equalq  %rax, table_register+2
    movzwl  table_register, %eax
    equall  $255, %eax
.else
    movl    %cr0, %eax
    equall  $(CR0_NE|CR0_MP|CR0_ET|CR0_PE), %eax
    movl    %cr4, %eax
.if PAE
    equall  $0, %eax
.else
    equall  $(CR4_PGE|CR4_OSFXSR), %eax         # has_pae was 0
.endif
    sgdt    table_register
    equall  $gdt, table_register+2
.endif
.endm

.macro flags_are_clear
.if BITS == 64
    pushfq
    popq    %rax
.else
    pushfl
    popl    %eax
.endif
    testl   $(EFLAGS_AC|EFLAGS_NT|EFLAGS_DF|EFLAGS_IF|EFLAGS_TF), %eax
    assert  z
.endm

claim the_peer_is_called_on_the_swap_page_with_its_slot_above, "registers table_register"
    call_relocate $IND_DONE, $called_peer, $RELOCATE_PRESERVE_CONTEXT
    never

called_peer:
    equall  $(SWAP_PAGE+PAGE_SIZE-2*WORD), %esp
.if BITS == 64
    movq    relocate.back_from_peer, %rax
    equalq  (%rsp), %rax
    equalq  $called_peer, 8(%rsp)
.else
    movl    relocate.back_from_peer, %eax
    equall  (%esp), %eax
    equall  $called_peer, 4(%esp)
.endif
    next_kernels_mode
    flags_are_clear
holds

claim on_the_plain_path_nothing_is_left_of_a, "registers table_register"
    call_relocate $IND_DONE, $plain_start, $0
    never

plain_start:
.if BITS == 64
.irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    testq   %\register, %\register
    assert  z
.endr
.else
.irp register, eax, ebx, ecx, edx, esi, edi, ebp
    testl   %\register, %\register
    assert  z
.endr
.endif
    equall  $(CONTROL_PAGE+PAGE_SIZE-WORD), %esp
.if BITS == 64
    equalq  $0, (%rsp)                          # nobody to go back to
.else
    equall  $0, (%esp)
.endif
    flags_are_clear
    next_kernels_mode
holds

# The flags with which A calls are A's again afterwards, and none of them acts on the way.
claim direction_trap_and_alignment_flags_of_a_do_not_reach_the_stub, "flags"
.if BITS == 64
    pushq   $(EFLAGS_AC|EFLAGS_NT|EFLAGS_DF)
    popfq
.else
    pushl   $(EFLAGS_AC|EFLAGS_NT|EFLAGS_DF)
    popfl
.endif
    call_relocate $(round_list+IND_INDIRECTION), $peer_with_clear_flags, $RELOCATE_PRESERVE_CONTEXT
.if BITS == 64
    pushfq
    popq    %rcx
.else
    pushfl
    popl    %ecx
.endif
    andl    $(EFLAGS_AC|EFLAGS_NT|EFLAGS_DF|EFLAGS_IF|EFLAGS_TF), %ecx
    equall  $(EFLAGS_AC|EFLAGS_NT|EFLAGS_DF), %ecx
holds

peer_with_clear_flags:
    flags_are_clear
    ret

# ---- The restore routines ------------------------------------------------------------------------------------------

# As a kernel start: nothing in a register means anything, there is no stack.
.macro go_to_routine cell:req
    movl    \cell, %eax
    movl    $0xdeadbeec, %ebx
    movl    %ebx, %ecx
    movl    %ebx, %edx
    movl    %ebx, %esi
    movl    %ebx, %edi
    movl    %ebx, %ebp
    movl    %ebx, %esp
    std
.if BITS == 64
    jmp     *%rax
.else
    jmp     *%eax
.endif
.endm

claim a_is_restored_after_its_image_was_saved
    call_relocate $IND_DONE, $saver, $RELOCATE_PRESERVE_CONTEXT
    equall  $1, %eax
holds

saver:
    go_to_routine relocate.restore_after_save

claim a_is_resumed
    call_relocate $IND_DONE, $resumer, $RELOCATE_PRESERVE_CONTEXT
    equall  $2, %eax
holds

resumer:
    go_to_routine relocate.restore_after_resume

claim a_can_be_restored_again_and_again
    call_relocate $IND_DONE, $saver, $RELOCATE_PRESERVE_CONTEXT
    cmpl    $1, %eax
    jne     resumed
.if BITS == 64                                  # back to a kernel start: the stub's own tables, or no paging
    movq    kexec_root, %rax
    movq    %rax, %cr3
.else
    movl    %cr0, %eax
    andl    $~CR0_PG, %eax
    movl    %eax, %cr0
.endif
    go_to_routine relocate.restore_after_resume
resumed:
    equall  $2, %eax
holds

# ---- Data ----------------------------------------------------------------------------------------------------------

    .balign 8, 0
table_register: .quad 0, 0
relocate.back_from_peer:        .quad 0
relocate.restore_after_save:    .quad 0
relocate.restore_after_resume:  .quad 0
relocate.kexec_debug_gdt:       .quad 0
relocate.kexec_debug_idt:       .quad 0

list round_list
    to      TARGET_PAGE
    from    SOURCE_PAGE
    done
