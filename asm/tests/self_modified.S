# Code that changes: a store with a branch behind it, code copied over, the same page at another address, a swap.
#
# modes:       16, 32, i386, i386-pae, x86_64, x86_64-la57
# may change:  ax cx si di stack

.include "claims.inc"

# serialise: an instruction after which nothing is used that was fetched before.
.macro serialise
.if BITS == 64
    movq    %cr0, %rax
    movq    %rax, %cr0
.else
    movl    %cr0, %eax
    movl    %eax, %cr0
.endif
.endm

# `patched` has its immediate in its second byte.
claim a_store_into_code_ahead_is_seen_behind_a_branch, "patched"
    call    patched
    movb    $2, patched + 1
    jmp     1f
1:  call    patched
    equalb  $2, %al
holds

claim code_that_ran_before_is_fetched_anew_when_it_was_overwritten, "patched"
    call    patched
    equalb  $1, %al
    cld
    movl    $other, %esi
    movl    $patched, %edi
    movl    $OTHER_SIZE, %ecx
    rep movsb
    serialise
    call    patched
    equalb  $7, %al
holds

claim a_store_ten_times_is_seen_ten_times, "patched"
    movl    $10, %ecx
    xorl    %edi, %edi
again:
    incb    patched + 1
    jmp     1f
1:  call    patched
    movzbl  %al, %eax
    addl    %eax, %edi
    decl    %ecx
    jnz     again
    equall  $65, %edi                           # 2 + 3 + ... + 11
holds

# What relocate_new_kernel does to itself and others: whole pages change places under code that has run.
.set CODE_PAGE, 0x4000
.set SPARE_PAGE, 0x3000
claim pages_of_code_that_are_exchanged_run_as_the_other, "code spare"
    cld
    movl    $patched, %esi
    movl    $CODE_PAGE, %edi
    movl    $PATCHED_SIZE, %ecx
    rep movsb
    movl    $other, %esi
    movl    $SPARE_PAGE, %edi
    movl    $OTHER_SIZE, %ecx
    rep movsb
    serialise
    call    CODE_PAGE
    equalb  $1, %al
    call    SPARE_PAGE
    equalb  $7, %al
    movl    $(PAGE_SIZE/4), %ecx
    movl    $CODE_PAGE, %esi
    movl    $SPARE_PAGE, %edi
exchange:
    movl    (%esi), %eax
    xchgl   %eax, (%edi)
    movl    %eax, (%esi)
    addl    $4, %esi
    addl    $4, %edi
    decl    %ecx
    jnz     exchange
    serialise
    call    CODE_PAGE
    equalb  $7, %al
    call    SPARE_PAGE
    equalb  $1, %al
holds

patched:
    movb    $1, %al
    ret
    .balign 8, 0xcc
.set PATCHED_SIZE, . - patched
other:
    xorl    %eax, %eax
    movb    $7, %al
    ret
.set OTHER_SIZE, . - other
