# The kernels' command line parser: words, quotes, numbers, sizes, ranges.
#
# modes:       i386, x86_64
# may change:  registers stack command_line+2048 parsed+256 results+72
#              target_is_plain

.include "claims.inc"
.include "jump_page.inc"
.include "boot.inc"

.set V, 0
.set KERNEL_CS, CODE
.set KERNEL_DS, DATA
.set KERNEL_TSS, TASK
.set IRQ_BASE, 0x20
.set IDT_VECTORS, 0x30

# Parse TEXT; parse_bytes: what is from FIRST to END.
.macro parse text
    jmp     .Lend\@
.Ltext\@:
    .asciz  "\text"
.Lend\@:
    parse_bytes .Ltext\@, .Lend\@
.endm

.macro parse_bytes first:req, end:req
    movl    $\first, %esi
    movl    $command_line, %edi
    movl    $(\end-\first), %ecx
    cld
    rep movsb
    movl    $parsed, %edi
    xorl    %eax, %eax
    movl    $(256/4), %ecx
    rep stosl
.if BITS == 32
    call    count_ram
.endif
    call    parse_command_line
.endm

# A field of the results has this value.
.macro gives field:req, low:req, high=0
    equall  $\low, parsed+\field
    equall  $\high, parsed+\field+4
.endm

claim an_empty_line_gives_nothing
    parse   ""
    gives   PARSED_PFN, -1, -1
    gives   PARSED_UNKNOWN, 0
holds

claim a_page_frame_number_is_a_number_by_c_rules
    parse   "jump_buf_pfn=0x702"
    gives   PARSED_PFN, 0x702
    parse   "jump_buf_pfn=0702"
    gives   PARSED_PFN, 0702
    parse   "jump_buf_pfn=702"
    gives   PARSED_PFN, 702
holds

claim a_malformed_value_changes_nothing_and_counts_as_unknown
    parse   "jump_buf_pfn=12x jump_buf_pfn= jump_buf_pfn"
    gives   PARSED_PFN, -1, -1
    gives   PARSED_UNKNOWN, 3
holds

claim the_last_of_several_wins
    parse   "seed=1 seed=2"
    gives   PARSED_SEED, 2
holds

claim unknown_words_are_counted_and_blanks_are_not
    parse   "  quiet   ro "
    gives   PARSED_UNKNOWN, 2
holds

claim a_size_and_an_offset_have_suffixes
    parse   "kexec_jump=16M@32M"
    gives   PARSED_SIZE, 0x1000000
    gives   PARSED_START, 0x2000000
    parse   "kexec_jump=0x400k@0x1000000"
    gives   PARSED_SIZE, 0x100000
    gives   PARSED_START, 0x1000000
holds

claim a_quoted_value_loses_its_quotes_and_blanks_inside_end_no_word
    parse_bytes quoted, end_of_quoted
    gives   PARSED_SEED, 7
    gives   PARSED_UNKNOWN, 1
holds
quoted:
    .ascii  "seed="
    .byte   0x22
    .ascii  "7"
    .byte   0x22
    .ascii  " note="
    .byte   0x22
    .ascii  "a b seed=9"
    .byte   0x22
    .byte   0
end_of_quoted:

claim of_ranges_the_one_that_holds_the_ram_counts
    parse   "kexec_jump=0-64M:4M,64M-1G:8M@16M"
    gives   PARSED_SIZE, 0x800000               # RAM is rounded up to 128 MiB
    gives   PARSED_START, 0x1000000
holds

claim a_name_inside_another_word_is_not_that_option
    parse   "my_seed=3 seed=4"
    gives   PARSED_SEED, 4
    gives   PARSED_UNKNOWN, 1
holds

.if BITS == 64
.include "macros64.inc"
.include "lib64.inc"
.include "cmdline64.inc"
.else
.include "macros32.inc"
.include "lib32.inc"
.include "cmdline32.inc"
.endif

    .balign 8, 0
gdt_tss:
tss:
ist_double_fault:
ist_nmi:
stack_top:      .quad 0

# What the parser and the library keep.
results:
.if BITS == 32
.set target_is_plain, results                   # the 64-bit parser has it among its code
.endif
ticks:              .quad 0
plain_target_seen:  .quad 0
ram_pages:          .quad 0
ram_end:            .quad 0
ram_for_ranges:     .quad 0
new_start:          .quad 0
new_size:           .quad 0
range_start:        .quad 0
range_size:         .quad 0
prefix:
text_kernel:        .asciz ""
    .balign 8, 0
parsed:             .fill 256, 1, 0
command_line:       .fill 2048, 1, 0

# The zero page: one range of memory, 64 MiB of RAM from 0.
boot_params:
    .fill   BOOT_E820_ENTRIES, 1, 0
    .byte   1
    .fill   BOOT_E820_TABLE - BOOT_E820_ENTRIES - 1, 1, 0
    .quad   0, 0x4000000
    .long   1
