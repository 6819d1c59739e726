# Kernel C for x86_64: the kernel that is booted fresh and puts A's memory back.
#
# Who jumps here: a boot loader, by the 64-bit boot protocol, at image_start + ENTRY64_OFFSET: long mode, identity map
# over RAM, CS=BOOT_CS DS=ES=SS=BOOT_DS, IF=0, rsi = boot_params (physical), a small stack that we leave at once. RAM
# holds noise, but for what the loader put there.
#
# How it leaves: by a call of a relocate_new_kernel of its own, on the plain path, to the entry of A that the image
# names. It does not come back. C knows nothing of A: it is another build from another source, and all that it is told
# of A comes from the image, by way of its userspace (HOST_RESTORE).
#
# C runs at its link address, on identity tables of its own. Assembled with LA57=0 or 1.

.include "x86.inc"
.include "boot.inc"
.include "kexec.inc"
.include "ports.inc"
.include "jump_page.inc"
.include "macros64.inc"

.set HOSTILE_DEBUG_RETURNS, 0				# our #DB handler is like the others
.set KERNEL_CS, 0x08
.set KERNEL_DS, 0x10
.set KERNEL_TSS, 0x18
.set IRQ_BASE, 0x30
.set IDT_VECTORS, IRQ_BASE + 16
.set IDENTITY_TABLES, 4					# a page directory for each GiB
.set IDENTITY_FLAGS, PTE_P | PTE_RW | PTE_A | PTE_D | PTE_PS
.set TICKS_WANTED, 3

image_start:						# an i386 kernel would start here
	hlt
	jmp	image_start

	.balign	ENTRY64_OFFSET, 0
entry64:
	cli
	cld
	lea	stack_top(%rip), %rsp
	call	copy_boot_params
	call	start_serial
	call	own_tables
	call	build_idt
	call	build_tss
	call	load_tables
	line	text_kernel
	say	text_arch
	call	count_ram
	call	put_decimal
	say	text_pages_of_ram
	end_line
	call	parse_command_line
	call	say_parsed
	host_request HOST_PARSED

	# a kernel that is up: its timer ticks
	mov	$IRQ_BASE, %al
	call	start_pic
	call	start_timer
	sti
	mov	$TICKS_WANTED, %ecx
	call	wait_ticks
	line	text_empty
	say_decimal ticks(%rip)
	say	text_ticks
	end_line

restore:	# userspace reads the image, lays its pages down and tells us what is left to do
	host_request HOST_RESTORE
	mov	kexec_params+KEXEC_PARAMS_STATUS(%rip), %rbx
	test	%rbx, %rbx
	jz	1f
	line	text_refused
	neg	%rbx
	say_decimal %rbx
	end_line
	exit_with STATUS_FAILED
1:	cli
	call	mask_pic
	call	stop_timer

	# is what we shall jump to an entry of A for us?
	mov	kexec_params+KEXEC_PARAMS_COOKIE(%rip), %rdi
	test	%rdi, %rdi
	jz	2f
	cmpl	$COOKIE_MAGIC, (%rdi)
	jne	bad_cookie
	cmpl	$COOKIE_AFTER_RESUME, 4(%rdi)
	jne	bad_cookie
2:	line	text_restored
	say_decimal kexec_params+KEXEC_PARAMS_PAGES(%rip)
	say	text_pages_move
	say_hex	kexec_params+KEXEC_PARAMS_START(%rip)
	end_line
	mov	kexec_params+KEXEC_PARAMS_HEAD(%rip), %rdi
	mov	kexec_params+KEXEC_PARAMS_PA_CONTROL(%rip), %rsi
	mov	kexec_params+KEXEC_PARAMS_START(%rip), %rdx
	mov	kexec_params+KEXEC_PARAMS_FLAGS(%rip), %rcx
call_relocate:
	call	*kexec_params+KEXEC_PARAMS_ENTRY_VA(%rip)
	exit_with STATUS_FAILED			# nobody comes back

bad_cookie:
	line	text_cookie_bad
	end_line
	exit_with STATUS_REFUSED

.include "lib64.inc"
.include "traps64.inc"
.include "cmdline64.inc"

# Identity map over 4 GiB in large pages, with nothing global. Clobbers rax, rcx, rdi.
own_tables:
	movq	$(pml4 + TABLE_FLAGS), pml5(%rip)
	movq	$(pdpt + TABLE_FLAGS), pml4(%rip)
	lea	pdpt(%rip), %rdi
	mov	$(page_directories + TABLE_FLAGS), %eax
	mov	$IDENTITY_TABLES, %ecx
1:	stosq
	add	$PAGE_SIZE, %rax
	dec	%ecx
	jnz	1b
	lea	page_directories(%rip), %rdi
	mov	$IDENTITY_FLAGS, %eax
	mov	$(IDENTITY_TABLES * PAGE_QWORDS), %ecx
2:	stosq
	add	$LARGE_PAGE_SIZE, %rax
	dec	%ecx
	jnz	2b
.if LA57
	mov	$pml5, %eax
.else
	mov	$pml4, %eax
.endif
	mov	%rax, %cr3
	ret

# ---- texts ----------------------------------------------------------------------------------------------------------

prefix:			.asciz	"C| "
text_kernel:		.asciz	"kernel C, "
text_empty:		.asciz	""
text_ticks:		.asciz	" ticks"
text_refused:		.asciz	"restore refused, errno "
text_restored:		.asciz	"restored, "
text_pages_move:	.asciz	" pages to move, entering "
text_cookie_bad:	.asciz	"cookie bad"

# ---- data -----------------------------------------------------------------------------------------------------------

	.balign	16, 0
gdt:							# accessed bits set: the processor writes only the busy bit
	.quad	0
	.quad	0x00af9b000000ffff		# KERNEL_CS: 64-bit code
	.quad	0x00cf93000000ffff		# KERNEL_DS
gdt_tss:
	.quad	0x0000890000000067, 0		# KERNEL_TSS
gdt_end:
	.balign	16, 0
idt:		.space	IDT_VECTORS * IDT_GATE_SIZE
tss:		.space	TSS_SIZE
parsed:		.space	PARSED_BYTES
ticks:		.quad	0
kexec_params:	.space	KEXEC_PARAMS_SIZE
	.balign	8, 0
command_line:	.space	COMMAND_LINE_SIZE
boot_params:	.space	PAGE_SIZE
		.space	1024
	.balign	16, 0
ist_nmi:
		.space	1024
ist_double_fault:
		.space	4096
stack_top:

	.balign	PAGE_SIZE, 0
pml5:		.space	PAGE_SIZE
pml4:		.space	PAGE_SIZE
pdpt:		.space	PAGE_SIZE
page_directories:	.space	IDENTITY_TABLES * PAGE_SIZE
image_end:
