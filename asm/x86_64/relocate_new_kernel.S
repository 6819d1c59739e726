# relocate_new_kernel, x86-64: leave kernel A, move the pages, enter the next kernel, and come back.
#
#   unsigned long relocate_new_kernel(entry_list, pa_control_page, start, flags)
#                                       %rdi         %rsi           %rdx   %rcx
#
# The loader copies this file to the beginning of a page of its own, the control page, and fills the four words
# under "filled by the loader".  The rest of the page, above our data, is our stack.  Nothing here depends on where
# the page is, or on where in the page an address lies: data is reached by %rip, code by the low 12 bits of %rip.
#
# Who comes here, in which mode (always 64-bit code, interrupts off):
#   relocate_new_kernel    A, by a call, in its own address space, where the control page is mapped read-only and
#                          perhaps global.  Or jump_entry.S, by a call, in an identity mapping.
#   back_from_peer         the peer, by ret or by calling the return address that we left on its stack, in an
#                          identity mapping in which this page is present.  %rsp is the peer's and valid;
#                          the word on top is the address where the peer wants to be entered next time.
#   restore_after_save     a kernel start: an identity mapping, no register means anything, no stack.
#   restore_after_resume   The same.  All pages are back in their places already.
#
# Flags: RELOCATE_PRESERVE_CONTEXT  call start and be ready to come back (exchanges the pages)
#        RELOCATE_SWAP              exchange the pages, although nobody comes back
#        RELOCATE_COPY              copy the pages, although somebody comes back; wins over the other two
#        RELOCATE_CACHE_INCOHERENT  write the caches back before the pages move
#
# How it leaves:
#   plain      ret to start.  All general registers 0, flags clear, the word above the popped address is 0
#              ("nobody to go back to"), the stack is the control page's.
#   preserve   call of start, on the swap page as a stack:
#                swap page + 4096 - 8     start: the peer may write here where to be entered next time
#                swap page + 4096 - 16    return address, in this page
#              General registers are leftovers.
#   return     to A's call, with A's CR0, CR3, CR4, EFER, GDTR, %rsp, callee-saved registers and flags, and in %rax:
#              the peer's next entry (0 from C, which leaves by its own plain path), RETURN_IMAGE_SAVED or
#              RETURN_RESUMED.  Clobbered: the caller-saved registers,
#              CS, SS, DS, ES (ours), IDTR (ours), and whatever the peer changed besides.
# To the next kernel: paging on the kexec tables, our GDT and IDT (they live as long as this page does), CR0 without
# AM, WP, TS and EM, CR4 with nothing but the bits in CR4_KEPT.

.include "kexec.inc"
.include "x86.inc"
.include "ports.inc"

# Paging depends on PAE and LA57; some guests of a hypervisor must not clear MCE.
.set CR4_KEPT, CR4_PAE | CR4_LA57 | CR4_MCE
.set CR0_DROPPED, CR0_AM | CR0_WP | CR0_TS | CR0_EM
.set CR0_NEEDED, CR0_PG | CR0_PE

.set RETURN_IMAGE_SAVED, 1
.set RETURN_RESUMED, 2

.set CODE_SELECTOR, 0x10
.set DATA_SELECTOR, 0x18
.set INTERRUPT_GATE, 0x8e00                     # present, ring 0, 64-bit interrupt gate, no IST
.set GATE_SIZE, 16
.set VECTORS, 16
.set VECTOR_SIZE, 8                             # code bytes of each
.set VECTOR_BP, 3


# ---- Out of A ------------------------------------------------------------------------------------------------------

relocate_new_kernel:
    # On A's stack: all that A's call must find unchanged.
    pushq   %rbx
    pushq   %rbp
    pushq   %r12
    pushq   %r13
    pushq   %r14
    pushq   %r15
    pushfq

    pushq   $0                                  # IF, DF, TF, NT, AC: none of them in here
    popfq

    movq    %rdx, %r12                          # start
    movq    %rcx, %r11                          # flags

    # To the kexec tables, which map this page writable here and at its physical address.  A's stack is gone
    # with this, and so are A's IDT and GDT: until lidt below, any exception is a triple fault.
    movq    %cr3, %rbx
    movq    kexec_pa_table_page(%rip), %rax
    movq    %rax, %cr3

    # A may have mapped this page global: then its read-only translation outlived the CR3 load.  Dropping
    # CR4.PGE drops it, and must come before the first store.  The same write takes CR4.CET away, without
    # which CR0.WP could not be cleared, and PCIDE while the low bits of CR3 are zero.
    movq    %cr4, %rbp
    movl    %ebp, %eax
    andl    $CR4_KEPT, %eax
    movq    %rax, %cr4

    # What the way back needs.  Only here is it written.
    movq    %rbx, saved_cr3(%rip)
    movq    %rbp, saved_cr4(%rip)
    movq    %cr0, %rax
    movq    %rax, saved_cr0(%rip)
    movq    %rsp, saved_rsp(%rip)
    movl    $MSR_EFER, %ecx
    rdmsr
    movl    %eax, saved_efer(%rip)
    movl    %edx, saved_efer + 4(%rip)
    sgdt    saved_gdt(%rip)
    movq    %rdi, pa_backup_pages_map(%rip)

    # To the same code at its physical address, on a stack at the top of this page.
    leaq    PAGE_SIZE(%rsi), %rsp
    leaq    identity_mapped(%rip), %rax
    andl    $(PAGE_SIZE - 1), %eax
    addq    %rsi, %rax
    jmp     *%rax

identity_mapped:
    pushq   $0                                  # what start finds on its stack on the plain path
    pushq   %r12                                # start

    # The IDT holds absolute addresses, known only now.
    leaq    exception_vectors(%rip), %rax
    leaq    kexec_debug_idt(%rip), %rdx
    movl    $VECTORS, %ecx
next_gate:
    movq    %rax, %rbx
    movw    %bx, (%rdx)                         # offset, bits 0 to 15
    movw    $CODE_SELECTOR, 2(%rdx)
    movw    $INTERRUPT_GATE, 4(%rdx)
    shrq    $16, %rbx
    movw    %bx, 6(%rdx)                        # offset, bits 16 to 31
    shrq    $16, %rbx
    movq    %rbx, 8(%rdx)                       # offset, bits 32 to 63, and a reserved dword
    addq    $VECTOR_SIZE, %rax
    addq    $GATE_SIZE, %rdx
    decl    %ecx
    jnz     next_gate

    call    stand_alone

    testl   $RELOCATE_CACHE_INCOHERENT, %r11d
    jz      caches_coherent
    wbinvd                                      # or old lines could be written back over the moved pages
caches_coherent:

    call    swap_pages

    movq    %cr3, %rax                          # serialise: code has changed under our feet, and drop
    movq    %rax, %cr3                          # what was cached of tables that have moved

    testl   $RELOCATE_PRESERVE_CONTEXT, %r11d
    jnz     call_peer

    # The plain path: nobody comes back.
    xorl    %eax, %eax
    xorl    %ebx, %ebx
    xorl    %ecx, %ecx
    xorl    %edx, %edx
    xorl    %esi, %esi
    xorl    %edi, %edi
    xorl    %ebp, %ebp
    xorl    %r8d, %r8d
    xorl    %r9d, %r9d
    xorl    %r10d, %r10d
    xorl    %r11d, %r11d
    xorl    %r12d, %r12d
    xorl    %r13d, %r13d
    xorl    %r14d, %r14d
    xorl    %r15d, %r15d
    ret

call_peer:
    popq    %rdx                                # start
    movq    kexec_pa_swap_page(%rip), %rax
    leaq    PAGE_SIZE(%rax), %rsp               # at once: an NMI must find a stack
    pushq   %rdx                                # the slot "entry next time", in case the peer only rets
    call    *%rdx


