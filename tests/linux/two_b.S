/*
 * The first process of kernel B, which kernel A jumped to: shows its command line, shows a piece of A's memory, and jumps
 * back to A as often as A comes.  Entered at ring 3, 64-bit, with file 1 open on the console.  Clobbers everything.
 * Prints B and the number of the visit before each jump, F when anything fails.
 *
 * A kernel of 6.1 comes back with the GDT and by the page tables that its peer left, and its peer has given its GDT up
 * and need not map the other's control page.  So what this process loads to jump back is a page of code of its own, at
 * BRIDGE, which A and B both pass: it hands A's GDT and A's tables to A, and B's GDT to B.  With BRIDGED=0 it loads no code,
 * and A's entry is called as it is.
 */
.set SYS_READ, 0
.set SYS_WRITE, 1
.set SYS_OPEN, 2
.set SYS_MMAP, 9
.set SYS_MOUNT, 165
.set SYS_REBOOT, 169
.set SYS_KEXEC_LOAD, 246
.set PRESERVE_CONTEXT, 2
.set MAGIC1, 0xfee1dead
.set MAGIC2, 672274793
.set CMD_KEXEC, 0x45584543
.set PROT_READ, 1
.set MAP_SHARED, 1
.set PAGE_SIZE, 4096
.set TABLES_IN_CONTROL_PAGE, 0x820	/* relocate_kernel's word for the physical address of its tables */
.set BANNER_SHOWN, 21

start:
	leaq	proc(%rip), %rdi	/* mount("proc", "/proc", "proc") */
	leaq	proc_folder(%rip), %rsi
	leaq	proc(%rip), %rdx
	xorl	%r10d, %r10d
	xorl	%r8d, %r8d
	movl	$SYS_MOUNT, %eax
	syscall
	testq	%rax, %rax
	jnz	failed
	leaq	cmdline_name(%rip), %rdi
	call	open
	movl	%eax, %edi
	leaq	line(%rip), %rsi
	movl	$LINE_SIZE, %edx
	movl	$SYS_READ, %eax
	syscall
	testq	%rax, %rax
	jle	failed
	movl	%eax, %edx
	leaq	line(%rip), %rsi
	leaq	(%rsi,%rax), %rbp	/* end of the line */
	call	say

	movq	%rbp, %rsi		/* the last word is the way back: find its x */
find:	decq	%rsi
	cmpb	$0x78, (%rsi)
	jne	find
	xorl	%ebx, %ebx
parse:	incq	%rsi
	movzbl	(%rsi), %eax
	subl	$0x30, %eax
	js	parsed
	cmpl	$9, %eax
	jbe	place
	subl	$0x27, %eax
place:	shlq	$4, %rbx
	orq	%rax, %rbx
	jmp	parse
parsed:	movq	%rbx, a_entry(%rip)

	leaq	memory_name(%rip), %rdi
	call	open
	movl	%eax, %r12d
	movl	$BANNER, %edi
	call	map
	movl	$BANNER, %ecx
	andl	$PAGE_SIZE - 1, %ecx
	leaq	(%rax,%rcx), %rsi
	movl	$BANNER_SHOWN, %edx
	call	say
	leaq	newline(%rip), %rsi
	movl	$1, %edx
	call	say
	movq	a_entry(%rip), %rdi
	call	map
	movq	TABLES_IN_CONTROL_PAGE(%rax), %rcx
	movq	%rcx, a_tables(%rip)

	.if	BRIDGED
	movl	$BRIDGE, %edi
	leaq	segment(%rip), %rdx
	.else
	movq	a_entry(%rip), %rdi
	leaq	nothing(%rip), %rdx
	.endif
	movl	$1, %esi
	movl	$PRESERVE_CONTEXT, %r10d
	movl	$SYS_KEXEC_LOAD, %eax
	syscall
	testq	%rax, %rax
	jnz	failed
again:
	incb	digit+1(%rip)
	leaq	digit(%rip), %rsi
	movl	$3, %edx
	call	say
	movl	$MAGIC1, %edi
	movl	$MAGIC2, %esi
	movl	$CMD_KEXEC, %edx
	xorl	%r10d, %r10d
	movl	$SYS_REBOOT, %eax
	syscall
	testq	%rax, %rax
	jz	again
failed:
	leaq	letter(%rip), %rsi
	movl	$3, %edx
	call	say
	jmp	.

/* %eax: the file whose name is at %rdi, open for reading */
open:
	xorl	%esi, %esi
	xorl	%edx, %edx
	movl	$SYS_OPEN, %eax
	syscall
	testq	%rax, %rax
	js	failed
	ret

/* %rax: where the page of physical %rdi is seen, by way of the file %r12d */
map:
	andq	$-PAGE_SIZE, %rdi
	movq	%rdi, %r9
	xorl	%edi, %edi
	movl	$PAGE_SIZE, %esi
	movl	$PROT_READ, %edx
	movl	$MAP_SHARED, %r10d
	movl	%r12d, %r8d
	movl	$SYS_MMAP, %eax
	syscall
	testq	%rax, %rax
	js	failed
	ret

/* %edx bytes at %rsi to the console */
say:
	movl	$1, %edi
	movl	$SYS_WRITE, %eax
	syscall
	ret

/*
 * The page at BRIDGE.  Entered by B's relocate_kernel at its first byte; A takes `to_b` for the entry of its peer, B
 * takes the first byte for that of its own.  64-bit, identity mapped; (%rsp) is the way back of whoever called.
 */
	.balign	16
bridge:
	popq	%rax
	movq	%rax, b_entry(%rip)
	leaq	to_b(%rip), %rax
	pushq	%rax
	lgdt	a_gdt(%rip)
	movq	a_tables(%rip), %rax
	movq	%rax, %cr3
	movq	a_entry(%rip), %rax
	jmp	*%rax
to_b:
	leaq	bridge(%rip), %rax
	movq	%rax, (%rsp)
	lgdt	b_gdt(%rip)
	movq	b_entry(%rip), %rax
	jmp	*%rax
	.balign	8
a_entry:	.quad	0
a_tables:	.quad	0
b_entry:	.quad	0
a_gdt:	.word	127
	.quad	GDT
	.balign	8
b_gdt:	.word	127
	.quad	GDT
bridge_end:

	.balign	8
segment:			/* struct kexec_segment: buf, bufsz, mem, memsz */
	.quad	bridge, bridge_end - bridge, BRIDGE, PAGE_SIZE
nothing:			/* what kexec --load-jump-back-helper loads */
	.quad	0, 0, 0, 0
proc:	.asciz	"proc"
proc_folder:	.asciz	"/proc"
cmdline_name:	.asciz	"/proc/cmdline"
memory_name:	.asciz	"/dev/mem"
digit:	.ascii	"B0\n"
letter:	.ascii	"FB\n"
newline:	.ascii	"\n"
	.set	LINE_SIZE, 2048
line:	.space	LINE_SIZE
