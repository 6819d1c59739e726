# Peers that come back having left the processor in a mess: A finds everything as it was, and its pages in place.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel
# may change:  ax cx dx si di r8 r9 r10 r11 stack context swap
#              cs ss ds es idtr

.include "claims.inc"
.include "stubs.inc"

.macro set_bits register:req, bits:req
    get_control \register
    orl     $(\bits), %eax
    put_control \register
.endm

# As late as possible: what comes behind is the return itself.
.macro set_flags bits:req
.if BITS == 64
    pushq   $(\bits)
    popfq
.else
    pushl   $(\bits)
    popfl
.endif
.endm

.macro set_efer bits:req
    movl    $MSR_EFER, %ecx
    rdmsr
    orl     $(\bits), %eax
    wrmsr
.endm

.macro clear_efer bits:req
    movl    $MSR_EFER, %ecx
    rdmsr
    andl    $~(\bits), %eax
    wrmsr
.endm

# A's pages travel there and back around the peer at PEER.
.macro survives name:req, peer:req, changes, only
claim \name, "\changes", only="\only"
    call_relocate $(pages+IND_INDIRECTION), $\peer, $RELOCATE_PRESERVE_CONTEXT
    equall  $\peer, %eax
    page_holds TARGET_PAGE, TARGET_PAGE
    page_holds SOURCE_PAGE, SOURCE_PAGE
    page_holds SOURCE2_PAGE, SOURCE2_PAGE
holds
.endm

survives a_set_direction_flag, df
df: set_flags EFLAGS_DF
    ret

survives a_set_nested_task_flag, nt
nt: set_flags EFLAGS_NT
    ret

survives a_set_alignment_flag, ac
ac: set_flags EFLAGS_AC
    ret

survives a_task_switched_flag_and_emulation, ts
ts: set_bits cr0, CR0_TS|CR0_EM
    ret

survives write_protection_and_alignment_checks, wp
wp: set_bits cr0, CR0_WP|CR0_AM
    ret

survives no_execute_turned_off, nxe
nxe: clear_efer EFER_NXE
    ret

survives system_calls_turned_on, sce
sce: set_efer EFER_SCE
    ret

survives global_pages_turned_on, pge
pge: set_bits cr4, CR4_PGE
    ret

survives protection_from_user_pages, smep
smep: set_bits cr4, CR4_SMEP|CR4_SMAP|CR4_UMIP
    ret

survives breakpoints_that_are_armed_elsewhere, dr, "dr0 dr7"
dr: movl    $0x17f000, %eax
    put_control dr0
    movl    $0x402, %eax
    put_control dr7
    ret

survives descriptor_tables_of_nothing, tables
tables:
    lgdt    nothing
    lidt    nothing
    ret

.if BITS == 64
survives null_segments, null
null:
    xorl    %eax, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %ss
    ret

survives process_context_identifiers, pcide, , "QEMU's TCG has no PCID"
pcide:
    set_bits cr4, CR4_PCIDE
    movq    %cr3, %rax
    orl     $5, %eax
    movq    %rax, %cr3
    ret
.else
survives another_paging_format, pae
pae:
    movl    %cr4, %eax
    xorl    $CR4_PAE, %eax
    movl    %eax, %cr4
    ret
.endif

survives registers_of_no_meaning, junk
junk:
    movl    $0xdeadbeec, %eax
    movl    %eax, %ebx
    movl    %eax, %ecx
    movl    %eax, %edx
    movl    %eax, %esi
    movl    %eax, %edi
    movl    %eax, %ebp
.if BITS == 64
.irp register, r8, r9, r10, r11, r12, r13, r14, r15
    movq    %rax, %\register
.endr
.endif
    ret

    .balign 8, 0
nothing:        .quad 0, 0

list pages
    to      TARGET_PAGE
    from    SOURCE_PAGE
    from    SOURCE2_PAGE
    done
