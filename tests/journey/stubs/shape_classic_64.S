# A stub in the shape of Linux's x86-64 relocate_kernel before 6.14, written for the tests of the loader: the same first
# instructions, the same convention, data in the second half of the page, and the absolute address of its own last part.
# For GNU as and ld.
#
#   relocate_kernel(%rdi entry list, %rsi page_list, %rdx start, %rcx preserve_context, %r8 0)

	.set	PAGE_SIZE, 4096
	.set	PA_CONTROL_PAGE, 0			# of page_list
	.set	VA_CONTROL_PAGE, 8
	.set	PA_TABLE_PAGE, 16
	.set	PA_SWAP_PAGE, 24
	.set	SAVED_RSP, 2048				# of the page
	.set	SAVED_CR0, SAVED_RSP + 8
	.set	SAVED_CR3, SAVED_RSP + 16
	.set	SAVED_CR4, SAVED_RSP + 24
	.set	TABLE_PAGE, SAVED_RSP + 32
	.set	SWAP_PAGE, SAVED_RSP + 40
	.set	LIST, SAVED_RSP + 48

	.text
	.balign	PAGE_SIZE
	.globl	relocate_kernel
relocate_kernel:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushfq
	mov	VA_CONTROL_PAGE(%rsi), %r11
	mov	%rsp, SAVED_RSP(%r11)
	mov	%cr0, %rax
	mov	%rax, SAVED_CR0(%r11)
	mov	%cr3, %rax
	mov	%rax, SAVED_CR3(%r11)
	mov	%cr4, %rax
	mov	%rax, SAVED_CR4(%r11)
	mov	%rax, %r13
	pushq	$0
	popfq
	mov	PA_CONTROL_PAGE(%rsi), %r8
	mov	PA_TABLE_PAGE(%rsi), %r9
	mov	PA_SWAP_PAGE(%rsi), %r10
	mov	%r9, TABLE_PAGE(%r11)
	mov	%r10, SWAP_PAGE(%r11)
	mov	%rdi, LIST(%r11)
	mov	%r9, %cr3
	lea	PAGE_SIZE(%r8), %rsp
	add	$(identity_mapped - relocate_kernel), %r8
	push	%r8
	ret

identity_mapped:
	push	$0
	push	%rdx
	mov	%cr0, %rax
	and	$~0x5000c, %eax				# AM, WP, TS, EM
	mov	%rax, %cr0
	and	$0x1020, %r13d				# PAE, LA57: CR4.PGE goes, and with it the old global translations
	mov	%r13, %cr4
	mov	%r9, %cr3
	mov	%ecx, %r11d
	call	swap_pages
	mov	%cr3, %rax
	mov	%rax, %cr3
	test	%r11d, %r11d
	jnz	1f
	xor	%eax, %eax
	ret
1:	pop	%rdx
	lea	PAGE_SIZE(%r10), %rsp
	call	*%rdx
	mov	(%rsp), %rbp
	lea	relocate_kernel(%rip), %r8
	mov	SWAP_PAGE(%r8), %r10
	mov	LIST(%r8), %rdi
	mov	TABLE_PAGE(%r8), %rax
	mov	%rax, %cr3
	lea	PAGE_SIZE(%r8), %rsp
	call	swap_pages
	mov	$virtual_mapped, %rax
	push	%rax
	ret

virtual_mapped:
	mov	SAVED_RSP(%r8), %rsp
	mov	SAVED_CR4(%r8), %rax
	mov	%rax, %cr4
	mov	SAVED_CR3(%r8), %rax
	mov	SAVED_CR0(%r8), %r8
	mov	%rax, %cr3
	mov	%r8, %cr0
	mov	%rbp, %rax
	popfq
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

swap_pages:						# %rdi first entry, %r10 swap page
	mov	%rdi, %rcx
	jmp	2f
1:	mov	(%rbx), %rcx
	add	$8, %rbx
2:	mov	%rcx, %rax
	and	$-PAGE_SIZE, %rax
	test	$1, %cl
	cmovnz	%rax, %rdi
	jnz	1b
	test	$2, %cl
	cmovnz	%rax, %rbx
	jnz	1b
	test	$4, %cl
	jnz	3f
	test	$8, %cl
	jz	1b
	mov	%rax, %rsi
	mov	%rdi, %rdx
	mov	%r10, %rdi
	mov	$512, %ecx
	rep movsq
	mov	%rdx, %rsi
	mov	%rax, %rdi
	mov	$512, %ecx
	rep movsq
	mov	%r10, %rsi
	mov	%rdx, %rdi
	mov	$512, %ecx
	rep movsq
	jmp	1b
3:	ret
	int3

	.section .rodata, "a"
	.asciz	"Linux version 6.9.0-shape (nobody@nowhere) #1 SMP"
