# loader64: put recorded states of an x86-64 machine into place, one after the other, and let each of them run.
#
# Who comes here: a multiboot boot loader, at entry, in 32-bit protected mode without paging, flat segments, interrupts
# in any state, no stack.  Whatever firmware ran before may have left its traces in low memory only.
#
# Data: one record a case (loader.inc), CASES to CASES_END, physical.
#
# How it leaves: to enter64.S, in 64-bit mode, in the page that holds the case's first instruction, on tables of our own
# that map this page where the case's own tables map it.  Loaded: MSRs, FPU and SSE.  %rbp is the record; nothing else
# is promised.
#
# Cases of an image with several come back to back64 from their collectors, on any tables that map this program and
# the records to themselves: what was copied in is copied out again, to where it came from, and the next case
# follows.  Copies are made in 64-bit mode, where every KVM runs natively.

.include "x86.inc"
.include "ports.inc"
.include "loader.inc"

    .code32
entry:
    cli
    cld
    lgdt    gdt_register
    ljmp    $CODE32, $flat
flat:
    movl    $DATA, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %fs
    movl    %eax, %gs
    movl    %eax, %ss
    movl    $stack_top, %esp

    # To 64-bit mode for good.
    movl    now, %ebp
    movl    CASE_CR4(%ebp), %eax
    movl    %eax, %cr4
    movl    CASE_CR3(%ebp), %eax
    movl    %eax, %cr3
    movl    $EFER_LME, %eax
    xorl    %edx, %edx
    movl    $MSR_EFER, %ecx
    wrmsr
    movl    %cr0, %eax
    andl    $~(CR0_EM | CR0_TS), %eax
    orl     CASE_CR0(%ebp), %eax
    movl    %eax, %cr0
    ljmp    $CODE64, $next_case

    .code64
next_case:
    mask_interrupts
    movl    now(%rip), %ebp
    movl    CASE_IRQ(%rbp), %ecx
    testl   %ecx, %ecx
    jz      no_irq
    raise_timer
no_irq:
    movl    CASE_COPIES(%rbp), %edx
    movl    CASE_COPY_COUNT(%rbp), %ebx
    testl   %ebx, %ebx
    jz      copied_in
copy_in:
    movl    (%rdx), %esi
    movl    4(%rdx), %edi
    movl    8(%rdx), %ecx
    rep movsq
    addl    $12, %edx
    decl    %ebx
    jnz     copy_in
copied_in:
    movl    CASE_MSRS(%rbp), %esi
    movl    CASE_MSR_COUNT(%rbp), %ebx
set_msr:
    movl    (%rsi), %ecx
    movl    4(%rsi), %eax
    movl    8(%rsi), %edx
    wrmsr
    addl    $12, %esi
    decl    %ebx
    jnz     set_msr

    movl    CASE_FPU(%rbp), %eax
    fxrstor (%rax)
    jmp     *CASE_ENTRY(%rbp)

back64:
    lgdt    gdt_register(%rip)
    movl    $stack_top, %esp
    pushq   $CODE64
    movl    $own_code, %eax
    pushq   %rax
    lretq
own_code:
    movl    $DATA, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %fs
    movl    %eax, %gs
    movl    %eax, %ss
    movl    $CR0_PG | CR0_PE | CR0_ET, %eax
    movq    %rax, %cr0
    movl    now(%rip), %ebp
    movl    CASE_CR4(%rbp), %eax
    movq    %rax, %cr4
    movl    CASE_CR3(%rbp), %eax
    movq    %rax, %cr3
    cld

    movl    CASE_COPIES(%rbp), %edx
    movl    CASE_COPY_COUNT(%rbp), %ebx
copy_out:
    movl    4(%rdx), %esi
    movl    (%rdx), %edi
    movl    8(%rdx), %ecx
    rep movsq
    addl    $12, %edx
    decl    %ebx
    jnz     copy_out

    addl    $CASE_SIZE, %ebp
    movl    %ebp, now(%rip)
    cmpl    $CASES_END, %ebp
    jb      next_case

    xorl    %eax, %eax
    outl    %eax, $EXIT_PORT
halted:
    hlt
    jmp     halted

    .balign 8, 0
now:    .long CASES
    .balign 8, 0
gdt:                                            # accessed bits set: loading writes nothing
    .quad 0
    .quad 0x00cf9b000000ffff                    # CODE32
    .quad 0x00af9b000000ffff                    # CODE64
    .quad 0x00cf93000000ffff                    # DATA
gdt_end:
gdt_register:
    .word gdt_end - gdt - 1
    .quad gdt
    .balign 16, 0
    .fill 256, 1, 0
stack_top:
