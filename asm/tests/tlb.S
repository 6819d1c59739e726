# Translations: when an edited page-table entry is seen, what the processor writes into it, what it forbids.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# may change:  ax cx dx bx di stack idtr

.include "claims.inc"

.set FIRST_PAGE, 0x120000                       # each dword of either holds its own physical address
.set SECOND_PAGE, 0x121000

.macro flip register:req, bits:req
    get_control \register
    xorl    $\bits, %eax
    put_control \register
.endm

# The entry of FIRST_PAGE, its low dword: EBX has its address.
.macro edit bits:req
    movl    entry_of.first, %ebx
    xorl    $\bits, (%ebx)
.endm

.set TO_OTHER_PAGE, FIRST_PAGE ^ SECOND_PAGE

claim an_edited_entry_is_seen_after_invlpg
    equall  $FIRST_PAGE, FIRST_PAGE
    edit    TO_OTHER_PAGE
    invlpg  FIRST_PAGE
    equall  $SECOND_PAGE, FIRST_PAGE
    edit    TO_OTHER_PAGE
    invlpg  FIRST_PAGE
    equall  $FIRST_PAGE, FIRST_PAGE
holds

claim an_edited_entry_is_seen_after_a_load_of_cr3
    equall  $FIRST_PAGE, FIRST_PAGE
    edit    TO_OTHER_PAGE
    get_control cr3
    put_control cr3
    equall  $SECOND_PAGE, FIRST_PAGE
    edit    TO_OTHER_PAGE
    get_control cr3
    put_control cr3
holds

claim an_edited_global_entry_is_seen_after_a_toggle_of_pge
    flip    cr4, CR4_PGE
    edit    PTE_G
    invlpg  FIRST_PAGE
    equall  $FIRST_PAGE, FIRST_PAGE
    edit    TO_OTHER_PAGE
    flip    cr4, CR4_PGE
    equall  $SECOND_PAGE, FIRST_PAGE
    edit    TO_OTHER_PAGE
    edit    PTE_G
    invlpg  FIRST_PAGE
holds

claim an_edited_global_entry_is_seen_after_invlpg
    flip    cr4, CR4_PGE
    edit    PTE_G
    invlpg  FIRST_PAGE
    equall  $FIRST_PAGE, FIRST_PAGE
    edit    TO_OTHER_PAGE
    invlpg  FIRST_PAGE
    equall  $SECOND_PAGE, FIRST_PAGE
    edit    TO_OTHER_PAGE
    edit    PTE_G
    invlpg  FIRST_PAGE
    flip    cr4, CR4_PGE
holds

claim a_read_sets_the_accessed_bit_and_a_write_the_dirty_bit
    edit    (PTE_A|PTE_D)
    invlpg  FIRST_PAGE
    movl    FIRST_PAGE, %eax
    movl    (%ebx), %ecx
    andl    $(PTE_A|PTE_D), %ecx
    equall  $PTE_A, %ecx
    movl    %eax, FIRST_PAGE
    movl    (%ebx), %ecx
    andl    $(PTE_A|PTE_D), %ecx
    equall  $(PTE_A|PTE_D), %ecx
holds

claim a_page_that_is_not_there_faults_with_its_address, "cr2"
    call    catch_faults
    edit    PTE_P
    invlpg  FIRST_PAGE
    raises  14, 0, movl FIRST_PAGE+4, %eax
    get_control cr2
    equall  $(FIRST_PAGE+4), %eax
    raises  14, 2, movl %ecx, FIRST_PAGE+8
    get_control cr2
    equall  $(FIRST_PAGE+8), %eax
    edit    PTE_P
holds

claim a_read_only_page_is_protected_from_the_kernel_only_with_wp, "cr2"
    call    catch_faults
    edit    PTE_RW
    invlpg  FIRST_PAGE
    movl    $FIRST_PAGE, %ecx
    movl    %ecx, FIRST_PAGE                    # CR0.WP is clear
    flip    cr0, CR0_WP
    raises  14, 3, movl %ecx, FIRST_PAGE
    flip    cr0, CR0_WP
    edit    PTE_RW
    invlpg  FIRST_PAGE
holds

.if PAE | (BITS == 64)
claim a_page_without_execution_faults_at_the_fetch, "cr2 efer first"
    call    catch_faults
    movl    $MSR_EFER, %ecx
    rdmsr
    orl     $EFER_NXE, %eax
    wrmsr
    movl    entry_of.first, %ebx
    xorl    $PTE_NX_HIGH, 4(%ebx)
    invlpg  FIRST_PAGE
    movl    $behind_fetch, fault_resume
    jmp     *to_first_page
behind_fetch:
    movl    $0, fault_resume
    equall  $14, fault_vector
    equall  $0x11, fault_error
    equall  $FIRST_PAGE, fault_ip
    xorl    $PTE_NX_HIGH, 4(%ebx)
    invlpg  FIRST_PAGE
    movb    $0xc3, FIRST_PAGE                   # ret
    call    *to_first_page
    movl    $MSR_EFER, %ecx
    rdmsr
    andl    $~EFER_NXE, %eax
    wrmsr
holds
.endif

    .balign 8, 0
to_first_page:  .quad FIRST_PAGE
entry_of.first: .quad 0
