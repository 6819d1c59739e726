# list_peer, x86-64: the shortest peer, which goes back at once.
#
# Who comes here: relocate_new_kernel or relocate_kernel, at image->start: long mode, identity map, on the swap page, the
# way back into the control page on top of the stack. Assembled for the address at which it is entered.
# How it leaves: by a call of the way back, so that the address behind the call is where it wants to be entered next time
# (BY_RET: by a plain ret). Clobbered: every register but the stack pointer.

.ifndef PEER_GDT					# 1: leave with the GDT in peer_gdt
	.set PEER_GDT, 0
.endif
.ifndef BY_RET
	.set BY_RET, 0
.endif

peer_start:
.if PEER_GDT
	lgdt	peer_gdt(%rip)
.endif
	movq	$-1, %rax
	movq	%rax, %rbx
	movq	%rax, %rcx
	movq	%rax, %rdx
	movq	%rax, %rsi
	movq	%rax, %rdi
	movq	%rax, %rbp
	movq	%rax, %r8
	movq	%rax, %r9
	movq	%rax, %r10
	movq	%rax, %r11
	movq	%rax, %r12
	movq	%rax, %r13
	movq	%rax, %r14
	movq	%rax, %r15
.if BY_RET
	ret
.else
	call	*(%rsp)
.endif
peer_again:						# nobody comes here a second time
	hlt
	jmp	peer_again

	.balign	8, 0
peer_gdt:	.quad	0, 0				# 10 bytes, filled by whoever lays this down
