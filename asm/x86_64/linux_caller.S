# linux_caller, x86-64: what Linux's machine_kexec does around its call of relocate_kernel, for kernel A.
#
#   unsigned long linux_caller(entry_list, ignored, start, flags)
#                               %rdi       %rsi     %rdx   %rcx
#
# The loader copies this file to a page of its own, which A has in its direct map, and fills the words at the end.
# A calls it as it would call relocate_new_kernel, and gets back what relocate_kernel gives, with GDTR, IDTR, CR3 and
# flags as they were.  In between:
#   * GDT and IDT have the limit 0, as machine_kexec leaves them;
#   * %rsi is what the form of the stub wants, %r8 (host_mem_enc_active) is 0;
#   * where the stub belongs to the kernel's text, CR3 is that of tables equal to A's but for the page at which the
#     kernel is linked to have it: A itself may have something else there.
# Afterwards the data segments are loaded before the GDT, as restore_processor_state loads them: from the GDT in force.

.include "x86.inc"

# %rax to CR3, and away with all translations: those of text are global, which a load of CR3 does not drop.
# Clobbers %r8, %r10.
.macro switch_tables
	movq	%cr4, %r8
	movq	%r8, %r10
	andq	$~CR4_PGE, %r10
	movq	%r10, %cr4
	movq	%rax, %cr3
	movq	%r8, %cr4
.endm

linux_caller:
	pushfq
	cli
	movq	%cr3, %rax
	pushq	%rax
	subq	$32, %rsp
	sgdt	(%rsp)
	sidt	16(%rsp)
	movw	%ss, 10(%rsp)
	movw	%ds, 12(%rsp)
	movw	%es, 14(%rsp)
	lidt	no_table(%rip)
	lgdt	no_table(%rip)

	movq	caller_cr3(%rip), %rax
	switch_tables
	movq	caller_rsi(%rip), %rsi
	xorl	%r8d, %r8d
call_stub:
	call	*stub_entry(%rip)
stub_returned:
	movq	%rax, %r9
	lidt	16(%rsp)
restore_segments:
	movw	10(%rsp), %ss
	movw	12(%rsp), %ds
	movw	14(%rsp), %es
	lgdt	(%rsp)
	addq	$32, %rsp
	popq	%rax
	switch_tables
	movq	%r9, %rax
	popfq
	ret

	.balign	8, 0
no_table:	.quad	0, 0
# filled by the loader
caller_cr3:	.quad	0
caller_rsi:	.quad	0
stub_entry:	.quad	0
page_list:	.quad	0, 0, 0, 0			# classic form: PA_CONTROL, VA_CONTROL, PA_TABLE, PA_SWAP
