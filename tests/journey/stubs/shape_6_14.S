# A stub in the shape of Linux 6.14's relocate_kernel, written for the tests of the loader: the same two sections, the
# same names for what the kernel fills, the same convention.  For GNU as.
#
#   relocate_kernel(%rdi entry list, %rsi physical control page, %rdx start, %rcx preserve_context, %r8 0)

	.set	PAGE_SIZE, 4096
	.set	GDTR_AT, 0x9a				# of the GDTR in saved_context

	.section .data..relocate_kernel, "a"
saved_rsp:	.quad	0
saved_cr0:	.quad	0
saved_cr3:	.quad	0
saved_cr4:	.quad	0
	.globl	kexec_va_control_page, kexec_pa_table_page, kexec_pa_swap_page
kexec_va_control_page:	.quad	0
kexec_pa_table_page:	.quad	0
kexec_pa_swap_page:	.quad	0
pa_backup_pages_map:	.quad	0

	.section .text..relocate_kernel, "ax"
	.skip	16, 0xcc				# the entry need not begin the page
	.globl	relocate_kernel
relocate_kernel:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushfq
	pushq	$0
	popfq
	mov	%cr3, %rax
	mov	kexec_pa_table_page(%rip), %r9
	mov	%r9, %cr3
	mov	%cr4, %r13
	mov	%r13, %r12
	and	$~0x80, %r12				# CR4.PGE: the page may be mapped global and read-only
	mov	%r12, %cr4
	mov	%rax, saved_cr3(%rip)
	mov	%r13, saved_cr4(%rip)
	mov	%rsp, saved_rsp(%rip)
	mov	%cr0, %rax
	mov	%rax, saved_cr0(%rip)
	mov	%rdi, pa_backup_pages_map(%rip)
	mov	%ecx, %r11d
	lea	PAGE_SIZE(%rsi), %rsp
	lea	identity_mapped - relocate_kernel + 16(%rsi), %rax
	jmp	*%rax

identity_mapped:
	push	$0
	push	%rdx
	mov	%cr0, %rax
	and	$~0x5000c, %eax				# AM, WP, TS, EM
	mov	%rax, %cr0
	and	$0x1020, %r13d				# PAE, LA57
	mov	%r13, %cr4
	call	swap_pages
	mov	%cr3, %rax
	mov	%rax, %cr3
	test	%r11d, %r11d
	jnz	1f
	xor	%eax, %eax
	ret
1:	pop	%rdx
	mov	kexec_pa_swap_page(%rip), %rsp
	add	$PAGE_SIZE, %rsp
	push	%rdx
	call	*%rdx
	pop	%rbp
	mov	kexec_pa_table_page(%rip), %rax
	mov	%rax, %cr3
	lea	relocate_kernel(%rip), %rax
	and	$-PAGE_SIZE, %rax
	lea	PAGE_SIZE(%rax), %rsp
	mov	pa_backup_pages_map(%rip), %rdi
	mov	$1, %r11d
	call	swap_pages
	mov	kexec_va_control_page(%rip), %rax
	add	$(virtual_mapped - relocate_kernel + 16), %rax
	push	%rax
	ret

virtual_mapped:
	mov	saved_rsp(%rip), %rsp
	mov	saved_cr4(%rip), %rax
	mov	%rax, %cr4
	mov	saved_cr3(%rip), %rax
	mov	%rax, %cr3
	mov	saved_cr0(%rip), %rax
	mov	%rax, %cr0
	mov	$saved_context, %rax
	lgdt	GDTR_AT(%rax)
	mov	%rbp, %rax
	popfq
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

swap_pages:						# %rdi first entry, %r11d: exchange, else copy
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
	jnz	4f
	test	$8, %cl
	jz	1b
	mov	%rax, %rsi
	mov	%rdi, %rdx
	test	%r11d, %r11d
	jz	3f
	mov	kexec_pa_swap_page(%rip), %rdi
	mov	$512, %ecx
	rep movsq
	mov	%rdx, %rsi
	mov	%rax, %rdi
	mov	$512, %ecx
	rep movsq
	mov	kexec_pa_swap_page(%rip), %rsi
	mov	%rdx, %rdi
3:	mov	$512, %ecx
	rep movsq
	jmp	1b
4:	ret
