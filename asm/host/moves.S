# moves: as many iterations of a repeated MOVS as fit into one page, in one copy.
#
# Who comes here: the engine, in the host's own 64-bit code (System V calling convention), before each iteration of a MOVS that
# begins at the linear address in %rsi; our record of that instruction in %rcx (emu/machine/moves.py makes it).
# What it does: where both pages are in the engine's own cache of translations as plain memory, it copies, moves the guest's
# registers on and counts the iterations; the engine does the next one itself, with all that belongs to it: faults, accessed and
# dirty bits, the way to a new page.  It goes on to Python wherever anything is out of the ordinary.
# What it clobbers: registers that are free in that convention, and flags.  How it leaves: by ret, or by a jump to Python's own
# callback with %rsi as it came.

# a record of one instruction
.set MOVE_METER, 0                              # address of the fields below
.set MOVE_ENABLED, 8                            # 0: Python decides
.set MOVE_BITS, 16                              # CS32 and CS64 of the digest of the mode
.set MOVE_SHIFT, 24                             # 1 << this is the operand's size
.set MOVE_MASK, 32                              # of the address size
.set MOVE_SOURCE, 40                            # address of the source segment's base
.set MOVE_TARGET, 48                            # address of the base of ES
.set MOVE_LINEAR, 56                            # mask of linear addresses
.set MOVE_KIND, 64                              # 0: a move; else one of these, which the engine may do unheard:
.set READS_CONTROL, 1                           # at CPL 0, where the machine is not strict
.set UNMASKS, 2                                 # while no interrupt waits
.set USES_PORT, 3                               # at CPL 0; the callback of the port is told where it is
.set LOADS_TABLE, 4                             # where nobody wants to hear of it
.set READS_MSR, 5                               # EFER, at CPL 0

# what is shared with Python
.set COUNTER, 0                                 # address of the engine's counter
.set SKIPPED, 8
.set PASSING, 16
.set AGAIN, 24
.set LAST_ADDRESS, 32
.set LAST_COUNTER, 40
.set LAST_RCX, 48
.set RUN_START, 56
.set RUN_BUDGET, 64
.set TICK_BUDGET, 72
.set UNCHARGED, 80
.set ITERATIONS, 88
.set REPEATED, 96
.set RESUMES_AT, 104
.set EXECUTED, 112
.set DONE, 120
.set STRING_TICK, 128
.set STRING_ADDRESS, 136
.set ENABLED, 144
.set STRICT, 152
.set UNTOLD, 160                                # the engine's last iteration stored, and nobody was told
.set JOURNAL, 168                               # address of records: physical, size, linear
.set JOURNAL_COUNT, 176
.set JOURNAL_LIMIT, 184
.set CAREFUL, 192                               # address of a byte for each page frame: not 0, Python decides
.set CAREFUL_COUNT, 200
.set STATE, 208                                 # address of the engine's processor state
.set PYTHON, 216                                # address of Python's callback
.set RETIRED, 224                               # scratch
.set TLB, 232                                   # scratch
.set VICTIMS, 248                               # scratch
.set VICTIMS_END, 256                           # scratch
.set COPIED, 264                                # iterations done in here, ever
.set FRAMES, 272                                # address of 4 bytes for each page frame: its last record's number from 1, or 0
.set JUDGE, 280                                 # address of Python's callback for stores that may be forbidden

.set TOUCHED, 288                               # address of page frames, each 8 bytes, that were stored to
.set TOUCHED_COUNT, 296
.set CALM, 304                                  # no interrupt waits
.set PENDING, 312                               # an instruction that was let pass is to be looked at before the next
.set PORT_AT, 320                               # linear address of the port access that the engine does now
.set BEGUN, 328                                 # linear address of the last instruction that the engine came to
.set ASIDE, 336                                 # address of linear pages, 8 bytes each, whose blocks are set aside
.set ASIDE_COUNT, 344
.set SILENT, 352                                # nobody wants to hear of what the engine does by itself

# bits in the bytes of CAREFUL
.set FORBIDDEN, 4
.set UNTOUCHED, 8                               # the next store there is listed in TOUCHED

