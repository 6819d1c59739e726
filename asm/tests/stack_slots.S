# Stacks of a jump: what lies beside them is not touched, and the words on them are where they are promised.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel, jump_entry, purgatory
# may change:  ax bx cx dx si di r8 r9 r10 r11 stack context swap
#              cs ss ds es idtr

.include "claims.inc"
.include "stubs.inc"

.set WORD, BITS / 8
.set BELOW_STACK_PAGE, 0x5000
.set ABOVE_STACK_PAGE, 0x7000
.set BELOW_CONTROL_PAGE, 0x3f000
.set BELOW_SWAP_PAGE, 0x41000

claim the_pages_beside_every_stack_are_not_even_read, "", , "untouched below_stack above_stack below_control after_control below_swap after_swap"
    call_relocate $(one_page+IND_INDIRECTION), $peer, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer, %eax
holds

# The word above the popped start is the next kernel's to read: it is on the control page.
claim the_plain_path_leaves_a_0_to_be_read_on_the_control_page, "registers", , "untouched after_control after_swap"
    call_relocate $IND_DONE, $reads_the_word, $0
    never
reads_the_word:
    word_op pop, ax
    testl   %eax, %eax
    assert  z
    equall  $(CONTROL_PAGE+PAGE_SIZE), %esp
    movl    $STACK_TOP, %esp
holds

# The callee's own stack begins with two words, and the upper one is its to write.
claim a_peer_may_use_its_whole_stack_and_both_words_of_it, "", , "untouched after_swap below_swap"
    call_relocate $IND_DONE, $peer_that_fills_its_stack, $RELOCATE_PRESERVE_CONTEXT
    equall  $0x7654320, %eax
holds
peer_that_fills_its_stack:
    word_op pop, bx
    movl    $0x7654320, %eax
    word_op pop, cx
    equall  $peer_that_fills_its_stack, %ecx
    word_op push, ax
    word_op push, bx
    movl    %esp, %edi
    andl    $-PAGE_SIZE, %edi
    movl    %esp, %ecx
    subl    %edi, %ecx
    movb    $0x5a, %al
    rep stosb
    ret

# A's stack pointer may be anywhere, also where hardly more than the saved registers has room below it.
claim a_small_rest_of_a_s_stack_is_enough, "", , "untouched below_stack above_stack"
    movl    %esp, %ebx
    movl    $(STACK_PAGE+24*WORD), %esp
    call_relocate $(one_page+IND_INDIRECTION), $peer, $RELOCATE_PRESERVE_CONTEXT
    equall  $(STACK_PAGE+24*WORD), %esp
    movl    %ebx, %esp
holds

peer:
    ret

list one_page
    to      TARGET_PAGE
    from    SOURCE_PAGE
    done
