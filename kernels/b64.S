# Kernel B for x86_64: the kernel that is jumped to, uses its memory to the full, and goes back.
#
# Who jumps here:
#   entry64        purgatory (or a boot loader), by the 64-bit boot protocol, at image_start + ENTRY64_OFFSET: long mode,
#                  identity map, IF=0, rsi = boot_params. On purgatory's stack: jump_back_entry, above it callee_stack.
#   resume_entry   whoever reads the resume slot of the jump page, in the re-entry mode: long mode, 64-bit CS, IF=0,
#                  identity map. No register means anything, there is no stack. Our memory is as we left it.
#   called_again   the kernel that we went back to, when it calls us where our own call would have returned:
#                  the re-entry mode, and a stack with a return address on top.
#
# B runs at its link address, on identity tables of its own. Assembled with LA57=0 or 1, and HOSTILE=n (hostile.inc).

.include "x86.inc"
.include "boot.inc"
.include "kexec.inc"
.include "ports.inc"
.include "jump_page.inc"
.include "macros64.inc"
.include "hostile.inc"

.ifndef HOSTILE
	.set HOSTILE, HOSTILE_NONE
.endif
.ifndef PEER_GDT					# 1: leave with the GDT of whom we go back to
	.set PEER_GDT, 0
.endif
.if (HOSTILE == HOSTILE_TF) || (HOSTILE == HOSTILE_DR7)
	.set HOSTILE_DEBUG_RETURNS, 1
.else
	.set HOSTILE_DEBUG_RETURNS, 0
.endif

.set KERNEL_CS, 0x08
.set KERNEL_DS, 0x10
.set COMPATIBILITY_CS, 0x18
.set KERNEL_TSS, 0x20
.set JUNK_TSS, 0x30
.set JUNK_LDT, 0x40
.set IRQ_BASE, 0x40
.set HOSTILE_IRQ_BASE, 0x50
.set IDT_VECTORS, HOSTILE_IRQ_BASE + 1

.set IDENTITY_TABLES, 4					# a page directory for each GiB
.set IDENTITY_FLAGS, PTE_P | PTE_RW | PTE_A | PTE_D | PTE_PS
.set IDENTITY_TOP, 0x100000000
.set TOP_ENTRY, 511
.set CR0_B, CR0_KERNEL & ~CR0_AM
.set CR4_B, CR4_KERNEL & ~CR4_PGE
.set STAR_B, 0x0043003000000000				# nothing here is equal to A's
.set SFMASK_B, EFLAGS_IF
.set FS_BASE_B, 0x00000bb0f5000000
.set GS_BASE_B, 0x00000bb065000000
.set KERNEL_GS_B, 0x00000bb0e5000000
.set XMM_B, 0xbbbbbbbb5e5e5e5e
.set TICKS_WANTED, 10
.set LOW_TOP, 0xa0000					# the low region begins below this

.set FILL_FIRST, 0xb111b222b333b444			# fill value of page frame 0 ...
.set FILL_STEP, 0x0000000b00000029			# ... from page to page ...
.set FILL_VISIT, 0x0700000000000000			# ... and from visit to visit

.set BACK_BY_JUMP, 0					# back_by: to after_image_save
.set BACK_BY_CALL, 1					# call jump_back_entry on callee_stack
.set BACK_BY_RET, 2					# plain return there

image_start:						# an i386 kernel would start here
	hlt
	jmp	image_start

	.balign	ENTRY64_OFFSET, 0
entry64:
	cli
	cld
	mov	(%rsp), %rax
	mov	%rax, jump_back_entry(%rip)
	mov	8(%rsp), %rdx
	mov	%rdx, callee_stack(%rip)
	mov	%rsp, %rdx
	shr	$PAGE_SHIFT, %rdx
	mov	%rdx, purgatory_frame(%rip)
	cmpq	$0, visits(%rip)		# purgatory again, our memory kept: not a fresh start
	jne	resume_entry
	lea	stack_top(%rip), %rsp
	call	copy_boot_params
	call	start_serial
	call	bring_up
	line	text_kernel
	say	text_arch
	call	count_ram
	call	put_decimal
	say	text_pages_of_ram
	end_line
	call	parse_command_line
	call	say_parsed
	host_request HOST_PARSED
	call	find_way_back
	jmp	work

called_again:						# our call of jump_back_entry has returned, as it were
	mov	(%rsp), %rax
	mov	%rax, jump_back_entry(%rip)
	mov	%rsp, callee_stack(%rip)
	jmp	resume_entry

	.balign	COOKIE_SIZE, 0
	.long	COOKIE_MAGIC, COOKIE_RESUME_SLOT
resume_entry:
	cli
	cld
	lea	stack_top(%rip), %rsp
	pushq	$0				# no flag is left from whoever had the machine
	popfq
	call	bring_up
	line	text_re_entered
	mov	visits(%rip), %rax
	inc	%rax
	call	put_decimal
	end_line
	call	check_kept
	call	check_way_back

# ---- a visit ----------------------------------------------------------------------------------------------------

work:
	incq	visits(%rip)
	call	fill_memory
	line	text_filled
	say_decimal filled_pages(%rip)
	say	text_pages
	end_line
	movq	$0, ticks(%rip)
	call	start_timer
	sti
	mov	$TICKS_WANTED, %ecx
	call	wait_ticks
	line	text_empty
	say_decimal ticks(%rip)
	say	text_ticks
	end_line

	mov	slot(%rip), %rdi
	test	%rdi, %rdi
	jz	1f
	movq	$resume_entry, (%rdi)
1:	xor	%ebx, %ebx
	mov	jump_page(%rip), %rdi
	test	%rdi, %rdi
	jz	1f
	call	advance_jump_page
	mov	JUMP_PAGE_SEQUENCE(%rdi), %rbx
1:	line	text_awake
	say_decimal visits(%rip)
	say	text_sequence
	say_decimal %rbx
	end_line
	host_request HOST_AWAKE

	mov	jump_page(%rip), %rdi		# the page must say of which image it is part, so before the save
	test	%rdi, %rdi
	jz	2f
	testl	$WORD_SAVE, parsed+PARSED_WORDS(%rip)
	jz	2f
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	or	$1, %rax			# not 0
	mov	%rax, JUMP_PAGE_IMAGE_ID(%rdi)
	call	advance_jump_page
2:	host_request HOST_SAVE

go_back:	# rbx = where to, ebp = by which way
	mov	jump_back_entry(%rip), %rbx
	mov	back_by(%rip), %ebp
	cmp	$BACK_BY_RET, %ebp
	je	2f
	cmp	$BACK_BY_CALL, %ebp
	je	1f
	mov	after_image_save(%rip), %rbx
1:	line	text_going_back
	say_hex	%rbx
	jmp	3f
2:	line	text_back_by_ret
3:	end_line
	cli
	call	mask_pic
	call	stop_timer
last_look:						# our userspace had the page since we looked at it
	cmp	$BACK_BY_JUMP, %ebp
	jne	1f
	call	check_way_back
	mov	after_image_save(%rip), %rbx
	mov	jump_page(%rip), %rdi
	test	%rdi, %rdi
	jz	1f
	mov	JUMP_PAGE_AFTER_IMAGE_SAVE(%rdi), %rbx
1:
.include "hostile64.inc"
leave:							# in the re-entry mode: for us that is as we always run
.if PEER_GDT						# as a peer of Linux must: its kernel loads selectors of its own
	lgdt	peer_gdt(%rip)
.endif
	cmp	$BACK_BY_CALL, %ebp
	je	1f
	ja	2f
	jmp	*%rbx
1:	mov	callee_stack(%rip), %rsp
	call	*%rbx
	jmp	called_again
2:	mov	callee_stack(%rip), %rsp
	ret

.include "lib64.inc"
.include "traps64.inc"
.include "cmdline64.inc"
.include "bringup64.inc"
.include "fill64.inc"

# ---- the way back ---------------------------------------------------------------------------------------------------

# Where is the jump page, what may we fill, which way do we go back? Exits when there is no good answer.
find_way_back:
	mov	parsed+PARSED_ELFCOREHDR(%rip), %rax
	shr	$PAGE_SHIFT, %rax
	mov	%rax, header_frame(%rip)
	mov	parsed+PARSED_PFN(%rip), %rdi
	cmp	$-1, %rdi
	je	no_jump_page
	lea	what_address(%rip), %rsi
	cmp	$(IDENTITY_TOP >> PAGE_SHIFT), %rdi
	jae	bad_jump_page
	shl	$PAGE_SHIFT, %rdi
	mov	%rdi, jump_page(%rip)
	call	check_page
	line	text_jump_page
	say	text_physical
	say_hex	%rdi
	say	text_sequence
	say_decimal JUMP_PAGE_SEQUENCE(%rdi)
	say	text_slot
	say_hex	JUMP_PAGE_RESUME_SLOT(%rdi)
	end_line
	mov	JUMP_PAGE_TARGET_START(%rdi), %rax
	mov	%rax, target_start(%rip)
	mov	JUMP_PAGE_TARGET_SIZE(%rdi), %rax
	mov	%rax, target_size(%rip)
	mov	JUMP_PAGE_LOW_START(%rdi), %rax
	mov	%rax, low_start(%rip)
	mov	JUMP_PAGE_LOW_SIZE(%rdi), %rax
	mov	%rax, low_size(%rip)
	lea	JUMP_PAGE_RESUME_SLOT(%rdi), %rax
	mov	%rax, slot(%rip)
	mov	JUMP_PAGE_AFTER_IMAGE_SAVE(%rdi), %rax
	mov	%rax, after_image_save(%rip)
	movl	$BACK_BY_JUMP, back_by(%rip)
	ret

