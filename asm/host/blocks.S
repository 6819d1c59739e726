# blocks: instructions are counted a block at a time, and a run ends exactly where its count is used up.
#
# Who comes here: the engine, in the host's own 64-bit code (System V calling convention), before each block of translated code
# (block), and in place of some of its own functions (emu/machine/gates.py).  The address of our fields is in %rcx (block), or in
# the record that %rax points to (all others, but where they say otherwise).
# What it does: a block is counted whole before it runs.  Where it is longer than what is left, the engine is sent back to
# translate as much of it as is left, and the run ends behind that.  Where a block is left in its middle, what of it has not run
# is given back (uncount): the engine keeps the guest address of each instruction behind the code of a block.
# What it clobbers: registers that are free in that convention, and flags.  How it leaves: by ret, or by a jump into the engine,
# which unwinds to its main loop.

# our fields
.set LEFT, 0                                    # instructions that may still run
.set BLOCK, 8                                   # host code of the block that was counted last, or 0
.set EXPIRED, 16                                # 1: the run ended because nothing was left
.set LOST, 24                                   # 1: no block was found where the engine called from
.set LEAVE, 32                                  # not 0: the instruction at a gate is not done; the run ends before it
.set STATE, 40                                  # address of the engine's processor state
.set CPU, 48                                    # address of the engine's processor
.set NEXT, 56                                   # address of the engine's wish for its next block: how many instructions
.set EXIT, 64                                   # the engine's functions: back to its main loop
.set RESTORE, 72                                # registers as they were before the instruction that a host address belongs to
.set STOP, 80                                   # end the run at the next block
.set NOTICE, 88                                 # notice the next store into a page
.set PAGES, 96                                  # address of a byte for each page frame: not 0, stores are looked at
.set PAGE_COUNT, 104
.set BANKS, 112                                 # address of records of RAM, the last of which has no size

# a gate's record
.set GATE_CODE, 0                               # where a gate begins: below
.set GATE_FIELDS, 8                             # address of our fields
.set GATE_FUNCTION, 16                          # what decides
.set GATE_ALONE, 24                             # not 0: the instruction is to be the only one of its block
.set GATE_SIZE, 24                              # of what is stored (quick)

# a record of RAM
.set BANK_OFFSET, 0                             # how the engine numbers it
.set BANK_SIZE, 8
.set BANK_FRAME, 16                             # its first page frame
.set BANK_HOST, 24                              # where it lies in this process
.set BANK_RECORD, 32

# the engine's header of a block, which ends where its code begins
.set HEADER, 192
.set TB_PC, 0 - HEADER
.set TB_CS_BASE, 8 - HEADER
.set TB_INSTRUCTIONS, 22 - HEADER
.set TB_CODE, 32 - HEADER
.set TB_SIZE, 40 - HEADER
.set TB_ALIGNMENT, 64

.set STATE_RIP, 128
.set STATE_EFLAGS, 136
.set RF, 0x10000
.set STATE_TLBS, -0x40                          # before it: mask and address of its cache of translations, for each of ...
.set TLBS, 3                                    # ... three privileges
.set ENTRY_SHIFT, 6
.set ENTRY_WRITE, 8
.set ENTRY_PHYSICAL, 24
.set ENTRY_ADDEND, 32
.set PRIVILEGE, 0xf                             # which of the three, in what a translated store tells of itself
.set HOLDS_CODE, 1                              # in the byte of a page frame
.set NOTICED, 0x400                             # a flag in an address for stores: the engine looks for code that they change
.set PAGE_SHIFT, 12
.set PAGE_SIZE, 0x1000
.set MORE, 0x80                                 # another byte of the number follows
.set NEGATIVE, 0x40

block:
    movq    (%rsp), %rax
    andq    $-TB_ALIGNMENT, %rax
    cmpq    %rax, TB_CODE(%rax)
    jne     before
found:
    movzwl  TB_INSTRUCTIONS(%rax), %edx
    movq    %rax, BLOCK(%rcx)
    subq    %rdx, LEFT(%rcx)
    js      over
    movq    STATE(%rcx), %r8
    testl   $RF, STATE_EFLAGS(%r8)
    jnz     resumed
    ret
before:                                         # what the engine does before it calls takes up to two lines
    subq    $TB_ALIGNMENT, %rax
    cmpq    %rax, TB_CODE(%rax)
    je      found
    subq    $TB_ALIGNMENT, %rax
    cmpq    %rax, TB_CODE(%rax)
    je      found
    movq    $1, LOST(%rcx)
    jmp     *STOP(%rcx)
over:
    addq    LEFT(%rcx), %rdx
    movq    %rdx, LEFT(%rcx)
    jz      expired
    movq    $0, BLOCK(%rcx)
    movq    NEXT(%rcx), %rax
    movl    %edx, (%rax)
    movq    CPU(%rcx), %rdi
    jmp     *EXIT(%rcx)
