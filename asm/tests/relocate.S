# relocate_new_kernel: how it enters the next kernel, and how A's call returns.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel
# may change:  ax cx dx si di r8 r9 r10 r11 stack control swap
#              cs ss ds es idtr

.include "claims.inc"
.include "stubs.inc"

# ---- There and back -------------------------------------------------------------------------------------------------

claim a_peer_that_only_returns_leaves_a_as_it_was
    call_relocate $IND_DONE, $peer_that_returns, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer_that_returns, %eax
holds

claim the_peer_may_say_where_to_be_entered_next_time
    call_relocate $IND_DONE, $peer_that_names_an_entry, $RELOCATE_PRESERVE_CONTEXT
    equall  $0x123450, %eax
holds

peer_that_returns:
    ret

peer_that_names_an_entry:
.if BITS == 64
    movq    $0x123450, 8(%rsp)
.else
    movl    $0x123450, 4(%esp)
.endif
    ret

