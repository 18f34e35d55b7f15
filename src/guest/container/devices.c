/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: which devices a control group may use: a program of BPF that the kernel runs
 * for each open(2) and mknod(2) of a device (struct bpf_cgroup_dev_ctx of linux/bpf.h).
 *
 * Of each kind of access that is asked for, the last rule that speaks of it and of the device
 * decides; without one it is refused. All kinds must be allowed. That is what the device controller
 * of version 1 makes of the same list. A block of the program per kind:
 *
 *     is this kind asked for? if not: next block
 *     rules, last one first: does it match? then next block, or return 0
 *     return 0
 *
 * and behind the last block: return 1.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"
#include "kernel.h"

/* Opcodes of linux/bpf.h and linux/bpf_common.h, put together. */
#define LOAD32 0x61      /* BPF_LDX | BPF_MEM | BPF_W */
#define MOV_REG 0xbf     /* BPF_ALU64 | BPF_MOV | BPF_X */
#define MOV_IMM 0xb7     /* BPF_ALU64 | BPF_MOV | BPF_K */
#define AND_IMM 0x57     /* BPF_ALU64 | BPF_AND | BPF_K */
#define SHIFT_RIGHT 0x77 /* BPF_ALU64 | BPF_RSH | BPF_K */
#define JUMP 0x05        /* BPF_JMP | BPF_JA */
#define JUMP_SET 0x45    /* BPF_JMP | BPF_JSET | BPF_K */
#define JUMP_NOT 0x55    /* BPF_JMP | BPF_JNE | BPF_K */
#define LEAVE 0x95       /* BPF_JMP | BPF_EXIT */

enum { R_RESULT = 0, R_CTX = 1, R_TYPE = 2, R_ACCESS = 3, R_MAJOR = 4, R_MINOR = 5 };
#define KERNEL_BLOCK 1 /* BPF_DEVCG_DEV_BLOCK */
#define KERNEL_CHAR 2  /* BPF_DEVCG_DEV_CHAR; DEV_* are BPF_DEVCG_ACC_* */

struct program {
	struct k_bpf_insn *v;
	size_t n;
	bool full; /* no memory */
};

static size_t emit(struct program *p, uint8_t code, unsigned regs, int off, int imm)
{
	struct k_bpf_insn *i = PUSH(p->v, p->n);

	if (!i) {
		p->full = true;
		return 0;
	}
	*i = (struct k_bpf_insn){code, (uint8_t)regs, (int16_t)off, imm};
	return p->n - 1;
}

/* The jump at `from` leads to the end of what there is. */
static void land(struct program *p, size_t from)
{
	if (!p->full)
		p->v[from].off = (int16_t)(p->n - from - 1);
}

static void refuse(struct program *p)
{
	emit(p, MOV_IMM, R_RESULT, 0, 0);
	emit(p, LEAVE, 0, 0, 0);
}

/* Returns whether it matches everything: nothing behind it can be reached, and the kernel refuses a
 * program with such a part. A rule that allows jumps to the next block; *chain links those jumps,
 * whose ends are not known yet, by their offsets. */
static bool emit_rule(struct program *p, const struct devrule *r, size_t *allowed, size_t *n)
{
	size_t miss[3], misses = 0;

	if (r->type != 'a')
		miss[misses++] =
			emit(p, JUMP_NOT, R_TYPE, 0, r->type == 'b' ? KERNEL_BLOCK : KERNEL_CHAR);
	if (r->major >= 0)
		miss[misses++] = emit(p, JUMP_NOT, R_MAJOR, 0, r->major);
	if (r->minor >= 0)
		miss[misses++] = emit(p, JUMP_NOT, R_MINOR, 0, r->minor);
	if (r->allow)
		allowed[(*n)++] = emit(p, JUMP, 0, 0, 0);
	else
		refuse(p);
	for (size_t i = 0; i < misses; i++)
		land(p, miss[i]);
	return misses == 0;
}

static void emit_kind(struct program *p, unsigned kind, const struct devrule *rule, size_t n,
		      size_t *allowed)
{
	size_t asked = emit(p, JUMP_SET, R_ACCESS, 1, (int)kind), count = 0;
	bool all = false;

	(void)asked;
	allowed[count++] = emit(p, JUMP, 0, 0, 0);
	for (size_t i = n; i-- > 0 && !all;)
		if (rule[i].access & kind)
			all = emit_rule(p, &rule[i], allowed, &count);
	if (!all)
		refuse(p);
	for (size_t i = 0; i < count; i++)
		land(p, allowed[i]);
}

int devices_program(const struct devrule *rule, size_t n, struct k_bpf_insn **out, struct err *e)
{
	static const unsigned kinds[] = {DEV_MKNOD, DEV_READ, DEV_WRITE};
	size_t *allowed = calloc(n + 1, sizeof *allowed);
	struct program p = {.full = !allowed};

	*out = NULL;
	emit(&p, LOAD32, R_TYPE | R_CTX << 4, 0, 0);
	emit(&p, MOV_REG, R_ACCESS | R_TYPE << 4, 0, 0);
	emit(&p, SHIFT_RIGHT, R_ACCESS, 0, 16);
	emit(&p, AND_IMM, R_TYPE, 0, 0xffff);
	emit(&p, LOAD32, R_MAJOR | R_CTX << 4, 4, 0);
	emit(&p, LOAD32, R_MINOR | R_CTX << 4, 8, 0);
	for (size_t i = 0; i < COUNT(kinds) && !p.full; i++)
		emit_kind(&p, kinds[i], rule, n, allowed);
	emit(&p, MOV_IMM, R_RESULT, 0, 1);
	emit(&p, LEAVE, 0, 0, 0);
	free(allowed);
	if (p.full) {
		free(p.v);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*out = p.v;
	return (int)p.n;
}

/* What config-linux.md of the runtime specification has in every container, and mknod(2) of
 * anything, which is of no use without the right to open it. */
static const struct devrule always[] = {
	{true, 'c', -1, -1, DEV_MKNOD},
	{true, 'b', -1, -1, DEV_MKNOD},
	{true, 'c', 1, 3, DEV_MKNOD | DEV_READ | DEV_WRITE},    /* null */
	{true, 'c', 1, 5, DEV_MKNOD | DEV_READ | DEV_WRITE},    /* zero */
	{true, 'c', 1, 7, DEV_MKNOD | DEV_READ | DEV_WRITE},    /* full */
	{true, 'c', 1, 8, DEV_MKNOD | DEV_READ | DEV_WRITE},    /* random */
	{true, 'c', 1, 9, DEV_MKNOD | DEV_READ | DEV_WRITE},    /* urandom */
	{true, 'c', 5, 0, DEV_MKNOD | DEV_READ | DEV_WRITE},    /* tty */
	{true, 'c', 5, 1, DEV_MKNOD | DEV_READ | DEV_WRITE},    /* console */
	{true, 'c', 5, 2, DEV_MKNOD | DEV_READ | DEV_WRITE},    /* ptmx */
	{true, 'c', 136, -1, DEV_MKNOD | DEV_READ | DEV_WRITE}, /* pts */
};

static int load(const struct k_bpf_insn *insns, int n)
{
	struct k_bpf_load a = {.prog_type = K_BPF_PROG_TYPE_CGROUP_DEVICE,
			       .insn_cnt = (uint32_t)n,
			       .insns = (uintptr_t)insns,
			       .license = (uintptr_t) "BSD"};
	long fd = syscall(SYS_bpf, K_BPF_PROG_LOAD, &a, sizeof a);

	return fd < 0 ? -errno : (int)fd;
}

static int attach(int group, int prog)
{
	struct k_bpf_attach a = {.target_fd = (uint32_t)group,
				 .attach_bpf_fd = (uint32_t)prog,
				 .attach_type = K_BPF_CGROUP_DEVICE,
				 .attach_flags = K_BPF_F_ALLOW_MULTI};

	return syscall(SYS_bpf, K_BPF_PROG_ATTACH, &a, sizeof a) < 0 ? -errno : 0;
}

int devices_attach(int group, const struct devrule *rule, size_t n, struct err *e)
{
	struct devrule *all = calloc(n + COUNT(always), sizeof *all);
	struct k_bpf_insn *insns;
	int fd, r, len;

	if (!all)
		return err_set(e, -ENOMEM, "out of memory");
	if (n)
		memcpy(all, rule, n * sizeof *all);
	memcpy(all + n, always, sizeof always);
	len = devices_program(all, n + COUNT(always), &insns, e);
	free(all);
	if (len < 0)
		return len;
	fd = load(insns, len);
	free(insns);
	if (fd < 0)
		return err_sys(e, fd, "load the device rules (BPF_PROG_TYPE_CGROUP_DEVICE)");
	r = attach(group, fd);
	close(fd);
	return r ? err_sys(e, r, "attach the device rules to the control group") : 0;
}
