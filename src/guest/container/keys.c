/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: what the records say (include/insula/container.h). One table has each key, the
 * kinds of files that may have it, the structure and the field that it is about, and the function
 * that takes its value. A key with a dot is about the last entry of its list, so one before the
 * other is an error, too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "container.h"

/* What a field belongs to. */
enum base {
	IN_CONTAINER,
	IN_PROCESS,
	IN_MOUNT,
	IN_DEVICE,
	IN_FUNCTION,
	IN_HOOK,
	IN_SANDBOX,
	IN_NIC,
	IN_ROUTE,
	IN_NEIGH
};

struct key;
struct parse {
	struct config *c;
	const struct key *key;
	const char *expected;
};

struct key {
	const char *name;
	unsigned kinds; /* 1 << enum config_kind */
	enum base base;
	size_t field;
	/* 0, -ENOMEM, or -EINVAL and what was expected */
	int (*take)(struct parse *p, void *field, char *value);
	uint64_t max; /* of a number */
};

static int wrong(struct parse *p, const char *expected)
{
	p->expected = expected;
	return -EINVAL;
}

/* ---- values of any structure ---- */

static int push_text(struct list *l, char *value)
{
	char **v = vec_grow(l->v, l->n ? l->n + 1 : 0, sizeof *v);

	if (!v)
		return -ENOMEM;
	l->v = v;
	v[l->n++] = value;
	v[l->n] = NULL;
	return 0;
}

static int take_text(struct parse *p, void *field, char *value)
{
	const char **to = field;

	if (*to)
		return wrong(p, "it once");
	*to = value;
	return 0;
}

/* At most `max` bytes. */
static int take_name(struct parse *p, void *field, char *value)
{
	if (strlen(value) > p->key->max)
		return wrong(p, "a shorter value");
	return take_text(p, field, value);
}

static int check_path(struct parse *p, const char *value)
{
	return value[0] == '/' && strlen(value) < CT_PATH_MAX
		       ? 0
		       : wrong(p, "an absolute path of less than 4096 bytes");
}

static int take_path(struct parse *p, void *field, char *value)
{
	int r = check_path(p, value);

	return r ? r : take_text(p, field, value);
}

static int take_texts(struct parse *p, void *field, char *value)
{
	(void)p;
	return push_text(field, value);
}

static int take_paths(struct parse *p, void *field, char *value)
{
	int r = check_path(p, value);

	return r ? r : push_text(field, value);
}

static int take_id(struct parse *p, void *field, char *value)
{
	if (!id_valid(value))
		return wrong(p, "letters, digits, _ + - . and at most 128 of them");
	return take_text(p, field, value);
}

static int take_u32(struct parse *p, void *field, char *value)
{
	uint64_t v;

	if (num_u64(value, 10, p->key->max, &v))
		return wrong(p, "a decimal number in its range");
	*(uint32_t *)field = (uint32_t)v;
	return 0;
}

static int take_octal(struct parse *p, void *field, char *value)
{
	uint64_t v;

	if (num_u64(value, 8, p->key->max, &v))
		return wrong(p, "an octal number in its range");
	*(uint32_t *)field = (uint32_t)v;
	return 0;
}

static int take_flag(struct parse *p, void *field, char *value)
{
	uint64_t v;

	if (num_u64(value, 10, 1, &v))
		return wrong(p, "0 or 1");
	*(bool *)field = v;
	return 0;
}

static int take_flags(struct parse *p, void *field, char *value)
{
	uint64_t v;

	if (num_u64(value, 10, UINT32_MAX, &v))
		return wrong(p, "flags of mount(2) as a decimal number");
	*(unsigned long *)field = (unsigned long)v;
	return 0;
}

static int take_propagation(struct parse *p, void *field, char *value)
{
	const unsigned long known = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE | MS_REC;
	int r = take_flags(p, field, value);

	if (!r && *(unsigned long *)field & ~known)
		r = wrong(p, "MS_SHARED, MS_PRIVATE, MS_SLAVE or MS_UNBINDABLE, and MS_REC");
	return r;
}

