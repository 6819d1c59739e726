# stretch: ten million instructions for the history benchmark.
#
# Who comes here: the benchmark, in flat 32-bit protected mode without paging, at start, interrupts off.  It writes 4,096 pages
# in turn with plain stores, takes a timer interrupt every 9,984 ticks, and turns paging on and off ten times each.
# How it leaves: by the exit port, status 0.

.include "x86.inc"
.include "ports.inc"

.set PAGES, 4096
.set FIRST_PAGE, 0x1000000
.set TABLE, 0x200000                            # one page directory of 4 MiB pages, identity
.set LARGE_IDENTITY, 0x83                       # present, writable, 4 MiB
.set STACK_TOP, 0x180000
.set TIMER_CLOCKS, 156
.set TOGGLES, 20
.set ROUNDS, 62500                              # of 8 instructions, between two toggles
.set CODE_SELECTOR, 0x10
.set INTERRUPT_GATE, 0x8e00
.set IRQ_BASE, 0x20

start:
    movl    $STACK_TOP, %esp

    # identity map of 4 GiB by 4 MiB pages
    movl    $TABLE, %edi
    movl    $LARGE_IDENTITY, %eax
1:  movl    %eax, (%edi)
    addl    $4, %edi
    addl    $0x400000, %eax
    jnc     1b
    movl    $TABLE, %eax
    movl    %eax, %cr3
    movl    %cr4, %eax
    orl     $CR4_PSE, %eax
    movl    %eax, %cr4

    # one gate: the timer's
    movl    $tick, %eax
    movw    %ax, idt + 8 * IRQ_BASE
    movw    $CODE_SELECTOR, idt + 8 * IRQ_BASE + 2
    movw    $INTERRUPT_GATE, idt + 8 * IRQ_BASE + 4
    shrl    $16, %eax
    movw    %ax, idt + 8 * IRQ_BASE + 6
    lidt    idt_register

    movb    $0x11, %al                          # both controllers: vectors, cascade, 8086 mode, masks
    outb    %al, $0x20
    outb    %al, $0xa0
    movb    $IRQ_BASE, %al
    outb    %al, $0x21
    movb    $(IRQ_BASE + 8), %al
    outb    %al, $0xa1
    movb    $4, %al
    outb    %al, $0x21
    movb    $2, %al
    outb    %al, $0xa1
    movb    $1, %al
    outb    %al, $0x21
    outb    %al, $0xa1
    movb    $0xfe, %al
    outb    %al, $0x21
    movb    $0x34, %al                          # timer: channel 0, rate generator
    outb    %al, $0x43
    movb    $TIMER_CLOCKS, %al
    outb    %al, $0x40
    xorl    %eax, %eax
    outb    %al, $0x40
    sti

    movl    $TOGGLES, %ebx
    xorl    %esi, %esi                          # page number
again:
    movl    $ROUNDS, %ecx
2:  movl    %esi, %edi
    shrl    $8, %edi                            # 256 stores to a page, then the next
    andl    $(PAGES - 1), %edi
    shll    $12, %edi
    addl    %ecx, FIRST_PAGE(%edi)
    incl    %esi
    decl    %ecx
    jnz     2b

    movl    %cr0, %eax
    xorl    $CR0_PG, %eax
    movl    %eax, %cr0
    decl    %ebx
    jnz     again

    cli
    xorl    %eax, %eax
    outb    %al, $0xf4
3:  hlt
    jmp     3b

tick:
    pushl   %eax
    incl    ticks
    movb    $0x20, %al
    outb    %al, $0x20
    popl    %eax
    iret

    .balign 8, 0
ticks:          .long 0
idt_register:   .word idt_end - idt - 1
                .long idt
    .balign 8, 0
idt:            .fill 8 * (IRQ_BASE + 1), 1, 0
idt_end:
