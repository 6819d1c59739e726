# Every paging mode on and off again, from 32-bit code without paging; and what may not be turned on.
#
# modes:       32
# may change:  ax bx cx dx di stack free idtr

.include "claims.inc"

# Large pages map the first 2 or 4 MiB to themselves and once more at 1 GiB.
.set ALIAS, 0x40000000
.set TABLE_FLAGS, PTE_P | PTE_RW | PTE_A
.set PAGE_FLAGS, TABLE_FLAGS | PTE_D | PTE_PS
.set DIRECTORY, FREE_BEGIN
.set POINTERS, FREE_BEGIN + 0x1000
.set LEVEL4, FREE_BEGIN + 0x2000
.set LEVEL5, FREE_BEGIN + 0x3000

.macro flip register:req, bits:req
    movl    %\register, %eax
    xorl    $(\bits), %eax
    movl    %eax, %\register
.endm

.macro efer bits:req
    movl    $MSR_EFER, %ecx
    rdmsr
    xorl    $(\bits), %eax
    wrmsr
.endm

.macro paging_works
    equall  $HIGH_BEGIN, ALIAS+HIGH_BEGIN
    equall  $(HIGH_BEGIN+4), HIGH_BEGIN+4
.endm

.macro into_cr3 table:req
    movl    $(\table), %eax
    movl    %eax, %cr3
.endm

.macro as_it_was
    xorl    %eax, %eax
    movl    %eax, %cr3
.endm

claim two_level_paging
    movl    $PAGE_FLAGS, DIRECTORY
    movl    $PAGE_FLAGS, DIRECTORY + (ALIAS >> 20)
    flip    cr4, CR4_PSE
    into_cr3 DIRECTORY
    flip    cr0, CR0_PG
    jmp     1f
1:  paging_works
    flip    cr0, CR0_PG
    flip    cr4, CR4_PSE
    as_it_was
holds

.macro pae_tables
    movl    $PAGE_FLAGS, DIRECTORY
    movl    $0, DIRECTORY + 4
    movl    $(DIRECTORY+PTE_P), POINTERS
    movl    $(DIRECTORY+PTE_P), POINTERS + 8
.endm

claim pae_paging
    pae_tables
    flip    cr4, CR4_PAE
    into_cr3 POINTERS
    flip    cr0, CR0_PG
    jmp     1f
1:  paging_works
    flip    cr0, CR0_PG
    flip    cr4, CR4_PAE
    as_it_was
holds

# The upper levels and back, with a stop in 64-bit code.
.macro long_mode table:req, more:req
    movl    $PAGE_FLAGS, DIRECTORY
    movl    $(DIRECTORY+TABLE_FLAGS), POINTERS
    movl    $(DIRECTORY+TABLE_FLAGS), POINTERS + 8
    movl    $(POINTERS+TABLE_FLAGS), LEVEL4
    movl    $(LEVEL4+TABLE_FLAGS), LEVEL5
    flip    cr4, CR4_PAE|\more
    into_cr3 \table
    efer    EFER_LME
    flip    cr0, CR0_PG
    paging_works                                # compatibility mode
    movl    $MSR_EFER, %ecx
    rdmsr
    testl   $EFER_LMA, %eax
    assert  nz
    ljmp    $CODE64, $1f
    .code64
1:  movabsq $0x123456789abcdef0, %rbx
    shrq    $32, %rbx
    equall  $0x12345678, %ebx
    movl    ALIAS+HIGH_BEGIN, %eax
    equall  $HIGH_BEGIN, %eax
    ljmp    *back_\@(%rip)
back_\@:
    .long   2f
    .word   CODE
    .code32
2:  flip    cr0, CR0_PG
    movl    $MSR_EFER, %ecx
    rdmsr
    testl   $EFER_LMA, %eax
    assert  z
    efer    EFER_LME
    flip    cr4, CR4_PAE|\more
    as_it_was
.endm

claim four_level_paging
    long_mode LEVEL4, 0
holds

claim five_level_paging
    long_mode LEVEL5, CR4_LA57
holds

# ---- What is refused -----------------------------------------------------------------------------------------------

claim paging_without_protection_is_refused, only="QEMU takes it"
    call    catch_faults
    movl    %cr0, %eax
    orl     $CR0_PG, %eax
    andl    $~CR0_PE, %eax
    raises  13, 0, movl %eax, %cr0
holds

claim long_mode_without_pae_is_refused, only="QEMU takes it"
    call    catch_faults
    efer    EFER_LME
    movl    %cr0, %eax
    orl     $CR0_PG, %eax
    raises  13, 0, movl %eax, %cr0
    efer    EFER_LME
holds

claim reserved_bits_of_cr4_and_of_efer_are_refused, only="QEMU takes it"
    call    catch_faults
    movl    %cr4, %eax
    orl     $0x80000000, %eax
    raises  13, 0, movl %eax, %cr4
    movl    $MSR_EFER, %ecx
    rdmsr
    orl     $0x80000000, %eax
    raises  13, 0, wrmsr
holds

claim a_reserved_bit_in_a_directory_pointer_is_refused_at_the_load, only="QEMU takes it"
    call    catch_faults
    pae_tables
    orl     $PTE_RW, POINTERS + 16
    orl     $PTE_P, POINTERS + 16
    flip    cr4, CR4_PAE
    into_cr3 POINTERS
    movl    %cr0, %eax
    orl     $CR0_PG, %eax
    raises  13, 0, movl %eax, %cr0
    flip    cr4, CR4_PAE
    as_it_was
holds