/* FILE=VALUE or KEY=VALUE: no path that leads elsewhere. */
static int take_pair(struct parse *p, void *field, char *value)
{
	const char *equals = strchr(value, '='), *up = strstr(value, "..");

	if (!equals || equals == value || (up && up < equals) || strlen(value) >= CT_PATH_MAX)
		return wrong(p, "NAME=VALUE");
	return push_text(field, value);
}

static int take_cgroup(struct parse *p, void *field, char *value)
{
	const char *slash = strchr(value, '/'), *equals = strchr(value, '=');

	if (slash && equals && slash < equals)
		return wrong(p, "FILE=VALUE with a file of the container's own group");
	return take_pair(p, field, value);
}

/* ---- values of a process ---- */

static int take_gids(struct parse *p, void *field, char *value)
{
	struct process *process = field;
	uint32_t *to = PUSH(process->addgid, process->addgids);

	return to ? take_u32(p, to, value) : -ENOMEM;
}

static int take_cap(struct parse *p, void *field, char *value)
{
	if (num_u64(value, 16, UINT64_MAX, field))
		return wrong(p, "64 bits in hexadecimal");
	return 0;
}

static int take_umask(struct parse *p, void *field, char *value)
{
	struct process *process = field;

	process->has_umask = true;
	return take_u32(p, &process->umask, value);
}

static int take_oom(struct parse *p, void *field, char *value)
{
	struct process *process = field;
	uint64_t v;

	if (num_u64(value + (value[0] == '-'), 10, 1000, &v))
		return wrong(p, "-1000 to 1000");
	process->oom = value[0] == '-' ? -(int)v : (int)v;
	process->has_oom = true;
	return 0;
}

static int take_rlimit(struct parse *p, void *field, char *value)
{
	static const char expected[] = "\"NUMBER SOFT HARD\" with NUMBER up to 15";
	char *soft = strchr(value, ' '), *hard = soft ? strchr(soft + 1, ' ') : NULL;
	struct process *process = field;
	struct rlimit_record *to;
	uint64_t number, s, h;

	if (!hard)
		return wrong(p, expected);
	*soft++ = *hard++ = '\0';
	if (num_u64(value, 10, 15, &number) || num_u64(soft, 10, UINT64_MAX, &s) ||
	    num_u64(hard, 10, UINT64_MAX, &h))
		return wrong(p, expected);
	to = PUSH(process->rlimit, process->rlimits);
	if (!to)
		return -ENOMEM;
	*to = (struct rlimit_record){.number = (int)number, .soft = s, .hard = h};
	return 0;
}

static int take_seccomp_flags(struct parse *p, void *field, char *value)
{
	struct process *process = field;

	if (!process->seccomp)
		return wrong(p, "seccomp= before it");
	return take_u32(p, &process->seccomp_flags, value);
}

/* ---- values of a container ---- */

static int take_rootfs_propagation(struct parse *p, void *field, char *value)
{
	struct container *c = field;

	c->has_propagation = true;
	return take_propagation(p, &c->propagation, value);
}

static int take_ns(struct parse *p, void *field, char *value)
{
	static const char *const types[NS_KINDS] = {
		[NS_USER] = "user", [NS_MOUNT] = "mount", [NS_PID] = "pid",
		[NS_UTS] = "uts",   [NS_IPC] = "ipc",     [NS_CGROUP] = "cgroup"};
	struct container *c = field;
	char *of = strchr(value, ':');

	if (of)
		*of++ = '\0';
	if (of && !id_valid(of))
		return wrong(p, "TYPE or TYPE:ID");
	for (unsigned i = 0; i < NS_KINDS; i++) {
		if (strcmp(types[i], value) != 0)
			continue;
		if (c->ns[i].fresh || c->ns[i].of)
			return wrong(p, "each type once");
		c->ns[i] = (struct ns){.fresh = !of, .of = of};
		return 0;
	}
	return wrong(p, "mount, pid, uts, ipc, cgroup or user");
}

