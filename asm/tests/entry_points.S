# jump_entry: the two addresses at which a suspended A is entered.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel, jump_entry
# may change:  ax cx dx si di r8 r9 r10 r11 stack context swap
#              second_context second_swap entry
#              cs ss ds es idtr

.include "claims.inc"
.include "stubs.inc"

# The loader's word: the list that brings A's pages back.
.macro entry_list head:req
    movl    entry.je_head, %eax
    movl    $\head, (%eax)
.if BITS == 64
    movl    $0, 4(%eax)
.endif
.endm

# Nothing but the mode and the address is assumed: no register, no stack, no flag, no breakpoint of the debug registers.
.macro enter_a cell:req
    movl    \cell, %eax
.if BITS == 64
    movq    second.swap_pages, %rbx
    movq    %rbx, %dr0
    movl    $0x402, %ebx                        # armed, on execution
    movq    %rbx, %dr7
.else
    movl    second.swap_pages, %ebx
    movl    %ebx, %dr0
    movl    $0x402, %ebx
    movl    %ebx, %dr7
.endif
    movl    $0xdeadbeec, %ebx
    movl    %ebx, %ecx
    movl    %ebx, %edx
    movl    %ebx, %esi
    movl    %ebx, %edi
    movl    %ebx, %ebp
    movl    %ebx, %esp
    std
.if BITS == 64
    jmp     *%rax
.else
    jmp     *%eax
.endif
.endm

.macro no_breakpoint_is_left
.if BITS == 64
    movq    %dr7, %rax
.else
    movl    %dr7, %eax
.endif
    testb   $0xff, %al
    assert  z
.endm

claim after_the_image_was_saved_a_comes_back_to_its_pages, "dr0 dr7"
    entry_list list_there+IND_INDIRECTION
    call_relocate $(list_there+IND_INDIRECTION), $saver, $RELOCATE_PRESERVE_CONTEXT
    equall  $1, %eax
    page_holds TARGET_PAGE, TARGET_PAGE
    page_holds SOURCE_PAGE, SOURCE_PAGE
    no_breakpoint_is_left
holds

claim after_a_resume_a_comes_back_to_its_pages, "dr0 dr7"
    entry_list list_there+IND_INDIRECTION
    call_relocate $(list_there+IND_INDIRECTION), $resumer, $RELOCATE_PRESERVE_CONTEXT
    equall  $2, %eax
    page_holds TARGET_PAGE, TARGET_PAGE
    no_breakpoint_is_left
holds

claim the_saved_context_is_not_stored_over, "dr0 dr7 copy_of_context"
    entry_list IND_DONE
    call_relocate $IND_DONE, $saver_that_compares, $RELOCATE_PRESERVE_CONTEXT
    call    compare_context
    assert  e
holds

claim each_entry_has_its_cookie
    movl    entry.after_resume, %ecx
    equall  $COOKIE_MAGIC, -8(%ecx)
    equall  $COOKIE_AFTER_RESUME, -4(%ecx)
    movl    entry.after_image_save, %ecx
    equall  $COOKIE_MAGIC, -8(%ecx)
    equall  $COOKIE_AFTER_IMAGE_SAVE, -4(%ecx)
holds

saver:
    enter_a entry.after_image_save

resumer:
    enter_a entry.after_resume

saver_that_compares:
    movl    relocate.saved_context, %esi
    movl    $copy_of_context, %edi
    movl    $CONTEXT, %ecx
    rep movsb
    enter_a entry.after_image_save

.set CONTEXT, 0x30
compare_context:                                # where A's tables have the control page
.if BITS == 64
    movq    control_va, %rsi
.else
    movl    control_va, %esi
.endif
    movl    relocate.saved_context, %ecx
    andl    $(PAGE_SIZE - 1), %ecx
.if BITS == 64
    addq    %rcx, %rsi
.else
    addl    %ecx, %esi
.endif
    movl    $copy_of_context, %edi
    movl    $CONTEXT, %ecx
    repe cmpsb
    ret

.balign 8, 0
entry.je_head:                  .quad 0
entry.after_resume:             .quad 0
entry.after_image_save:         .quad 0
relocate.saved_context:         .quad 0
second.swap_pages:            .quad 0
copy_of_context:                .fill CONTEXT, 1, 0

list list_there
    to      TARGET_PAGE
    from    SOURCE_PAGE
    done
