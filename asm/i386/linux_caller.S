# linux_caller, i386: what Linux's machine_kexec does around its call of relocate_kernel, for kernel A.
#
#   unsigned long linux_caller(entry_list, page_list[], start, has_pae, preserve_context)   all on the stack
#
# The loader copies this file to a page of its own, which A has in its direct map, and fills the words at the end.
# A calls it as it would call relocate_new_kernel, and gets back what relocate_kernel gives, with GDTR, IDTR and flags as
# they were.  In between GDT and IDT have the limit 0, as machine_kexec leaves them.
# Afterwards the data segments are loaded before the GDT, as restore_processor_state loads them: from the GDT in force.

.set ARGUMENTS, 5
.set FIRST_ARGUMENT, 32					# from %esp, once all below is pushed

linux_caller:
	pushfl
	subl	$24, %esp
	sgdt	(%esp)
	sidt	8(%esp)
	movw	%ss, 16(%esp)
	movw	%ds, 18(%esp)
	movw	%es, 20(%esp)
	call	here				# the page's linear address: for data, not known when this is assembled
here:
	popl	%eax
	lidt	no_table - here(%eax)
	lgdt	no_table - here(%eax)
	pushl	FIRST_ARGUMENT + 4 * (ARGUMENTS - 1)(%esp)
	pushl	FIRST_ARGUMENT + 4 * (ARGUMENTS - 1)(%esp)
	pushl	FIRST_ARGUMENT + 4 * (ARGUMENTS - 1)(%esp)
	pushl	FIRST_ARGUMENT + 4 * (ARGUMENTS - 1)(%esp)
	pushl	FIRST_ARGUMENT + 4 * (ARGUMENTS - 1)(%esp)
call_stub:
	call	*stub_entry - here(%eax)
stub_returned:
	addl	$4 * ARGUMENTS, %esp
	lidt	8(%esp)
restore_segments:
	movw	16(%esp), %ss
	movw	18(%esp), %ds
	movw	20(%esp), %es
	lgdt	(%esp)
	addl	$24, %esp
	popfl
	ret

	.balign	8, 0
no_table:	.quad	0
# filled by the loader
stub_entry:	.long	0