no_jump_page:
	mov	parsed+PARSED_SAVED(%rip), %rax
	test	%rax, %rax
	jz	no_entries
	mov	%rax, after_image_save(%rip)
	mov	parsed+PARSED_SLOT(%rip), %rax
	mov	%rax, slot(%rip)
	movl	$BACK_BY_JUMP, back_by(%rip)
	line	text_entries
	say_hex	after_image_save(%rip)
	say	text_resumed
	say_hex	parsed+PARSED_RESUME(%rip)
	say	text_slot
	say_hex	slot(%rip)
	end_line
	call	check_cookies
	jmp	find_memory

no_entries:
	mov	parsed+PARSED_BACK_ENTRY(%rip), %rbx
	test	%rbx, %rbx
	jz	4f
	mov	%rbx, jump_back_entry(%rip)
4:	mov	jump_back_entry(%rip), %rbx
	test	%rbx, %rbx
	jz	1f
	line	text_no_jump_page
	say_hex	%rbx
	end_line
	mov	parsed+PARSED_WORDS(%rip), %eax
	and	$WORD_RET, %eax
	add	$BACK_BY_CALL, %eax		# the word `ret` makes it BACK_BY_RET
	mov	%eax, back_by(%rip)

find_memory:
	# what the command line and the e820 say; without a target area we fill nothing
	mov	parsed+PARSED_SIZE(%rip), %rax
	test	%rax, %rax
	jz	3f
	mov	%rax, target_size(%rip)
	mov	parsed+PARSED_START(%rip), %rax
	test	%rax, %rax
	jnz	2f
	mov	$image_start, %eax		# size alone: the area begins where we are
2:	mov	%rax, target_start(%rip)
	call	first_ram
	shl	$PAGE_SHIFT, %rax
	shl	$PAGE_SHIFT, %rcx
	cmp	$LOW_TOP, %rax
	jae	3f
	mov	%rax, low_start(%rip)
	mov	%rcx, low_size(%rip)
3:	ret
1:	line	text_nowhere
	end_line
	exit_with STATUS_REFUSED

# Is A still there, where we are told to go back to? Exits when not. Clobbers rax, rcx, rdx, rsi, rdi.
check_way_back:
	cmpq	$0, jump_page(%rip)
	jne	check_page
	cmpl	$BACK_BY_JUMP, back_by(%rip)
	je	check_cookies
	ret

check_cookies:	# before both entries of A. Clobbers rax, rdx, rsi.
	mov	$COOKIE_AFTER_IMAGE_SAVE, %edx
	mov	after_image_save(%rip), %rax
	call	check_cookie
	mov	$COOKIE_AFTER_RESUME, %edx
	mov	parsed+PARSED_RESUME(%rip), %rax
	call	check_cookie
	mov	slot(%rip), %rax		# a qword of its own
	lea	what_slot(%rip), %rsi
	test	$7, %al
	jnz	bad_entries
	shr	$PAGE_SHIFT, %rax
	jz	bad_entries
	cmp	$(IDENTITY_TOP >> PAGE_SHIFT), %rax
	jae	bad_entries
	ret

check_cookie:	# rax: an entry, edx: its kind. Clobbers rax, rsi.
	lea	what_address(%rip), %rsi
	mov	%rax, %rdi
	shr	$PAGE_SHIFT, %rdi
	jz	bad_entries
	cmp	$(IDENTITY_TOP >> PAGE_SHIFT), %rdi
	jae	bad_entries
	lea	what_cookie(%rip), %rsi
	cmpl	$COOKIE_MAGIC, -COOKIE_SIZE(%rax)
	jne	bad_entries
	cmp	%edx, 4-COOKIE_SIZE(%rax)
	jne	bad_entries
	ret

bad_entries:	# rsi: what is bad
	mov	%rsi, %rdi
	line	text_entries_bad
	mov	%rdi, %rsi
	call	put_string
	end_line
	exit_with STATUS_REFUSED

