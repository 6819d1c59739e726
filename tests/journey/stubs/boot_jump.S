# A kernel of a page, for the tests of jumps that happen in a boot: it lays down what machine_kexec lays down, jumps three
# times with the stub that is linked behind it, and ends the run with status 0.  For GNU as and ld.
#
# Entered in long mode, identity mapped, as a flat image at 0x100000.  Clobbers everything.  B, copied to its source
# page, goes back by calling its return address; with B_WRITES it stores a quadword there first.
#
# With LATER the stub is of the 6.14 form: its page, from __relocate_kernel_start on, holds data that are filled in, and it
# loads the GDTR from saved_context on the way back.

	.set	CONTROL, 0x200000
	.set	SWAP, 0x201000
	.set	LIST, 0x202000
	.set	SOURCE, 0x300000
	.set	DESTINATION, 0x400000
	.set	STACK_TOP, 0x90000
	.set	PATTERN, 0xa5a5a5a5
	.set	IND_DESTINATION, 1
	.set	IND_INDIRECTION, 2
	.set	IND_DONE, 4
	.set	IND_SOURCE, 8
	.set	CR0_WP, 0x10000
	.set	EXIT_PORT, 0xf4

	.text
	.globl	_start
_start:
	mov	$STACK_TOP, %esp
	mov	%cr0, %rax
	or	$CR0_WP, %eax
	mov	%rax, %cr0
	mov	%cr3, %rax
	mov	%rax, tables(%rip)
	sgdt	own_gdt(%rip)
	.ifdef	LATER
	lea	__relocate_kernel_start(%rip), %rsi
	.else
	lea	relocate_kernel(%rip), %rsi
	.endif
	mov	$CONTROL, %edi
	mov	$512, %ecx
	rep movsq
	.ifdef	LATER
	mov	$CONTROL, %edx
	mov	$__relocate_kernel_start, %ecx
	sub	%rcx, %rdx			# from the linked page to the control page
	movq	$CONTROL, kexec_va_control_page(%rdx)
	mov	%rax, kexec_pa_table_page(%rdx)
	movq	$SWAP, kexec_pa_swap_page(%rdx)
	lea	relocate_kernel(%rdx), %rax
	mov	%rax, entry(%rip)
	.endif
	lea	peer(%rip), %rsi
	mov	$SOURCE, %edi
	mov	$(peer_end - peer), %ecx
	rep movsb
	mov	$DESTINATION, %edi
	mov	$PATTERN, %eax
	mov	$512, %ecx
	rep stosq
	movq	$(DESTINATION | IND_DESTINATION), LIST
	movq	$(SOURCE | IND_SOURCE), LIST + 8
	movq	$IND_DONE, LIST + 16
	mov	$3, %ebx
again:
	lgdt	none(%rip)
	lidt	none(%rip)
	mov	$(LIST | IND_INDIRECTION), %edi
	.ifdef	LATER
	mov	$CONTROL, %esi
	.else
	lea	page_list(%rip), %rsi
	.endif
	mov	start(%rip), %rdx
	mov	$1, %ecx
	xor	%r8d, %r8d
	call	*entry(%rip)
returned:
	mov	%rax, start(%rip)
	lgdt	own_gdt(%rip)
	dec	%ebx
	jnz	again
	mov	$EXIT_PORT, %edx
	xor	%eax, %eax
	out	%al, %dx

peer:
	.ifdef	B_WRITES
	movq	$0x5a, B_WRITES
	.endif
	pop	%rax
	call	*%rax
	jmp	peer
peer_end:

	.balign	8
page_list:
	.quad	CONTROL, CONTROL
tables:	.quad	0, SWAP
start:	.quad	DESTINATION
	.ifdef	LATER
entry:	.quad	0
	.else
entry:	.quad	relocate_kernel
	.endif
none:	.word	0
	.quad	0
own_gdt:
	.word	0
	.quad	0
	.set	GDTR_AT, 0x9a
	.globl	saved_context
	.set	saved_context, own_gdt - GDTR_AT