static int take_map(struct parse *p, void *field, char *value)
{
	struct idmaps *maps = field;
	struct idmap *to;
	int64_t v[3];

	if (num_list(value, v, 3, false, UINT32_MAX) || v[2] == 0)
		return wrong(p, "\"INSIDE OUTSIDE SIZE\"");
	to = PUSH(maps->v, maps->n);
	if (!to)
		return -ENOMEM;
	*to = (struct idmap){(uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2]};
	return 0;
}

static int take_mount(struct parse *p, void *field, char *value)
{
	struct container *c = field;
	struct mount_record *to = PUSH(c->mount, c->mounts);

	return to ? take_path(p, &to->dest, value) : -ENOMEM;
}

static int take_device(struct parse *p, void *field, char *value)
{
	struct container *c = field;
	struct device_record *to = PUSH(c->device, c->devices);

	if (!to)
		return -ENOMEM;
	to->mode = 0666;
	return take_path(p, &to->path, value);
}

static int take_device_type(struct parse *p, void *field, char *value)
{
	if (strcmp(value, "c") != 0 && strcmp(value, "b") != 0 && strcmp(value, "p") != 0)
		return wrong(p, "c, b or p");
	*(char *)field = value[0];
	return 0;
}

static int take_function(struct parse *p, void *field, char *value)
{
	struct container *c = field;
	struct function_record *to;

	if (!function_valid(value))
		return wrong(p, "the address of a PCI function, such as 0000:00:01.0");
	to = PUSH(c->function, c->functions);
	if (!to)
		return -ENOMEM;
	*to = (struct function_record){.address = value, .mode = 0600};
	return 0;
}

static int access_bits(const char *s, unsigned *out)
{
	static const char letters[] = "mrw"; /* bit 0, 1, 2: DEV_* */

	*out = 0;
	for (; *s; s++) {
		const char *at = strchr(letters, *s);

		if (!at || *out & 1u << (at - letters))
			return -EINVAL;
		*out |= 1u << (at - letters);
	}
	return *out ? 0 : -EINVAL;
}

static int take_devrule(struct parse *p, void *field, char *value)
{
	static const char expected[] = "\"allow|deny a|b|c MAJOR MINOR ACCESS\"";
	char *word[5] = {0}, *save = NULL, *w = strtok_r(value, " ", &save);
	struct container *c = field;
	struct devrule rule = {0}, *to;
	int64_t major, minor;
	size_t n = 0;

	for (; w && n < COUNT(word); w = strtok_r(NULL, " ", &save))
		word[n++] = w;
	if (n != COUNT(word) || w || strlen(word[1]) != 1 || !strchr("abc", word[1][0]) ||
	    num_list(word[2], &major, 1, true, INT32_MAX) ||
	    num_list(word[3], &minor, 1, true, INT32_MAX) || access_bits(word[4], &rule.access))
		return wrong(p, expected);
	rule.allow = strcmp(word[0], "allow") == 0;
	if (!rule.allow && strcmp(word[0], "deny") != 0)
		return wrong(p, expected);
	rule.type = word[1][0];
	rule.major = (int)major;
	rule.minor = (int)minor;
	if (c->devrules == DEVRULES_MAX)
		return wrong(p, "at most 1024 of them");
	to = PUSH(c->devrule, c->devrules);
	if (!to)
		return -ENOMEM;
	*to = rule;
	return 0;
}

static int take_hook(struct parse *p, void *field, char *value)
{
	struct container *c = field;
	struct hook *to = PUSH(c->hook, c->hooks);

	return to ? take_path(p, &to->path, value) : -ENOMEM;
}

/* ---- values of the sandbox ---- */

