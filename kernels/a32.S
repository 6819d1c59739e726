# Kernel A for i386: the kernel that is suspended. It runs with paging, interrupts and a ticking timer, fills all the
# RAM that is its own with patterns, calls relocate_new_kernel, and afterwards proves that nothing is missing.
#
# Who comes here: the boot loader, at offset 0, by the 32-bit boot protocol: protected mode, paging off, flat
# segments, IF=0, esi = boot_params (physical). Linked at KERNEL_BASE, its physical address; PAE=0 or 1 at assembly.
# How it leaves: by the call at call_relocate and, when all is over, by the exit port.
#
# Address space: I386_BASE + physical for all RAM and nothing else; 4 KiB pages, global, text read-only; with PAE all
# but the text no-execute. Every entry has its A and D bits set from the start, so the processor never writes to a
# table, and tables can be compared byte for byte.
#
# The image in memory:
#   image_start      text                    \
#   data             gdt, idt, maps ...       | kept: two copies of all this, made before the jump,
#   tables           page tables, as needed  /  tell which byte is wrong after it
#   (behind them)    the copies; what remains of the image up to volatile_begin is sealed like other free RAM
#   volatile_begin   one page: counters, state as found after the jump, the stack
#   image_end

.include "kexec.inc"
.include "x86.inc"
.include "ports.inc"
.include "boot.inc"
.include "jump_page.inc"

.set V, I386_BASE
.set KERNEL_CS, 0x60                                # A's selectors are not those of loader, stub or B
.set KERNEL_DS, 0x68
.set PERCPU, 0x70                                   # in fs
.set KERNEL_TSS, 0x80
.set KERNEL_LDT, 0x88
.set LDT_DATA, 0x0c                                 # in gs: entry 1 of the LDT
.set IRQ_BASE, 0x20
.set IDT_VECTORS, IRQ_BASE + 16
.set HOSTILE_DEBUG_RETURNS, 0

.set MAX_RAM, 0x10000000                            # A has page tables for 256 MiB
.set RING_BYTES, 64
.set RING_PERIOD, 20000                             # ticks between two stores
.set DR7_ARMED, DR7_NONE | 0x02                     # breakpoint 0: execution, global

.if PAE
.set PTE_SHIFT, 3                                   # log2 of the size of an entry
.set TABLE_SPAN_SHIFT, 21                           # log2 of what one page table maps
.else
.set PTE_SHIFT, 2
.set TABLE_SPAN_SHIFT, 22
.endif
.set PAGE_TABLES, MAX_RAM >> TABLE_SPAN_SHIFT
.set KEPT_MAX, PAGE_TABLES + 24                     # pages from image_start to the end of the tables, at most
.set BUSY_MAP_BYTES, 0x8000                         # one bit a page frame of 1 GiB
.set AREA_BYTES, 0x100

.include "macros32.inc"

image_start:
	cld
	jmp	boot

.include "lib32.inc"
.include "cmdline32.inc"
.include "traps32.inc"
.include "state32.inc"
.include "seal32.inc"
.include "space32.inc"

# ---- what makes A a kernel --------------------------------------------------------------------------------------

main:	call	build_tss
	mov	$V+percpu, %eax
	mov	$V+gdt_percpu, %edi
	call	set_base
	mov	$V+ldt, %eax
	mov	$V+gdt_ldt, %edi
	call	set_base
	mov	$V+ldt_area, %eax
	mov	$V+ldt_data, %edi
	call	set_base
	call	build_idt
	call	load_tables
	call	load_ldt
	call	load_breakpoint
	call	load_fpu

	call	start_serial
	call	count_ram
	call	say_kernel
	cmpl	$(MAX_RAM >> PAGE_SHIFT), V+ram_end
	jbe	1f
	line	text_ram_above
	say_hex	$MAX_RAM
	say	text_is_refused
	end_line
	exit_with STATUS_FAILED

