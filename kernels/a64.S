# Kernel A for x86_64: the kernel that is suspended and must find itself unharmed.
#
# Who jumps here: a boot loader, by the 64-bit boot protocol, at image_start + ENTRY64_OFFSET: long mode, identity map
# over RAM, CS=BOOT_CS DS=ES=SS=BOOT_DS, IF=0, rsi = boot_params (physical), a small stack that we leave at once.
#
# A boots, fills all RAM it can with a pattern, keeps copies of its own pages, and calls relocate_new_kernel. When that
# call returns, another kernel has had the machine. A puts its processor and devices in order and then looks at every
# byte. Assembled with LA57=0 (4-level paging) or LA57=1 (5-level).
#
# Address space: X86_64_TEXT_BASE + physical for this image, X86_64_DIRECT_BASE + physical for all RAM. Nothing else.

.include "x86.inc"
.include "boot.inc"
.include "kexec.inc"
.include "ports.inc"
.include "jump_page.inc"
.include "macros64.inc"

.set KERNEL_CS, 0x10
.set KERNEL_DS, 0x18
.set KERNEL_TSS, 0x20
.set KERNEL_LDT, 0x30
.set LDT_DATA, 0x04					# first descriptor of the LDT, RPL 0
.set IRQ_BASE, 0x20
.set IDT_VECTORS, IRQ_BASE + 16
.set HOSTILE_DEBUG_RETURNS, 0				# A's #DB handler is like its others

.set MAX_RAM, 0x10000000				# A has page tables for 256 MiB
.set POOL_PAGES, MAX_RAM >> LARGE_PAGE_SHIFT
.set KEPT_MAX, POOL_PAGES + 32				# pages from image_start to the end of the pool, at most
.set BUSY_MAP_BYTES, 0x8000				# one bit a page frame of 1 GiB
.set TEXT_FLAGS, PTE_P | PTE_RW | PTE_A | PTE_D | PTE_PS | PTE_G
.set DIRECT_FLAGS_LOW, PTE_P | PTE_RW | PTE_A | PTE_D | PTE_G	# and PTE_NX
.set TOP_LEVEL_SHIFT, 39				# of a 4-level linear address
.set INDEX_MASK, 0x1ff
.set DIRECT_INDEX, (X86_64_DIRECT_BASE >> 39) & 0x1ff
.set TEXT_INDEX, 511					# the last entry, of the PML5 and of the PML4
.set TEXT_PDPT_INDEX, 510				# X86_64_TEXT_BASE is 2 GiB under the top

.set FS_BASE_VALUE, 0x00007f00f5f5f000			# recognisable, canonical, mapped nowhere
.set KERNEL_GS_VALUE, 0x00007e00e6e6e000
.set STAR_VALUE, 0x0023001000000000			# SYSRET and SYSCALL selectors
.set SFMASK_VALUE, EFLAGS_TF | EFLAGS_IF | EFLAGS_DF | EFLAGS_AC | EFLAGS_NT
.set FCW_VALUE, 0x027f					# masked, 53 bits of precision
.set MXCSR_VALUE, 0x5f80				# masked, round up
.set FX_FCW, 0						# offsets in an FXSAVE area
.set FX_MXCSR, 24
.set FX_ST0, 32
.set FX_XMM0, 160
.set FX_XMM_END, 416
.set FX_SIZE, 512
.set XMM_STEP, 0x0101010101010101
.set XMM_FIRST, 0x1716151413121110
.set RING_BYTES, 64
.set RING_PERIOD, 20000				# ticks between two stores
.set RBX_VALUE, 0xb0b1b2b3b4b5b6b7			# recognisable callee-saved registers
.set RBP_VALUE, 0xd0d1d2d3d4d5d6d7
.set R12_VALUE, 0x1212121212121212
.set R13_VALUE, 0x1313131313131313
.set R14_VALUE, 0x1414141414141414
.set R15_VALUE, 0x1515151515151515

image_start:						# an i386 kernel would start here
	hlt
	jmp	image_start

	.balign	ENTRY64_OFFSET, 0
entry64:
	cli
	cld
	lea	stack_top(%rip), %rsp		# at its physical address until the tables are ours
	call	copy_boot_params
	call	start_serial
	call	count_ram
	cmp	$(MAX_RAM >> PAGE_SHIFT), %rbx
	ja	refuse_ram
	mov	%rax, ram_pages(%rip)
	mov	%rbx, top_frame(%rip)
	call	build_address_space
	jmp	enter_address_space

refuse_ram:
	line	text_ram_above
	mov	$MAX_RAM, %ecx
	say_hex	%rcx
	say	text_is_refused
	end_line
	exit_with STATUS_FAILED

# ---- address space ----------------------------------------------------------------------------------------------

# Fills our tables. Runs on the loader's identity map, so labels are physical and linear addresses alike. Every
# entry has A, and each leaf D, set from the start: the processor then never writes to a table.
build_address_space:
	movq	$(pml4 + TABLE_FLAGS), pml5+TEXT_INDEX*8(%rip)
	movq	$(direct_pdpt + TABLE_FLAGS), pml4+DIRECT_INDEX*8(%rip)
	movq	$(text_pdpt + TABLE_FLAGS), pml4+TEXT_INDEX*8(%rip)
	movq	$(direct_pd + TABLE_FLAGS), direct_pdpt(%rip)
	movq	$(text_pd + TABLE_FLAGS), text_pdpt+TEXT_PDPT_INDEX*8(%rip)

	# text window: large pages over the image
	mov	$KERNEL_BASE, %eax
	lea	text_pd+(KERNEL_BASE>>LARGE_PAGE_SHIFT)*8(%rip), %rdi
1:	lea	TEXT_FLAGS(%rax), %rcx
	mov	%rcx, (%rdi)
	add	$8, %rdi
	add	$LARGE_PAGE_SIZE, %rax
	cmp	$image_end, %rax
	jb	1b

	# direct map: as many tables as hold top_frame page frames, then an entry for each page of RAM
	mov	top_frame(%rip), %rcx
	add	$(PAGE_QWORDS - 1), %rcx
	shr	$(LARGE_PAGE_SHIFT - PAGE_SHIFT), %rcx
	mov	%ecx, pool_used(%rip)
	lea	direct_pd(%rip), %rdi
	mov	$(pool + TABLE_FLAGS), %eax
2:	stosq
	add	$PAGE_SIZE, %rax
	dec	%ecx
	jnz	2b

	movabs	$(PTE_NX + DIRECT_FLAGS_LOW), %r11
	call	first_ram
	jmp	5f
3:	lea	pool(%rip), %rdi
	lea	(%rdi,%rax,8), %rdi
	shl	$PAGE_SHIFT, %rax
	or	%r11, %rax
4:	stosq
	add	$PAGE_SIZE, %rax
	dec	%rcx
	jnz	4b
	call	next_ram
5:	jnc	3b
	ret

# From the loader's tables to ours. The loader's first top-level entry, which holds the identity map, is lent to our
# tables for the few instructions between the load of CR3 and the jump to the text window.
enter_address_space:
	mov	$MSR_EFER, %ecx
	rdmsr
	or	$(EFER_SCE | EFER_NXE), %eax
	wrmsr
	mov	%cr3, %rax
	and	$CR3_ADDRESS, %rax
	mov	(%rax), %rdx
.if LA57
	mov	%rdx, pml5(%rip)
	mov	$pml5, %eax
.else
	mov	%rdx, pml4(%rip)
	mov	$pml4, %eax
.endif
	mov	%rax, %cr3
	movabs	$(X86_64_TEXT_BASE + 1f), %rcx
	jmp	*%rcx
1:	lea	stack_top(%rip), %rsp
	movq	$0, pml5(%rip)			# the loan ends
	movq	$0, pml4(%rip)
	mov	%rax, %cr3
	mov	$CR4_KERNEL, %eax
	mov	%rax, %cr4
	mov	$CR0_KERNEL, %eax
	mov	%rax, %cr0

# ---- boot ---------------------------------------------------------------------------------------------------------

main:
	call	build_idt
	call	build_tss
	lea	ldt(%rip), %rax
	lea	gdt_ldt(%rip), %rdi
	call	set_base
	call	load_tables
	mov	$KERNEL_LDT, %eax
	lldt	%ax
	line	text_kernel
	say	text_arch
	say_decimal ram_pages(%rip)
	say	text_pages_of_ram
	end_line
	call	load_msrs
	call	load_fpu
	mov	$DR7_NONE, %eax
	mov	%rax, %dr7
	call	parse_command_line
	call	say_parsed
	host_request HOST_PARSED
	mov	$IRQ_BASE, %al
	call	start_pic
	call	start_timer
	call	start_ring
	sti
	mov	$1, %ecx
	call	wait_ticks
	line	text_interrupts
	say_decimal ticks(%rip)
	say	text_ticks
	end_line

load:
	host_request HOST_LOAD
	mov	kexec_params+KEXEC_PARAMS_STATUS(%rip), %rbx
	test	%rbx, %rbx
	jz	1f
	line	text_load_refused
	neg	%rbx
	say_decimal %rbx
	end_line
	exit_with STATUS_FAILED
1:	line	text_loaded
	say_decimal kexec_params+KEXEC_PARAMS_PAGES(%rip)
	say	text_pages_entry
	say_hex	kexec_params+KEXEC_PARAMS_ENTRY_VA(%rip)
	end_line
	mov	kexec_params+KEXEC_PARAMS_START(%rip), %rax
	mov	%rax, peer_start(%rip)
	mov	kexec_params+KEXEC_PARAMS_JUMP_PAGE_VA(%rip), %rax
	cmpq	$0, kexec_params+KEXEC_PARAMS_JUMP_PAGE(%rip)
	je	2f
	mov	JUMP_PAGE_SEQUENCE(%rax), %rax
	mov	%rax, sequence_before(%rip)
2:	call	seal
	line	text_sealed
	say_decimal sealed_pages(%rip)
	say	text_pages_kept
	say_decimal kept_pages(%rip)
	say	text_of_text
	end_line
	line	text_jumping
	end_line
jump:
	movabs	$RBX_VALUE, %rbx
	movabs	$RBP_VALUE, %rbp
	movabs	$R12_VALUE, %r12
	movabs	$R13_VALUE, %r13
	movabs	$R14_VALUE, %r14
	movabs	$R15_VALUE, %r15
	jmp	suspend_begin

.include "lib64.inc"
.include "traps64.inc"
.include "cmdline64.inc"
.include "state64.inc"
.include "seal64.inc"

# ---- state of A that a jump must not lose ---------------------------------------------------------------------------

load_msrs:	# SYSCALL registers, FS and GS bases. Clobbers rax, rcx, rdx.
	mov	$KERNEL_DS, %eax
	mov	%eax, %fs
	mov	$LDT_DATA, %eax
	mov	%eax, %gs
	load_msr MSR_STAR, STAR_VALUE
	load_msr MSR_LSTAR, X86_64_TEXT_BASE + syscall_entry
	load_msr MSR_SFMASK, SFMASK_VALUE
	load_msr MSR_FS_BASE, FS_BASE_VALUE
	load_msr MSR_GS_BASE, X86_64_TEXT_BASE + image_start
	load_msr MSR_KERNEL_GS_BASE, KERNEL_GS_VALUE
	ret

syscall_entry:						# nobody makes a system call
	exit_with STATUS_FAILED

load_fpu:	# eight x87 constants, sixteen xmm patterns; fpu_expected is what FXSAVE gives. Clobbers rax, rcx, rdx, rdi.
	fninit
	fld1
	fldl2t
	fldl2e
	fldpi
	fldlg2
	fldln2
	fld1
	fldpi
	lea	fpu_expected(%rip), %rdx
	fxsave64 (%rdx)
	movw	$FCW_VALUE, FX_FCW(%rdx)
	movl	$MXCSR_VALUE, FX_MXCSR(%rdx)
	lea	FX_XMM0(%rdx), %rdi
	movabs	$XMM_FIRST, %rax
	movabs	$XMM_STEP, %r8
	mov	$((FX_XMM_END - FX_XMM0) / 8), %ecx
1:	stosq
	add	%r8, %rax
	dec	%ecx
	jnz	1b
	fxrstor64 (%rdx)
	ret

start_ring:	# the bus master writes into our ring. Clobbers rax, rdx.
	out_long $ring, BUS_MASTER_RING
	out_long $RING_BYTES, BUS_MASTER_LENGTH
	out_long $RING_PERIOD, BUS_MASTER_PERIOD
	out_long $1, BUS_MASTER_CONTROL
	ret

# ---- texts ----------------------------------------------------------------------------------------------------------

prefix:			.asciz	"A| "
text_kernel:		.asciz	"kernel A, "
text_ram_above:		.asciz	"RAM above "
text_is_refused:	.asciz	" is refused"
text_interrupts:	.asciz	"interrupts on, "
text_ticks:		.asciz	" ticks"
text_load_refused:	.asciz	"load refused, errno "
text_loaded:		.asciz	"loaded "
text_pages_entry:	.asciz	" pages, entry "
text_sealed:		.asciz	"sealed "
text_pages_kept:	.asciz	" pages, kept "
text_of_text:		.asciz	" pages of text and tables"
text_jumping:		.asciz	"jumping"

# ---- data that is settled before the seal -------------------------------------------------------------------------

	.balign	PAGE_SIZE, 0			# text has pages of its own
gdt:							# accessed bits set: the processor writes only the busy bit
	.quad	0, 0
	.quad	0x00af9b000000ffff		# KERNEL_CS: 64-bit code
	.quad	0x00cf93000000ffff		# KERNEL_DS
gdt_tss:
	.quad	0x0000890000000067, 0		# KERNEL_TSS: limit TSS_SIZE - 1; base by build_tss
gdt_ldt:
	.quad	0x0000820000000007, 0		# KERNEL_LDT: one descriptor; base by main
gdt_end:
ldt:	.quad	0x00cf93000000ffff		# LDT_DATA
tss:	.space	TSS_SIZE
	.balign	16, 0
idt:	.space	IDT_VECTORS * IDT_GATE_SIZE
fpu_expected:	.space	FX_SIZE
parsed:		.space	PARSED_BYTES
ram_pages:	.quad	0
top_frame:	.quad	0			# first page frame above all RAM
pool_used:	.quad	0			# page tables of the pool in use
kept_pages:	.quad	0
sealed_pages:	.quad	0
kexec_params:	.space	KEXEC_PARAMS_SIZE
	.balign	8, 0
command_line:	.space	COMMAND_LINE_SIZE
boot_params:	.space	PAGE_SIZE
busy_map:	.space	BUSY_MAP_BYTES

	.balign	PAGE_SIZE, 0
pml5:		.space	PAGE_SIZE
pml4:		.space	PAGE_SIZE
direct_pdpt:	.space	PAGE_SIZE
text_pdpt:	.space	PAGE_SIZE
direct_pd:	.space	PAGE_SIZE
text_pd:	.space	PAGE_SIZE
pool:		.space	POOL_PAGES * PAGE_SIZE		# page tables of the direct map, the last of the kept pages

# ---- copies of all the above ----------------------------------------------------------------------------------------

kept_copy:	.space	KEPT_MAX * PAGE_SIZE
kept_sums:	.space	KEPT_MAX * 8
kept_sums_copy:	.space	KEPT_MAX * 8

# ---- what may change across a jump ------------------------------------------------------------------------------------

	.balign	16, 0
volatile_begin:
saved_fpu:	.space	FX_SIZE
fpu_now:	.space	FX_SIZE
ring:		.space	RING_BYTES
saved_msrs:	.space	8 * MSRS
saved_gdt:	.space	16
saved_idt:	.space	16
saved_fs:	.quad	0
saved_gs:	.quad	0
saved_flags:	.quad	0
expected:	.space	PRESERVED * 8
arrived:	.space	PRESERVED * 8
back_value:	.quad	0
peer_start:	.quad	0
rounds_done:	.quad	0
reloads_done:	.quad	0
sequence_before:	.quad	0
ticks:		.quad	0
ticks_before:	.quad	0
seal_errors:	.quad	0
pages_seen:	.quad	0
pages_good:	.quad	0
		.space	1024
	.balign	16, 0
ist_nmi:
		.space	1024
ist_double_fault:
		.space	2048
stack_top:
volatile_end:
	.balign	PAGE_SIZE, 0
image_end:
