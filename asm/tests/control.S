# Control registers, EFER and page tables on the way out and back: what may be set, and in which order.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel
# may change:  ax bx cx dx si di r8 r9 r10 r11 stack context swap
#              cs ss ds es idtr

.include "claims.inc"
.include "stubs.inc"

.if BITS == 64
.set KEPT, CR4_PAE | CR4_MCE | LA57 * CR4_LA57
.else
.set KEPT, 0
.endif

# A with these bits of a register set for the call, and cleared again afterwards.
.macro with register:req, bits:req
    get_control \register
    movl    %eax, before
    orl     $\bits, %eax
    put_control \register
    call_relocate $IND_DONE, $peer_that_notes, $RELOCATE_PRESERVE_CONTEXT
    get_control \register
    movl    before, %ebx
    orl     $\bits, %ebx
    equall  %ebx, %eax                          # A's again
    movl    before, %eax
    put_control \register
.endm

peer_that_notes:
    get_control cr0
    movl    %eax, peer_cr0
    get_control cr4
    movl    %eax, peer_cr4
    ret

# ---- CR0 -----------------------------------------------------------------------------------------------------------

claim the_next_kernel_may_write_everywhere_and_use_its_fpu, "notes+12"
    with    cr0, CR0_TS|CR0_EM|CR0_WP|CR0_AM
    testl   $(CR0_TS|CR0_EM|CR0_WP|CR0_AM), peer_cr0
    assert  z
holds

claim bits_of_cr0_that_nobody_names_stay, "notes+12"
    with    cr0, CR0_NE|CR0_MP
    movl    peer_cr0, %eax
    andl    $(CR0_NE|CR0_MP|CR0_PE), %eax
    equall  $(CR0_NE|CR0_MP|CR0_PE), %eax
holds

# ---- CR4 -----------------------------------------------------------------------------------------------------------

claim the_next_kernel_gets_no_feature_of_a_that_it_did_not_ask_for, "notes+12"
    with    cr4, CR4_TSD|CR4_DE|CR4_PGE|CR4_OSFXSR|CR4_OSXMMEXCPT|CR4_UMIP|CR4_FSGSBASE|CR4_SMEP|CR4_SMAP
.if PAE | (BITS == 64)
    testl   $~KEPT, peer_cr4
    assert  z
.endif
holds

.if BITS == 64
claim machine_check_exceptions_stay_on_where_they_were, "notes+12"
    with    cr4, CR4_MCE
    equall  $KEPT, peer_cr4
holds

claim machine_check_exceptions_stay_off_where_they_were, "notes+12"
    with    cr4, 0
    equall  $(KEPT & ~CR4_MCE), peer_cr4
holds

# CR0.WP cannot be cleared while CR4.CET is set, nor CET be set while WP is clear.
claim a_kernel_with_control_flow_enforcement_is_left_and_found_again, "notes+12", only="QEMU's TCG has no CET"
    with    cr4, CR4_CET
holds

# CR4.PCIDE changes only while the low bits of CR3 are 0.
claim a_kernel_with_process_context_identifiers_is_left_and_found_again, only="QEMU's TCG has no PCID"
    movq    %cr4, %rax
    orl     $CR4_PCIDE, %eax
    movq    %rax, %cr4
    movq    %cr3, %rax
    orl     $5, %eax
    movq    %rax, %cr3
    call_relocate $IND_DONE, $peer_that_returns, $RELOCATE_PRESERVE_CONTEXT
    movq    %cr3, %rax
    andl    $0xfff, %eax
    equall  $5, %eax
    movq    %cr4, %rax
    testl   $CR4_PCIDE, %eax
    assert  nz
    movq    %cr3, %rax
    andl    $~0xfff, %eax
    movq    %rax, %cr3
    movq    %cr4, %rax
    andl    $~CR4_PCIDE, %eax
    movq    %rax, %cr4
holds
.else
# The kernel passes has_pae for a processor that could, whatever its own tables are.
claim has_pae_clears_cr4_for_the_next_kernel, "notes+12"
    pushl   $RELOCATE_PRESERVE_CONTEXT
    pushl   $0x100                              # any value but 0
    pushl   $peer_that_notes
    pushl   $page_list
    pushl   $IND_DONE
    call    *entry_va
    addl    $20, %esp
    equall  $0, peer_cr4
holds

claim without_has_pae_cr4_is_left_alone, "notes+12"
    pushl   $RELOCATE_PRESERVE_CONTEXT
    pushl   $0
    pushl   $peer_that_notes
    pushl   $page_list
    pushl   $IND_DONE
    call    *entry_va
    addl    $20, %esp
    movl    %cr4, %eax
    equall  peer_cr4, %eax
holds

# Paging is turned on in the mode of A's tables, whatever the peer left in CR4.
claim a_peer_that_toggled_pae_does_not_decide_a_s_paging_mode
    call_relocate $IND_DONE, $peer_that_toggles_pae, $RELOCATE_PRESERVE_CONTEXT
holds
peer_that_toggles_pae:
    movl    %cr4, %eax
    xorl    $(CR4_PAE|CR4_PGE), %eax
    movl    %eax, %cr4
    ret
.endif

# ---- EFER and page tables ------------------------------------------------------------------------------------------

# A page of A's that is not executable: without EFER.NXE the bit is reserved, and the first use of the stack faults.
.if PAE | (BITS == 64)
claim efer_nxe_is_back_before_a_s_tables_are
    movl    entry_of.stack, %ebx
    xorl    $PTE_NX_HIGH, 4(%ebx)
    invlpg  STACK_PAGE
    call_relocate $IND_DONE, $peer_without_nxe, $RELOCATE_PRESERVE_CONTEXT
    movl    entry_of.stack, %ebx
    xorl    $PTE_NX_HIGH, 4(%ebx)
    invlpg  STACK_PAGE
holds
peer_without_nxe:
    movl    $MSR_EFER, %ecx
    rdmsr
    andl    $~EFER_NXE, %eax
    wrmsr
    ret
.endif

# A's mapping of the control page is global and read-only: if it outlived the change of tables, the first store of the
# stub would fault, or lean on what hardware may or may not have dropped.
claim the_stub_does_not_store_through_a_translation_of_a_s
    get_control cr4
    testl   $CR4_PGE, %eax
    assert  nz
    movl    control_va, %ecx
.if BITS == 64
    movq    control_va, %rcx
    movl    (%rcx), %eax                        # the translation is cached
.else
    movl    (%ecx), %eax
.endif
    call_relocate $IND_DONE, $peer_that_returns, $RELOCATE_PRESERVE_CONTEXT
holds

peer_that_returns:
    ret

    .balign 8, 0
notes:
.set peer_cr0, notes
.set peer_cr4, notes + 4
.set before, notes + 8
                .quad 0, 0
end_of_notes:
entry_of.stack: .quad 0
