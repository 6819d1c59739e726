# loader: put recorded states of a machine into place, one after the other, and let each of them run.
#
# Who comes here: a multiboot boot loader, at entry, in 32-bit protected mode without paging, flat segments, interrupts
# in any state, no stack.  Whatever firmware ran before may have left its traces in low memory only.
#
# Data: one record a case, from `cases` to `cases_end` (physical, assembly-time symbols), CASE_SIZE bytes each.
#
# How it leaves: to the entry code of the case (enter32.S, enter64.S) in the page that holds the case's first
# instruction, on tables of our own that map this page where the case's own tables map it, or without paging.
# Loaded: EFER, other MSRs, FPU and SSE.  %ebp/%rbp is the record; nothing else is promised.
#
# Cases of an image with several come back to back32 or back64 from their collectors, on any tables that map this
# program and the records to themselves: what was copied in is copied out again, to where it came from, and the next
# case follows.  BITS == 64 copies in 64-bit mode, where every KVM runs natively.

.include "x86.inc"

.set CASE_COPIES, 0                             # copies: from, to, words of BITS (physical)
.set CASE_COPY_COUNT, 4
.set CASE_MSRS, 8                               # MSRs: number, low half, high half
.set CASE_MSR_COUNT, 12
.set CASE_FPU, 16                               # FXSAVE image
.set CASE_CR3, 20                               # our tables
.set CASE_CR4, 24
.set CASE_CR0, 28                               # bits to be set in CR0
.set CASE_ENTRY, 32                             # linear address of the entry code, 8 bytes
.set CASE_SIZE, 40

.set CODE32, 0x08
.set CODE64, 0x10
.set DATA, 0x18
.set PIC1_DATA, 0x21
.set PIC2_DATA, 0xa1
.set EXIT_PORT, 0xf4

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
    movb    $0xff, %al                          # no interrupts, not even for a case that sets IF
    outb    %al, $PIC1_DATA
    outb    %al, $PIC2_DATA

.if BITS == 64
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
    movl    now(%rip), %ebp
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

.else

next_case:
    movl    now, %ebp
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
.endif

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
