/*
 * The first process of a kernel that jumps: loads an image once with PRESERVE_CONTEXT, jumps three times, restarts.
 * Entered by the kernel at ring 3, 64-bit, with file 1 open on the console; uses no library.  Clobbers everything.
 * Each jump prints J by the image and a digit by this process; anything that fails prints F.
 *
 * The image, at IMAGE, prints J on COM1 and goes back by *calling* its return address, so that the kernel learns where
 * to enter it again.  It leaves the kernel's own GDT in force, at GDT: the kernel took it away before the jump, and loads its
 * segments and its task register from whatever GDT it comes back to.
 *
 * FLAGS is 2 for PRESERVE_CONTEXT.  With 0 there is no way back, and the image resets the board.
 */
.set IMAGE, 0x400000
.set SYS_WRITE, 1
.set SYS_REBOOT, 169
.set SYS_KEXEC_LOAD, 246
.set KEYBOARD_CONTROLLER, 0x64
.set RESET, 0xfe
.set MAGIC1, 0xfee1dead
.set MAGIC2, 672274793
.set CMD_KEXEC, 0x45584543
.set CMD_RESTART, 0x01234567

start:
	movl	$IMAGE, %edi
	movl	$1, %esi
	leaq	segment(%rip), %rdx
	leaq	image(%rip), %rax
	movq	%rax, (%rdx)
	movl	$FLAGS, %r10d
	movl	$SYS_KEXEC_LOAD, %eax
	syscall
	testq	%rax, %rax
	jnz	failed
	movl	$3, %ebx
again:
	movl	$MAGIC1, %edi
	movl	$MAGIC2, %esi
	movl	$CMD_KEXEC, %edx
	xorl	%r10d, %r10d
	movl	$SYS_REBOOT, %eax
	syscall
	testq	%rax, %rax
	jnz	failed
	incb	digit(%rip)
	leaq	digit(%rip), %rsi
	call	say
	decl	%ebx
	jnz	again
restart:
	movl	$MAGIC1, %edi
	movl	$MAGIC2, %esi
	movl	$CMD_RESTART, %edx
	movl	$SYS_REBOOT, %eax
	syscall
	jmp	restart
failed:
	leaq	letter(%rip), %rsi
	call	say
	jmp	restart

/* two bytes at %rsi to the console */
say:
	movl	$1, %edi
	movl	$2, %edx
	movl	$SYS_WRITE, %eax
	syscall
	ret

	.balign	8
segment:			/* struct kexec_segment: buf, bufsz, mem, memsz */
	.quad	0, 0x100, IMAGE, 0x1000
digit:	.ascii	"0\n"
letter:	.ascii	"F\n"

	.balign	16
image:				/* identity mapped; (%rsp) is where to go back */
	movw	$0x3f8, %dx
	movb	$0x4a, %al
	outb	%al, %dx
	.if	FLAGS == 0
	movb	$RESET, %al
	outb	%al, $KEYBOARD_CONTROLLER
	.endif
	lgdt	table(%rip)
	popq	%rax
	call	*%rax
	jmp	image
	.balign	8
table:	.word	127
	.quad	GDT
