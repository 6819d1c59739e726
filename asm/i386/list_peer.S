# list_peer, i386: the shortest peer, which goes back at once.
#
# Who comes here: relocate_new_kernel or relocate_kernel, at image->start: flat segments, PG=0, on the swap page, the way
# back into the control page on top of the stack. Assembled for the address at which it is entered.
# How it leaves: by a call of the way back, so that the address behind the call is where it wants to be entered next time
# (BY_RET: by a plain ret). Clobbered: every register but the stack pointer; CR4 where PAE_BACK is 1.

.include "x86.inc"

.ifndef PEER_GDT					# 1: leave with the GDT in peer_gdt
	.set PEER_GDT, 0
.endif
.ifndef PAE_BACK					# 1: leave with CR4.PAE set
	.set PAE_BACK, 0
.endif
.ifndef BY_RET
	.set BY_RET, 0
.endif

peer_start:
.if PEER_GDT
	lgdt	peer_gdt
.endif
.if PAE_BACK
	movl	%cr4, %eax
	orl	$CR4_PAE, %eax
	movl	%eax, %cr4
.endif
	movl	$-1, %eax
	movl	%eax, %ebx
	movl	%eax, %ecx
	movl	%eax, %edx
	movl	%eax, %esi
	movl	%eax, %edi
	movl	%eax, %ebp
.if BY_RET
	ret
.else
	call	*(%esp)
.endif
peer_again:						# nobody comes here a second time
	hlt
	jmp	peer_again

	.balign	8, 0
peer_gdt:	.quad	0, 0				# 6 bytes, filled by whoever lays this down
