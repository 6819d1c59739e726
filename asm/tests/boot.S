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

# ---- What purgatory does once --------------------------------------------------------------------------------------

.set SUMMED_PAGE, 0x170000
.set SUMMED2_PAGE, 0x172000

# As relocate_new_kernel does, but with a word of our own on the stack.
.macro enters_with word:req
    movl    $\word, %eax
    word_op push, ax
    movl    purgatory.purgatory_start, %eax
.if BITS == 64
    jmp     *%rax
.else
    jmp     *%eax
.endif
.endm

.macro put cell:req, value:req, offset=0
    movl    purgatory.\cell, %ecx
    movl    \value, \offset(%ecx)
.endm

# The sum of two ranges, as the loader makes it.
.macro sums
    xorl    %eax, %eax
    movl    $SUMMED_PAGE, %esi
    call    add_range
    movl    $SUMMED2_PAGE, %esi
    call    add_range
    put     sum_regions, $SUMMED_PAGE
    put     sum_regions, $0x40, WORD
    put     sum_regions, $SUMMED2_PAGE, 2*WORD
    put     sum_regions, $0x40, 3*WORD
    put     sum_expected, %eax
.endm

add_range:
    movl    $0x10, %ecx
add_dword:
    roll    $1, %eax
    addl    (%esi), %eax
    addl    $4, %esi
    decl    %ecx
    jnz     add_dword
    ret

claim a_kernel_whose_segments_are_as_loaded_is_entered
    boots   good_kernel
    sums
    call_relocate $IND_DONE, purgatory.purgatory_start, $0
    never
good_kernel:
    entered_by_the_protocol
    movl    purgatory.sum_done, %ecx
    equall  $1, (%ecx)
holds

.if BITS == 64
claim a_kernel_of_which_one_bit_changed_is_not_entered, "summed", "halt at forever", "posts POST_SUM_MISMATCH"
.else
claim a_kernel_of_which_one_bit_changed_is_not_entered, "summed", "halt at for_ever", "posts POST_SUM_MISMATCH"
.endif
    boots   never_entered
    sums
    xorb    $0x10, SUMMED_PAGE+0x3f
    call_relocate $IND_DONE, purgatory.purgatory_start, $0
    never
never_entered:
    never

claim what_is_no_longer_as_loaded_is_entered_again_when_it_was_verified_once, "summed"
    boots   entered_again
    sums
    put     sum_done, $1
    xorb    $0x10, SUMMED_PAGE+0x3f
    call_relocate $IND_DONE, purgatory.purgatory_start, $0
    never
entered_again:
    entered_by_the_protocol
holds

claim as_many_ranges_as_there_is_room_for_are_summed
    boots   many_summed
    xorl    %eax, %eax
.rept PURGATORY_REGIONS
    movl    $SUMMED_PAGE, %esi
    call    add_range
.endr
    put     sum_expected, %eax
    movl    purgatory.sum_regions, %ecx
    movl    $PURGATORY_REGIONS, %edx
fill_region:
    movl    $SUMMED_PAGE, (%ecx)
    movl    $0x40, WORD(%ecx)
    addl    $(2*WORD), %ecx
    decl    %edx
    jnz     fill_region
    call_relocate $IND_DONE, purgatory.purgatory_start, $0
    never
many_summed:
    entered_by_the_protocol
holds

# An NMI wakes the processor from the halt; whoever handles it returns.
.if BITS == 64
claim a_mismatch_stays_halted_whatever_wakes_it, "", "halt at forever", "woken"
.else
claim a_mismatch_stays_halted_whatever_wakes_it, "", "halt at for_ever", "woken"
.endif
    call    catch_faults
    movl    $nmi_handler, %eax
    movl    $idt, %edi
    movw    %ax, 2 * BITS / 4(%edi)
    boots   never_entered
    put     sum_expected, $1
    call_relocate $IND_DONE, $enters_with_own_idt, $0
    never
enters_with_own_idt:
    lidt    idtr
    enters_with 0
nmi_handler:
.if BITS == 64
    iretq
.else
    iretl
.endif

.macro appends name:req, word:req, expected
claim \name, "line+80"
    boots   reads_\name
    put     cmdline_end, $line+4
    call_relocate $IND_DONE, $enters_\name, $0
    never
enters_\name:
    enters_with \word
reads_\name:
    entered_by_the_protocol
    movl    $line, %esi
    movl    $text_\name, %edi
    movl    $(end_\name-text_\name), %ecx
    repe cmpsb
    assert  e
holds
text_\name:
    .ascii  "quit"
    .asciz  "\expected"
end_\name:
.endm

appends the_way_back_is_appended_to_the_command_line, 0x0fedcba9, " kexec_jump_back_entry=0xfedcba9"
appends a_way_back_of_one_digit_is_appended_with_one, 0x7, " kexec_jump_back_entry=0x7"
appends without_a_way_back_the_command_line_stays, 0, ""

claim without_a_place_for_it_the_way_back_is_not_appended
    boots   line_unchanged
    call_relocate $IND_DONE, $enters_with_no_place, $0
    never
enters_with_no_place:
    enters_with 0x1234
line_unchanged:
    equall  $0x74697571, line
    equall  $0, line+4
holds

    .balign 8, 0
line:                           .ascii "quit"
                                .fill 76, 1, 0
no_entry:                       .quad 0
table_register:                 .quad 0, 0
relocate.back_from_peer:        .quad 0
purgatory.purgatory_start:      .quad 0
purgatory.kernel_entry:         .quad 0
purgatory.boot_params:          .quad 0
purgatory.jump_back_entry:      .quad 0
purgatory.callee_stack:         .quad 0
purgatory.gdt:                  .quad 0
purgatory.cmdline_end:          .quad 0
purgatory.sum_regions:          .quad 0
purgatory.sum_expected:         .quad 0
purgatory.sum_done:             .quad 0