# ---- Back to A -----------------------------------------------------------------------------------------------------

back_from_peer:
    popq    %rbp                                # where the peer wants to be entered next time; 0: it was C
    movq    pa_inverse_map(%rip), %rdi          # made by whoever made the list that was copied
    movl    $RELOCATE_COPY, %r11d
    testq   %rdi, %rdi
    jnz     come_back
    movq    pa_backup_pages_map(%rip), %rdi     # none: an exchange is its own inverse
    movl    $RELOCATE_PRESERVE_CONTEXT, %r11d   # exchange, so that the peer's pages are kept
    jmp     come_back

restore_after_save:
    movl    $RETURN_IMAGE_SAVED, %ebp
    jmp     restore

restore_after_resume:
    movl    $RETURN_RESUMED, %ebp

restore:
    movl    $IND_DONE, %edi                     # an empty list: all pages are in their places

come_back:                                      # %rbp what A's call returns, %rdi entry list, %r11 flags for it
    # Nothing that the peer left may matter from here on: not its tables nor what it mapped global (CR3, CR4),
    # not its stack, not DF, TF, NT or AC, not its segments, GDT and IDT, whose pages are about to move.
    movq    kexec_pa_table_page(%rip), %rax
    movq    %rax, %cr3
    movq    %cr4, %rax
    andl    $CR4_KEPT, %eax
    movq    %rax, %cr4

    leaq    relocate_new_kernel(%rip), %rax
    andq    $-PAGE_SIZE, %rax
    leaq    PAGE_SIZE(%rax), %rsp
    pushq   $0
    popfq

    call    stand_alone

    call    swap_pages

    movq    %cr3, %rax                          # serialise, as above
    movq    %rax, %cr3

    # To the same code where A's own tables map it too.
    leaq    virtual_mapped(%rip), %rax
    andl    $(PAGE_SIZE - 1), %eax
    addq    kexec_va_control_page(%rip), %rax
    jmp     *%rax

virtual_mapped:
    # EFER before CR3: without EFER.NXE, the NX bits in A's tables would be reserved bits.
    movl    $MSR_EFER, %ecx
    movl    saved_efer(%rip), %eax
    movl    saved_efer + 4(%rip), %edx
    wrmsr

    # CR0 before CR4: CR4.CET may be set only while CR0.WP is.  CR4 before CR3: CR4.PCIDE may be set only while
    # the low bits of CR3, A's PCID, are still zero.
    movq    saved_cr0(%rip), %rax
    movq    %rax, %cr0
    movq    saved_cr4(%rip), %rax
    movq    %rax, %cr4
    movq    saved_cr3(%rip), %rax
    movq    %rax, %cr3

    lgdt    saved_gdt(%rip)                     # A is about to load selectors of its own
    movq    saved_rsp(%rip), %rsp
    movq    %rbp, %rax

    popfq
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbp
    popq    %rbx
    ret


# ---- Depend on nothing but this page -------------------------------------------------------------------------------

# stand_alone: our GDT, segments and IDT, and a CR0 under which we may write everywhere.
#   in: CR4.CET clear, %rsp on the control page, kexec_debug_idt built.  Clobbers %rax.
stand_alone:
    leaq    kexec_debug_gdt(%rip), %rax
    pushq   %rax                                # base
    pushw   $(gdt_end - kexec_debug_gdt - 1)    # limit
    lgdt    (%rsp)
    addq    $10, %rsp

    pushq   $CODE_SELECTOR
    leaq    own_segments(%rip), %rax
    pushq   %rax
    lretq
own_segments:
    movl    $DATA_SELECTOR, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %ss

    leaq    kexec_debug_idt(%rip), %rax
    pushq   %rax
    pushw   $(VECTORS * GATE_SIZE - 1)
    lidt    (%rsp)
    addq    $10, %rsp

    movq    %cr0, %rax
    andl    $~CR0_DROPPED, %eax
    orl     $CR0_NEEDED, %eax
    movq    %rax, %cr0
    ret


