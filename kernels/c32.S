# Kernel C for i386: the kernel that is booted after power off, puts A's memory back and enters A. Another build than
# A and B: it shares sources with them but no page, and is linked wherever the journey says.
#
# Who comes here: the boot loader, at image_start, by the 32-bit boot protocol: protected mode, paging off, flat
# segments, IF=0, esi = boot_params. RAM is full of noise. Assembled with PAE=0 or 1.
# How it leaves: by a plain call of its own copy of relocate_new_kernel, which moves what C could not put in place,
# C's own pages among it, and enters A. It does not return.
#
# C runs on identity tables. Its userspace, the harness, reads the image and fills kexec_params.

.include "x86.inc"
.include "boot.inc"
.include "kexec.inc"
.include "ports.inc"
.include "jump_page.inc"

.set V, 0						# linear and link addresses are the same here
.set KERNEL_CS, 0x18					# neither A's selectors nor B's
.set KERNEL_DS, 0x30
.set KERNEL_TSS, 0x38
.set IRQ_BASE, 0x60
.set IDT_VECTORS, IRQ_BASE + 16
.set HOSTILE_DEBUG_RETURNS, 0
.include "macros32.inc"
.include "identity32.inc"

.set TICKS_WANTED, 3

image_start:
	cli
	cld
	mov	$stack_top, %esp
	call	copy_boot_params
	call	start_serial
	call	bring_up
	call	count_ram
	call	say_kernel
	call	parse_command_line
	call	say_parsed
	host_request HOST_PARSED

	call	start_timer
	sti
	mov	$TICKS_WANTED, %ecx
	call	wait_ticks
	line	text_empty
	say_decimal ticks
	say	text_ticks
	end_line

	host_request HOST_RESTORE
	mov	kexec_params+KEXEC_PARAMS_STATUS, %ebx
	neg	%ebx
	jz	1f
	line	text_restore_refused
	say_decimal %ebx
	end_line
	exit_with STATUS_FAILED
1:	cli
	call	mask_pic
	call	stop_timer

	# is what we are about to enter an entry of a kernel that was suspended?
	mov	kexec_params+KEXEC_PARAMS_COOKIE, %edi
	test	%edi, %edi
	jz	2f
	cmpl	$COOKIE_MAGIC, (%edi)
	jne	bad_cookie
	cmpl	$COOKIE_AFTER_RESUME, 4(%edi)
	jne	bad_cookie
2:	line	text_restored
	say_decimal kexec_params+KEXEC_PARAMS_PAGES
	say	text_pages_move
	say_hex	kexec_params+KEXEC_PARAMS_START
	end_line
	pushl	kexec_params+KEXEC_PARAMS_FLAGS
	pushl	kexec_params+KEXEC_PARAMS_HAS_PAE
	pushl	kexec_params+KEXEC_PARAMS_START
	pushl	kexec_params+KEXEC_PARAMS_PAGE_LIST
	pushl	kexec_params+KEXEC_PARAMS_HEAD
call_relocate:
	call	*kexec_params+KEXEC_PARAMS_ENTRY_VA
	exit_with STATUS_FAILED				# nobody comes back to C

bad_cookie:
	line	text_cookie_bad
	end_line
	exit_with STATUS_REFUSED

.include "lib32.inc"
.include "traps32.inc"
.include "cmdline32.inc"
.include "bringup32.inc"

# ---- texts ----------------------------------------------------------------------------------------------------------

prefix:			.asciz	"C| "
text_kernel:		.asciz	"kernel C, "
text_empty:		.asciz	""
text_ticks:		.asciz	" ticks"
text_restore_refused:	.asciz	"restore refused, errno "
text_restored:		.asciz	"restored, "
text_pages_move:	.asciz	" pages to move, entering "
text_cookie_bad:	.asciz	"cookie bad"

# ---- data -----------------------------------------------------------------------------------------------------------

	.balign	16, 0
gdt:	.fill	KERNEL_CS / 8, 8, 0
	.quad	FLAT_CODE
	.fill	(KERNEL_DS - KERNEL_CS) / 8 - 1, 8, 0
	.quad	FLAT_DATA
gdt_tss:	.quad	0x0000890000000000 + TSS_SIZE - 1	# base by set_base
gdt_end:
	.balign	16, 0
idt:		.space	IDT_BYTES
tss:		.space	TSS_SIZE
	.balign	8, 0
kexec_params:	.space	KEXEC_PARAMS_SIZE
parsed:		.space	PARSED_BYTES
new_start:	.quad	0
new_size:	.quad	0
range_start:	.quad	0
plain_target_seen:	.long	0
ram_pages:	.long	0
ram_end:	.long	0
ram_for_ranges:	.long	0
ticks:		.long	0
command_line:	.space	COMMAND_LINE_SIZE
boot_params:	.space	PAGE_SIZE
		.space	4096
	.balign	16, 0
stack_top:

	.balign	PAGE_SIZE, 0
tables:						# what CR3 holds: with PAE the four top-level entries
.if PAE
		.space	PAGE_SIZE
.endif
directory:	.space	PAGE_SIZE
image_end:
