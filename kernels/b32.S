# Kernel B for i386: the kernel that is jumped to, uses its memory to the full, and goes back.
#
# Who jumps here:
#   image_start    purgatory (or a boot loader), by the 32-bit boot protocol: protected mode, paging off, flat segments,
#                  IF=0, esi = boot_params. On purgatory's stack: jump_back_entry, above it callee_stack.
#   resume_entry   whoever reads the resume slot of the jump page, in the re-entry mode: flat segments, paging off,
#                  IF=0. No register means anything, there is no stack. Our memory is as we left it.
#   called_again   the kernel that we went back to, when it calls us where our own call would have returned:
#                  the re-entry mode, and a stack with a return address on top.
#
# B runs at its link address, on identity tables of its own. Assembled with PAE=0 or 1, and HOSTILE=n (hostile.inc).

.include "x86.inc"
.include "boot.inc"
.include "kexec.inc"
.include "ports.inc"
.include "jump_page.inc"
.include "hostile.inc"

.ifndef HOSTILE
	.set HOSTILE, HOSTILE_NONE
.endif
.ifndef PEER_GDT					# 1: leave with the GDT of whom we go back to
	.set PEER_GDT, 0
.endif
.ifndef PAE_BACK					# 1: leave with CR4.PAE set
	.set PAE_BACK, 0
.endif
.if (HOSTILE == HOSTILE_TF) || (HOSTILE == HOSTILE_DR7)
	.set HOSTILE_DEBUG_RETURNS, 1
.else
	.set HOSTILE_DEBUG_RETURNS, 0
.endif

.set V, 0						# linear and link addresses are the same here
.set KERNEL_CS, 0x08
.set KERNEL_DS, 0x20					# the boot protocol's CS and DS are nothing here
.set KERNEL_TSS, 0x28
.set JUNK_TSS, 0x30
.set JUNK_LDT, 0x38
.set IRQ_BASE, 0x40
.set HOSTILE_IRQ_BASE, 0x50
.set IDT_VECTORS, HOSTILE_IRQ_BASE + 1
.include "macros32.inc"
.include "identity32.inc"

.set TICKS_WANTED, 10
.set LOW_TOP, 0xa0					# the low region begins below this page frame

.set FILL_FIRST, 0xb111b222				# fill value of page frame 0 ...
.set FILL_STEP, 0x00b00029				# ... from page to page ...
.set FILL_VISIT, 0x07000000				# ... and from visit to visit

.set BACK_BY_JUMP, 0					# back_by: to after_image_save
.set BACK_BY_CALL, 1					# call jump_back_entry on callee_stack
.set BACK_BY_RET, 2					# plain return there

image_start:
	cli
	cld
	mov	(%esp), %eax
	mov	%eax, jump_back_entry
	mov	4(%esp), %eax
	mov	%eax, callee_stack
	mov	%esp, %eax
	shr	$PAGE_SHIFT, %eax
	mov	%eax, purgatory_frame
	cmpl	$0, visits			# purgatory again, our memory kept: not a fresh start
	jne	resume_entry
	mov	$stack_top, %esp
	call	copy_boot_params
	call	start_serial
	call	bring_up
	call	count_ram
	call	say_kernel
	call	parse_command_line
	call	say_parsed
	host_request HOST_PARSED
	call	find_way_back
	jmp	work

called_again:						# our call of jump_back_entry has returned, as it were
	mov	(%esp), %eax
	mov	%eax, jump_back_entry
	mov	%esp, callee_stack
	jmp	resume_entry

	.balign	COOKIE_SIZE, 0
	.long	COOKIE_MAGIC, COOKIE_RESUME_SLOT
resume_entry:
	cli
	cld
	mov	$stack_top, %esp
	push	$0				# no flag is left from whoever had the machine
	popf
	call	bring_up
	line	text_re_entered
	mov	visits, %eax
	inc	%eax
	call	put_decimal
	end_line
	call	check_kept
	call	check_way_back

