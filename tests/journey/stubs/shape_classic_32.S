# A stub in the shape of Linux's i386 relocate_kernel, written for the tests of the loader: the same first instructions,
# the same convention, data in the second half of the page.  For GNU as and ld.
#
#   relocate_kernel(entry list, page_list, start, has_pae, preserve_context), all on the stack

	.set	PAGE_SIZE, 4096
	.set	PA_CONTROL_PAGE, 0			# of page_list
	.set	VA_CONTROL_PAGE, 4
	.set	PA_PGD, 8
	.set	PA_SWAP_PAGE, 12
	.set	SAVED_ESP, 2048				# of the page
	.set	SAVED_CR0, SAVED_ESP + 4
	.set	SAVED_CR3, SAVED_ESP + 8
	.set	SAVED_CR4, SAVED_ESP + 12
	.set	CONTROL_PAGE, SAVED_ESP + 16
	.set	PGD, SAVED_ESP + 20
	.set	SWAP_PAGE, SAVED_ESP + 24
	.set	LIST, SAVED_ESP + 28
	.set	ARGUMENTS, 24				# from the stack pointer, once the registers are pushed

	.text
	.balign	PAGE_SIZE
	.globl	relocate_kernel
relocate_kernel:
	push	%ebx
	push	%esi
	push	%edi
	push	%ebp
	pushfl
	mov	ARGUMENTS + 4(%esp), %ebp
	mov	VA_CONTROL_PAGE(%ebp), %edi
	mov	%esp, SAVED_ESP(%edi)
	mov	%cr0, %eax
	mov	%eax, SAVED_CR0(%edi)
	mov	%cr3, %eax
	mov	%eax, SAVED_CR3(%edi)
	mov	%cr4, %eax
	mov	%eax, SAVED_CR4(%edi)
	mov	ARGUMENTS(%esp), %ebx
	mov	ARGUMENTS + 8(%esp), %edx
	mov	ARGUMENTS + 12(%esp), %ecx
	mov	ARGUMENTS + 16(%esp), %esi
	pushl	$0
	popfl
	mov	%edi, CONTROL_PAGE(%edi)
	mov	PA_PGD(%ebp), %eax
	mov	%eax, PGD(%edi)
	mov	PA_SWAP_PAGE(%ebp), %eax
	mov	%eax, SWAP_PAGE(%edi)
	mov	%ebx, LIST(%edi)
	mov	PGD(%edi), %eax
	mov	PA_CONTROL_PAGE(%ebp), %edi
	mov	%eax, %cr3
	lea	PAGE_SIZE(%edi), %esp
	mov	%edi, %eax
	add	$(identity_mapped - relocate_kernel), %eax
	push	%eax
	ret

identity_mapped:
	push	$0
	push	%edx
	mov	%cr0, %eax
	and	$~0x8005000c, %eax			# PG, AM, WP, TS, EM
	mov	%eax, %cr0
	jmp	1f
1:	mov	%cr4, %eax
	and	$~0x80, %eax				# CR4.PGE
	mov	%eax, %cr4
	test	%ecx, %ecx
	jz	1f
	xor	%eax, %eax
	mov	%eax, %cr4
1:	xor	%eax, %eax
	mov	%eax, %cr3
	mov	SWAP_PAGE(%edi), %ecx
	push	%esi
	call	swap_pages
	pop	%esi
	xor	%eax, %eax
	mov	%eax, %cr3
	test	%esi, %esi
	jnz	1f
	xor	%eax, %eax
	ret
1:	pop	%edx
	call	here
here:
	pop	%eax
	and	$-PAGE_SIZE, %eax
	mov	SWAP_PAGE(%eax), %esp
	add	$PAGE_SIZE, %esp
	call	*%edx
	mov	(%esp), %ebp
	call	back
back:
	pop	%edi
	and	$-PAGE_SIZE, %edi
	lea	PAGE_SIZE(%edi), %esp
	mov	LIST(%edi), %ebx
	mov	SWAP_PAGE(%edi), %ecx
	push	%edi
	call	swap_pages
	pop	%edi
	mov	PGD(%edi), %eax
	mov	%eax, %cr3
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	mov	CONTROL_PAGE(%edi), %edi
	lea	PAGE_SIZE(%edi), %esp
	mov	%edi, %eax
	add	$(virtual_mapped - relocate_kernel), %eax
	push	%eax
	ret

virtual_mapped:
	mov	SAVED_CR4(%edi), %eax
	mov	%eax, %cr4
	mov	SAVED_CR3(%edi), %eax
	mov	%eax, %cr3
	mov	SAVED_CR0(%edi), %eax
	mov	%eax, %cr0
	mov	SAVED_ESP(%edi), %esp
	mov	%ebp, %eax
	popfl
	pop	%ebp
	pop	%edi
	pop	%esi
	pop	%ebx
	ret

swap_pages:						# %ebx first entry, %ecx swap page; keeps %ebp
	push	%ebp
	mov	%ecx, %ebp				# swap page
	mov	%ebx, %ecx
	jmp	2f
1:	mov	(%ebx), %ecx
	add	$4, %ebx
2:	mov	%ecx, %eax
	and	$-PAGE_SIZE, %eax
	test	$1, %cl
	cmovnz	%eax, %edx
	jnz	1b
	test	$2, %cl
	cmovnz	%eax, %ebx
	jnz	1b
	test	$4, %cl
	jnz	3f
	test	$8, %cl
	jz	1b
	mov	%eax, %esi				# source to swap page
	mov	%ebp, %edi
	mov	$1024, %ecx
	rep movsl
	mov	%edx, %esi				# destination to source
	mov	%eax, %edi
	mov	$1024, %ecx
	rep movsl
	mov	%ebp, %esi				# swap page to destination
	mov	%edx, %edi
	mov	$1024, %ecx
	rep movsl
	mov	%edi, %edx
	jmp	1b
3:	pop	%ebp
	ret
	int3

	.section .rodata, "a"
	.asciz	"Linux version 6.9.0-shape (nobody@nowhere) #1 SMP"