# the engine's processor state, and its cache of translations before it
.set STATE_RCX, 8
.set STATE_RSI, 48
.set STATE_RDI, 56
.set STATE_EFLAGS, 136
.set STATE_DIRECTION, 172
.set STATE_HFLAGS, 176
.set STATE_TLBS, -0x40                          # mask and address, for each of three privileges
.set STATE_VICTIMS, -0x840                      # what fell out of it: VICTIM_COUNT entries, for each of three privileges
.set VICTIMS_SIZE, 0x2b8                        # from one privilege's to the next
.set VICTIM_COUNT, 8
.set USER, 1
.set KERNEL, 2
.set KERNEL_SMAP, 0
.set ENTRY_SHIFT, 6
.set ENTRY_SIZE, 64
.set ENTRY_READ, 0
.set ENTRY_WRITE, 8
.set ENTRY_PHYSICAL, 24
.set ENTRY_ADDEND, 32
.set MAY_HOLD_CODE, 0x400                       # a flag in an address for stores; what does hold code is in CAREFUL

.set EFER, 0xc0000080
.set CODE_BITS, 0x8010
.set CPL, 3
.set SMAP, 0x800000
.set AC, 0x40000
.set PAGE_SIZE, 0x1000

move:
    movq    MOVE_METER(%rcx), %r11
    cmpq    $0, MOVE_ENABLED(%rcx)
    je      python
    cmpq    $0, ENABLED(%r11)
    je      python
    cmpq    PASSING(%r11), %rsi
    je      nothing
    cmpq    AGAIN(%r11), %rsi
    je      nothing
    movq    STATE(%r11), %r10
    movl    STATE_HFLAGS(%r10), %eax
    andl    $CODE_BITS, %eax
    cmpq    MOVE_BITS(%rcx), %rax
    jne     python
    cmpl    $1, STATE_DIRECTION(%r10)
    jne     python
    movq    JOURNAL_COUNT(%r11), %rax
    addq    $2, %rax
    cmpq    JOURNAL_LIMIT(%r11), %rax
    ja      python

    # another hook on the same instruction?
    movq    COUNTER(%r11), %rax
    movq    (%rax), %rdx
    movq    STATE_RCX(%r10), %r8
    cmpq    LAST_ADDRESS(%r11), %rsi
    jne     first
    cmpq    LAST_COUNTER(%r11), %rdx
    jne     first
    cmpq    LAST_RCX(%r11), %r8
    je      nothing
first:
    decq    %rdx
    subq    SKIPPED(%r11), %rdx
    cmpq    RUN_BUDGET(%r11), %rdx
    jge     python

    pushq   %rbx
    pushq   %rbp
    pushq   %r12
    pushq   %r13
    pushq   %r14
    pushq   %r15
    movq    %rsi, %rdi                          # linear address of the instruction
    movq    %rcx, %rbx                          # its record
    movq    %rdx, RETIRED(%r11)
    movq    %r8, %rbp
    andq    MOVE_MASK(%rbx), %rbp               # iterations to go
    movq    RUN_START(%r11), %r12
    addq    %rdx, %r12
    addq    UNCHARGED(%r11), %r12               # tick
    xorl    %r13d, %r13d                        # 1: under way
    cmpq    REPEATED(%r11), %rdi
    jne     fresh
    cmpq    RESUMES_AT(%r11), %r12
    jne     fresh
    movl    $1, %r13d
fresh:

    # the cache of translations of this privilege
    movl    STATE_HFLAGS(%r10), %eax
    movl    $USER, %ecx
    movl    %eax, %edx
    andl    $CPL, %edx
    cmpl    $CPL, %edx
    je      privilege
    movl    $KERNEL, %ecx
    testl   $SMAP, %eax
    jz      privilege
    testl   $AC, STATE_EFLAGS(%r10)
    jnz     privilege
    movl    $KERNEL_SMAP, %ecx
privilege:
    imulq   $VICTIMS_SIZE, %rcx, %rax
    leaq    STATE_VICTIMS(%r10,%rax), %rax
    movq    %rax, VICTIMS(%r11)
    addq    $VICTIM_COUNT * ENTRY_SIZE, %rax
    movq    %rax, VICTIMS_END(%r11)
    shlq    $4, %rcx
    leaq    STATE_TLBS(%r10,%rcx), %rcx
    movq    %rcx, TLB(%r11)

    # tell of the iteration that the engine did
    cmpq    $0, UNTOLD(%r11)
    je      told
    testl   %r13d, %r13d
    jz      slow
    movq    MOVE_SHIFT(%rbx), %rcx
    movl    $1, %r14d
    shlq    %cl, %r14                           # bytes
    movq    STATE_RDI(%r10), %rax
    subq    %r14, %rax
    andq    MOVE_MASK(%rbx), %rax
    movq    MOVE_TARGET(%rbx), %rcx
    addq    (%rcx), %rax
    andq    MOVE_LINEAR(%rbx), %rax
    movq    %rax, %r9
    movl    %eax, %edx
    andl    $PAGE_SIZE - 1, %edx
    addl    %r14d, %edx
    cmpl    $PAGE_SIZE, %edx
    ja      slow
    movl    $ENTRY_WRITE, %ecx
    call    lookup
    testq   %rax, %rax
    jz      slow
    movq    ENTRY_PHYSICAL(%rdx), %rsi
    movq    %r14, %rdx
    call    note
    movq    $0, UNTOLD(%r11)
told:

    # how many: all, less than the time that is left, to the end of either page
    movq    TICK_BUDGET(%r11), %r15
    subq    RETIRED(%r11), %r15
    subq    UNCHARGED(%r11), %r15               # time left
    cmpq    $2, %rbp
    jb      none
    cmpq    $3, %r15
    jl      none
    leaq    -1(%r15), %r14
    cmpq    %rbp, %r14
    cmovaq  %rbp, %r14
    movq    STATE_RSI(%r10), %rax
    movq    MOVE_SOURCE(%rbx), %r9
    call    limit
    movq    %rax, %r8                           # linear source
    movq    STATE_RDI(%r10), %rax
    movq    MOVE_TARGET(%rbx), %r9
    call    limit
    movq    %rax, %r9                           # linear target
    cmpq    $2, %r14
    jb      none

    movq    %r8, %rax
    movl    $ENTRY_READ, %ecx
    call    lookup
    testq   %rax, %rax
    jz      none
    movq    %rax, %r8                           # where the source lies in this process
    movq    %r9, %rax
    movl    $ENTRY_WRITE, %ecx
    call    lookup
    testq   %rax, %rax
    jz      none
    movq    ENTRY_PHYSICAL(%rdx), %rsi
    movq    %rsi, %rcx
    shrq    $12, %rcx
    cmpq    CAREFUL_COUNT(%r11), %rcx
    jae     slow
    addq    CAREFUL(%r11), %rcx
    cmpb    $0, (%rcx)
    je      allowed
    cmpb    $UNTOUCHED, (%rcx)
    jne     slow
    andb    $~UNTOUCHED, (%rcx)
    movq    %rax, %rbp
    movq    %rsi, %rdx
    shrq    $12, %rdx
    movq    %r11, %rcx
    call    list
    movq    %rbp, %rax
allowed:
    movq    MOVE_SHIFT(%rbx), %rcx
    movq    %r14, %rdx
    shlq    %cl, %rdx                           # bytes
    movq    %rax, %rcx
    subq    %r8, %rcx
    jz      apart                               # onto itself
    jns     distance
    negq    %rcx
distance:
    cmpq    %rdx, %rcx
    jb      none                                # they overlap
apart:
    movq    %rax, %rbp
    call    note
    pushq   %rdi
    movq    %rbp, %rdi
    movq    %r8, %rsi
    movq    %rdx, %rcx
    shrq    $3, %rcx
    rep movsq
    movl    %edx, %ecx
    andl    $7, %ecx
    jz      copied                              # the host needs its time also for nothing
    rep movsb
copied:
    # The next source is mostly the page after this one or, for a kernel takes free pages from the top, the page before it;
    # its first bytes are the engine's to read, and waiting for them is a fifth of a movement.
.irp page, 0, -2
.irp line, 0, 1, 2
    prefetcht0 \page * PAGE_SIZE + \line * 64(%rsi)
.endr
.endr
    popq    %rdi
    leaq    STATE_RSI(%r10), %rcx
    call    advance
    leaq    STATE_RDI(%r10), %rcx
    call    advance
    movq    %r14, %rdx
    negq    %rdx
    leaq    STATE_RCX(%r10), %rcx
    call    advance
    jmp     count
none:
    xorl    %r14d, %r14d

count:
    addq    %r14, COPIED(%r11)
    # iterations are time, but no instructions: they use up the engine's count only as far as the time left is less
    movq    RUN_BUDGET(%r11), %rax
    subq    RETIRED(%r11), %rax
    subq    %r15, %rax
    addq    %r14, %rax
    jns     charged
    xorl    %eax, %eax
charged:
    movq    COUNTER(%r11), %rcx
    addq    %rax, (%rcx)
    movq    (%rcx), %rdx
    movq    %rdx, LAST_COUNTER(%r11)
    movq    %r14, %rcx
    subq    %rax, %rcx
    addq    %rcx, UNCHARGED(%r11)
    movq    %r14, %rcx
    xorl    %eax, %eax
    testl   %r13d, %r13d
    jz      begun
    addq    EXECUTED(%r11), %rcx
    movq    DONE(%r11), %rax
begun:
    addq    %rcx, ITERATIONS(%r11)
    addq    %rcx, %rax
    movq    %rax, DONE(%r11)
    movq    %rdi, REPEATED(%r11)
    movq    %rdi, STRING_ADDRESS(%r11)
    movq    %rdi, LAST_ADDRESS(%r11)
    leaq    (%r12,%r14), %rax
    movq    %rax, STRING_TICK(%r11)
    incq    %rax
    movq    %rax, RESUMES_AT(%r11)
    movq    $1, EXECUTED(%r11)
    movq    STATE_RCX(%r10), %rax
    movq    %rax, LAST_RCX(%r11)
    testq   MOVE_MASK(%rbx), %rax
    jz      leaving
    movq    STRICT(%r11), %rax
    movq    %rax, UNTOLD(%r11)
leaving:
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbp
    popq    %rbx
nothing:
    ret

slow:
    movq    %rdi, %rsi
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbp
    popq    %rbx
python:
    jmp     *PYTHON(%r11)

# %rax: a register, %r9: address of a base -> %rax: linear; %r14 is lowered to what the page and the address size hold
limit:
    movq    MOVE_MASK(%rbx), %rdx
    andq    %rdx, %rax
    subq    %rax, %rdx
    movq    MOVE_SHIFT(%rbx), %rcx
    shrq    %cl, %rdx
    cmpq    %rdx, %r14
    cmovaq  %rdx, %r14
    addq    (%r9), %rax
    andq    MOVE_LINEAR(%rbx), %rax
    movl    %eax, %esi
    andl    $PAGE_SIZE - 1, %esi
    movl    $PAGE_SIZE, %edx
    subl    %esi, %edx
    shrl    %cl, %edx
    cmpq    %rdx, %r14
    cmovaq  %rdx, %r14
    ret

# %rax: linear, %rcx: which address of the entry has to agree -> %rax: where it lies in this process, or 0; %rdx: the entry
lookup:
    movq    TLB(%r11), %rsi
    movq    %rax, %rdx
    shrq    $12 - ENTRY_SHIFT, %rdx
    andq    (%rsi), %rdx
    addq    8(%rsi), %rdx
    movq    %rax, %rsi
    andq    $-PAGE_SIZE, %rsi
    xorq    (%rdx,%rcx), %rsi
    andq    $~MAY_HOLD_CODE, %rsi
    jnz     victims
found:
    addq    ENTRY_ADDEND(%rdx), %rax
    ret

    # Pages that share a place in the cache push each other out: one of them is here.
victims:
    movq    VICTIMS(%r11), %rdx
next_victim:
    movq    %rax, %rsi
    andq    $-PAGE_SIZE, %rsi
    xorq    (%rdx,%rcx), %rsi
    andq    $~MAY_HOLD_CODE, %rsi
    jz      found
    addq    $ENTRY_SIZE, %rdx
    cmpq    VICTIMS_END(%r11), %rdx
    jb      next_victim
    xorl    %eax, %eax
    ret