# ---- a visit ----------------------------------------------------------------------------------------------------

work:
	incl	visits
	call	fill_memory
	line	text_filled
	say_decimal filled_pages
	say	text_pages
	end_line
	movl	$0, ticks
	call	start_timer
	sti
	mov	$TICKS_WANTED, %ecx
	call	wait_ticks
	line	text_empty
	say_decimal ticks
	say	text_ticks
	end_line

	mov	parsed+PARSED_SLOT, %edi
	test	%edi, %edi
	jz	1f
	movl	$resume_entry, (%edi)
	movl	$0, 4(%edi)
1:	xor	%ebx, %ebx
	mov	jump_page, %edi
	test	%edi, %edi
	jz	2f
	movl	$resume_entry, JUMP_PAGE_RESUME_SLOT(%edi)
	movl	$0, JUMP_PAGE_RESUME_SLOT+4(%edi)
	call	advance_jump_page
	mov	JUMP_PAGE_SEQUENCE(%edi), %ebx
2:	line	text_awake
	say_decimal visits
	say	text_sequence
	say_decimal %ebx
	end_line
	host_request HOST_AWAKE

	mov	jump_page, %edi			# the page must say of which image it is part, so before the save
	test	%edi, %edi
	jz	3f
	testl	$WORD_SAVE, parsed+PARSED_WORDS
	jz	3f
	rdtsc
	or	$1, %eax				# not 0
	mov	%eax, JUMP_PAGE_IMAGE_ID(%edi)
	mov	%edx, JUMP_PAGE_IMAGE_ID+4(%edi)
	call	advance_jump_page
3:	host_request HOST_SAVE

go_back:	# ebx = where to, ebp = by which way
	mov	jump_back_entry, %ebx
	mov	back_by, %ebp
	cmp	$BACK_BY_RET, %ebp
	je	2f
	cmp	$BACK_BY_CALL, %ebp
	je	1f
	mov	parsed+PARSED_SAVED, %ebx
	mov	jump_page, %edi
	test	%edi, %edi
	jz	1f
	mov	JUMP_PAGE_AFTER_IMAGE_SAVE(%edi), %ebx
1:	line	text_going_back
	say_hex	%ebx
	jmp	3f
2:	line	text_back_by_ret
3:	end_line
	cli
	call	mask_pic
	call	stop_timer

# To the re-entry mode: paging off (we stand on an identity mapping), and no trace of it in CR3 and CR4.
	mov	$CR0_FLAT, %eax
	mov	%eax, %cr0
	xor	%eax, %eax
	mov	%eax, %cr3
	mov	%eax, %cr4
last_look:						# our userspace had the page since we looked at it
	cmp	$BACK_BY_JUMP, %ebp
	jne	1f
	call	check_way_back
	mov	jump_page, %edi
	test	%edi, %edi
	jz	1f
	mov	JUMP_PAGE_AFTER_IMAGE_SAVE(%edi), %ebx
1:
.include "hostile32.inc"
leave:
.if PEER_GDT						# as a peer of Linux must: its kernel loads selectors of its own
	lgdt	peer_gdt
.endif
.if PAE_BACK						# and, where the kernel has PAE, what it forgets itself
	mov	$CR4_PAE, %eax
	mov	%eax, %cr4
.endif
	cmp	$BACK_BY_CALL, %ebp
	je	1f
	ja	2f
	jmp	*%ebx
1:	mov	callee_stack, %esp
	call	*%ebx
	jmp	called_again
2:	mov	callee_stack, %esp
	ret

.include "lib32.inc"
.include "traps32.inc"
.include "cmdline32.inc"
.include "bringup32.inc"

# ---- the way back ---------------------------------------------------------------------------------------------------

# Which way do we go back, what may we fill? Exits when there is no good answer. Clobbers every register but esp.
find_way_back:
	mov	parsed+PARSED_ELFCOREHDR, %eax
	shr	$PAGE_SHIFT, %eax
	jz	1f
	mov	%eax, core_header_frame
1:	mov	parsed+PARSED_PFN, %edi
	mov	parsed+PARSED_PFN+4, %eax
	and	%edi, %eax
	cmp	$-1, %eax
	je	no_jump_page
	mov	$what_address, %esi
	cmpl	$0, parsed+PARSED_PFN+4
	jne	bad_jump_page
	cmp	$IDENTITY_FRAMES, %edi
	jae	bad_jump_page
	shl	$PAGE_SHIFT, %edi
	mov	%edi, jump_page
	call	check_page
	line	text_jump_page
	say	text_physical
	say_hex	%edi
	say	text_sequence
	say_decimal JUMP_PAGE_SEQUENCE(%edi)
	say	text_slot
	say_hex	JUMP_PAGE_RESUME_SLOT(%edi)
	end_line
	mov	JUMP_PAGE_TARGET_START(%edi), %eax
	mov	%eax, target_start
	mov	JUMP_PAGE_TARGET_SIZE(%edi), %eax
	mov	%eax, target_size
	mov	JUMP_PAGE_LOW_START(%edi), %eax
	mov	%eax, low_start
	mov	JUMP_PAGE_LOW_SIZE(%edi), %eax
	mov	%eax, low_size
	movl	$BACK_BY_JUMP, back_by
	ret

no_jump_page:
	mov	parsed+PARSED_SAVED, %eax
	or	parsed+PARSED_SAVED+4, %eax
	jz	1f
	call	check_cookies
	line	text_entries
	say_hex	parsed+PARSED_SAVED
	say	text_resumed
	say_hex	parsed+PARSED_RESUME
	say	text_slot
	say_hex	parsed+PARSED_SLOT
	end_line
	movl	$BACK_BY_JUMP, back_by
	jmp	by_the_map
1:	mov	parsed+PARSED_BACK_ENTRY, %ebx
	test	%ebx, %ebx
	jnz	2f
	mov	jump_back_entry, %ebx		# what purgatory saved
	test	%ebx, %ebx
	jz	nowhere
2:	mov	%ebx, jump_back_entry
	line	text_no_jump_page
	say_hex	%ebx
	end_line
	mov	parsed+PARSED_WORDS, %eax
	and	$WORD_RET, %eax
	add	$BACK_BY_CALL, %eax		# the word `ret` makes it BACK_BY_RET
	mov	%eax, back_by

by_the_map:	# what the command line and the e820 say; without a target area we fill nothing
	mov	parsed+PARSED_SIZE, %eax
	test	%eax, %eax
	jz	3f
	mov	%eax, target_size
	mov	parsed+PARSED_START, %eax
	test	%eax, %eax
	jnz	2f
	mov	$image_start, %eax		# size alone: the area begins where we are
2:	mov	%eax, target_start
	mov	$boot_params, %ebx
	call	first_ram
	cmp	$LOW_TOP, %eax
	jae	3f
	shl	$PAGE_SHIFT, %eax
	shl	$PAGE_SHIFT, %ecx
	mov	%eax, low_start
	mov	%ecx, low_size
3:	ret

nowhere:
	line	text_nowhere
	end_line
	exit_with STATUS_REFUSED

check_way_back:	# once more, before it is taken: as find_way_back did. Clobbers eax, ecx, edx, esi, edi.
	cmpl	$0, jump_page
	jne	check_page
	cmpl	$0, parsed+PARSED_SAVED
	jne	check_cookies
	ret

# What the command line names are entries of the kernel that wants us back; else exit. Clobbers eax, ecx, edx, esi.
check_cookies:
	mov	parsed+PARSED_SAVED, %eax
	mov	parsed+PARSED_SAVED+4, %edx
	mov	$COOKIE_AFTER_IMAGE_SAVE, %ecx
	call	check_cookie
	mov	parsed+PARSED_RESUME, %eax
	mov	parsed+PARSED_RESUME+4, %edx
	mov	$COOKIE_AFTER_RESUME, %ecx
	call	check_cookie
	mov	parsed+PARSED_SLOT, %eax		# a qword of its own
	mov	parsed+PARSED_SLOT+4, %edx
	mov	$what_slot, %esi
	test	$7, %al
	jnz	bad_entries
	jmp	check_mapped

check_cookie:	# edx:eax: an entry, ecx: its kind. Clobbers edx, esi.
	mov	$what_address, %esi
	test	$(PAGE_SIZE - 1), %eax			# its cookie is in the same page
	jz	bad_entries
	call	check_mapped
	mov	$what_cookie, %esi
	cmpl	$COOKIE_MAGIC, -COOKIE_SIZE(%eax)
	jne	bad_entries
	cmp	%ecx, 4-COOKIE_SIZE(%eax)
	jne	bad_entries
	ret

check_mapped:	# edx:eax: an address; esi: what it is. Clobbers edx.
	test	%edx, %edx
	jnz	bad_entries
	mov	%eax, %edx
	shr	$PAGE_SHIFT, %edx
	jz	bad_entries
	cmp	$IDENTITY_FRAMES, %edx
	jae	bad_entries
	ret

bad_entries:	# esi: what is bad
	mov	%esi, %edi
	line	text_entries_bad
	mov	%edi, %esi
	call	put_string
	end_line
	exit_with STATUS_REFUSED

# The jump page is good, and what we shall jump to bears its cookie; else exit. Out: edi = jump page. Clobbers eax, ecx, esi.
check_page:
	mov	jump_page, %edi
	call	check_jump_page
	test	%esi, %esi
	jnz	bad_jump_page
	mov	JUMP_PAGE_AFTER_IMAGE_SAVE(%edi), %eax
	mov	$what_entry, %esi
	cmpl	$0, JUMP_PAGE_AFTER_IMAGE_SAVE+4(%edi)
	jne	bad_jump_page
	cmpl	$0, JUMP_PAGE_ENTRY_PAGE+4(%edi)
	jne	bad_jump_page
	mov	%eax, %ecx
	and	$-PAGE_SIZE, %ecx
	cmp	JUMP_PAGE_ENTRY_PAGE(%edi), %ecx	# it is inside the entry code page ...
	jne	bad_jump_page
	mov	%eax, %ecx				# ... and behind a cookie that is inside it too
	and	$(PAGE_SIZE - 1), %ecx
	cmp	$COOKIE_SIZE, %ecx
	jb	bad_jump_page
	mov	%eax, %ecx
	shr	$PAGE_SHIFT, %ecx
	cmp	$IDENTITY_FRAMES, %ecx
	jae	bad_jump_page
	mov	$what_cookie, %esi
	cmpl	$COOKIE_MAGIC, -COOKIE_SIZE(%eax)
	jne	bad_jump_page
	cmpl	$COOKIE_AFTER_IMAGE_SAVE, 4-COOKIE_SIZE(%eax)
	jne	bad_jump_page
	ret

bad_jump_page:	# esi: what is bad
	mov	%esi, %edi
	line	text_jump_page_bad
	mov	%edi, %esi
	call	put_string
	end_line
	exit_with STATUS_REFUSED

# ---- using memory -------------------------------------------------------------------------------------------------

# Walk over the pages that we fill: low region, then target area, but not our image, purgatory's page, the core header's.
# ebp: what to call for each page, with edi = its address, eax = its value, ecx = PAGE_DWORDS. It counts pages in pages_seen.
# Clobbers every register but esp.
each_page:
	movl	$0, pages_seen
	mov	low_start, %ebx
	mov	low_size, %edx
	call	1f
	mov	target_start, %ebx
	mov	target_size, %edx