1:	call	parse_command_line
	call	say_parsed
	host_request HOST_PARSED

	mov	$IRQ_BASE, %al
	call	start_pic
	call	start_timer
	sti
	mov	$1, %ecx
	call	wait_ticks
	line	text_interrupts_on
	say_decimal V+ticks
	say	text_ticks
	end_line

	out_long $ring, BUS_MASTER_RING			# a device knows physical addresses only
	out_long $RING_BYTES, BUS_MASTER_LENGTH
	out_long $RING_PERIOD, BUS_MASTER_PERIOD
	out_long $1, BUS_MASTER_CONTROL

load:	host_request HOST_LOAD
	mov	V+kexec_params+KEXEC_PARAMS_STATUS, %ebx
	neg	%ebx
	jz	1f
	line	text_load_refused
	say_decimal %ebx
	end_line
	exit_with STATUS_FAILED
1:	line	text_loaded
	say_decimal V+kexec_params+KEXEC_PARAMS_PAGES
	say	text_pages_entry
	say_hex	V+kexec_params+KEXEC_PARAMS_ENTRY_VA
	end_line

	mov	V+tables_end, %eax			# the copies come behind the tables
	sub	$image_start, %eax
	mov	%eax, V+kept_size
	mov	V+kexec_params+KEXEC_PARAMS_START, %eax
	mov	%eax, V+peer_start
	call	seal
	line	text_sealed
	say_decimal V+sealed_pages
	say	text_pages_kept
	mov	V+kept_size, %eax
	shr	$PAGE_SHIFT, %eax
	call	put_decimal
	say	text_pages_of_text
	end_line
	line	text_jumping
	end_line

jump:	out_long $0, BUS_MASTER_CONTROL
	cli
	call	stop_timer
	call	mask_pic
	mov	V+kexec_params+KEXEC_PARAMS_JUMP_PAGE_VA, %edi
	test	%edi, %edi
	jz	1f
	mov	JUMP_PAGE_SEQUENCE(%edi), %eax
	mov	%eax, V+sequence_before
1:	call	save_state				# the same bytes that suspend_begin will save,
	call	keep_copies				# so that the copies hold them already
	jmp	suspend_begin

# ---- state of A that a jump must not lose ---------------------------------------------------------------------------

load_ldt:	# LDTR, and fs and gs with bases of A's own. Clobbers eax.
	mov	$KERNEL_LDT, %eax
	lldt	%ax
	mov	$PERCPU, %eax
	mov	%eax, %fs
	mov	$LDT_DATA, %eax
	mov	%eax, %gs
	ret

load_breakpoint:	# breakpoint 0 on an address that is never reached, no others. Clobbers eax.
	xor	%eax, %eax
	mov	%eax, %dr1
	mov	%eax, %dr2
	mov	%eax, %dr3
	mov	$V+never_reached, %eax
	mov	%eax, %dr0
	mov	$DR7_ARMED, %eax
	mov	%eax, %dr7
	ret
never_reached:
	ud2

load_fpu:	# eight values on the x87 stack, eight patterns in xmm registers, a rounding mode. Clobbers eax.
	fninit
	fldcw	V+fpu_control
	fld1
	fldl2t
	fldl2e
	fldpi
	fldlg2
	fldln2
	fildl	V+sse_patterns
	fildl	V+sse_patterns+4
	ldmxcsr	V+sse_control
	movups	V+sse_patterns, %xmm0
	movups	V+sse_patterns+4, %xmm1
	movups	V+sse_patterns+8, %xmm2
	movups	V+sse_patterns+12, %xmm3
	movups	V+sse_patterns+16, %xmm4
	movups	V+sse_patterns+20, %xmm5
	movups	V+sse_patterns+24, %xmm6
	movups	V+sse_patterns+28, %xmm7
	ret

prefix:		.asciz	"A| "
text_kernel:	.asciz	"kernel A, "
text_ram_above:	.asciz	"RAM above "
text_is_refused:	.asciz	" is refused"
text_interrupts_on:	.asciz	"interrupts on, "
text_ticks:	.asciz	" ticks"
text_load_refused:	.asciz	"load refused, errno "
text_loaded:	.asciz	"loaded "
text_pages_entry:	.asciz	" pages, entry "
text_sealed:	.asciz	"sealed "
text_pages_kept:	.asciz	" pages, kept "
text_pages_of_text:	.asciz	" pages of text and tables"
text_jumping:	.asciz	"jumping"

	.balign	4, 0
