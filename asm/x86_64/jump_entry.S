# jump_entry, x86-64: where a suspended kernel A is entered, in a page of its own (the entry code page).
#
# Who jumps here: B, when it has saved the image (after_image_save), or C, when it has put the image back
# (after_resume); not by a call.  In the re-entry mode: 64-bit code, interrupts off, an identity mapping in which A's
# control pages and the jump page are present.  Nothing else is assumed: no register, stack, GDT or IDT.
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
    movq    je_start_resumed(%rip), %rdx
    jmp     enter

    .balign 8, 0xcc
    .long   COOKIE_MAGIC, COOKIE_AFTER_IMAGE_SAVE
after_image_save:
    movq    je_start_saved(%rip), %rdx

enter:                                          # %rdx start
    cld
    xorl    %eax, %eax
    movq    %rax, %dr7                          # no breakpoint of the last kernel's stops us
    leaq    entry_page + PAGE_SIZE(%rip), %rsp
    movq    je_head(%rip), %rdi
    movq    je_pa_control(%rip), %rsi
    movq    je_flags(%rip), %rcx
    call    *je_relocate(%rip)                  # never returns: it leaves to start

    .balign 8, 0xcc

# Filled by the loader.
je_head:                .quad 0                 # entry list
je_relocate:            .quad 0                 # relocate_new_kernel in the second control page, physical
je_pa_control:          .quad 0                 # the second control page, physical
je_flags:               .quad 0                 # RELOCATE_SWAP, or RELOCATE_COPY
je_start_saved:         .quad 0                 # restore_after_save in the first control page, physical
je_start_resumed:       .quad 0                 # restore_after_resume there

# Filled by B, where there is no jump page to hold it.
je_slot:                .quad 0                 # where B wants to be entered again, physical; 0: nowhere