1:	shr	$PAGE_SHIFT, %ebx		# ebx = page frame, edx = the one behind the last
	shr	$PAGE_SHIFT, %edx
	add	%ebx, %edx
	imul	$FILL_VISIT, visits, %esi
	imul	$FILL_STEP, %ebx, %eax
	lea	FILL_FIRST(%esi,%eax), %esi	# esi = value of page frame ebx
	jmp	5f
2:	cmp	$image_start, %edi
	jb	3f
	cmp	$image_end, %edi
	jb	4f
3:	cmp	purgatory_frame, %ebx
	je	4f
	cmp	core_header_frame, %ebx
	je	4f
	mov	%esi, %eax
	mov	$PAGE_DWORDS, %ecx
	call	*%ebp
4:	add	$FILL_STEP, %esi
	inc	%ebx
5:	mov	%ebx, %edi
	shl	$PAGE_SHIFT, %edi
	cmp	%edx, %ebx
	jb	2b
	ret

fill_memory:	# Clobbers every register but esp.
	mov	$fill_page, %ebp
	call	each_page
	mov	pages_seen, %eax
	mov	%eax, filled_pages
	ret

fill_page:
	rep stosl
	incl	pages_seen
	ret

check_kept:	# is what the last visit filled still there? Clobbers every register but esp.
	mov	$check_page_kept, %ebp
	call	each_page
	line	text_empty
	say_decimal pages_seen
	say	text_of
	say_decimal filled_pages
	say	text_pages_kept
	end_line
	ret

check_page_kept:
	repe scasl
	jne	1f
	incl	pages_seen
1:	ret

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
text_entries:		.asciz	"entries saved "
text_resumed:		.asciz	", resumed "
text_entries_bad:	.asciz	"entries bad: "
what_slot:		.asciz	"slot"
text_nowhere:		.asciz	"nowhere to go back"
text_going_back:	.asciz	"going back to "
text_back_by_ret:	.asciz	"back by ret"
what_address:		.asciz	"address"
what_entry:		.asciz	"entry"
what_cookie:		.asciz	"cookie"

# ---- data -----------------------------------------------------------------------------------------------------------

	.balign	16, 0
gdt:
	.quad	0
	.quad	FLAT_CODE
	.quad	0, 0
	.quad	FLAT_DATA
gdt_tss:
	.quad	0x0000890000000000 + TSS_SIZE - 1	# base by set_base
gdt_junk_tss:
	.quad	0xb000890bb0000067		# JUNK_TSS: base 0xb00bb000, nobody's
gdt_junk_ldt:
	.quad	0xb000820bb000000f		# JUNK_LDT: the same
gdt_end:
	.balign	16, 0
idt:		.space	IDT_BYTES
tss:		.space	TSS_SIZE
	.balign	8, 0
parsed:		.space	PARSED_BYTES
new_start:	.quad	0
new_size:	.quad	0
range_start:	.quad	0
plain_target_seen:	.long	0
ram_pages:	.long	0
ram_end:	.long	0
ram_for_ranges:	.long	0
.if PEER_GDT
peer_gdt:	.quad	0, 0				# limit, base; filled by the loader
.endif
visits:		.long	0
ticks:		.long	0
filled_pages:	.long	0
pages_seen:	.long	0
back_by:	.long	0
jump_back_entry:	.long	0
callee_stack:	.long	0
purgatory_frame:	.long	0
core_header_frame:	.long	-1			# of what elfcorehdr= names, for userspace to read
jump_page:	.long	0
target_start:	.long	0
target_size:	.long	0
low_start:	.long	0
low_size:	.long	0
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
.if HOSTILE == HOSTILE_PGE
stale_directory:	.space	PAGE_SIZE
stale_table:	.space	PAGE_SIZE
stale_page:	.fill	PAGE_SIZE, 1, 0xf4		# hlt: what is run there does not go far
.endif
.if HOSTILE == HOSTILE_BUS_MASTER
ring:		.space	PAGE_SIZE
.endif
image_end:
