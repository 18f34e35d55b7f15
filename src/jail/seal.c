/* SPDX-License-Identifier: BSD-2-Clause */
/* The last wall: a seccomp allow-list for all threads, after everything that is needed only once.
 */
#include <errno.h>
#include <link.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <insula/base.h>
#include <insula/jail.h>

#define PAGE 4096u

/* One attribute after the other; the order does not matter. x86-64 is the only architecture that
 * libseccomp adds, and it sends x32 numbers to the BADARCH action too. */
static const struct {
	enum scmp_filter_attr attr;
	uint32_t value;
} attrs[] = {
	{SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},
	{SCMP_FLTATR_CTL_NNP, 0},   /* jail_enter() did that; without it the kernel must refuse */
	{SCMP_FLTATR_CTL_TSYNC, 1}, /* all threads or none */
	{SCMP_FLTATR_API_TSKIP, 0}, /* system call -1 is as forbidden as any other */
	{SCMP_FLTATR_API_SYSRAWRC, 1}, /* the kernel's errno, not a summary of it */
	{SCMP_FLTATR_CTL_OPTIMIZE, 2}, /* binary tree: the same cost for the first and the last */
};

static int set_attrs(scmp_filter_ctx ctx, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(attrs); i++) {
		int rc = seccomp_attr_set(ctx, attrs[i].attr, attrs[i].value);
		if (rc)
			return err_sys(e, rc, "filter attribute %d", (int)attrs[i].attr);
	}
	return 0;
}

static int add_arg(struct scmp_arg_cmp *out, const struct jail_arg *a)
{
	switch (a->cmp) {
	case JAIL_EQ:
		*out = (struct scmp_arg_cmp){a->index, SCMP_CMP_EQ, a->value, 0};
		return 0;
	case JAIL_MASKED_EQ:
		if (a->value & ~a->mask)
			return -EINVAL; /* never true */
		*out = (struct scmp_arg_cmp){a->index, SCMP_CMP_MASKED_EQ, a->mask, a->value};
		return 0;
	default:
		return -EINVAL;
	}
}

static int add_rule(scmp_filter_ctx ctx, const struct jail_rule *r, struct err *e)
{
	struct scmp_arg_cmp args[ARRAY_LEN(r->arg)];
	unsigned n = 0;
	int rc = r->why ? 0 : -EINVAL;

	for (size_t i = 0; !rc && i < ARRAY_LEN(r->arg); i++) {
		if (r->arg[i].cmp != JAIL_ANY)
			rc = add_arg(&args[n++], &r->arg[i]);
	}
	if (!rc)
		rc = seccomp_rule_add_exact_array(ctx, SCMP_ACT_ALLOW, r->nr, n, args);
	return rc ? err_sys(e, rc, "rule for system call %d (%s)", r->nr,
			    r->why ? r->why : "without a reason")
		  : 0;
}

static int add_rules(scmp_filter_ctx ctx, const struct jail_rule *rules, size_t n, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < n; i++)
		rc = add_rule(ctx, &rules[i], e);
	return rc;
}

/* What has run so far runs once; its code and tables need not stay mapped. The file still has them,
 * and what is needed again comes back by itself. */
static int forget_object(struct dl_phdr_info *o, size_t size, void *ctx)
{
	(void)size;
	(void)ctx;
	for (unsigned i = 0; i < o->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &o->dlpi_phdr[i];
		uintptr_t from = o->dlpi_addr + p->p_vaddr, to = from + p->p_memsz;

		from &= ~(uintptr_t)(PAGE - 1);
		if (p->p_type == PT_LOAD && !(p->p_flags & PF_W))
			(void)madvise((void *)from, to - from, MADV_DONTNEED);
	}
	return 1; /* the program itself comes first, and is enough */
}

int jail_seal(const struct jail_rule *rules, size_t n, struct err *e)
{
	scmp_filter_ctx ctx;
	int rc;

	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return err_set(e, -EPERM, "no_new_privs is not set: jail_enter() comes first");
	ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!ctx)
		return err_set(e, -ENOMEM, "no memory for the filter");
	rc = set_attrs(ctx, e);
	if (!rc)
		rc = add_rules(ctx, jail_base_rules, jail_base_nrules, e);
	if (!rc)
		rc = add_rules(ctx, rules, n, e);
	if (rc)
		goto out_release;
	(void)dl_iterate_phdr(forget_object, NULL);
	rc = seccomp_load(ctx);
	if (rc)
		err_sys(e, rc, "the kernel does not take the filter");
	/* The parent looks again from outside, at every thread: jail_verify(). */
	else if (prctl(PR_GET_SECCOMP) != SECCOMP_MODE_FILTER)
		rc = err_set(e, -EPERM, "the filter is not in force");
out_release:
	/* free() may want munmap or brk, which a sealed program may not have: the filter's memory
	 * stays. */
	if (rc)
		seccomp_release(ctx);
	return rc;
}