# ---- The entry list ------------------------------------------------------------------------------------------------

# swap_pages: carry out an entry list.
#   %rdi   the first entry, by value
#   %r11   RELOCATE_PRESERVE_CONTEXT or RELOCATE_SWAP without RELOCATE_COPY: exchange source and destination, else copy
#   Clobbers %rax, %rbx, %rcx, %rdx, %rsi, %rdi, %r8.  DF must be clear.
#
# An entry is the physical address of a page with a flag in its low bits.  The lowest flag counts:
#   IND_DESTINATION   the cursor goes to this page
#   IND_INDIRECTION   the entries go on in this page
#   IND_DONE          the end
#   IND_SOURCE        move this page to the cursor, which goes on to the page after it
#   none of them      ignored
#
# %rcx entry, %rbx where the next entry is, %rdi cursor, %r8 flags.
swap_pages:
    movl    %r11d, %r8d                         # what of the flags counts here
    testl   $RELOCATE_COPY, %r8d
    jz      no_copy
    xorl    %r8d, %r8d
no_copy:
    movq    %rdi, %rcx
    xorl    %edi, %edi
    xorl    %ebx, %ebx
    jmp     have_entry

next_entry:
    movq    (%rbx), %rcx
    addq    $8, %rbx
have_entry:
    testb   $IND_DESTINATION, %cl
    jz      not_destination
    movq    %rcx, %rdi
    andq    $-PAGE_SIZE, %rdi
    jmp     next_entry

not_destination:
    testb   $IND_INDIRECTION, %cl
    jz      not_indirection
    movq    %rcx, %rbx
    andq    $-PAGE_SIZE, %rbx
    jmp     next_entry

not_indirection:
    testb   $IND_DONE, %cl
    jnz     list_done

    testb   $IND_SOURCE, %cl
    jz      next_entry
    movq    %rcx, %rsi
    andq    $-PAGE_SIZE, %rsi
    testl   $(RELOCATE_PRESERVE_CONTEXT | RELOCATE_SWAP), %r8d
    jz      to_destination

    # Exchange by way of the swap page.  The write to the destination comes last, for it leaves the cursor
    # at the following page.
    movq    %rdi, %rdx                          # destination
    movq    %rsi, %rax                          # source
    movq    kexec_pa_swap_page(%rip), %rdi      # source -> swap page
    movl    $PAGE_QWORDS, %ecx
    rep movsq
    movq    %rdx, %rsi                          # destination -> source
    movq    %rax, %rdi
    movl    $PAGE_QWORDS, %ecx
    rep movsq
    movq    kexec_pa_swap_page(%rip), %rsi      # swap page -> destination
    movq    %rdx, %rdi
to_destination:
    movl    $PAGE_QWORDS, %ecx
    rep movsq
    jmp     next_entry

list_done:
    ret


# ---- Exceptions ----------------------------------------------------------------------------------------------------

# From stand_alone on, and in a peer that has no IDT yet, an exception comes to one of these: VECTOR_SIZE bytes each,
# vector 0 first.  They leave on the stack
#   0 vector   8 error code (or 0)   16 %rip   24 CS   32 flags   40 %rsp   48 SS
# and go to exception, which says so on COM1.  Only a breakpoint is returned from.

.macro vector_without_error number
    pushq   $0
    pushq   $\number
    jmp     exception
    .balign VECTOR_SIZE, 0xcc
.endm

.macro vector_with_error number
    pushq   $\number
    jmp     exception
    .balign VECTOR_SIZE, 0xcc
.endm

    .balign VECTOR_SIZE, 0xcc
exception_vectors:
    vector_without_error 0                      # #DE
    vector_without_error 1                      # #DB
    vector_without_error 2                      # NMI
    vector_without_error 3                      # #BP
    vector_without_error 4                      # #OF
    vector_without_error 5                      # #BR
    vector_without_error 6                      # #UD
    vector_without_error 7                      # #NM
    vector_with_error 8                         # #DF
    vector_without_error 9
    vector_with_error 10                        # #TS
    vector_with_error 11                        # #NP
    vector_with_error 12                        # #SS
    vector_with_error 13                        # #GP
    vector_with_error 14                        # #PF
    vector_without_error 15

exception:
    cld                                         # the peer's, perhaps
    pushq   %rax
    pushq   %rcx
    pushq   %rdx
    pushq   %rsi
    pushq   %rdi

    leaq    vector_text(%rip), %rsi
    movq    40(%rsp), %rdi
    call    print
    leaq    error_text(%rip), %rsi
    movq    48(%rsp), %rdi
    call    print
    leaq    rip_text(%rip), %rsi
    movq    56(%rsp), %rdi
    call    print
    leaq    cr2_text(%rip), %rsi
    movq    %cr2, %rdi
    call    print
    movb    $'\r', %al
    call    put_character
    movb    $'\n', %al
    call    put_character

    cmpb    $VECTOR_BP, 40(%rsp)
    jne     halt
    popq    %rdi
    popq    %rsi
    popq    %rdx
    popq    %rcx
    popq    %rax
    addq    $16, %rsp                           # vector and error code
    iretq

halt:
    hlt                                         # an NMI may wake us: once more
    jmp     halt

# print: the text at %rsi up to its NUL, then %rdi as 16 hexadecimal digits.  Clobbers %rax, %rcx, %rdx, %rsi, %rdi.
print:
    lodsb
    testb   %al, %al
    jz      digits
    call    put_character
    jmp     print
digits:
    movl    $16, %ecx
next_digit:
    rolq    $4, %rdi                            # the highest digit that is left
    movl    %edi, %eax
    andl    $0xf, %eax
    addb    $'0', %al
    cmpb    $'9', %al
    jbe     have_digit
    addb    $('a' - '9' - 1), %al
have_digit:
    call    put_character
    decl    %ecx
    jnz     next_digit
    ret

# put_character: %al to COM1, when its transmitter is empty.  Clobbers %eax, %edx.
put_character:
    movb    %al, %ah
    movl    $COM1_LSR, %edx
transmitter_busy:
    inb     %dx, %al
    testb   $COM1_LSR_THRE, %al
    jz      transmitter_busy
    movb    %ah, %al
    movl    $COM1, %edx
    outb    %al, %dx
    ret

vector_text:
    .asciz  "relocate_new_kernel: vector "
error_text:
    .asciz  " error "
rip_text:
    .asciz  " rip "
cr2_text:
    .asciz  " cr2 "


# ---- Data ----------------------------------------------------------------------------------------------------------

    .balign 8, 0

# Filled by the loader.
kexec_va_control_page:  .quad 0                 # linear address of this page in A's address space
kexec_pa_table_page:    .quad 0                 # top-level page table: identity, and this page at the above address
kexec_pa_swap_page:     .quad 0
pa_inverse_map:         .quad 0                 # the list that brings A's pages back by a copy; 0: the one called with

kexec_debug_gdt:                                # accessed bits set, so that the processor has nothing to write
    .quad 0
    .quad 0x00cf9b000000ffff                    # 0x08 32-bit code
    .quad 0x00af9b000000ffff                    # 0x10 64-bit code
    .quad 0x00cf93000000ffff                    # 0x18 data
gdt_end:

# Written by relocate_new_kernel; the way back only reads it.
saved_context:
saved_rsp:              .quad 0
saved_cr0:              .quad 0
saved_cr3:              .quad 0
saved_cr4:              .quad 0
saved_efer:             .quad 0
pa_backup_pages_map:    .quad 0                 # the entry list, as given
saved_gdt:              .word 0                 # limit
                        .quad 0                 # base
    .balign 8, 0
kexec_debug_idt:
    .fill   VECTORS * GATE_SIZE, 1, 0
saved_context_end:
