/* SPDX-License-Identifier: BSD-2-Clause */
/* Profiles of system calls. See seccomp.h, seccomp_init(3) and seccomp(2). */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include <insula/base.h>
#include <insula/log.h>

#include "field.h"
#include "oci/seccomp.h"
#include "spec/json.h"

#define SEC "linux.seccomp"
#define ERRNO_MAX 4095 /* the kernel's; more is cut to it there */
#define ARGS_MAX 6u
#define X32_BIT 0x40000000u /* of a number: __X32_SYSCALL_BIT */

struct word {
	const char *name;
	uint32_t value;
};

static const struct word sec_actions[] = {
	{"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD},
	{"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
	{"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
	{"SCMP_ACT_TRAP", SCMP_ACT_TRAP},
	{"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0)},
	{"SCMP_ACT_TRACE", SCMP_ACT_TRACE(0)},
	{"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},
	{"SCMP_ACT_LOG", SCMP_ACT_LOG},
};

static const struct word sec_operators[] = {
	{"SCMP_CMP_NE", SCMP_CMP_NE},
	{"SCMP_CMP_LT", SCMP_CMP_LT},
	{"SCMP_CMP_LE", SCMP_CMP_LE},
	{"SCMP_CMP_EQ", SCMP_CMP_EQ},
	{"SCMP_CMP_GE", SCMP_CMP_GE},
	{"SCMP_CMP_GT", SCMP_CMP_GT},
	{"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
};

/* Those that a process of the guest can use. */
static const struct word sec_archs[] = {
	{"SCMP_ARCH_X86", SCMP_ARCH_X86},
	{"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64},
	{"SCMP_ARCH_X32", SCMP_ARCH_X32},
};

static const struct word sec_flags[] = {
	{"SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC},
	{"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
	{"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
};

static const struct word *find_word(const struct word *list, size_t n, const char *name)
{
	for (size_t i = 0; name && i < n; i++) {
		if (!strcmp(list[i].name, name))
			return &list[i];
	}
	return NULL;
}

/* What is being made. */
struct profile {
	scmp_filter_ctx ctx;
	uint32_t action; /* of what no rule names */
	int highest;     /* number of this architecture that a rule names */
};

/* ---- actions ---- */

static int read_action(json_object *o, const char *where, const char *key, const char *errno_key,
		       uint32_t *out, struct err *e)
{
	const struct word *w;
	const char *name;
	int64_t number = EPERM;
	int given, rc = field_text(o, where, key, &name, e);

	if (rc)
		return rc;
	if (name && !strcmp(name, "SCMP_ACT_NOTIFY"))
		return err_set(e, -EOPNOTSUPP,
			       "%s.%s: SCMP_ACT_NOTIFY: a listener of the host cannot serve a "
			       "process of a VM",
			       where, key);
	w = find_word(sec_actions, ARRAY_LEN(sec_actions), name);
	if (!w)
		return field_wrong(where, key, j_get(o, key), "an action such as SCMP_ACT_ERRNO",
				   e);
	given = field_int(o, where, errno_key, 0, ERRNO_MAX, &number, e);
	if (given < 0)
		return given;
	*out = w->value;
	if (w->value == SCMP_ACT_ERRNO(0) || w->value == SCMP_ACT_TRACE(0))
		*out |= (uint32_t)number;
	else if (given && number)
		return field_wrong(where, errno_key, j_get(o, errno_key),
				   "none, or action SCMP_ACT_ERRNO or SCMP_ACT_TRACE", e);
	return 0;
}

/* ---- rules ---- */

static int read_arg(json_object *a, const char *at, struct scmp_arg_cmp *out, struct err *e)
{
	uint64_t value = 0, second = 0;
	const struct word *op;
	const char *name;
	int64_t index = 0;
	int rc = field_int(a, at, "index", 0, ARGS_MAX - 1, &index, e);

	if (rc >= 0)
		rc = field_u64(a, at, "value", &value, e);
	if (rc >= 0)
		rc = field_u64(a, at, "valueTwo", &second, e);
	if (rc >= 0)
		rc = field_text(a, at, "op", &name, e);
	if (rc < 0)
		return rc;
	op = find_word(sec_operators, ARRAY_LEN(sec_operators), name);
	if (!op)
		return field_wrong(at, "op", j_get(a, "op"), "a comparison such as SCMP_CMP_EQ", e);
	*out = (struct scmp_arg_cmp){.arg = (unsigned)index,
				     .op = (enum scmp_compare)op->value,
				     .datum_a = value,
				     .datum_b = second};
	return 0;
}

static int read_args(json_object *rule, const char *at, struct scmp_arg_cmp args[ARGS_MAX],
		     unsigned *n, struct err *e)
{
	char in[FIELD_WHERE_MAX], where[FIELD_WHERE_MAX];
	json_object *list, *one;
	int rc = field_array(rule, at, "args", &list, e);

	*n = 0;
	field_in(in, at, "args");
	if (!rc && field_count(list) > ARGS_MAX)
		rc = field_wrong(at, "args", list, "at most 6", e);
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, in, i, where, &one, e);
		if (!rc)
			rc = read_arg(one, where, &args[*n], e);
		*n += !rc;
	}
	return rc;
}

static bool same_index_twice(const struct scmp_arg_cmp *args, unsigned n)
{
	unsigned seen = 0;

	for (unsigned i = 0; i < n; i++) {
		if (seen & 1u << args[i].arg)
			return true;
		seen |= 1u << args[i].arg;
	}
	return false;
}

/* A rule cannot look at one argument twice: then each comparison is a rule, as runc has it. */
static int add_rule(struct profile *p, uint32_t action, int number, struct scmp_arg_cmp *args,
		    unsigned n)
{
	int rc = 0;

	if (!same_index_twice(args, n))
		return seccomp_rule_add_array(p->ctx, action, number, n, args);
	for (unsigned i = 0; i < n && !rc; i++)
		rc = seccomp_rule_add_array(p->ctx, action, number, 1, &args[i]);
	return rc;
}

static int one_rule(struct profile *p, json_object *rule, const char *at, struct err *e)
{
	struct scmp_arg_cmp args[ARGS_MAX];
	char in[FIELD_WHERE_MAX];
	json_object *names = NULL;
	const char *name;
	uint32_t action = 0;
	unsigned nargs = 0;
	int number, rc = read_action(rule, at, "action", "errnoRet", &action, e);

	if (!rc)
		rc = read_args(rule, at, args, &nargs, e);
	if (!rc)
		rc = field_array(rule, at, "names", &names, e);
	if (!rc && !field_count(names))
		rc = field_wrong(at, "names", names, "at least one name", e);
	field_in(in, at, "names");
	for (size_t i = 0; !rc && i < field_count(names); i++) {
		rc = field_text_at(names, in, i, &name, e);
		if (rc)
			break;
		number = seccomp_syscall_resolve_name(name);
		if (number == __NR_SCMP_ERROR) {
			log_debug("%s[%zu]: %.40s: not known, left out", in, i, name);
			continue;
		}
		if (number > p->highest)
			p->highest = number;
		/* What is done anyway needs no rule; libseccomp refuses one. */
		if (action == p->action)
			continue;
		rc = add_rule(p, action, number, args, nargs);
		if (rc)
			rc = err_sys(e, rc, "%s[%zu]: %.40s", in, i, name);
	}
	return rc;
}

/* ---- the whole ---- */

static int add_archs(struct profile *p, json_object *seccomp, struct err *e)
{
	static const char in[] = SEC ".architectures";
	const struct word *w;
	json_object *list;
	const char *name;
	int rc = field_array(seccomp, SEC, "architectures", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_text_at(list, in, i, &name, e);
		if (rc)
			break;
		if (strncmp(name, "SCMP_ARCH_", 10) != 0)
			return err_set(e, -EINVAL,
				       "%s[%zu]: %.40s; expected a name such as "
				       "SCMP_ARCH_X86_64",
				       in, i, name);
		w = find_word(sec_archs, ARRAY_LEN(sec_archs), name);
		if (w)
			rc = seccomp_arch_add(p->ctx, w->value);
		rc = rc && rc != -EEXIST ? err_sys(e, rc, "%s[%zu]: %.40s", in, i, name) : 0;
	}
	return rc;
}

static int read_flags(json_object *seccomp, unsigned *flags, struct err *e)
{
	const struct word *w;
	json_object *list;
	const char *name;
	int rc = field_array(seccomp, SEC, "flags", &list, e);

	*flags = 0;
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_text_at(list, SEC ".flags", i, &name, e);
		if (rc)
			break;
		w = find_word(sec_flags, ARRAY_LEN(sec_flags), name);
		if (!w)
			return err_set(e, -EINVAL,
				       SEC ".flags[%zu]: %.60s; expected "
					   "SECCOMP_FILTER_FLAG_TSYNC, _LOG or _SPEC_ALLOW",
				       i, name);
		*flags |= w->value;
	}
	return rc;
}

static int add_rules(struct profile *p, json_object *seccomp, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list, *one;
	int rc = field_array(seccomp, SEC, "syscalls", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, SEC ".syscalls", i, at, &one, e);
		if (!rc)
			rc = one_rule(p, one, at, e);
	}
	return rc;
}

/* In front of the filter: a system call of this architecture whose number is above all that it
 * knows does not exist. Only where the answer would be another errno. */
#define STUB 6u
static unsigned enosys_stub(const struct profile *p, struct sock_filter *out)
{
	const struct sock_filter stub[STUB] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (unsigned)p->highest, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
	};

	if ((p->action & 0xffff0000u) != SCMP_ACT_ERRNO(0) || p->action == SCMP_ACT_ERRNO(ENOSYS) ||
	    p->highest < 0)
		return 0;
	memcpy(out, stub, sizeof(stub));
	return STUB;
}

static int export_filter(const struct profile *p, struct sock_filter **insn, size_t *n,
			 struct err *e)
{
	int fd = memfd_create("seccomp", MFD_CLOEXEC), rc;
	struct sock_filter *out = NULL;
	uint64_t size = 0;

	if (fd < 0)
		return err_sys(e, -errno, "memfd");
	rc = seccomp_export_bpf(p->ctx, fd);
	if (!rc)
		rc = file_size(fd, &size);
	if (rc) {
		rc = err_sys(e, rc, SEC);
		goto out;
	}
	out = malloc(STUB * sizeof(*out) + size);
	if (!out) {
		rc = err_set(e, -ENOMEM, "out of memory");
		goto out;
	}
	*n = enosys_stub(p, out);
	rc = read_full(fd, out + *n, size, 0);
	*n += size / sizeof(*out);
	if (rc)
		err_sys(e, rc, SEC);
	else if (!size || size % sizeof(*out) || *n > CT_FILTER_MAX)
		rc = err_set(e, -E2BIG, SEC ": %zu instructions; expected at most %u", *n,
			     CT_FILTER_MAX);
out:
	fd_close(&fd);
	if (rc)
		free(out);
	else
		*insn = out;
	return rc;
}

int seccomp_build(json_object *seccomp, struct sock_filter **insn, size_t *n, unsigned *flags,
		  struct err *e)
{
	struct profile p = {.highest = -1};
	int rc;

	if (!json_object_is_type(seccomp, json_type_object))
		return field_wrong(SEC, "", seccomp, "an object", e);
	if (j_get(seccomp, "listenerPath"))
		return err_set(e, -EOPNOTSUPP,
			       SEC ".listenerPath: a listener of the host cannot serve a process "
				   "of a VM");
	rc = read_action(seccomp, SEC, "defaultAction", "defaultErrnoRet", &p.action, e);
	if (!rc)
		rc = read_flags(seccomp, flags, e);
	if (rc)
		return rc;
	p.ctx = seccomp_init(p.action);
	if (!p.ctx)
		return err_set(e, -ENOMEM, SEC ": libseccomp cannot begin a filter");
	/* A tree instead of a list: what is called last in the profile costs as little. */
	(void)seccomp_attr_set(p.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	rc = add_archs(&p, seccomp, e);
	if (!rc)
		rc = add_rules(&p, seccomp, e);
	if (!rc)
		rc = export_filter(&p, insn, n, e);
	seccomp_release(p.ctx);
	return rc;
}

int seccomp_write(json_object *seccomp, int at, const char *name, unsigned *flags, struct err *e)
{
	struct sock_filter *insn = NULL;
	size_t n = 0;
	int fd, rc = seccomp_build(seccomp, &insn, &n, flags, e);

	if (rc)
		return rc;
	fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	rc = fd < 0 ? -errno : write_full(fd, insn, n * sizeof(*insn));
	if (rc && fd >= 0)
		unlinkat(at, name, 0);
	fd_close(&fd);
	free(insn);
	return rc ? err_sys(e, rc, "%s", name) : 0;
}

static json_object *names_of(const struct word *list, size_t n)
{
	json_object *a = json_object_new_array();

	for (size_t i = 0; i < n; i++)
		json_object_array_add(a, json_object_new_string(list[i].name));
	return a;
}

json_object *seccomp_features(void)
{
	json_object *o = json_object_new_object();

	j_bool(o, "enabled", true);
	j_obj(o, "actions", names_of(sec_actions, ARRAY_LEN(sec_actions)));
	j_obj(o, "operators", names_of(sec_operators, ARRAY_LEN(sec_operators)));
	j_obj(o, "archs", names_of(sec_archs, ARRAY_LEN(sec_archs)));
	j_obj(o, "knownFlags", names_of(sec_flags, ARRAY_LEN(sec_flags)));
	j_obj(o, "supportedFlags", names_of(sec_flags, ARRAY_LEN(sec_flags)));
	return o;
}