# The jump page is good, and what we shall jump to bears its cookie; else exit. Out: rdi = jump page. Clobbers rax, rcx, rsi.
check_page:
	mov	jump_page(%rip), %rdi
	call	check_jump_page
	test	%rsi, %rsi
	jnz	bad_jump_page
	mov	JUMP_PAGE_AFTER_IMAGE_SAVE(%rdi), %rax
	mov	%rax, %rcx
	and	$-PAGE_SIZE, %rcx
	lea	what_entry(%rip), %rsi
	cmp	JUMP_PAGE_ENTRY_PAGE(%rdi), %rcx	# it is inside the entry code page ...
	jne	bad_jump_page
	mov	%eax, %ecx				# ... and behind a cookie that is inside it too
	and	$(PAGE_SIZE - 1), %ecx
	cmp	$COOKIE_SIZE, %ecx
	jb	bad_jump_page
	mov	%rax, %rcx
	shr	$PAGE_SHIFT, %rcx
	cmp	$(IDENTITY_TOP >> PAGE_SHIFT), %rcx
	jae	bad_jump_page
	lea	what_cookie(%rip), %rsi
	cmpl	$COOKIE_MAGIC, -COOKIE_SIZE(%rax)
	jne	bad_jump_page
	cmpl	$COOKIE_AFTER_IMAGE_SAVE, 4-COOKIE_SIZE(%rax)
	jne	bad_jump_page
	ret

bad_jump_page:	# rsi: what is bad
	mov	%rsi, %rdi
	line	text_jump_page_bad
	mov	%rdi, %rsi
	call	put_string
	end_line
	exit_with STATUS_REFUSED

# ---- texts ----------------------------------------------------------------------------------------------------------

prefix:			.asciz	"B| "
text_kernel:		.asciz	"kernel B, "
text_re_entered:	.asciz	"re-entered, visit "
text_filled:		.asciz	"filled "
text_pages:		.asciz	" pages"
text_pages_kept:	.asciz	" pages kept"
text_of:		.asciz	" of "
text_empty:		.asciz	""
text_ticks:		.asciz	" ticks"
text_awake:		.asciz	"awake, visit "
text_sequence:		.asciz	", sequence "
text_slot:		.asciz	", slot "
text_jump_page:		.asciz	"jump page "
text_no_jump_page:	.asciz	"no jump page, back entry "
text_nowhere:		.asciz	"nowhere to go back"
text_entries:		.asciz	"entries saved "
text_resumed:		.asciz	", resumed "
text_entries_bad:	.asciz	"entries bad: "
what_slot:		.asciz	"slot"
text_going_back:	.asciz	"going back to "
text_back_by_ret:	.asciz	"back by ret"
what_address:		.asciz	"address"
what_entry:		.asciz	"entry"
what_cookie:		.asciz	"cookie"

# ---- data -----------------------------------------------------------------------------------------------------------

	.balign	16, 0
gdt:
	.quad	0
	.quad	0x00af9b000000ffff		# KERNEL_CS: 64-bit code
	.quad	0x00cf93000000ffff		# KERNEL_DS
	.quad	0x00cf9b000000ffff		# COMPATIBILITY_CS: 32-bit code
gdt_tss:
	.quad	0x0000890000000067, 0		# KERNEL_TSS
gdt_junk_tss:
	.quad	0x00008900b0000067, 0x00000bb0	# JUNK_TSS: base 0xbb00000b000, nobody's
gdt_junk_ldt:
	.quad	0x00008200b000000f, 0x00000bb0	# JUNK_LDT: the same
gdt_end:
	.balign	16, 0
idt:		.space	IDT_VECTORS * IDT_GATE_SIZE
tss:		.space	TSS_SIZE
parsed:		.space	PARSED_BYTES
.if PEER_GDT
peer_gdt:	.quad	0, 0				# limit, base; filled by the loader
.endif
visits:		.quad	0
ticks:		.quad	0
filled_pages:	.quad	0
back_by:	.quad	0
jump_back_entry:	.quad	0
callee_stack:	.quad	0
purgatory_frame:	.quad	0
jump_page:	.quad	0
after_image_save:	.quad	0
slot:		.quad	0				# physical: where we leave resume_entry
header_frame:	.quad	0				# page frame of the ELF core header, which we spare; 0: none
target_start:	.quad	0
target_size:	.quad	0
low_start:	.quad	0
low_size:	.quad	0
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
.if HOSTILE == HOSTILE_PGE
stale_pdpt:	.space	PAGE_SIZE
stale_pd:	.space	PAGE_SIZE
stale_pt:	.space	PAGE_SIZE
stale_page:	.fill	PAGE_SIZE, 1, 0xf4		# hlt: what is run there does not go far
.endif
image_end:
