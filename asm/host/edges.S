# edges: notes each passage from one translated block to the next that was never noted before.
#
# Who comes here: the engine, in the host's own 64-bit code (System V calling convention), before each block it runs: the linear
# address of the block in %rsi, its bytes in %edx, our table in %rcx (fields below; emu/machine/coverage.py makes it).  The
# guest does not run.
# What it clobbers: %rax, %rdx, %r8 to %r10 and flags, all of them free in that convention.  How it leaves: by ret.
#
# An edge is (block before, this block, processor mode).  A byte for each hash of an edge tells whether it is known.
# A block that begins inside the one before is the rest of it, where the engine was stopped on the way, and is no edge.

.set PREVIOUS, 0                                # linear address of the block before; 0 at the start of a case
.set COUNT, 8                                   # records so far
.set LIMIT, 16                                  # most records
.set SEEN, 24                                   # address of 1 << 20 bytes
.set RECORDS, 32                                # address of the records: before, this, mode
.set HFLAGS, 40                                 # address of the engine's digest of the mode
.set CR0, 48                                    # address of CR0
.set BLOCKS, 56                                 # blocks run
.set END, 64                                    # linear address behind the block before
.set RESTARTED, 72                              # linear address of a block that was dropped before any of it ran, or -1
.set MODE_BITS, 0x2c093                         # CPL, CS32, PE, LMA, CS64, VM
.set PAGING, 0x80000000
.set MULTIPLIER, 0x9e3779b97f4a7c15
.set SHIFT, 44                                  # 64 less the bits of an index into SEEN

edge:
    incq    BLOCKS(%rcx)
    cmpq    RESTARTED(%rcx), %rsi
    je      3f
    movq    PREVIOUS(%rcx), %r8
    cmpq    %r8, %rsi
    jbe     2f
    cmpq    END(%rcx), %rsi
    jb      1f
2:  movl    %edx, %r10d
    addq    %rsi, %r10
    movq    %r10, END(%rcx)
    movq    HFLAGS(%rcx), %rax
    movl    (%rax), %eax
    andl    $MODE_BITS, %eax
    movq    CR0(%rcx), %rdx
    movl    (%rdx), %edx
    andl    $PAGING, %edx
    orl     %edx, %eax
    movq    %rsi, PREVIOUS(%rcx)

    # %rdx = the byte of this edge
    movq    %r8, %rdx
    rolq    $23, %rdx
    xorq    %rsi, %rdx
    movq    %rax, %r9
    rolq    $32, %r9
    xorq    %r9, %rdx
    movabsq $MULTIPLIER, %r9
    imulq   %r9, %rdx
    shrq    $SHIFT, %rdx
    addq    SEEN(%rcx), %rdx
    cmpb    $0, (%rdx)
    jne     1f
    movq    COUNT(%rcx), %r9
    cmpq    LIMIT(%rcx), %r9
    jae     1f

    # a new one
    movb    $1, (%rdx)
    incq    COUNT(%rcx)
    leaq    (%r9,%r9,2), %r9
    shlq    $3, %r9
    addq    RECORDS(%rcx), %r9
    movq    %r8, (%r9)
    movq    %rsi, 8(%r9)
    movq    %rax, 16(%r9)
1:  ret

    # it was noted before, as it was then
3:  movq    $-1, RESTARTED(%rcx)
    movl    %edx, %r10d
    addq    %rsi, %r10
    movq    %r10, END(%rcx)
    ret
