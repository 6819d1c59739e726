/*
 * The first process of kernel A, which jumps to a kernel B and back: loads B once with PRESERVE_CONTEXT, jumps twice, restarts.
 * Entered by the kernel at ring 3, 64-bit, with file 1 open on the console; uses no library.  Clobbers everything.
 * Prints A and the number of the jump whenever it goes on behind one, F when anything fails.
 *
 * Every page that B may use is in a segment, so that the kernel exchanges it: B's low memory, which begins with the entry
 * code, the zero page and the command line; and B's area, with its kernel and its initramfs.  The bytes of all three lie
 * behind this program, at `blob`, in that order.
 */
.set SYS_WRITE, 1
.set SYS_REBOOT, 169
.set SYS_KEXEC_LOAD, 246
.set PRESERVE_CONTEXT, 2
.set MAGIC1, 0xfee1dead
.set MAGIC2, 672274793
.set CMD_KEXEC, 0x45584543
.set CMD_RESTART, 0x01234567

start:
	movl	$LOW, %edi
	movl	$3, %esi
	leaq	segments(%rip), %rdx
	movl	$PRESERVE_CONTEXT, %r10d
	movl	$SYS_KEXEC_LOAD, %eax
	syscall
	testq	%rax, %rax
	jnz	failed
	movl	$2, %ebx
again:
	movl	$MAGIC1, %edi
	movl	$MAGIC2, %esi
	movl	$CMD_KEXEC, %edx
	xorl	%r10d, %r10d
	movl	$SYS_REBOOT, %eax
	syscall
	testq	%rax, %rax
	jnz	failed
	incb	digit+1(%rip)
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

/* three bytes at %rsi to the console */
say:
	movl	$1, %edi
	movl	$3, %edx
	movl	$SYS_WRITE, %eax
	syscall
	ret

	.balign	8
segments:			/* struct kexec_segment: buf, bufsz, mem, memsz */
	.quad	blob, LOW_BYTES, LOW, LOW_SIZE
	.quad	blob + LOW_BYTES, KERNEL_BYTES, AREA, INITRD - AREA
	.quad	blob + LOW_BYTES + KERNEL_BYTES, INITRD_BYTES, INITRD, AREA_END - INITRD
digit:	.ascii	"A0\n"
letter:	.ascii	"FA\n"
	.balign	16
blob:
