/* SPDX-License-Identifier: BSD-2-Clause */
/* The process of a configuration (runtime-spec, config.md "Process") -> records. See record.h. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include <insula/base.h>
#include <insula/log.h>

#include "field.h"
#include "record.h"
#include "spec/json.h"

#define ID_MAX UINT32_MAX

/* Bit N is capability N (linux/capability.h). */
static const char *const cap_names[] = {
	"CHOWN",
	"DAC_OVERRIDE",
	"DAC_READ_SEARCH",
	"FOWNER",
	"FSETID",
	"KILL",
	"SETGID",
	"SETUID",
	"SETPCAP",
	"LINUX_IMMUTABLE",
	"NET_BIND_SERVICE",
	"NET_BROADCAST",
	"NET_ADMIN",
	"NET_RAW",
	"IPC_LOCK",
	"IPC_OWNER",
	"SYS_MODULE",
	"SYS_RAWIO",
	"SYS_CHROOT",
	"SYS_PTRACE",
	"SYS_PACCT",
	"SYS_ADMIN",
	"SYS_BOOT",
	"SYS_NICE",
	"SYS_RESOURCE",
	"SYS_TIME",
	"SYS_TTY_CONFIG",
	"MKNOD",
	"LEASE",
	"AUDIT_WRITE",
	"AUDIT_CONTROL",
	"SETFCAP",
	"MAC_OVERRIDE",
	"MAC_ADMIN",
	"SYSLOG",
	"WAKE_ALARM",
	"BLOCK_SUSPEND",
	"AUDIT_READ",
	"PERFMON",
	"BPF",
	"CHECKPOINT_RESTORE",
};

static const struct {
	const char *name;
	int number;
} rlimit_names[] = {
	{"RLIMIT_AS", RLIMIT_AS},
	{"RLIMIT_CORE", RLIMIT_CORE},
	{"RLIMIT_CPU", RLIMIT_CPU},
	{"RLIMIT_DATA", RLIMIT_DATA},
	{"RLIMIT_FSIZE", RLIMIT_FSIZE},
	{"RLIMIT_LOCKS", RLIMIT_LOCKS},
	{"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
	{"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
	{"RLIMIT_NICE", RLIMIT_NICE},
	{"RLIMIT_NOFILE", RLIMIT_NOFILE},
	{"RLIMIT_NPROC", RLIMIT_NPROC},
	{"RLIMIT_RSS", RLIMIT_RSS},
	{"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
	{"RLIMIT_RTTIME", RLIMIT_RTTIME},
	{"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
	{"RLIMIT_STACK", RLIMIT_STACK},
};

int record_texts(struct rec *r, const char *key, json_object *o, const char *where,
		 const char *member, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list;
	const char *text;
	int rc = field_array(o, where, member, &list, e);

	field_in(at, where, member);
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_text_at(list, at, i, &text, e);
		if (!rc)
			rec_add(r, key, text);
	}
	return rc;
}

/* execve() takes anything; what has no '=' is a mistake of whoever wrote it, as runc has it. */
static int process_env(json_object *process, struct rec *r, struct err *e)
{
	json_object *list;
	const char *text;
	int rc = field_array(process, "process", "env", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_text_at(list, "process.env", i, &text, e);
		if (!rc && (text[0] == '=' || !strchr(text, '=')))
			rc = err_set(e, -EINVAL, "process.env[%zu]: %.60s; expected NAME=VALUE", i,
				     text);
		if (!rc)
			rec_add(r, "env", text);
	}
	return rc;
}

static int process_command(json_object *process, struct rec *r, struct err *e)
{
	json_object *args;
	const char *cwd;
	int rc = field_array(process, "process", "args", &args, e);

	if (!rc && !field_count(args))
		rc = field_wrong("process", "args", args, "at least one word", e);
	if (!rc)
		rc = record_texts(r, "arg", process, "process", "args", e);
	if (!rc)
		rc = process_env(process, r, e);
	if (!rc)
		rc = field_text(process, "process", "cwd", &cwd, e);
	if (!rc && (!cwd || cwd[0] != '/'))
		rc = field_wrong("process", "cwd", j_get(process, "cwd"), "an absolute path", e);
	if (!rc)
		rec_add(r, "cwd", cwd);
	return rc;
}

static int process_groups(json_object *user, struct rec *r, struct err *e)
{
	json_object *groups, *v;
	int rc = field_array(user, "process.user", "additionalGids", &groups, e);

	for (size_t i = 0; i < field_count(groups) && !rc; i++) {
		v = json_object_array_get_idx(groups, i);
		if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0 ||
		    json_object_get_int64(v) >= ID_MAX)
			rc = field_wrong("process.user", "additionalGids", v, "a group's number",
					 e);
		else
			rec_addf(r, "addgid", "%lld", (long long)json_object_get_int64(v));
	}
	return rc;
}

static int process_user(json_object *process, struct rec *r, struct err *e)
{
	static const char where[] = "process.user";
	int64_t uid = 0, gid = 0, mask;
	json_object *user;
	int rc = field_object(process, "process", "user", &user, e);

	if (rc)
		return rc;
	rc = field_int(user, where, "uid", 0, ID_MAX - 1, &uid, e);
	if (rc >= 0)
		rc = field_int(user, where, "gid", 0, ID_MAX - 1, &gid, e);
	if (rc < 0)
		return rc;
	rec_addf(r, "uid", "%lld", (long long)uid);
	rec_addf(r, "gid", "%lld", (long long)gid);
	rc = field_int(user, where, "umask", 0, 0777, &mask, e);
	if (rc > 0)
		rec_addf(r, "umask", "%lld", (long long)mask);
	return rc < 0 ? rc : process_groups(user, r, e);
}

/* ---- capabilities ---- */

static uint64_t cap_of(const char *name)
{
	if (strncmp(name, "CAP_", 4) != 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(cap_names); i++) {
		if (!strcmp(cap_names[i], name + 4))
			return 1ull << i;
	}
	return 0;
}

/* What this kernel's names do not have is left out, as runc does: a caller of tomorrow asks for all
 * that it knows. */
static int cap_set(json_object *caps, const char *set, uint64_t *mask, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list;
	const char *name;
	int rc = field_array(caps, "process.capabilities", set, &list, e);

	*mask = 0;
	field_in(at, "process.capabilities", set);
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_text_at(list, at, i, &name, e);
		if (rc)
			break;
		if (!cap_of(name))
			log_warn("%s[%zu]: %.40s: not known, left out", at, i, name);
		*mask |= cap_of(name);
	}
	return rc;
}

static int process_caps(json_object *process, struct rec *r, struct err *e)
{
	static const char *const sets[] = {"bounding", "effective", "permitted", "inheritable",
					   "ambient"};
	json_object *caps;
	uint64_t mask;
	int rc = field_object(process, "process", "capabilities", &caps, e);

	for (size_t i = 0; i < ARRAY_LEN(sets) && !rc; i++) {
		char key[24] = "cap.";

		rc = cap_set(caps, sets[i], &mask, e);
		strcat(key, sets[i]);
		rec_addf(r, key, "%llx", (unsigned long long)mask);
	}
	return rc;
}

/* ---- limits ---- */

static int rlimit_number(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(rlimit_names); i++) {
		if (!strcmp(rlimit_names[i].name, name))
			return rlimit_names[i].number;
	}
	return -1;
}

static int one_rlimit(json_object *limit, const char *at, uint32_t *seen, struct rec *r,
		      struct err *e)
{
	uint64_t soft = 0, hard = 0;
	const char *type;
	int number, rc = field_text(limit, at, "type", &type, e);

	if (rc)
		return rc;
	number = type ? rlimit_number(type) : -1;
	if (number < 0)
		return field_wrong(at, "type", j_get(limit, "type"), "a name such as RLIMIT_NOFILE",
				   e);
	if (*seen & 1u << number)
		return field_wrong(at, "type", j_get(limit, "type"), "each limit once", e);
	*seen |= 1u << number;
	rc = field_u64(limit, at, "soft", &soft, e);
	if (rc >= 0)
		rc = field_u64(limit, at, "hard", &hard, e);
	if (rc < 0)
		return rc;
	if (soft > hard)
		return field_wrong(at, "soft", j_get(limit, "soft"), "at most what hard is", e);
	rec_addf(r, "rlimit", "%d %llu %llu", number, (unsigned long long)soft,
		 (unsigned long long)hard);
	return 0;
}

static int process_rlimits(json_object *process, struct rec *r, struct err *e)
{
	char at[FIELD_WHERE_MAX];
	json_object *list, *one;
	uint32_t seen = 0;
	int rc = field_array(process, "process", "rlimits", &list, e);

	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		rc = field_object_at(list, "process.rlimits", i, at, &one, e);
		if (!rc)
			rc = one_rlimit(one, at, &seen, r, e);
	}
	return rc;
}

/* ---- the rest ---- */

static int process_switches(json_object *process, struct rec *r, struct err *e)
{
	bool terminal = false, nnp = false;
	int64_t oom;
	int rc = field_bool(process, "process", "terminal", &terminal, e);

	if (rc >= 0)
		rc = field_bool(process, "process", "noNewPrivileges", &nnp, e);
	if (rc < 0)
		return rc;
	if (terminal)
		rec_add(r, "terminal", "1");
	if (nnp)
		rec_add(r, "nnp", "1");
	rc = field_int(process, "process", "oomScoreAdj", -1000, 1000, &oom, e);
	if (rc > 0)
		rec_addf(r, "oom", "%lld", (long long)oom);
	return rc < 0 ? rc : 0;
}

/* What would have to be obeyed and cannot be. apparmorProfile and selinuxLabel are the engine's
 * fence around a process that could reach the host: the guest's kernel is that fence here, and has
 * no policy by these names (docs/containers.md). */
static int process_cannot(json_object *process, struct err *e)
{
	static const char *const not_here[] = {"scheduler", "ioPriority", "execCPUAffinity"};

	for (size_t i = 0; i < ARRAY_LEN(not_here); i++) {
		if (j_get(process, not_here[i]))
			return err_set(e, -EOPNOTSUPP,
				       "process.%s: %.60s; expected none: not "
				       "supported",
				       not_here[i], j_text(j_get(process, not_here[i])));
	}
	return 0;
}

int record_process(json_object *process, const char *seccomp, unsigned flags, struct rec *r,
		   struct err *e)
{
	static int (*const part[])(json_object * process, struct rec * r, struct err * e) = {
		process_command, process_user, process_caps, process_rlimits, process_switches};
	int rc;

	if (!json_object_is_type(process, json_type_object))
		return field_wrong("process", "", process, "an object", e);
	rc = process_cannot(process, e);
	for (size_t i = 0; i < ARRAY_LEN(part) && !rc; i++)
		rc = part[i](process, r, e);
	if (rc || !seccomp)
		return rc;
	rec_add(r, "seccomp", seccomp);
	rec_addf(r, "seccomp.flags", "%u", flags);
	return 0;
}
