# rep movs: its direction, overlapping areas, page boundaries, and where its registers are afterwards.
#
# modes:       16, 32, i386, i386-pae, x86_64, x86_64-la57
# may change:  ax cx si di stack

.include "claims.inc"

# from, to, count: the arguments, in the registers that count in this mode.
.macro copy from:req, to:req, count:req
    movl    $\from, %esi
    movl    $\to, %edi
    movl    $\count, %ecx
.endm

# left_at: where the registers are left.
.macro left_at from:req, to:req
    equall  $\from, %esi
    equall  $\to, %edi
    equall  $0, %ecx
.endm

claim a_copy_ends_with_its_registers_behind_both_areas, "target"
    copy    source, target, 4
    rep movsl
    left_at source+16, target+16
    equall  $0x11111111, target
    equall  $0x44444444, target+12
    equall  $0, target+16
holds

claim a_count_of_zero_copies_nothing_and_leaves_the_registers
    copy    source, target, 0
    rep movsl
    left_at source, target
    equall  $0, target
holds

claim with_df_set_a_copy_goes_downwards, "target"
    std
    copy    source+12, target+12, 4
    rep movsl
    cld
    left_at source-4, target-4
    equall  $0x11111111, target
    equall  $0x44444444, target+12
holds

claim an_upward_copy_to_one_element_ahead_repeats_the_first, "target"
    copy    source, target, 4
    rep movsl
    copy    target, target+4, 3
    rep movsl
    equall  $0x11111111, target
    equall  $0x11111111, target+4
    equall  $0x11111111, target+12
holds

claim a_downward_copy_to_one_element_ahead_moves_all, "target"
    copy    source, target, 4
    rep movsl
    std
    copy    target+8, target+12, 3
    rep movsl
    cld
    equall  $0x11111111, target
    equall  $0x11111111, target+4
    equall  $0x22222222, target+8
    equall  $0x33333333, target+12
holds

claim an_overlap_at_an_odd_distance_is_copied_byte_by_byte, "target"
    copy    source, target, 4
    rep movsl
    copy    target, target+1, 15
    rep movsb
    equall  $0x11111111, target
    equall  $0x11111111, target+12
    equalb  $0, target+16
holds

.set FIRST_PAGE, 0x4000                         # two pages that nobody else uses, below 64 KiB
claim a_copy_over_a_page_boundary_is_whole, "first"
    copy    FIRST_PAGE+0xff4, FIRST_PAGE+0x10, 6
    rep movsl
    left_at FIRST_PAGE+0x100c, FIRST_PAGE+0x28
    equall  $(FIRST_PAGE+0xff4), FIRST_PAGE+0x10
    equall  $(FIRST_PAGE+0x1000), FIRST_PAGE+0x1c
    equall  $(FIRST_PAGE+0x1008), FIRST_PAGE+0x24
holds

claim a_copy_from_an_unaligned_address_is_whole, "first"
    copy    FIRST_PAGE+0xffe, FIRST_PAGE+0x11, 1
    rep movsl
    equall  $(((FIRST_PAGE+0x1000)<<16)&0xffff0000), FIRST_PAGE+0x11
holds

claim without_a_prefix_one_element_is_moved_and_the_count_stays, "target"
    copy    source, target, 7
    movsl
    equall  $(source+4), %esi
    equall  $(target+4), %edi
    equall  $7, %ecx
    equall  $0x11111111, target
    equall  $0, target+4
holds

    .balign 4, 0
source: .long 0x11111111, 0x22222222, 0x33333333, 0x44444444
target: .fill 32, 1, 0
