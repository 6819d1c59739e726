# Segment and descriptor-table loads in protected mode: what is loaded, and what is refused with which error code.
#
# modes:       32, i386, i386-pae, x86_64
# may change:  ax cx si di stack idtr

.include "claims.inc"

.macro into register:req, selector:req
    movl    $\selector, %eax
    movl    %eax, %\register
.endm

claim a_data_segment_is_loaded_from_the_table
    into    es, DATA16
    movl    %es, %eax
    equalw  $DATA16, %ax
    into    es, DATA
holds

claim a_null_selector_may_be_loaded_but_not_into_ss
    call    catch_faults
    into    fs, 0
    into    gs, 3
    into    fs, DATA
    into    gs, DATA
.if BITS == 32
    movl    $3, %eax
    raises  13, 0, movl %eax, %ss
.endif
holds

.if BITS == 64
claim a_null_ss_must_have_the_privilege_of_the_code, "ss", xfail="neither Unicorn nor QEMU looks at the RPL"
    call    catch_faults
    into    ss, 0
    into    ss, DATA
    movl    $3, %eax
    raises  13, 0, movl %eax, %ss
holds
.endif

claim a_selector_beyond_the_limit_is_refused_with_itself
    call    catch_faults
    movl    $0xf8, %eax
    raises  13, 0xf8, movl %eax, %es
    movl    $0x1000, %eax
    raises  13, 0x1000, movl %eax, %fs
holds

claim a_selector_of_the_local_table_without_one_is_refused
    call    catch_faults
    movl    $4, %eax
    raises  13, 4, movl %eax, %es
holds

claim a_stack_segment_must_be_writable_data_of_this_privilege
    call    catch_faults
    movl    $CODE, %eax
    raises  13, CODE, movl %eax, %ss
    movl    $USER_DATA, %eax
    raises  13, USER_DATA&~3, movl %eax, %ss
holds

claim a_segment_that_is_not_present_is_refused, "own_gdt gdtr"
    call    catch_faults
    lgdt    own_gdtr
    movl    $ABSENT, %eax
    raises  11, ABSENT, movl %eax, %es
    raises  12, ABSENT, movl %eax, %ss
    lgdt    gdtr
holds

claim the_accessed_bit_is_set_in_the_table, "own_gdt"
    lgdt    own_gdtr
    testb   $1, own_gdt + FRESH + 5
    assert  z
    into    es, FRESH
    testb   $1, own_gdt + FRESH + 5
    assert  nz
    into    es, DATA
    lgdt    gdtr
holds

claim a_task_register_makes_its_descriptor_busy_and_a_busy_one_is_refused, "gdt tr ldtr"
    call    catch_faults
    movl    $task_state, %eax
    movl    $(gdt+TASK), %edi
    movw    $103, (%edi)
    movw    %ax, 2(%edi)
    movb    $0, 4(%edi)
    movb    $0x89, 5(%edi)
    movw    $0, 6(%edi)
    movl    $0, 8(%edi)
    movl    $0, 12(%edi)
    movl    $TASK, %eax
    ltr     %ax
    equalb  $0x8b, gdt+TASK+5
    str     %cx
    equalw  $TASK, %cx
    raises  13, TASK, ltr %ax
holds

claim the_tables_read_back_as_they_were_loaded, "read_back"
    lgdt    own_gdtr
    sgdt    read_back
    lgdt    gdtr
    movzwl  read_back, %eax
    equall  $(end_of_own_gdt-own_gdt-1), %eax
    equall  $own_gdt, read_back+2
    lidt    own_gdtr
    sidt    read_back
    equall  $own_gdt, read_back+2
holds

.if BITS == 64
claim a_far_return_to_a_data_segment_is_refused, only="QEMU pushes RF clear for this fault"
.else
claim a_far_return_to_a_data_segment_is_refused
.endif
    call    catch_faults
    word_op push, ax
    word_op pop, ax
.if BITS == 64
    pushq   $DATA
    pushq   $never_there
    raises  13, DATA, lretq
    addq    $16, %rsp
.else
    pushl   $DATA
    pushl   $never_there
    raises  13, DATA, lretl
    addl    $8, %esp
.endif
holds
never_there:
    never

.if BITS == 32
claim a_base_and_a_limit_come_with_the_descriptor, "own_gdt gdtr"
    call    catch_faults
    lgdt    own_gdtr
    into    es, SHIFTED
    movl    %es:4, %eax                         # the base is 0x120000
    equall  $0x120004, %eax
    into    es, DATA
    lgdt    gdtr
holds
.endif

.set FRESH, 0x50
.set ABSENT, 0x58
.set SHIFTED, 0x60
    .balign 8, 0
own_gdtr:       .word end_of_own_gdt - own_gdt - 1
                .long own_gdt, 0
    .balign 8, 0
read_back:      .quad 0, 0
own_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
.if BITS == 64
    .quad 0x00af9b000000ffff
.else
    .quad 0x00cf9b000000ffff
.endif
    .quad 0x00cf93000000ffff
    .quad 0, 0, 0, 0, 0, 0
    .quad 0x00cf92000000ffff                    # FRESH: not accessed yet
    .quad 0x00cf13000000ffff                    # ABSENT: not present
    .quad 0x00409312000000ff                    # SHIFTED: 256 bytes from 0x120000
end_of_own_gdt:
task_state:     .fill 104, 1, 0