sse_patterns:						# read at every fourth byte
	.long	0x600df00d, 0x0badcafe, 0x5eed0001, 0x7ea70002, 0x5a1e0003, 0x0dd50004
	.long	0x10ad0005, 0xb0a70006, 0xca5e0007, 0xfade0008, 0x9e770009, 0x3a7e000a
sse_control:	.long	0x5f80				# rounds up, all exceptions masked; MXCSR_DEFAULT rounds to nearest
fpu_control:	.word	0x0e7f				# rounds to zero, double precision, all masked

# ---- data -------------------------------------------------------------------------------------------------------

	.balign	PAGE_SIZE, 0
data:
gdt:	.fill	KERNEL_CS / 8, 8, 0
	.quad	FLAT_CODE
	.quad	FLAT_DATA
gdt_percpu:	.quad	0x0040930000000000 + AREA_BYTES - 1	# a small data segment; base by set_base
	.quad	0
gdt_tss:	.quad	0x0000890000000000 + TSS_SIZE - 1
gdt_ldt:	.quad	0x0000820000000000 + 15
gdt_end:
ldt:	.quad	0
ldt_data:	.quad	0x0040930000000000 + AREA_BYTES - 1
no_idt:	.word	0
	.long	0
	.balign	16, 0
saved:	.space	STATE_FLAGS
	.long	CALL_FLAGS, V+stack_top, EBX_VALUE, ESI_VALUE, EDI_VALUE, EBP_VALUE
	.balign	8, 0
kexec_params:	.space	KEXEC_PARAMS_SIZE

	.balign	16, 0
fpu_state:	.space	FXSAVE_SIZE
tss:		.space	TSS_SIZE
	.balign	8, 0
idt:		.space	IDT_BYTES
parsed:		.space	PARSED_BYTES
new_start:	.quad	0
new_size:	.quad	0
range_start:	.quad	0
plain_target_seen:	.long	0
ram_pages:	.long	0
ram_end:	.long	0			# first page frame above all RAM
ram_for_ranges:	.long	0			# bytes of RAM, rounded up
mapped_end:	.long	0			# first page frame above all that is mapped
tables_end:	.long	0			# physical end of the page tables in use
kept_size:	.long	0			# bytes from image_start to there
sealed_pages:	.long	0
sequence_before:	.long	0		# of the jump page, at the jump
peer_start:	.long	0			# where the next jump goes to
rejumps:	.long	0			# how often we have jumped through the slot
reloads_done:	.long	0			# how often we have loaded anew
	.balign	16, 0
percpu:		.space	AREA_BYTES		# where fs leads
ldt_area:	.space	AREA_BYTES		# and gs
command_line:	.space	COMMAND_LINE_SIZE
boot_params:	.space	PAGE_SIZE
busy_map:	.space	BUSY_MAP_BYTES
ring:		.space	RING_BYTES

	.balign	PAGE_SIZE, 0
tables:						# what CR3 holds: with PAE the four top-level entries
.if PAE
		.space	PAGE_SIZE
.endif
directory:	.space	PAGE_SIZE
page_tables:	.space	PAGE_TABLES * PAGE_SIZE		# the last of the kept pages

# ---- copies of all the above ----------------------------------------------------------------------------------------

copies:		.space	2 * KEPT_MAX * PAGE_SIZE

# ---- what may change across a jump ------------------------------------------------------------------------------------

volatile_begin:
fpu_found:	.space	FXSAVE_SIZE		# compared with fpu_state
found:		.space	STATE_SIZE		# compared with saved
back_value:	.long	0			# what the call returned
resumed:	.long	0			# we have been through power off
saved_cr2:	.long	0
ticks:		.long	0
ticks_before:	.long	0
	.balign	8, 0
seal_errors:	.quad	0			# damaged pages, and other checks that did not hold
sealed_damaged:	.long	0			# the sealed pages among them
		.space	3072
	.balign	PAGE_SIZE, 0
stack_top:
volatile_end:
image_end:
