# Exceptions through IVT and IDT: frames, error codes, interrupt stacks, ring changes, double and triple faults.
#
# modes:       16, 32, i386, i386-pae, x86_64, x86_64-la57
# may change:  ax cx dx di stack idtr ivt

.include "claims.inc"

# Gate N of the IDT that catch_faults made goes to HANDLER, of this type and with this interrupt stack.
.macro gate number:req, handler:req, type=0x8e, ist=0
.if BITS == 16
    movl    $\handler, %eax
    movl    %eax, 4*\number
.else
    movl    $\handler, %eax
    movl    $(idt+\number*BITS/4), %edi
    movw    %ax, (%edi)
    movb    $\ist, 4(%edi)
    movb    $\type, 5(%edi)
.endif
.endm

.macro frame_return
.if BITS == 64
    iretq
.elseif BITS == 32
    iretl
.else
    iretw
.endif
.endm

claim faults_are_reported_at_the_instruction_and_traps_behind_it
    call    catch_faults
    raises  6, 0, ud2
    traps   3, 0, int3
    traps   0x1f, 0, int $0x1f
    xorl    %eax, %eax
    xorl    %edx, %edx
    raises  0, 0, divl zero
holds

claim the_frame_has_flags_code_segment_and_address, "frame"
    call    catch_faults
    gate    0x18, notes_frame
    stc
    int     $0x18
behind:
.if BITS == 16
    movzwl  frame, %eax
    equall  $behind, %eax
    movzwl  frame+2, %eax
    equall  $0, %eax
    movw    frame+4, %ax
    andw    $(EFLAGS_IF|EFLAGS_CF|EFLAGS_FIXED), %ax
    equalw  $(EFLAGS_CF|EFLAGS_FIXED), %ax
.elseif BITS == 32
    equall  $behind, frame
    equall  $CODE, frame+4
    movl    frame+8, %eax
    andl    $(EFLAGS_IF|EFLAGS_CF|EFLAGS_FIXED), %eax
    equall  $(EFLAGS_CF|EFLAGS_FIXED), %eax
.else
    movl    frame, %eax
    equall  $behind, %eax
    movl    frame+8, %eax
    equall  $CODE, %eax
    movl    frame+16, %eax
    andl    $(EFLAGS_IF|EFLAGS_CF|EFLAGS_FIXED), %eax
    equall  $(EFLAGS_CF|EFLAGS_FIXED), %eax
    movl    frame+24, %eax
    equall  %esp, %eax
    movl    frame+32, %eax
    equall  $DATA, %eax
.endif
holds
notes_frame:
.irp number, 0, 1, 2, 3, 4
.if BITS == 64
    movq    8*\number(%rsp), %rax
    movq    %rax, frame+8*\number
.elseif BITS == 32
.if \number < 3
    movl    4*\number(%esp), %eax
    movl    %eax, frame+4*\number
.endif
.else
.if \number < 3
    movw    %sp, %di
    movw    %ss:2*\number(%di), %ax
    movw    %ax, frame+2*\number
.endif
.endif
.endr
    frame_return

.if BITS != 16
claim interrupt_gates_turn_interrupts_off_and_trap_gates_do_not, "flags_seen"
    call    catch_faults
    gate    0x18, notes_flags
    gate    0x19, notes_flags, 0x8f
    sti
    int     $0x18
    testl   $EFLAGS_IF, flags_seen
    assert  z
    int     $0x19
    testl   $EFLAGS_IF, flags_seen
    assert  nz
    cli
holds
notes_flags:
.if BITS == 64
    pushfq
    popq    flags_seen
.else
    pushfl
    popl    flags_seen
.endif
    frame_return
.endif

.if BITS != 16
.if BITS == 64
claim an_absent_gate_is_refused_with_its_number, only="QEMU counts 16 bytes a gate in the error code"
.else
claim an_absent_gate_is_refused_with_its_number
.endif
    call    catch_faults
    gate    0x18, notes_frame, 0x0e
    raises  11, 0x18*8+2, int $0x18
holds

