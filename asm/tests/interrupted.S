# Interrupts and NMIs at every instruction of a jump, there and back.
#
# modes:       i386, i386-pae, x86_64, x86_64-la57
# stubs:       relocate_new_kernel
# may change:  ax cx dx si di r8 r9 r10 r11 stack context swap
#              cs ss ds es idtr

.include "claims.inc"
.include "stubs.inc"

# A leaves with an IDT in memory that the next kernel sees at the same address: an NMI may come at any time.
# Where it is fatal: on i386, while the stack is at the control page's physical address and paging on A's tables, on the
# stub's own tables, which map no IDT, and on the way back, where the stub drops the peer's, which may be about to move;
# on x86-64, once A is back on its own tables, as the IDT is still the
# stub's.
.if BITS == 64
claim an_nmi_is_survived_until_the_stub_has_its_idt_then_reported, "nmi_count", , "nmi 16"
.else
claim an_nmi_is_survived_wherever_stack_and_idt_can_be_reached, "nmi_count", , "nmi 122"
.endif
    call    catch_faults
    movl    $nmi_handler, %eax
    movl    $idt, %edi
    movw    %ax, 2 * BITS / 4(%edi)             # gate 2
    call_relocate $(two_pages+IND_INDIRECTION), $peer, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer, %eax
    equall  $TARGET_PAGE, TARGET_PAGE
holds

nmi_handler:
    incl    nmi_count
.if BITS == 64
    iretq
.else
    iretl
.endif

    .balign 8, 0
nmi_count: .quad 0

claim an_irq_waits_until_a_is_back, "", , "irq"
    movb    $PIC_ICW1, %al
    outb    %al, $PIC1_COMMAND
    movb    $0x20, %al                          # vectors
    outb    %al, $PIC1_DATA
    movb    $4, %al                             # the slave's line
    outb    %al, $PIC1_DATA
    movb    $PIC_ICW4, %al
    outb    %al, $PIC1_DATA
    movb    $0, %al                             # nothing is masked
    outb    %al, $PIC1_DATA
    call_relocate $(two_pages+IND_INDIRECTION), $peer, $RELOCATE_PRESERVE_CONTEXT
    equall  $peer, %eax
holds

peer:
    ret

list two_pages
    to      TARGET_PAGE
    from    SOURCE_PAGE
    more    second_page
list second_page
    entry   0
    from    SOURCE2_PAGE
    done
