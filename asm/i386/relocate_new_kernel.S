# relocate_new_kernel, i386: leave kernel A, move the pages, enter the next kernel, and come back.
#
#   unsigned long relocate_new_kernel(entry_list, page_list[], start, has_pae, flags)   all on the stack
#
# The loader copies this file to the beginning of a page of its own, the control page: 2048 bytes for code, then the
# saved context, then our stack, down from the top.  The same code runs at two addresses: the page's linear one in A
# and, without paging, its physical one; how far into the page an address lies is the same in both.
# page_list: the control page's physical and linear address, the physical addresses of a page directory that maps the
# control page at both (writable, not global; in the format that A's CR4.PAE says) and of the swap page.
# (The linear address is not read: we are called there.)  The loader fills cp_pa_inverse_map.
# flags, where the kernel has a bool:
#        RELOCATE_PRESERVE_CONTEXT  call start and be ready to come back
#        RELOCATE_COPY              copy the pages, source to destination, where they are exchanged without it
# One source for all: the processor must have EFER; PAE or not is what CR4 says.
#
# Who comes here, in which mode (always flat 32-bit segments, interrupts off):
#   relocate_new_kernel    A, by a call, in its own address space, where the control page is mapped read-only and
#                          perhaps global.  Or jump_entry.S, by a call, with paging off.
#   back_from_peer         the peer, paging off, by ret or by calling the return address that we left on its stack.
#                          %esp is the peer's and valid; the word on top is the address where the peer wants to be
#                          entered next time.
#   restore_after_save     a kernel start: paging off, no register means anything, no stack.
#   restore_after_resume   The same.  All pages are back in their places already.
#
# How it leaves:
#   plain      ret to start.  Paging off, all general registers 0, the word above the popped address is 0 ("nobody to
#              go back to"), the stack is the control page's.
#   preserve   call of start, paging off, on the swap page as a stack:
#                swap page + 4096 - 4     start: the peer may write here where to be entered next time
#                swap page + 4096 - 8     return address, in this page
#              General registers are leftovers.
#   return     to A's call, with A's CR0, CR3, CR4, EFER, GDTR, %esp, callee-saved registers and flags, and in %eax:
#              the peer's next entry, RETURN_IMAGE_SAVED or RETURN_RESUMED.  Clobbered: %ecx, %edx, IDTR (its limit is
#              0), and whatever the peer changed besides (segments, TR, LDTR ...).
# To the next kernel: A's segments and GDTR as they were, CR0 without PG, AM, WP, TS and EM, CR4 = 0 if has_pae.

.include "kexec.inc"
.include "x86.inc"

.set CR0_DROPPED, CR0_PG | CR0_AM | CR0_WP | CR0_TS | CR0_EM

.set RETURN_IMAGE_SAVED, 1
.set RETURN_RESUMED, 2

# The stack at the entry, once five registers are pushed.
.set ARG_ENTRY_LIST, 24
.set ARG_PAGE_LIST, 28
.set ARG_START, 32
.set ARG_HAS_PAE, 36
.set ARG_FLAGS, 40


# ---- Out of A ------------------------------------------------------------------------------------------------------

relocate_new_kernel:
    # On A's stack: all that A's call must find unchanged.
    pushl   %ebx
    pushl   %esi
    pushl   %edi
    pushl   %ebp
    pushfl

    pushl   $0                                  # IF, DF, TF, NT, AC: none of them in here
    popfl

    # Everything that is wanted later, into registers: A's stack will be out of reach.  No store yet, for A
    # has this page mapped read-only, and perhaps global.
    cmpl    $0, ARG_HAS_PAE(%esp)
    setne   %cl
    movb    ARG_FLAGS(%esp), %ch
    movl    ARG_ENTRY_LIST(%esp), %ebx
    movl    ARG_START(%esp), %edx
    movl    %cr3, %edi
    movl    %esp, %ebp
    movl    ARG_PAGE_LIST(%esp), %eax

    # To the kexec page directory, on a stack at the top of this page at its physical address, and to the same
    # code there.  The call tells how far into the page we are; its return address stays on the stack.
    # The stack pointer changes at once: between two instructions an NMI would push below the page.
    movl    4 * PAGE_LIST_PA_CONTROL_PAGE(%eax), %esi
    leal    PAGE_SIZE(%esi), %esp
    movl    4 * PAGE_LIST_PA_SWAP_PAGE(%eax), %esi
    movl    4 * PAGE_LIST_PA_PGD(%eax), %eax
    movl    %eax, %cr3
    call    here
here:
    movl    (%esp), %eax
    andl    $(PAGE_SIZE - 1), %eax
    leal    identity_mapped - here + 4 - PAGE_SIZE(%esp, %eax), %eax
    jmp     *%eax

identity_mapped:        # %ebx entry list, %cl has_pae, %ch flags, %edx start, %esi swap page,
                        # %edi A's CR3, %ebp A's stack, (%esp) linear address of here in A
    # What the way back needs.  Only here is it written.
    leal    4 - PAGE_SIZE(%esp), %eax           # this page
    movl    %ebx, CONTROL_CP_PA_BACKUP_PAGES_MAP(%eax)
    movl    %esi, CONTROL_CP_PA_SWAP_PAGE(%eax)
    movl    %edi, CONTROL_CR3(%eax)
    movl    %ebp, CONTROL_ESP(%eax)

    movl    %eax, %edi
    popl    %eax
    andl    $-PAGE_SIZE, %eax
    movl    %eax, CONTROL_CP_VA_CONTROL_PAGE(%edi)
    movl    %cr3, %eax
    movl    %eax, CONTROL_CP_PA_PGD(%edi)
    movl    %cr0, %eax
    movl    %eax, CONTROL_CR0(%edi)
    movl    %cr4, %eax
    movl    %eax, CONTROL_CR4(%edi)
    sgdt    CONTROL_GDTR(%edi)

    pushl   $0                                  # what start finds on its stack on the plain path
    pushl   %edx                                # start
    pushl   %ecx                                # has_pae, flags

    movl    $MSR_EFER, %ecx
    rdmsr
    movl    %eax, CONTROL_EFER(%edi)
    movl    %edx, CONTROL_EFER + 4(%edi)

    # The restore routines have no stack and no %eip-relative data to find this page with: tell them.  (No change
    # when we run where we are linked.)
    call    here_now
here_now:
    popl    %eax
    movl    %edi, load_own_page + 1 - here_now(%eax)

    movl    %cr0, %eax                          # paging off: this also drops all translations, global ones too
    andl    $~CR0_DROPPED, %eax
    movl    %eax, %cr0

    cmpb    $0, (%esp)                          # has_pae
    je      cr4_done
    xorl    %eax, %eax
    movl    %eax, %cr4
cr4_done:

    xorl    %ebp, %ebp                          # no swap page: copy
    testb   $RELOCATE_COPY, 1(%esp)
    jnz     how_is_known
    movl    %esi, %ebp
how_is_known:
    call    swap_pages

    xorl    %eax, %eax                          # serialise: code has changed under our feet
    movl    %eax, %cr3

    popl    %ecx
    testb   $RELOCATE_PRESERVE_CONTEXT, %ch
    jnz     call_peer

    # The plain path: nobody comes back.
    xorl    %eax, %eax
    xorl    %ebx, %ebx
    xorl    %ecx, %ecx
    xorl    %edx, %edx
    xorl    %esi, %esi
    xorl    %edi, %edi
    xorl    %ebp, %ebp
    ret

call_peer:
    popl    %edx                                # start
    movl    CONTROL_CP_PA_SWAP_PAGE + 4 - PAGE_SIZE(%esp), %eax
    leal    PAGE_SIZE(%eax), %esp               # at once: an NMI must find a stack
    pushl   %edx                                # the slot "entry next time", in case the peer only rets
    call    *%edx


# ---- Back to A -----------------------------------------------------------------------------------------------------

back_from_peer:
    popl    %ebp                                # where the peer wants to be entered next time
    xorl    %ebx, %ebx                          # the list is in this page
    jmp     come_back

restore_after_save:
    movl    $RETURN_IMAGE_SAVED, %ebp
    jmp     restore

restore_after_resume:
    movl    $RETURN_RESUMED, %ebp

restore:
    movl    $IND_DONE, %ebx                     # an empty list: all pages are in their places

come_back:                                      # %ebp what A's call returns, %ebx entry list or 0
load_own_page:
    movl    $relocate_new_kernel, %edi          # this page; made true on the way out, wherever we are linked

    # Nothing that the peer left may matter from here on: not its stack, not DF, TF, NT or AC, not its IDT, which is about
    # to move (an NMI would run what lies there by then).
    leal    PAGE_SIZE(%edi), %esp
    pushl   $0
    popfl
    lidt    no_table - relocate_new_kernel(%edi)

    pushl   %ebp
    pushl   %edi
    testl   %ebx, %ebx
    jnz     have_list
    xorl    %ebp, %ebp                          # whoever built a copy list built the list that undoes it: copied too
    movl    CONTROL_CP_PA_INVERSE_MAP(%edi), %ebx
    testl   %ebx, %ebx
    jnz     have_list
    movl    CONTROL_CP_PA_BACKUP_PAGES_MAP(%edi), %ebx
    movl    CONTROL_CP_PA_SWAP_PAGE(%edi), %ebp # none built: the same list, for an exchange is its own inverse
have_list:
    call    swap_pages
    popl    %edi
    popl    %ebp

    # EFER and CR4 before paging: CR4.PAE says in which format the page directory is, and without EFER.NXE
    # the NX bits in A's tables would be reserved bits.  WRMSR serialises: code may have moved.
    movl    $MSR_EFER, %ecx
    movl    CONTROL_EFER(%edi), %eax
    movl    CONTROL_EFER + 4(%edi), %edx
    wrmsr
    movl    CONTROL_CR4(%edi), %eax
    movl    %eax, %cr4
    movl    CONTROL_CP_PA_PGD(%edi), %eax
    movl    %eax, %cr3

    # Paging on, and to the same code where A's own tables map it too.
    call    here_again
here_again:
    popl    %eax
    andl    $(PAGE_SIZE - 1), %eax
    movl    CONTROL_CR0(%edi), %ecx
    movl    CONTROL_CP_VA_CONTROL_PAGE(%edi), %edi
    leal    virtual_mapped - here_again(%edi, %eax), %eax
    movl    %ecx, %cr0
    jmp     *%eax

virtual_mapped:                                 # %edi this page's linear address in A
    movl    CONTROL_CR3(%edi), %eax
    movl    %eax, %cr3

    lgdt    CONTROL_GDTR(%edi)                  # A is about to load selectors of its own
    movl    CONTROL_ESP(%edi), %esp
    movl    %ebp, %eax

    popfl
    popl    %ebp
    popl    %edi
    popl    %esi
    popl    %ebx
    ret


# ---- The entry list ------------------------------------------------------------------------------------------------

# swap_pages: carry out an entry list, with paging off.
#   %ebx   the first entry, by value
#   %ebp   the swap page: exchange each source page with its destination; 0: copy it there
#   Clobbers %eax, %ebx, %ecx, %edx, %esi, %edi.  DF must be clear.
#
# An entry is the physical address of a page with a flag in its low bits.  The lowest flag counts:
#   IND_DESTINATION   the cursor goes to this page
#   IND_INDIRECTION   the entries go on in this page
#   IND_DONE          the end
#   IND_SOURCE        move this page to the cursor, which goes on to the page after it
#   none of them      ignored
#
# %ecx entry, %ebx where the next entry is, %edi cursor.
swap_pages:
    movl    %ebx, %ecx
    xorl    %edi, %edi
    xorl    %ebx, %ebx
    jmp     have_entry

next_entry:
    movl    (%ebx), %ecx
    addl    $4, %ebx
have_entry:
    testb   $IND_DESTINATION, %cl
    jz      not_destination
    movl    %ecx, %edi
    andl    $-PAGE_SIZE, %edi
    jmp     next_entry

not_destination:
    testb   $IND_INDIRECTION, %cl
    jz      not_indirection
    movl    %ecx, %ebx
    andl    $-PAGE_SIZE, %ebx
    jmp     next_entry

not_indirection:
    testb   $IND_DONE, %cl
    jnz     list_done

    testb   $IND_SOURCE, %cl
    jz      next_entry
    movl    %ecx, %esi
    andl    $-PAGE_SIZE, %esi
    testl   %ebp, %ebp
    jz      to_destination

    # Exchange by way of the swap page.  The write to the destination comes last, for it leaves the cursor
    # at the following page.
    movl    %edi, %edx                          # destination
    movl    %esi, %eax                          # source
    movl    %ebp, %edi                          # source -> swap page
    movl    $PAGE_DWORDS, %ecx
    rep movsl
    movl    %edx, %esi                          # destination -> source
    movl    %eax, %edi
    movl    $PAGE_DWORDS, %ecx
    rep movsl
    movl    %ebp, %esi                          # swap page -> destination
    movl    %edx, %edi
to_destination:
    movl    $PAGE_DWORDS, %ecx
    rep movsl
    jmp     next_entry

list_done:
    ret

no_table:                                       # limit, base
    .word   0
    .long   0


# ---- Saved context -------------------------------------------------------------------------------------------------

# Written by relocate_new_kernel at fixed offsets of the page (CONTROL_*); the way back only reads it.
# Code that grew into it would not assemble.
    .org    CONTROL_CODE_MAX_SIZE, 0xcc
saved_context:
saved_esp:              .long 0
saved_cr0:              .long 0
saved_cr3:              .long 0
saved_cr4:              .long 0
cp_va_control_page:     .long 0
cp_pa_pgd:              .long 0
cp_pa_swap_page:        .long 0
cp_pa_backup_pages_map: .long 0
saved_efer:             .quad 0
saved_gdt:              .quad 0                 # limit (2), base (4), padding
saved_context_end:

# Filled by the loader.
cp_pa_inverse_map:      .long 0                 # the list that undoes a copy list; 0: none