.if BITS == 64
claim a_gate_beyond_the_limit_is_refused_with_its_number, only="QEMU counts 16 bytes a gate in the error code"
.else
claim a_gate_beyond_the_limit_is_refused_with_its_number
.endif
    call    catch_faults
    raises  13, 0x80*8+2, int $0x80
holds

# A fault while a fault is delivered: gate 13 is absent, so #GP becomes #NP on the way, which is a double fault.
claim a_fault_in_the_delivery_of_a_fault_is_a_double_fault
    call    catch_faults
    gate    13, notes_frame, 0x0e
    movl    $0xf8, %eax
    movl    $behind_double, fault_resume
    movl    %eax, %es
behind_double:
    movl    $0, fault_resume
    equall  $8, fault_vector
    equall  $0, fault_error
holds

claim a_fault_in_the_delivery_of_a_double_fault_is_the_end, "", "triple fault"
    call    catch_faults
    gate    13, notes_frame, 0x0e
    gate    8, notes_frame, 0x0e
    movl    $0xf8, %eax
    movl    %eax, %es
holds

claim without_an_idt_any_exception_is_the_end, "", "triple fault"
    ud2
holds
.else
claim beyond_the_limit_of_the_ivt_an_interrupt_is_the_end, "", "triple fault"
    lidtl   short_idtr
    int     $0x40
holds
.endif

.if BITS == 64
claim a_gate_with_an_interrupt_stack_changes_to_it_and_aligns_nothing_of_ours, "frame gdt tr other_stack task_state"
    call    catch_faults
    call    make_task
    movl    $(other_stack_top-8), %eax          # the processor aligns it to 16
    movl    %eax, task_state + 36               # IST1
    gate    0x18, notes_stack, 0x8e, 1
    int     $0x18
    movl    frame, %eax
    equall  $(other_stack_top-16-40), %eax
holds
notes_stack:
    movq    %rsp, frame
    frame_return
.endif

.if (BITS == 32) && (PAGING == 0)
# Ring 3: to a stack of its own, and back through a gate that is open to it, on the stack that the TSS names.
claim a_ring_change_takes_the_stack_of_the_task_state, "frame gdt tr other_stack task_state user_stack bx bp si"
    call    catch_faults
    call    make_task
    gate    0x18, from_ring_3, 0xee
    movl    %esp, %ebx
    movl    $other_stack_top, %eax
    movl    %eax, task_state + 4                # ESP0
    movl    $DATA, %eax
    movl    %eax, task_state + 8                # SS0
    pushl   $USER_DATA
    pushl   $user_stack_top
    pushl   $EFLAGS_FIXED
    pushl   $USER_CODE
    pushl   $ring_3
    iretl
ring_3:
    int     $0x18
    never
from_ring_3:
    movl    4(%esp), %eax
    cmpl    $USER_CODE, %eax
    jne     wrong_ring
    cmpl    $(other_stack_top-20), %esp
    jne     wrong_ring
    movl    %ebx, %esp
    movl    $DATA, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %fs                           # loaded null on the way in, being of ring 0
    movl    %eax, %gs
    jmp     held
wrong_ring:
    movl    %ebx, %esp
    never

.endif

.if BITS != 16
make_task:
    movl    $task_state, %eax
    movl    $(gdt+TASK), %edi
    movw    $103, (%edi)
    movw    %ax, 2(%edi)
    movb    $0, 4(%edi)
    movb    $0x89, 5(%edi)
    movw    $0, 6(%edi)
    movl    $0, 8(%edi)
    movl    $0, 12(%edi)
    movl    $TASK, %eax
    ltr     %ax
    ret
.endif

    .balign 8, 0
zero:           .quad 0
frame:          .quad 0, 0, 0, 0, 0
flags_seen:     .quad 0
short_idtr:     .word 0
                .long 0
    .balign 16, 0
task_state:     .fill 104, 1, 0
    .balign 16, 0
other_stack:    .fill 128, 1, 0
other_stack_top: .quad 0
user_stack:     .fill 64, 1, 0
user_stack_top: .quad 0
