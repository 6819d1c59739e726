# loader32: put recorded states of an i386 machine into place, one after the other, and let each of them run.
#
# Who comes here: a multiboot boot loader, at entry, in 32-bit protected mode without paging, flat segments, interrupts
# in any state, no stack.  Whatever firmware ran before may have left its traces in low memory only.
#
# Data: one record a case (loader.inc), CASES to CASES_END, physical.
#
# How it leaves: to enter32.S in the page that holds the case's first instruction, on tables of our own that map this
# page where the case's own tables map it, or without paging.  Loaded: MSRs, FPU and SSE.  %ebp is the record; nothing
# else is promised.
#
# Cases of an image with several come back to back32 from their collectors, on any tables that map this program to
# itself: what was copied in is copied out again, to where it came from, and the next case follows.

.include "x86.inc"
.include "ports.inc"
.include "loader.inc"

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

next_case:
    mask_interrupts
    movl    now, %ebp
    movl    CASE_IRQ(%ebp), %ecx
    testl   %ecx, %ecx
    jz      no_irq
    raise_timer
no_irq:
    movl    CASE_COPIES(%ebp), %edx
    movl    CASE_COPY_COUNT(%ebp), %ebx
    testl   %ebx, %ebx
    jz      copied_in
copy_in:
    movl    (%edx), %esi
    movl    4(%edx), %edi
    movl    8(%edx), %ecx
    rep movsl
    addl    $12, %edx
    decl    %ebx
    jnz     copy_in
copied_in:
    movl    CASE_MSRS(%ebp), %esi
    movl    CASE_MSR_COUNT(%ebp), %ebx
set_msr:
    movl    (%esi), %ecx
    movl    4(%esi), %eax
    movl    8(%esi), %edx
    wrmsr
    addl    $12, %esi
    decl    %ebx
    jnz     set_msr

    movl    CASE_CR4(%ebp), %eax                # with OSFXSR
    movl    %eax, %cr4
    movl    CASE_CR3(%ebp), %eax
    movl    %eax, %cr3
    movl    %cr0, %eax
    andl    $~(CR0_EM | CR0_TS), %eax
    orl     CASE_CR0(%ebp), %eax
    movl    %eax, %cr0
    jmp     in_its_mode                         # a branch after the change of CR0.PG
in_its_mode:
    movl    CASE_FPU(%ebp), %eax
    fxrstor (%eax)
    jmp     *CASE_ENTRY(%ebp)

back32:
    lgdt    gdt_register
    ljmp    $CODE32, $own_code
own_code:
    movl    $DATA, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %fs
    movl    %eax, %gs
    movl    %eax, %ss
    movl    $stack_top, %esp
    movl    $CR0_PE | CR0_ET, %eax
    movl    %eax, %cr0
    jmp     without_paging
without_paging:
    xorl    %eax, %eax
    movl    %eax, %cr3
    movl    %eax, %cr4
    cld

    movl    now, %ebp
    movl    CASE_COPIES(%ebp), %edx
    movl    CASE_COPY_COUNT(%ebp), %ebx
copy_out:
    movl    4(%edx), %esi
    movl    (%edx), %edi
    movl    8(%edx), %ecx
    rep movsl
    addl    $12, %edx
    decl    %ebx
    jnz     copy_out

    addl    $CASE_SIZE, %ebp
    movl    %ebp, now
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
    .long gdt, 0
    .balign 16, 0
    .fill 256, 1, 0
stack_top:
