# purgatory: a kernel is entered as its boot protocol has it.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel, purgatory
# may change:  registers stack context swap purgatory table_register

.include "claims.inc"
.include "stubs.inc"

.set WORD, BITS / 8
.set BOOT_PARAMS, 0x90000

.macro boots kernel:req
    movl    purgatory.kernel_entry, %eax
    movl    $\kernel, (%eax)
    movl    purgatory.boot_params, %eax
    movl    $BOOT_PARAMS, (%eax)
.endm

# What the 32-bit and 64-bit boot protocols say of registers.  Clobbers ax.
.macro entered_by_the_protocol
    equall  $BOOT_PARAMS, %esi
    equall  $0, %ebx
    equall  $0, %edi
    equall  $0, %ebp
.if BITS == 64
    shrq    $32, %rsi
    assert  z
    pushfq
    popq    %rax
.else
    pushfl
    popl    %eax
.endif
    testl   $(EFLAGS_IF|EFLAGS_DF|EFLAGS_TF|EFLAGS_NT|EFLAGS_AC), %eax
    assert  z
    movl    %cs, %eax
    equalw  $0x10, %ax
.irp register, ds, es, ss
    movl    %\register, %eax
    equalw  $0x18, %ax
.endr
    sgdt    table_register
    movl    purgatory.gdt, %eax
    equall  %eax, table_register+2
    movl    24(%eax), %ecx                      # BOOT_DS
    equall  $0xffff, %ecx
.if BITS == 64
    equall  $0x00af9b00, 20(%eax)
.else
    equall  $0x00cf9b00, 20(%eax)
.endif
    equall  $0x00cf9300, 28(%eax)
.if BITS == 64
    movq    %cr0, %rax
    andl    $(CR0_PG|CR0_PE), %eax
    equall  $(CR0_PG|CR0_PE), %eax
.else
    movl    %cr0, %eax
    andl    $(CR0_PG|CR0_PE), %eax
    equall  $CR0_PE, %eax
.endif
.endm

# The two words on the small stack, and the same in purgatory's page.
.macro back_entry_is value:req
.if BITS == 64
    movq    \value, %rax
    equalq  (%rsp), %rax
    movl    purgatory.jump_back_entry, %ecx
    equalq  (%rcx), %rax
    movl    purgatory.callee_stack, %ecx
    movq    8(%rsp), %rax
    equalq  (%rcx), %rax
.else
    movl    \value, %eax
    equall  (%esp), %eax
    movl    purgatory.jump_back_entry, %ecx
    equall  (%ecx), %eax
    movl    purgatory.callee_stack, %ecx
    movl    4(%esp), %eax
    equall  (%ecx), %eax
.endif
.endm

claim a_called_kernel_learns_where_to_go_back_to
    boots   called_kernel
    call_relocate $IND_DONE, purgatory.purgatory_start, $RELOCATE_PRESERVE_CONTEXT
    never
called_kernel:
    entered_by_the_protocol
    back_entry_is relocate.back_from_peer
    equall  $(SWAP_PAGE+PAGE_SIZE-2*WORD), %eax
holds

claim a_kernel_that_nobody_waits_for_finds_0
    boots   plain_kernel
    call_relocate $IND_DONE, purgatory.purgatory_start, $0
    never
plain_kernel:
    entered_by_the_protocol
    back_entry_is no_entry
    equall  $(CONTROL_PAGE+PAGE_SIZE-WORD), %eax
holds

claim a_kernel_can_return_by_the_stack_it_was_called_on, "registers"
    boots   returning_kernel
    call_relocate $IND_DONE, purgatory.purgatory_start, $RELOCATE_PRESERVE_CONTEXT
    movl    purgatory.purgatory_start, %ecx
    equall  %ecx, %eax
holds
returning_kernel:
    movl    purgatory.callee_stack, %ecx
    movl    (%ecx), %esp
    ret

    .balign 8, 0
no_entry:                       .quad 0
table_register:                 .quad 0, 0
relocate.back_from_peer:        .quad 0
purgatory.purgatory_start:      .quad 0
purgatory.kernel_entry:         .quad 0
purgatory.boot_params:          .quad 0
purgatory.jump_back_entry:      .quad 0
purgatory.callee_stack:         .quad 0
purgatory.gdt:                  .quad 0