# %rsi: physical page, %rdx: bytes, %r9: linear; where the machine is strict it is to hear of this store.  One that the page's
# last record holds already, or that goes on where it ends, through the same linear page, makes no new record.
note:
    cmpq    $0, STRICT(%r11)
    je      noted
    pushq   %rdi
    movl    %r9d, %ecx
    andl    $PAGE_SIZE - 1, %ecx
    addq    %rcx, %rsi                          # physical address
    xorl    %edi, %edi                          # where the number of the page's last record is kept
    movq    %rsi, %rcx
    shrq    $12, %rcx
    cmpq    CAREFUL_COUNT(%r11), %rcx
    jae     another
    movq    FRAMES(%r11), %rdi
    leaq    (%rdi,%rcx,4), %rdi
    movl    (%rdi), %eax
    testl   %eax, %eax
    jz      another
    leaq    -3(%rax,%rax,2), %rax
    shlq    $3, %rax
    addq    JOURNAL(%r11), %rax
    movq    %r9, %rcx
    xorq    16(%rax), %rcx
    shrq    $12, %rcx
    jnz     another                             # stored through another linear page
    movq    %rsi, %rcx
    subq    (%rax), %rcx
    jb      another
    cmpq    8(%rax), %rcx
    ja      another
    addq    %rdx, %rcx
    cmpq    8(%rax), %rcx
    jbe     written
    movq    %rcx, 8(%rax)
    jmp     written
another:
    movq    JOURNAL_COUNT(%r11), %rcx
    leaq    (%rcx,%rcx,2), %rax
    shlq    $3, %rax
    addq    JOURNAL(%r11), %rax
    movq    %rsi, (%rax)
    movq    %rdx, 8(%rax)
    movq    %r9, 16(%rax)
    incq    %rcx
    movq    %rcx, JOURNAL_COUNT(%r11)
    testq   %rdi, %rdi
    jz      written
    movl    %ecx, (%rdi)
written:
    popq    %rdi
noted:
    ret

# %rcx: address of a register, %rdx: what is added; a 16-bit address size leaves the upper bits, a 32-bit one clears them
advance:
    movq    (%rcx), %rax
    leaq    (%rax,%rdx), %rsi
    andq    MOVE_MASK(%rbx), %rsi
    cmpq    $0xffff, MOVE_MASK(%rbx)
    jne     whole
    andq    $-0x10000, %rax
    orq     %rax, %rsi
whole:
    movq    %rsi, (%rcx)
    ret

# dispatch: who comes here: the engine, before every instruction, linear address in %rsi, our fields in %rcx.  Where that address
# is in the table of intercepts it goes on as above with the record found there, or to Python where there is none.
.set TABLE, 240                                 # buckets of four pairs: linear address, address of a record or 0
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

# guard: who comes here: the engine, before every store, physical address in %rdx, our fields in %r9.  It goes on to Python, with
# all registers as they came, where the page's byte says that nobody may store there, and where the page has no byte.
guard:
    movq    %rdx, %rax
    shrq    $12, %rax
    cmpq    CAREFUL_COUNT(%r9), %rax
    jae     judge
    addq    CAREFUL(%r9), %rax
    testb   $FORBIDDEN, (%rax)
    jnz     judge
    ret
judge:
    jmp     *JUDGE(%r9)

# touch: who comes here: the engine, before every store, physical address in %rdx, its size in %ecx, our fields in %r9.  Where it is
# the first into a page that is to be listed, it lists it.
touch:
    leaq    -1(%rdx,%rcx), %rsi                 # the last byte
    movq    %r9, %rcx
    shrq    $12, %rdx
    shrq    $12, %rsi
    cmpq    %rdx, %rsi
    je      last
    call    frame
last:
    movq    %rsi, %rdx

# %rdx: a page frame, %rcx: our fields
frame:
    cmpq    CAREFUL_COUNT(%rcx), %rdx
    jae     listed
    movq    CAREFUL(%rcx), %rax
    testb   $UNTOUCHED, (%rax,%rdx)
    jz      listed
    andb    $~UNTOUCHED, (%rax,%rdx)

# %rdx: a page frame that is not in the list, %rcx: our fields
list:
    movq    TOUCHED_COUNT(%rcx), %rax
    incq    TOUCHED_COUNT(%rcx)
    shlq    $3, %rax
    addq    TOUCHED(%rcx), %rax
    movq    %rdx, (%rax)
listed:
    ret
