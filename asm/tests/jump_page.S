# The jump page as the kernels verify it: each field that they look at, one bit of it wrong.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# may change:  ax cx dx si di stack jump

.include "claims.inc"
.include "jump_page.inc"
.include "boot.inc"

.set JUMP_PAGE, 0x130000

# What the kernels' library wants to know of whoever includes it.
.set V, 0
.set KERNEL_CS, CODE
.set KERNEL_DS, DATA
.set KERNEL_TSS, TASK
.set IRQ_BASE, 0x20
.set IDT_VECTORS, 0x30

# A page that is good: magic, version, arch, mode, and a sum of 0.
.macro good_page
    cld
    movl    $JUMP_PAGE, %edi
    xorl    %eax, %eax
    movl    $(PAGE_SIZE/4), %ecx
    rep stosl
    movl    $JUMP_PAGE, %edi
    movl    $JUMP_PAGE_MAGIC_LO, JUMP_PAGE_MAGIC(%edi)
    movl    $JUMP_PAGE_MAGIC_HI, JUMP_PAGE_MAGIC+4(%edi)
    movl    $JUMP_PAGE_VERSION_VALUE, JUMP_PAGE_VERSION(%edi)
.if BITS == 64
    movl    $JUMP_ARCH_X86_64, JUMP_PAGE_ARCH(%edi)
    movl    $(JUMP_MODE_SWAP|(LA57*JUMP_MODE_LA57)), JUMP_PAGE_MODE(%edi)
.else
    movl    $JUMP_ARCH_I386, JUMP_PAGE_ARCH(%edi)
    movl    $(JUMP_MODE_SWAP|(PAE*JUMP_MODE_PAE)), JUMP_PAGE_MODE(%edi)
.endif
    movl    $0x1234567, JUMP_PAGE_RESUME_SLOT(%edi)
    movl    $1, JUMP_PAGE_SEQUENCE(%edi)
    call    sum_jump_page
    subl    %eax, JUMP_PAGE_CHECKSUM(%edi)
.endm

.macro again_right
    call    sum_jump_page
    subl    %eax, JUMP_PAGE_CHECKSUM(%edi)
.endm

.macro found_bad what:req
    call    check_jump_page
    equall  $\what, %esi
.endm

claim a_good_page_is_good
    good_page
    call    check_jump_page
    testl   %esi, %esi
    assert  z
holds

claim either_half_of_the_magic_counts
    good_page
    xorl    $0x100, JUMP_PAGE_MAGIC(%edi)
    again_right
    found_bad what_magic
    good_page
    xorl    $0x100, JUMP_PAGE_MAGIC+4(%edi)
    again_right
    found_bad what_magic
holds

claim another_version_is_refused
    good_page
    incl    JUMP_PAGE_VERSION(%edi)
    again_right
    found_bad what_version
holds

claim another_architecture_is_refused
    good_page
    xorl    $(JUMP_ARCH_I386^JUMP_ARCH_X86_64), JUMP_PAGE_ARCH(%edi)
    again_right
    found_bad what_arch
holds

claim another_paging_mode_is_refused
    good_page
.if BITS == 64
    xorl    $JUMP_MODE_LA57, JUMP_PAGE_MODE(%edi)
.else
    xorl    $JUMP_MODE_PAE, JUMP_PAGE_MODE(%edi)
.endif
    again_right
    found_bad what_arch
holds

claim one_bit_anywhere_is_found_by_the_sum
    good_page
    xorl    $0x10000, JUMP_PAGE_RESUME_SLOT(%edi)
    found_bad what_checksum
    good_page
    xorl    $1, PAGE_SIZE-4(%edi)
    found_bad what_checksum
holds

claim a_transition_advances_the_sequence_and_keeps_the_page_good
    good_page
    call    advance_jump_page
    equall  $2, JUMP_PAGE_SEQUENCE(%edi)
    call    check_jump_page
    testl   %esi, %esi
    assert  z
holds

claim the_sequence_carries_into_its_upper_half
    good_page
    movl    $-1, JUMP_PAGE_SEQUENCE(%edi)
    again_right
    call    advance_jump_page
    equall  $0, JUMP_PAGE_SEQUENCE(%edi)
    equall  $1, JUMP_PAGE_SEQUENCE+4(%edi)
    call    check_jump_page
    testl   %esi, %esi
    assert  z
holds

.if BITS == 64
.include "macros64.inc"
.include "lib64.inc"
.else
.include "macros32.inc"
.include "lib32.inc"
.endif

# Labels that the rest of the library names.
    .balign 8, 0
gdt_tss:
tss:
ist_double_fault:
ist_nmi:
stack_top:
boot_params:
command_line:
parsed:
ticks:
plain_target_seen:
ram_pages:
ram_end:
ram_for_ranges:
new_start:
new_size:
range_start:    .quad 0
prefix:
text_kernel:    .asciz ""
