# jump_entry, i386: where a suspended kernel A is entered, in a page of its own (the entry code page).
# Linked at the physical address of that page.
#
# Who jumps here: B, when it has saved the image (after_image_save), or C, when it has put the image back
# (after_resume); not by a call.  In the re-entry mode: flat 32-bit segments, paging off, interrupts off.
# Nothing else is assumed: no register, stack, GDT or IDT.
#
# Either entry calls relocate_new_kernel, the copy in the second control page, with the list that brings A's pages
# back.  It does not preserve anything: the saved context, in the first control page, is not stored over, so A may
# be entered here any number of times.  As its start it gets the restore routine of the first control page, which
# loads the saved context and returns to A.
#
# Clobbered: everything.  The stack is the top of this page.
# The eight bytes before each entry are its cookie; whoever jumps checks it first.

.include "kexec.inc"

entry_page:
    .long   COOKIE_MAGIC, COOKIE_AFTER_RESUME
after_resume:
    movl    je_start_resumed, %edx
    jmp     enter

    .balign 8, 0xcc
    .long   COOKIE_MAGIC, COOKIE_AFTER_IMAGE_SAVE
after_image_save:
    movl    je_start_saved, %edx

enter:                                          # %edx start
    cld
    xorl    %eax, %eax
    movl    %eax, %dr7                          # no breakpoint of the last kernel's stops us
    movl    $(entry_page + PAGE_SIZE), %esp
    lidt    no_table                            # an NMI must not find the last kernel's, which is about to move
    pushl   je_flags
    pushl   je_has_pae
    pushl   %edx                                # start
    pushl   $je_page_list
    pushl   je_head
    call    *je_relocate                        # never returns: it leaves to start

no_table:                                       # limit, base
    .word   0
    .long   0
    .balign 8, 0xcc

# Filled by the loader.
je_head:                .long 0                 # entry list
je_page_list:           .long 0, 0, 0, 0        # of the second control page, which is mapped identically
je_relocate:            .long 0                 # relocate_new_kernel in the second control page, physical
je_has_pae:             .long 0                 # CR4 may be cleared
je_flags:               .long 0                 # RELOCATE_COPY for a copy list, else 0: exchange
je_start_saved:         .long 0                 # restore_after_save in the first control page, physical
je_start_resumed:       .long 0                 # restore_after_resume there

    .balign 8, 0
je_slot:                .quad 0                 # where the peer leaves its re-entry address, if nothing else is agreed
