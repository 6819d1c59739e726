# Exceptions under relocate_new_kernel's own IDT: said on COM1; only from a breakpoint does it go on.
#
# modes:       x86_64, x86_64-la57
# stubs:       relocate_new_kernel
# may change:  registers stack context swap

.include "claims.inc"
.include "stubs.inc"


claim a_breakpoint_is_reported_and_returned_from, "", , "says relocate_new_kernel: vector 0000000000000003 error 0000000000000000 rip {at_breakpoint+1} cr2 "
    call_relocate $IND_DONE, $peer_with_breakpoint, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer_with_breakpoint, %eax
holds

claim the_report_waits_for_the_transmitter, "", , "says slowly relocate_new_kernel: vector 0000000000000003 error 0000000000000000 rip {at_breakpoint+1} cr2 "
    call_relocate $IND_DONE, $peer_with_breakpoint, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer_with_breakpoint, %eax
holds

peer_with_breakpoint:
    movl    $0x11, %eax
    movl    $0x22, %ecx
    movl    $0x33, %edx
    movl    $0x44, %esi
    movl    $0x55, %edi
    std
at_breakpoint:
    int3
    equalq  $0x11, %rax
    equalq  $0x22, %rcx
    equalq  $0x33, %rdx
    equalq  $0x44, %rsi
    equalq  $0x55, %rdi
    pushfq
    popq    %rax
    testl   $EFLAGS_DF, %eax
    assert  nz
    ret

.macro fatal name:req, vector:req, error:req, place:req, at:req
claim \name, "cr2", "halt at halt", "says vector \vector error \error rip {\at}"
    call_relocate $IND_DONE, $\place, $RELOCATE_PRESERVE_CONTEXT
    never
.endm

fatal a_divide_error_is_reported_and_the_last, 0000000000000000, 0000000000000000, divides, divides
divides:
    divl    zero

fatal an_undefined_instruction_is_reported_and_the_last, 0000000000000006, 0000000000000000, undefined, undefined
undefined:
    ud2

fatal a_general_protection_fault_is_reported_with_its_error_code, 000000000000000d, 0000000000000050, protection, protected
protection:
    movl    $0x50, %eax                         # beyond the stub's GDT
protected:
    movl    %eax, %fs

fatal a_page_fault_is_reported_with_its_error_code, 000000000000000e, 0000000000000002, faults, faulted
faults:
    movl    $0x40000000, %eax                   # nothing is mapped there
faulted:
    movl    %eax, (%rax)

fatal an_overflow_trap_is_reported_and_the_last, 0000000000000004, 0000000000000000, traps4, trapped4
traps4:
    int     $4
trapped4:
    hlt

.irp number, 1, 2, 5, 7, 9
fatal vector_\number\()_is_reported_and_the_last, 000000000000000\number, 0000000000000000, enters\number, entered\number
enters\number:
    int     $\number
entered\number:
    hlt
.endr

fatal vector_15_is_reported_and_the_last, 000000000000000f, 0000000000000000, enters15, entered15
enters15:
    int     $15
entered15:
    hlt

# The vectors that come with an error code, called as a processor would: a software interrupt pushes none.
.macro pushed name:req, number:req, digit:req
claim \name, "", "halt at halt", "says vector 000000000000000\digit error 0000000000000ee0 rip 00000000000000\()c\()0"
    call_relocate $IND_DONE, $pushes\number, $RELOCATE_PRESERVE_CONTEXT
    never
pushes\number:
    pushq   $0                                  # SS, RSP, RFLAGS, CS, RIP, error code
    pushq   $0
    pushq   $0
    pushq   $0
    pushq   $0xc0
    pushq   $0xee0
    movq    relocate.exception_vectors, %rax
    addq    $(8*\number), %rax
    jmp     *%rax
.endm

pushed a_double_fault_is_reported_with_its_error_code, 8, 8
pushed an_invalid_tss_is_reported_with_its_error_code, 10, a
pushed a_segment_that_is_not_there_is_reported_with_its_error_code, 11, b
pushed a_stack_fault_is_reported_with_its_error_code, 12, c

# With an IDT of the peer's that has the stub's handler for one vector, and one that returns for the NMI.
claim the_last_exception_stays_halted_whatever_wakes_it, "cr2", "halt at halt", "woken"
    call    catch_faults
    movl    $idt, %edi
    movl    $nmi_handler, %eax
    movw    %ax, 2 * 16(%edi)
    movl    relocate.exception_vectors, %eax
    addl    $(6 * 8), %eax
    movw    %ax, 6 * 16(%edi)
    shrl    $16, %eax
    movw    %ax, 6 * 16 + 6(%edi)
    call_relocate $IND_DONE, $undefined_with_own_idt, $RELOCATE_PRESERVE_CONTEXT
    never
undefined_with_own_idt:
    lidt    idtr
    ud2
nmi_handler:
    iretq

    .balign 8, 0
zero:   .quad 0
relocate.exception_vectors: .quad 0
