# hooks: what the engine calls before each instruction (dispatch), and before stores (stores.inc).
#
# Who comes here: the engine, in the host's own 64-bit code (System V calling convention), linear address in %rsi, our fields in
# %rcx.
# What it does: where that address is in the table of intercepts it goes on to moves.inc with the record found there, lets the
# instruction pass, or goes to Python, with %rsi as it came.
# What it clobbers: registers that are free in that convention, and flags.

.include "meter.inc"

.set BUCKET_SHIFT, 6
.set MULTIPLIER, 0x9e3779b97f4a7c15
.set HASH_SHIFT, 54                             # 1,024 buckets

dispatch:
    movq    %rcx, %r11
    movq    %rsi, BEGUN(%rcx)
    cmpq    $0, ASIDE_COUNT(%rcx)
    jne     aside
in_force:
    movabsq $MULTIPLIER, %rax
    imulq   %rsi, %rax
    shrq    $HASH_SHIFT, %rax
    shlq    $BUCKET_SHIFT, %rax
    addq    TABLE(%rcx), %rax
    cmpq    (%rax), %rsi
    je      intercepted
    addq    $16, %rax
    cmpq    (%rax), %rsi
    je      intercepted
    addq    $16, %rax
    cmpq    (%rax), %rsi
    je      intercepted
    addq    $16, %rax
    cmpq    (%rax), %rsi
    je      intercepted
    ret
intercepted:
    movq    8(%rax), %rcx
    testq   %rcx, %rcx
    jz      python
    cmpq    $0, MOVE_KIND(%rcx)
    je      move

    # as a move: may host code decide, and is there time left?
    cmpq    $0, MOVE_ENABLED(%rcx)
    je      python
    cmpq    $0, ENABLED(%r11)
    je      python
    cmpq    PASSING(%r11), %rsi
    je      nothing
    cmpq    AGAIN(%r11), %rsi
    je      nothing
    movq    UNTOLD(%r11), %rax
    orq     PENDING(%r11), %rax
    jnz     python
    movq    STATE(%r11), %r10
    movl    STATE_HFLAGS(%r10), %eax
    movl    %eax, %edx
    andl    $CODE_BITS, %eax
    cmpq    MOVE_BITS(%rcx), %rax
    jne     python
    movq    COUNTER(%r11), %rax
    movq    (%rax), %rax
    decq    %rax
    subq    SKIPPED(%r11), %rax
    cmpq    RUN_BUDGET(%r11), %rax
    jge     python

    cmpq    $UNMASKS, MOVE_KIND(%rcx)
    je      unmasks
    testl   $CPL, %edx
    jnz     python
    cmpq    $USES_PORT, MOVE_KIND(%rcx)
    je      uses_port
    cmpq    $LOADS_TABLE, MOVE_KIND(%rcx)
    je      loads_table
    cmpq    $0, STRICT(%r11)
    jne     python
    cmpq    $READS_CONTROL, MOVE_KIND(%rcx)
    je      nothing
    cmpq    $WRITES_CONTROL, MOVE_KIND(%rcx)
    je      writes_control
    movabsq $EFER, %rax                         # the other MSRs are Python's
    movl    STATE_RCX(%r10), %edx
    cmpq    %rdx, %rax
    jne     python
    ret
loads_table:
    cmpq    $0, SILENT(%r11)
    je      python
    ret
unmasks:
    cmpq    $0, CALM(%r11)
    je      python
    ret
uses_port:
    movq    %rsi, PORT_AT(%r11)
    ret

    # the same value in the same state as Python let pass before?
writes_control:
    cmpq    $0, SILENT(%r11)
    je      python
    movq    MOVE_KNOWN(%rcx), %r9
    testq   %r9, %r9
    jz      python
    movq    MOVE_SOURCE(%rcx), %rax
    movq    (%rax), %rax
    andq    MOVE_MASK(%rcx), %rax
    movq    JUDGED(%r11), %r10
    leaq    MOVE_ACCEPTED(%rcx), %r8
next_known:
    cmpq    (%r8), %rax
    jne     other
.irp word, 0, 1, 2, 3, 4, 5, 6, 7
    movq    16 * \word(%r10), %rdx
    movq    (%rdx), %rdx
    andq    16 * \word + 8(%r10), %rdx
    cmpq    8 + 8 * \word(%r8), %rdx
    jne     other
.endr
    movq    $1, STALE(%r11)
    ret
other:
    addq    $ACCEPTED_SIZE, %r8
    decq    %r9
    jnz     next_known
    jmp     python

    # Python decides where the instruction may be of a block that memory has no longer
aside:
    movq    %rsi, %rax
    shrq    $12, %rax
    movq    ASIDE(%rcx), %r8
    movq    ASIDE_COUNT(%rcx), %r9
next_aside:
    cmpq    -8(%r8,%r9,8), %rax
    je      python
    decq    %r9
    jnz     next_aside
    jmp     in_force

.include "moves.inc"
.include "stores.inc"
