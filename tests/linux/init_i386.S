/*
 * The first process of a 32-bit kernel that jumps: see init_x86_64.S, whose steps these are.
 * Entered at ring 3, 32-bit.  Clobbers everything.  Linked at BASE.
 *
 * The image runs with paging off; on a PAE kernel it sets CR4.PAE before it goes back, which the kernel of this age
 * leaves to it.
 */
.set IMAGE, 0x400000
.set SYS_WRITE, 4
.set SYS_REBOOT, 88
.set SYS_KEXEC_LOAD, 283
.set PRESERVE_CONTEXT, 2
.set MAGIC1, 0xfee1dead
.set MAGIC2, 672274793
.set CMD_KEXEC, 0x45584543
.set CMD_RESTART, 0x01234567

start:
	movl	$IMAGE, %ebx
	movl	$1, %ecx
	movl	$segment, %edx
	movl	$PRESERVE_CONTEXT, %esi
	movl	$SYS_KEXEC_LOAD, %eax
	int	$0x80
	testl	%eax, %eax
	jnz	failed
	movl	$3, %ebp
again:
	movl	$MAGIC1, %ebx
	movl	$MAGIC2, %ecx
	movl	$CMD_KEXEC, %edx
	xorl	%esi, %esi
	movl	$SYS_REBOOT, %eax
	int	$0x80
	testl	%eax, %eax
	jnz	failed
	incb	digit
	movl	$digit, %ecx
	call	say
	decl	%ebp
	jnz	again
restart:
	movl	$MAGIC1, %ebx
	movl	$MAGIC2, %ecx
	movl	$CMD_RESTART, %edx
	movl	$SYS_REBOOT, %eax
	int	$0x80
	jmp	restart
failed:
	movl	$letter, %ecx
	call	say
	jmp	restart

/* two bytes at %ecx to the console */
say:
	movl	$1, %ebx
	movl	$2, %edx
	movl	$SYS_WRITE, %eax
	int	$0x80
	ret

	.balign	8
segment:			/* struct kexec_segment: buf, bufsz, mem, memsz */
	.long	image, 0x100, IMAGE, 0x1000
digit:	.ascii	"0\n"
letter:	.ascii	"F\n"

	.balign	16
image:				/* paging off; (%esp) is where to go back */
	movw	$0x3f8, %dx
	movb	$0x4a, %al
	outb	%al, %dx
	movl	$IMAGE + table - image, %eax
	lgdt	(%eax)
	movl	%cr4, %eax
	orl	$CR4, %eax
	movl	%eax, %cr4
	popl	%eax
	call	*%eax
	jmp	image
	.balign	8
table:	.word	255
	.long	GDT