static int take_interface(struct parse *p, void *field, char *value)
{
	if (!*value || strlen(value) > 15 || strchr(value, '/'))
		return wrong(p, "the name of an interface");
	return take_text(p, field, value);
}

static int take_nic(struct parse *p, void *field, char *value)
{
	struct sandbox *s = field;
	struct nic *to = PUSH(s->nic, s->nics);

	return to ? take_text(p, &to->mac, value) : -ENOMEM;
}

static int take_route(struct parse *p, void *field, char *value)
{
	struct sandbox *s = field;
	struct route *to = PUSH(s->route, s->routes);

	return to ? take_text(p, &to->dest, value) : -ENOMEM;
}

static int take_scope(struct parse *p, void *field, char *value)
{
	*(bool *)field = true;
	return strcmp(value, "link") == 0 ? 0 : wrong(p, "link");
}

static int take_neigh(struct parse *p, void *field, char *value)
{
	struct sandbox *s = field;
	struct neigh *to = PUSH(s->neigh, s->neighs);

	return to ? take_text(p, &to->address, value) : -ENOMEM;
}

/* ---- the table ---- */

#define C (1u << CONFIG_CONTAINER)
#define P (1u << CONFIG_PROCESS | C)
#define S (1u << CONFIG_SANDBOX)
#define U (1u << CONFIG_UPDATE | C)
#define OF(type, field) offsetof(struct type, field)
#define ID (UINT32_MAX - 1) /* the last one means "leave it" to the kernel */

/* clang-format off */
static const struct key keys[] = {
	{"id",              C, IN_CONTAINER, OF(container, id),              take_id, 0},
	{"rootfs",          C, IN_CONTAINER, OF(container, rootfs),          take_path, 0},
	{"readonly",        C, IN_CONTAINER, OF(container, readonly),        take_flag, 0},
	{"propagation",     C, IN_CONTAINER, 0,                              take_rootfs_propagation, 0},
	{"hostname",        C, IN_CONTAINER, OF(container, hostname),        take_name, 64},
	{"domainname",      C, IN_CONTAINER, OF(container, domainname),      take_name, 64},
	{"ns",              C, IN_CONTAINER, 0,                              take_ns, 0},
	{"uidmap",          C, IN_CONTAINER, OF(container, uidmap),          take_map, 0},
	{"gidmap",          C, IN_CONTAINER, OF(container, gidmap),          take_map, 0},
	{"mount",           C, IN_CONTAINER, 0,                              take_mount, 0},
	{"mount.type",      C, IN_MOUNT,     OF(mount_record, type),         take_name, 64},
	{"mount.source",    C, IN_MOUNT,     OF(mount_record, source),       take_name, CT_PATH_MAX - 1},
	{"mount.data",      C, IN_MOUNT,     OF(mount_record, data),         take_name, CT_PATH_MAX - 1},
	{"mount.flags",     C, IN_MOUNT,     OF(mount_record, flags),        take_flags, 0},
	{"mount.clear",     C, IN_MOUNT,     OF(mount_record, clear),        take_flags, 0},
	{"mount.prop",      C, IN_MOUNT,     OF(mount_record, prop),         take_propagation, 0},
	{"mount.copyup",    C, IN_MOUNT,     OF(mount_record, copyup),       take_flag, 0},
	{"device",          C, IN_CONTAINER, 0,                              take_device, 0},
	{"device.type",     C, IN_DEVICE,    OF(device_record, type),        take_device_type, 0},
	{"device.major",    C, IN_DEVICE,    OF(device_record, major),       take_u32, 0xfff},
	{"device.minor",    C, IN_DEVICE,    OF(device_record, minor),       take_u32, 0xfffff},
	{"device.mode",     C, IN_DEVICE,    OF(device_record, mode),        take_octal, 07777},
	{"device.uid",      C, IN_DEVICE,    OF(device_record, uid),         take_u32, ID},
	{"device.gid",      C, IN_DEVICE,    OF(device_record, gid),         take_u32, ID},
	{"pci",             C, IN_CONTAINER, 0,                              take_function, 0},
	{"pci.mode",        C, IN_FUNCTION,  OF(function_record, mode),      take_octal, 0777},
	{"pci.uid",         C, IN_FUNCTION,  OF(function_record, uid),       take_u32, ID},
	{"pci.gid",         C, IN_FUNCTION,  OF(function_record, gid),       take_u32, ID},
	{"devrule",         C, IN_CONTAINER, 0,                              take_devrule, 0},
	{"masked",          C, IN_CONTAINER, OF(container, masked),          take_paths, 0},
	{"ro_path",         C, IN_CONTAINER, OF(container, ro_path),         take_paths, 0},
	{"sysctl",          C, IN_CONTAINER, OF(container, sysctl),          take_pair, 0},
	{"cgroup",          U, IN_CONTAINER, OF(container, cgroup),          take_cgroup, 0},
	{"hook",            C, IN_CONTAINER, 0,                              take_hook, 0},
	{"hook.arg",        C, IN_HOOK,      OF(hook, arg),                  take_texts, 0},
	{"hook.env",        C, IN_HOOK,      OF(hook, env),                  take_texts, 0},
	{"hook.input",      C, IN_HOOK,      OF(hook, input),                take_text, 0},
	{"hook.timeout",    C, IN_HOOK,      OF(hook, timeout),              take_u32, INT32_MAX},

	{"arg",             P, IN_PROCESS,   OF(process, arg),               take_texts, 0},
	{"env",             P, IN_PROCESS,   OF(process, env),               take_texts, 0},
	{"cwd",             P, IN_PROCESS,   OF(process, cwd),               take_path, 0},
	{"uid",             P, IN_PROCESS,   OF(process, uid),               take_u32, ID},
	{"gid",             P, IN_PROCESS,   OF(process, gid),               take_u32, ID},
	{"addgid",          P, IN_PROCESS,   0,                              take_gids, ID},
	{"umask",           P, IN_PROCESS,   0,                              take_umask, 0777},
	{"terminal",        P, IN_PROCESS,   OF(process, terminal),          take_flag, 0},
	{"cap.bounding",    P, IN_PROCESS,   OF(process, cap[CAP_BOUNDING]), take_cap, 0},
	{"cap.effective",   P, IN_PROCESS,   OF(process, cap[CAP_EFFECTIVE]), take_cap, 0},
	{"cap.permitted",   P, IN_PROCESS,   OF(process, cap[CAP_PERMITTED]), take_cap, 0},
	{"cap.inheritable", P, IN_PROCESS,   OF(process, cap[CAP_INHERITABLE]), take_cap, 0},
	{"cap.ambient",     P, IN_PROCESS,   OF(process, cap[CAP_AMBIENT]),  take_cap, 0},
	{"rlimit",          P, IN_PROCESS,   0,                              take_rlimit, 0},
	{"nnp",             P, IN_PROCESS,   OF(process, nnp),               take_flag, 0},
	{"oom",             P, IN_PROCESS,   0,                              take_oom, 0},
	{"seccomp",         P, IN_PROCESS,   OF(process, seccomp),           take_id, 0},
	{"seccomp.flags",   P, IN_PROCESS,   0,                              take_seccomp_flags, UINT32_MAX},

	{"hostname",        S, IN_SANDBOX,   OF(sandbox, hostname),          take_name, 64},
	{"sysctl",          S, IN_SANDBOX,   OF(sandbox, sysctl),            take_pair, 0},
	{"nic",             S, IN_SANDBOX,   0,                              take_nic, 0},
	{"nic.name",        S, IN_NIC,       OF(nic, name),                  take_interface, 0},
	{"nic.mtu",         S, IN_NIC,       OF(nic, mtu),                   take_u32, 65535},
	{"nic.addr",        S, IN_NIC,       OF(nic, addr),                  take_texts, 0},
	{"route",           S, IN_SANDBOX,   0,                              take_route, 0},
	{"route.via",       S, IN_ROUTE,     OF(route, via),                 take_text, 0},
	{"route.dev",       S, IN_ROUTE,     OF(route, dev),                 take_interface, 0},
	{"route.src",       S, IN_ROUTE,     OF(route, src),                 take_text, 0},
	{"route.metric",    S, IN_ROUTE,     OF(route, metric),              take_u32, UINT32_MAX},
	{"route.scope",     S, IN_ROUTE,     OF(route, link),                take_scope, 0},
	{"route.onlink",    S, IN_ROUTE,     OF(route, onlink),              take_flag, 0},
	{"neigh",           S, IN_SANDBOX,   0,                              take_neigh, 0},
	{"neigh.dev",       S, IN_NEIGH,     OF(neigh, dev),                 take_interface, 0},
	{"neigh.mac",       S, IN_NEIGH,     OF(neigh, mac),                 take_text, 0},
};
/* clang-format on */

/* The structure that a key is about; NULL: its list is empty. */
static void *base_of(struct config *c, enum base base)
{
	struct container *k = &c->container;
	struct sandbox *s = &c->sandbox;

	switch (base) {
	case IN_CONTAINER:
		return k;
	case IN_PROCESS:
		return &k->process;
	case IN_MOUNT:
		return LAST(k->mount, k->mounts);
	case IN_DEVICE:
		return LAST(k->device, k->devices);
	case IN_FUNCTION:
		return LAST(k->function, k->functions);
	case IN_HOOK:
		return LAST(k->hook, k->hooks);
	case IN_SANDBOX:
		return s;
	case IN_NIC:
		return LAST(s->nic, s->nics);
	case IN_ROUTE:
		return LAST(s->route, s->routes);
	case IN_NEIGH:
		return LAST(s->neigh, s->neighs);
	}
	return NULL;
}

static const struct key *find_key(enum config_kind kind, const char *name)
{
	for (size_t i = 0; i < COUNT(keys); i++)
		if (keys[i].kinds & 1u << kind && strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static int take_record(enum config_kind kind, struct parse *p, size_t n, char *record,
		       struct err *e)
{
	char *value = strchr(record, '=');
	void *base;
	int r;

	if (!value)
		return err_set(e, -EINVAL, "record %zu \"%.60s\": expected key=value", n, record);
	*value++ = '\0';
	p->key = find_key(kind, record);
	if (!p->key)
		return err_set(e, -EINVAL, "record %zu: unknown key \"%.60s\"", n, record);
	base = base_of(p->c, p->key->base);
	if (!base)
		return err_set(e, -EINVAL, "record %zu: %s: expected %.*s= before it", n, record,
			       (int)strcspn(record, "."), record);
	r = p->key->take(p, (char *)base + p->key->field, value);
	if (r == -ENOMEM)
		return err_set(e, r, "out of memory");
	if (r)
		return err_set(e, r, "record %zu: %s=%.80s: expected %s", n, record, value,
			       p->expected);
	return 0;
}

/* ---- the whole ---- */

static int check_container(const struct container *c, struct err *e)
{
	const struct ns *ns = c->ns;

	if (!c->id || !c->rootfs)
		return err_set(e, -EINVAL, "%s= is missing", c->id ? "rootfs" : "id");
	if (!ns[NS_MOUNT].fresh && !ns[NS_MOUNT].of)
		return err_set(e, -EINVAL, "ns=mount is missing: a container has its own root");
	if (ns[NS_MOUNT].of &&
	    (c->mounts || c->devices || c->functions || c->masked.n || c->ro_path.n))
		return err_set(e, -EINVAL,
			       "mounts and devices are that container's whose ns=mount "
			       "is joined");
	if (ns[NS_USER].fresh != (c->uidmap.n > 0) || ns[NS_USER].fresh != (c->gidmap.n > 0))
		return err_set(e, -EINVAL, "ns=user, uidmap= and gidmap= go together");
	if (c->hostname && !ns[NS_UTS].fresh && !ns[NS_UTS].of)
		return err_set(e, -EINVAL, "hostname=%s needs ns=uts", c->hostname);
	if (c->domainname && !ns[NS_UTS].fresh && !ns[NS_UTS].of)
		return err_set(e, -EINVAL, "domainname=%s needs ns=uts", c->domainname);
	for (size_t i = 0; i < c->mounts; i++)
		if (!c->mount[i].source && c->mount[i].flags & MS_BIND)
			return err_set(e, -EINVAL,
				       "mount=%s: a bind needs mount.source=", c->mount[i].dest);
		else if (!c->mount[i].type && !(c->mount[i].flags & MS_BIND))
			return err_set(e, -EINVAL, "mount=%s: mount.type= is missing",
				       c->mount[i].dest);
	for (size_t i = 0; i < c->devices; i++)
		if (!c->device[i].type)
			return err_set(e, -EINVAL, "device=%s: device.type= is missing",
				       c->device[i].path);
	return 0;
}

static int check_sandbox(const struct sandbox *s, struct err *e)
{
	for (size_t i = 0; i < s->routes; i++)
		if (!s->route[i].dev)
			return err_set(e, -EINVAL, "route=%s: route.dev= is missing",
				       s->route[i].dest);
	for (size_t i = 0; i < s->neighs; i++)
		if (!s->neigh[i].dev || !s->neigh[i].mac)
			return err_set(e, -EINVAL, "neigh=%s: neigh.dev= or neigh.mac= is missing",
				       s->neigh[i].address);
	return 0;
}

static int check_whole(enum config_kind kind, const struct config *c, struct err *e)
{
	int r = kind == CONFIG_CONTAINER ? check_container(&c->container, e)
		: kind == CONFIG_SANDBOX ? check_sandbox(&c->sandbox, e)
					 : 0;

	if (!r && (kind == CONFIG_CONTAINER || kind == CONFIG_PROCESS) &&
	    !c->container.process.arg.n)
		r = err_set(e, -EINVAL, "arg= is missing");
	return r;
}

int records_parse(enum config_kind kind, char *text, size_t len, struct config *c, struct err *e)
{
	static const char version[] = "version=" CT_VERSION;
	struct parse p = {.c = c};
	size_t n = 1, at = sizeof version;
	int r = 0;

	*c = (struct config){0};
	if (len < sizeof version || memcmp(text, version, sizeof version) != 0)
		return err_set(e, -EINVAL, "expected version=" CT_VERSION " at its beginning");
	if (text[len - 1] != '\0')
		return err_set(e, -EINVAL, "the last record has no NUL");
	for (; at < len && !r; n++) {
		size_t size = strlen(text + at) + 1;

		r = take_record(kind, &p, n, text + at, e);
		at += size;
	}
	return r ? r : check_whole(kind, c, e);
}

static void free_process(struct process *p)
{
	free(p->arg.v);
	free(p->env.v);
	free(p->addgid);
	free(p->rlimit);
}

void records_free(struct config *c)
{
	struct container *k = &c->container;
	struct sandbox *s = &c->sandbox;

	free_process(&k->process);
	for (size_t i = 0; i < k->found.n; i++)
		free(k->found.v[i]);
	for (size_t i = 0; i < k->hooks; i++) {
		free(k->hook[i].arg.v);
		free(k->hook[i].env.v);
	}
	for (size_t i = 0; i < s->nics; i++)
		free(s->nic[i].addr.v);
	void *all[] = {k->uidmap.v,  k->gidmap.v, k->mount, k->device,   k->devrule,  k->masked.v,
		       k->ro_path.v, k->sysctl.v, k->hook,  k->cgroup.v, k->function, k->found.v,
		       s->sysctl.v,  s->nic,      s->route, s->neigh};
	for (size_t i = 0; i < COUNT(all); i++)
		free(all[i]);
	*c = (struct config){0};
}
