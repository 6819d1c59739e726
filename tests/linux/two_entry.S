/*
 * Where kernel A enters B's image, at LOW: A's relocate_kernel calls it with preserve_context.  64-bit, identity mapped, no
 * GDT, no IDT; (%rsp) is where to go back.  Does what a purgatory does: the way back becomes the last word of B's command line,
 * as kexec_jump_back_entry=, and B's kernel is entered by its 64-bit entry with %rsi at the zero page.
 * Clobbers %rax, %rcx, %rdx, %rdi, %rsi.
 */
start:
	movq	(%rsp), %rdx
	movl	$LINE_END, %edi
	leaq	option(%rip), %rsi
	movl	$option_end - option, %ecx
	cld
	rep movsb
	movl	$16, %ecx
digit:
	rolq	$4, %rdx
	movl	%edx, %eax
	andl	$15, %eax
	leaq	digits(%rip), %rsi
	movb	(%rsi,%rax), %al
	stosb
	decl	%ecx
	jnz	digit
	movb	$0, (%rdi)
	movl	$ZERO_PAGE, %esi
	movl	$KERNEL_ENTRY, %eax
	jmp	*%rax

option:	.ascii	" kexec_jump_back_entry=0x"
option_end:
digits:	.ascii	"0123456789abcdef"