expired:
    movq    $1, EXPIRED(%rcx)
    jmp     *STOP(%rcx)

resumed:                                        # RF is for one instruction, and gone behind it
    cmpl    $1, %edx
    jne     first
    andl    $~RF, STATE_EFLAGS(%r8)
    ret
first:
    addq    %rdx, LEFT(%rcx)
    movq    $0, BLOCK(%rcx)
    movq    NEXT(%rcx), %rax
    movl    $1, (%rax)
    movq    CPU(%rcx), %rdi
    jmp     *EXIT(%rcx)

# modified: in place of the function by which the engine leaves a block that stored into itself, to do the storing instruction once
# more and alone; RIP is there
modified:
    movq    GATE_FIELDS(%rax), %rcx
    call    uncount
    movq    CPU(%rcx), %rdi
    jmp     *EXIT(%rcx)

# gate: in place of a function of the engine that does one instruction
gate:
    movq    GATE_FIELDS(%rax), %rcx
    cmpq    $0, GATE_ALONE(%rax)
    je      decide
    movq    BLOCK(%rcx), %r8
    testq   %r8, %r8
    jz      decide                              # each instruction is counted by itself
    cmpw    $1, TB_INSTRUCTIONS(%r8)
    jne     alone
decide:
    pushq   %rcx
    call    *GATE_FUNCTION(%rax)
    popq    %rcx
    cmpq    $0, LEAVE(%rcx)
    jne     leave
    ret
alone:
    movq    NEXT(%rcx), %rax
    movl    $1, (%rax)
leave:
    movq    $0, LEAVE(%rcx)
    movq    (%rsp), %rsi
    pushq   %rcx
    movq    CPU(%rcx), %rdi
    movl    $1, %edx
    call    *RESTORE(%rcx)
    popq    %rcx
    call    uncount
    movq    CPU(%rcx), %rdi
    jmp     *EXIT(%rcx)

# store: who comes here: the engine, before a store into ROM, RIP at the instruction; its sixth argument, in %r9, is a gate's
# record.  The instruction is to be alone, so that the run can end behind it.
store:
    movq    GATE_FIELDS(%r9), %rax
    movq    BLOCK(%rax), %r10
    testq   %r10, %r10
    jz      alone_already
    cmpw    $1, TB_INSTRUCTIONS(%r10)
    je      alone_already
    movq    %rax, %rcx
    movq    NEXT(%rcx), %rax
    movl    $1, (%rax)
    call    uncount
    movq    CPU(%rcx), %rdi
    jmp     *EXIT(%rcx)
alone_already:
    jmp     *GATE_FUNCTION(%r9)

# The engine is to notice each store into a page that holds translated code, through whatever linear address.  By itself it only
# follows the linear address by which the code was fetched.  These stand in place of its functions.

# protect: the first block of a page was translated; %rsi: the engine's number of it
protect:
    movq    GATE_FIELDS(%rax), %rcx
    call    page
    testq   %rax, %rax
    jz      done
    orb     $HOLDS_CODE, (%rax)
    movq    CPU(%rcx), %rdi
    movq    %r8, %rsi
    movl    $PAGE_SIZE, %edx
    jmp     *NOTICE(%rcx)

# unprotect: the last block of a page has gone
unprotect:
    movq    GATE_FIELDS(%rax), %rcx
    call    page
    testq   %rax, %rax
    jz      done
    andb    $~HOLDS_CODE & 0xff, (%rax)
done:
    ret

# ignore: what is done by linear address is done already
ignore:
    ret

# unnoticed: a store was looked at; those into the page at linear address %rsi need no look any more, unless it holds code
unnoticed:
    movq    GATE_FIELDS(%rax), %rcx
    andq    $-PAGE_SIZE, %rsi
    movq    STATE(%rcx), %r8
    addq    $STATE_TLBS, %r8
    movl    $TLBS, %r9d
privilege:
    movq    %rsi, %rdx
    shrq    $PAGE_SHIFT - ENTRY_SHIFT, %rdx
    andq    (%r8), %rdx
    addq    8(%r8), %rdx
    leaq    NOTICED(%rsi), %rax
    cmpq    %rax, ENTRY_WRITE(%rdx)
    jne     other
    movq    ENTRY_PHYSICAL(%rdx), %rax
    shrq    $PAGE_SHIFT, %rax
    cmpq    PAGE_COUNT(%rcx), %rax
    jae     other
    addq    PAGES(%rcx), %rax
    cmpb    $0, (%rax)
    jne     other
    movq    %rsi, ENTRY_WRITE(%rdx)
other:
    addq    $16, %r8
    decl    %r9d
    jnz     privilege
    ret

# quick: in place of the engine's function for a store of GATE_SIZE bytes that it looks at: state in %rdi, linear address in %rsi,
# value in %rdx, what the store tells of itself in %ecx.  Where the page holds no code the store is done, and later ones into that
# page need no look; the engine itself looks at all stores into pages that can be executed, for ever.
quick:
    movq    GATE_FIELDS(%rax), %r11
    movl    %ecx, %r9d
    andl    $PRIVILEGE, %r9d
    shll    $4, %r9d
    leaq    STATE_TLBS(%rdi,%r9), %r9
    movq    %rsi, %r10
    shrq    $PAGE_SHIFT - ENTRY_SHIFT, %r10
    andq    (%r9), %r10
    addq    8(%r9), %r10
    movq    %rsi, %r9
    andq    $-PAGE_SIZE, %r9
    addq    $NOTICED, %r9
    cmpq    %r9, ENTRY_WRITE(%r10)
    jne     slow
    movl    %esi, %r9d
    andl    $PAGE_SIZE - 1, %r9d
    addl    GATE_SIZE(%rax), %r9d
    cmpl    $PAGE_SIZE, %r9d
    ja      slow
    movq    ENTRY_PHYSICAL(%r10), %r9
    shrq    $PAGE_SHIFT, %r9
    cmpq    PAGE_COUNT(%r11), %r9
    jae     slow
    addq    PAGES(%r11), %r9
    cmpb    $0, (%r9)
    jne     slow
    movq    %rsi, %r9
    andq    $-PAGE_SIZE, %r9
    movq    %r9, ENTRY_WRITE(%r10)
    addq    ENTRY_ADDEND(%r10), %rsi
    movl    GATE_SIZE(%rax), %eax
    cmpl    $4, %eax
    ja      eight
    je      four
    cmpl    $2, %eax
    je      two
    movb    %dl, (%rsi)
    ret
two:
    movw    %dx, (%rsi)
    ret
four:
    movl    %edx, (%rsi)
    ret
eight:
    movq    %rdx, (%rsi)
    ret
slow:
    jmp     *GATE_FUNCTION(%rax)

# %rsi: the engine's number of an address in RAM -> %rax: address of the byte of its page, or 0; %r8: the page in this process
page:
    movq    BANKS(%rcx), %rdx
    andq    $-PAGE_SIZE, %rsi
bank:
    movq    BANK_SIZE(%rdx), %r9
    testq   %r9, %r9
    jz      no_page
    movq    %rsi, %rax
    subq    BANK_OFFSET(%rdx), %rax
    cmpq    %r9, %rax
    jb      in_bank
    addq    $BANK_RECORD, %rdx
    jmp     bank
in_bank:
    movq    BANK_HOST(%rdx), %r8
    addq    %rax, %r8
    shrq    $PAGE_SHIFT, %rax
    addq    BANK_FRAME(%rdx), %rax
    addq    PAGES(%rcx), %rax
    ret
no_page:
    xorl    %eax, %eax
    ret

# give_back: Python comes here with our fields in %rdi -> %rax: 1 where RIP is in the block at hand, whose rest is given back
give_back:
    movq    %rdi, %rcx

# %rcx: our fields, RIP in the engine's state -> %rax: as above
uncount:
    movq    BLOCK(%rcx), %r8
    testq   %r8, %r8
    jz      elsewhere
    movq    $0, BLOCK(%rcx)
    cmpq    %r8, TB_CODE(%r8)
    jne     elsewhere
    movq    STATE(%rcx), %rax
    movq    STATE_RIP(%rax), %r9
    addq    TB_CS_BASE(%r8), %r9                # where we are
    movzwl  TB_INSTRUCTIONS(%r8), %r10d         # instructions from the one looked at on
    movq    TB_PC(%r8), %r11                    # its address
    addq    TB_SIZE(%r8), %r8                   # for each: its address less the one before, and two numbers more
next:
    subl    $1, %r10d
    js      elsewhere
    call    number
    addq    %rax, %r11
    cmpq    %r9, %r11
    je      here
    call    number
    call    number
    jmp     next
here:
    leaq    1(%r10), %rax
    addq    %rax, LEFT(%rcx)
    movl    $1, %eax
    ret
elsewhere:
    xorl    %eax, %eax
    ret

# %r8: a signed number in seven bits a byte, least first -> %rax; %r8 behind it.  Clobbers %rdx, %rsi, %rdi.
number:
    movq    %rcx, %rdi
    xorl    %eax, %eax
    xorl    %ecx, %ecx                          # bits so far
digit:
    movzbl  (%r8), %edx
    incq    %r8
    movl    %edx, %esi
    andl    $MORE - 1, %esi
    shlq    %cl, %rsi
    orq     %rsi, %rax
    addl    $7, %ecx
    testb   $MORE, %dl
    jnz     digit
    testb   $NEGATIVE, %dl
    jz      positive
    cmpl    $64, %ecx
    jae     positive
    movq    $-1, %rsi
    shlq    %cl, %rsi
    orq     %rsi, %rax
positive:
    movq    %rdi, %rcx
    ret
