/* SPDX-License-Identifier: BSD-2-Clause */
/* One function for each setting that is one value. See config.h and config_take.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/guestproto.h>
#include <insula/memmap.h>

#include "config_take.h"

/* Cut ",WORD" off the end. */
static bool cut_suffix(char *text, const char *suffix)
{
	size_t n = strlen(text), k = strlen(suffix);

	if (n <= k || strcmp(text + n - k, suffix) != 0)
		return false;
	text[n - k] = 0;
	return true;
}

/* ---- one function per setting ---- */

static int set_kernel(const struct taking *t, const char *v)
{
	int rc = take_path(t, &t->c->kernel, v);

	if (!rc)
		t->c->kernel_packed = cut_suffix(t->c->kernel, ",packed");
	return rc;
}

static int set_initrd(const struct taking *t, const char *v)
{
	return take_path(t, &t->c->initrd, v);
}

static int set_metrics(const struct taking *t, const char *v)
{
	return take_path(t, &t->c->metrics, v);
}

static int set_rootfs(const struct taking *t, const char *v)
{
	int rc = take_path(t, &t->c->rootfs, v);

	if (rc)
		return rc;
	t->c->rootfs_rw = cut_suffix(t->c->rootfs, ",rw");
	if (!t->c->rootfs_rw)
		cut_suffix(t->c->rootfs, ",ro");
	return 0;
}

static int set_rootfs_size(const struct taking *t, const char *v)
{
	return take_pages(t, v, "2G", &t->c->rootfs_size);
}

static int set_sgx(const struct taking *t, const char *v)
{
	return take_pages(t, v, "64M", &t->c->sgx);
}

static int set_append(const struct taking *t, const char *v)
{
	if (strpbrk(v, "\n\r"))
		return take_refuse(t, v, "one line", "a line break; expected one line");
	return take_text(t, &t->c->append, v);
}

/* N[,max=M]. A max that is no more than N is none. */
static int set_cpus(const struct taking *t, const char *v)
{
	static const char key[] = ",max=";
	const char *comma = strchr(v, ',');
	size_t len = strcspn(v, ",");
	char number[24], most[48];
	unsigned n, max = 0;

	snprintf(number, sizeof(number), "%.*s", (int)len, v);
	if (comma && strncmp(comma, key, sizeof(key) - 1) != 0)
		return take_wrong(t, v, "N or N,max=M, numbers of vCPUs");
	if (len >= sizeof(number) || !take_number(t, number, &n))
		return take_wrong(t, number, "a number from %llu to %llu",
				  (unsigned long long)t->s->min, (unsigned long long)t->s->max);
	snprintf(most, sizeof(most), "a number from %u to %llu", n, (unsigned long long)t->s->max);
	if (comma && (!take_number(t, comma + sizeof(key) - 1, &max) || max < n))
		return take_refuse(t, comma + sizeof(key) - 1, most, "max '%.40s'; expected %s",
				   comma + sizeof(key) - 1, most);
	t->c->cpus = n;
	t->c->cpus_max = max > n ? max : 0;
	return 0;
}

static int set_timeout(const struct taking *t, const char *v)
{
	if (!take_number(t, v, &t->c->timeout))
		return take_wrong(t, v, "seconds from %llu to %llu", (unsigned long long)t->s->min,
				  (unsigned long long)t->s->max);
	return 0;
}

struct mem_words {
	uint64_t mem, max;
	bool huge;
};

/* The memory that the guest can have, behind "max=". */
static int mem_take_max(const struct taking *t, const char *v, const char *size,
			struct mem_words *w)
{
	char least[24], most[24];
	uint64_t n = 0, step;

	if (!parse_size(size, &n) || n <= w->mem || n > t->s->max)
		return take_wrong(t, v, "a max of more than %s, the size, to %s",
				  size_text(w->mem, least), size_text(t->s->max, most));
	step = memmap_block(n - w->mem);
	if ((n - w->mem) % step)
		return take_wrong(t, v, "a max that is %s and a multiple of %s",
				  size_text(w->mem, least), size_text(step, most));
	w->max = n;
	return 0;
}

static int mem_take_rest(const struct taking *t, const char *v, const char *rest,
			 struct mem_words *w)
{
	char item[32];
	int rc = 0;

	while (*rest == ',' && !rc) {
		size_t n = strcspn(rest + 1, ",");

		snprintf(item, sizeof(item), "%.*s", (int)n, rest + 1);
		rest += 1 + n;
		if (!strncmp(item, "max=", 4) && !w->max && n < sizeof(item))
			rc = mem_take_max(t, v, item + 4, w);
		else if (!strcmp(item, "hugepages") && !w->huge)
			w->huge = true;
		else
			rc = take_wrong(t, v, "SIZE[,max=SIZE][,hugepages]");
	}
	return rc;
}

/* SIZE[,max=SIZE][,hugepages] */
static int set_mem(const struct taking *t, const char *v)
{
	size_t len = strcspn(v, ",");
	char size[32], least[24], most[24], meant[48];
	struct mem_words w = {0};
	unsigned mib;
	int rc;

	snprintf(size, sizeof(size), "%.*s", (int)len, v);
	if (!v[len] && parse_number(v, BOARD_MIN_MEM >> 20, BOARD_MAX_MEM >> 20, &mib)) {
		snprintf(meant, sizeof(meant), "a size such as %uM", mib);
		return take_refuse(t, v, meant, "%u bytes; did you mean %uM?", mib, mib);
	}
	if (!take_size(t, size, &w.mem))
		return take_wrong(t, v, "a size from %s to %s, such as 256M",
				  size_text(t->s->min, least), size_text(t->s->max, most));
	if (w.mem % BOARD_PAGE)
		return take_wrong(t, v, "a multiple of %u bytes", BOARD_PAGE);
	rc = mem_take_rest(t, v, v + len, &w);
	if (rc)
		return rc;
	t->c->mem = w.mem;
	t->c->mem_max = w.max;
	t->c->mem_huge = w.huge;
	return 0;
}

/* FILE[,limit=SIZE]. A comma in the name of the file is a comma. */
static int set_console_file(const struct taking *t, const char *v)
{
	static const char key[] = ",limit=";
	static const char expected[] = "a size from 1 byte to 1024T, such as 64M";
	const char *at = NULL, *size;
	uint64_t limit = CONSOLE_LIMIT;
	struct vm_config *c = t->c;
	int rc;

	for (const char *p = v; (p = strstr(p, key)); p++)
		at = p;
	size = at ? at + sizeof(key) - 1 : NULL;
	if (size && (at == v || !parse_size(size, &limit) || !limit || limit > CONSOLE_LIMIT_MOST))
		return take_refuse(t, size, expected, "limit '%.40s'; expected %s", size, expected);
	rc = take_text(t, &c->console_file, v);
	if (rc)
		return rc;
	if (at)
		c->console_file[at - v] = 0;
	c->console_limit = limit;
	c->console_given = true;
	c->console = CONSOLE_FILE;
	return 0;
}

static int set_console(const struct taking *t, const char *v)
{
	static const char *const names[] = {"stdio", "pty", "none", "stderr"};
	const char *all = v;

	t->c->console_virtio = !strncmp(v, "virtio", 6) && (!v[6] || v[6] == ',');
	if (t->c->console_virtio && !v[6])
		return 0;
	if (t->c->console_virtio)
		v += 7;
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		if (!strcmp(v, names[i])) {
			t->c->console = (enum console_kind)i;
			t->c->console_given = true;
			return 0;
		}
	}
	if (strncmp(v, "file=", 5) || !v[5])
		return take_wrong(t, all,
				  "stdio, stderr, pty, none or file=FILE[,limit=SIZE], perhaps "
				  "behind virtio, or virtio alone");
	return set_console_file(t, v + 5);
}

static int set_rng(const struct taking *t, const char *v)
{
	uint64_t n = CONFIG_RNG_RATE;
	char least[24], most[24];
	bool off = !strcmp(v, "off");

	if (!off && strcmp(v, "on") != 0 &&
	    (strncmp(v, "rate=", 5) != 0 || !take_size(t, v + 5, &n)))
		return take_wrong(t, v, "on, off or rate=BYTES (a second, %s to %s)",
				  size_text(t->s->min, least), size_text(t->s->max, most));
	t->c->rng_off = off;
	t->c->rng_rate = n;
	return 0;
}

static int set_bus(const struct taking *t, const char *v)
{
	return take_bus(t, v, &t->c->bus);
}

static int set_hotplug(const struct taking *t, const char *v)
{
	if (!take_number(t, v, &t->c->hotplug))
		return take_wrong(t, v, "a number from %llu to %llu", (unsigned long long)t->s->min,
				  (unsigned long long)t->s->max);
	return 0;
}

/* ---- the command's ---- */

static int set_env(const struct taking *t, const char *v)
{
	const char *eq = strchr(v, '=');
	struct vm_config *c = t->c;

	if (!eq || eq == v)
		return take_wrong(t, v, "NAME=VALUE");
	if (c->nenv == CONFIG_MAX_ENV)
		return take_refuse(t, NULL, NULL, "more than %d variables", CONFIG_MAX_ENV);
	c->env[c->nenv] = strdup(v);
	if (!c->env[c->nenv])
		return take_no_memory(t);
	c->nenv++;
	return 0;
}

static int set_cwd(const struct taking *t, const char *v)
{
	if (*v != '/')
		return take_wrong(t, v, "an absolute path in the guest");
	return take_text(t, &t->c->cwd, v);
}

#define MAX_ID 0xfffffffeull /* (uid_t)-1 means "leave it" */

/* The name of a user or a group, as useradd(8) makes them. */
static bool is_name(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");

	return n && n < 33 && *s != '-' && (!s[n] || (s[n] == '$' && !s[n + 1]));
}

/* A number, or a name, which the guest looks up. Digits alone are a number, however long. */
static bool user_or_group(const char *s, unsigned *id, bool *named)
{
	*named = s[strspn(s, "0123456789")];
	return *named ? is_name(s) : parse_number(s, 0, MAX_ID, id);
}

static int set_user(const struct taking *t, const char *v)
{
	const char *colon = strchr(v, ':');
	bool user_named = false, group_named = false;
	struct vm_config *c = t->c;
	char user[40] = "";
	unsigned u = 0, g = 0;

	snprintf(user, sizeof(user), "%.*s", colon ? (int)(colon - v) : 39, v);
	if (strlen(v) > CONFIG_USER_MAX || !user_or_group(user, &u, &user_named) ||
	    (colon && !user_or_group(colon + 1, &g, &group_named)))
		return take_wrong(t, v, "UID or NAME, and perhaps :GID or :GROUP");
	c->uid = u;
	c->gid = g;
	c->has_user = true;
	c->has_gid = colon;
	snprintf(c->user, sizeof(c->user), "%s", user_named || group_named ? v : "");
	return 0;
}

static int config_set_set_flag(const struct taking *t, bool *flag, const char *v)
{
	*flag = !strcmp(v, "on");
	if (!*flag && strcmp(v, "off") != 0)
		return take_wrong(t, v, "on or off");
	return 0;
}

static int set_tty(const struct taking *t, const char *v)
{
	return config_set_set_flag(t, &t->c->tty, v);
}

static int set_interactive(const struct taking *t, const char *v)
{
	return config_set_set_flag(t, &t->c->interactive, v);
}

/* ---- images ---- */

static int set_image(const struct taking *t, const char *v)
{
	const char *why = NULL;
	char *ref = image_reference(v, &why);

	if (!ref)
		return why ? take_wrong(t, v, "%s", why) : take_no_memory(t);
	free(t->c->image);
	t->c->image = ref;
	return 0;
}

static int set_pull(const struct taking *t, const char *v)
{
	static const char *const words[] = {"missing", "always", "never"};

	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		if (!strcmp(v, words[i])) {
			t->c->pull = (enum pull_policy)i;
			t->c->has_pull = true;
			return 0;
		}
	}
	return take_wrong(t, v, "always, missing or never");
}

static int set_entrypoint(const struct taking *t, const char *v)
{
	return take_text(t, &t->c->entrypoint, v);
}

/* ---- directories ---- */

static bool has_dots(const char *path)
{
	for (const char *p = path; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (!strncmp(p, "..", 2) && (p[2] == '/' || !p[2]))
			return true;
	}
	return false;
}

/* The second would hide the first. Slashes more or less make no other directory. */
static bool is_shared(const struct vm_config *c, const char *guest)
{
	for (unsigned i = 0; i < c->nshares; i++) {
		const char *a = c->share[i].guest, *b = guest;

		while (*a || *b) {
			size_t na = strspn(a, "/"), nb = strspn(b, "/");

			a += na;
			b += nb;
			if ((!na != !nb && *a && *b) || *a != *b)
				break;
			a += *a != 0;
			b += *b != 0;
		}
		if (!*a && !*b)
			return true;
	}
	return false;
}

static const char share_form[] =
	"DIR:GUESTDIR[:ro][,packed][,cache=none|auto|always][,bus=pci|mmio]";

static int share_cache(const struct taking *t, struct share_config *s, const char *v)
{
	static const char *const words[] = {[SHARE_CACHE_AUTO] = "auto",
					    [SHARE_CACHE_NONE] = "none",
					    [SHARE_CACHE_ALWAYS] = "always"};

	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		if (!strcmp(v, words[i])) {
			s->cache = (enum share_cache)i;
			return 0;
		}
	}
	return take_wrong(t, v, "none, auto or always");
}

/* What comes after GUESTDIR, between commas. */
static int share_items(const struct taking *t, struct share_config *s, char *rest, const char *v)
{
	bool cache = false;
	char *item;
	int rc = 0;

	while (!rc && (item = config_next_item(&rest))) {
		if (!strcmp(item, "packed")) {
			s->packed = true;
		} else if (!strncmp(item, "cache=", 6)) {
			cache = true;
			rc = share_cache(t, s, item + 6);
		} else if (!strncmp(item, "bus=", 4)) {
			rc = take_bus(t, item + 4, &s->bus);
		} else {
			rc = take_refuse(t, v, share_form, "'%.60s'; expected %s", item,
					 share_form);
		}
	}
	if (!rc && s->packed && cache)
		rc = take_refuse(t, v, share_form,
				 "'%.60s': packed and cache=; expected one of the two", v);
	return rc;
}

/* GUESTDIR[:ro|:rw][,...] */
static int share_guest(const struct taking *t, struct share_config *s, char *text, const char *v)
{
	char *rest = text, *guest = config_next_item(&rest);
	bool rw = cut_suffix(guest, ":rw");
	int rc;

	s->ro = !rw && cut_suffix(guest, ":ro");
	if (!guest[1] || strchr(guest, ':') || has_dots(guest))
		return take_wrong(t, v, "%s, GUESTDIR an absolute path below /", share_form);
	rc = share_items(t, s, rest, v);
	if (rc)
		return rc;
	if (s->packed && rw)
		return take_refuse(t, v, share_form,
				   "'%.80s': the guest gets a packed copy, which it can only read; "
				   "expected %s",
				   v, share_form);
	s->ro |= s->packed;
	if (is_shared(t->c, guest))
		return take_refuse(t, v, "a GUESTDIR of its own",
				   "'%.80s': %.60s is given twice; expected a GUESTDIR of its own",
				   v, guest);
	s->guest = strdup(guest);
	return s->guest ? 0 : take_no_memory(t);
}

/* The last ":/" of the text, where GUESTDIR begins: a host path may hold colons and commas. */
static char *guest_begins(char *text)
{
	char *found = NULL;

	for (char *p = text; (p = strstr(p, ":/")); p++)
		found = p;
	return found == text ? NULL : found;
}

static int set_share(const struct taking *t, const char *v)
{
	struct vm_config *c = t->c;
	struct share_config s = {0};
	char *copy, *guest;
	int rc;

	if (c->nshares == CONFIG_MAX_SHARES)
		return take_refuse(t, NULL, NULL, "more than %d directories", CONFIG_MAX_SHARES);
	copy = strdup(v);
	if (!copy)
		return take_no_memory(t);
	guest = guest_begins(copy);
	if (!guest) {
		free(copy);
		return take_wrong(t, v, "%s, GUESTDIR an absolute path below /", share_form);
	}
	*guest++ = 0;
	s.dir = copy;
	rc = share_guest(t, &s, guest, v);
	if (rc) {
		free(s.guest);
		free(copy);
		return rc;
	}
	c->share[c->nshares++] = s;
	return 0;
}

/* ---- a PCI function of the host ---- */

/* 0000:01:00.0, or without its domain, which is 0 then. */
static bool vfio_address(const char *v, size_t len, char out[CONFIG_VFIO_LEN + 1])
{
	static const char form[] = "xxxx:xx:xx.f";
	const char *digits = "0123456789abcdef";

	if (len == CONFIG_VFIO_LEN - 5)
		snprintf(out, CONFIG_VFIO_LEN + 1, "0000:%.*s", (int)len, v);
	else if (len == CONFIG_VFIO_LEN)
		snprintf(out, CONFIG_VFIO_LEN + 1, "%.*s", (int)len, v);
	else
		return false;
	for (size_t i = 0; i < CONFIG_VFIO_LEN; i++) {
		out[i] = (char)(out[i] >= 'A' && out[i] <= 'F' ? out[i] + 'a' - 'A' : out[i]);
		if (form[i] == 'x' || form[i] == 'f') {
			const char *d = out[i] ? strchr(digits, out[i]) : NULL;

			if (!d || (form[i] == 'f' && d - digits > 7))
				return false;
		} else if (out[i] != form[i]) {
			return false;
		}
	}
	return strtoul(out + 8, NULL, 16) < 32;
}

/* What follows the address of a function. */
static bool vfio_rest(struct vfio_config *f, const char *v)
{
	unsigned fd;

	f->bind = !strcmp(v, ",bind");
	if (!*v || f->bind)
		return true;
	if (f->by != VFIO_BY_ANY || strncmp(v, ",fd=", 4) != 0 ||
	    !parse_number(v + 4, 3, 1 << 20, &fd))
		return false;
	f->fd = (int)fd;
	return true;
}

/* And of one whose virtual functions are meant. */
static bool vfio_virtual_rest(struct vfio_config *f, const char *v)
{
	static const char free_one[] = ",vf=auto", count[] = ",vfs=";

	if (strncmp(v, free_one, sizeof(free_one) - 1) != 0)
		return false;
	v += sizeof(free_one) - 1;
	return !*v || (!strncmp(v, count, sizeof(count) - 1) &&
		       parse_number(v + sizeof(count) - 1, 1, 65535, &f->vfs));
}

static int set_vfio(const struct taking *t, const char *v)
{
	struct vm_config *c = t->c;
	struct vfio_config f = {.fd = -1, .pf = !strncmp(v, "pf=", 3), .vfs = 1};
	const char *at, *rest;
	char text[64];

	snprintf(text, sizeof(text), "%s", v);
	f.by = cut_suffix(text, ",by=group")  ? VFIO_BY_GROUP
	       : cut_suffix(text, ",by=node") ? VFIO_BY_NODE
					      : VFIO_BY_ANY;
	at = f.pf ? text + 3 : text;
	rest = at + strcspn(at, ",");
	if (c->nvfios == CONFIG_MAX_VFIOS)
		return take_refuse(t, NULL, NULL, "more than %d functions", CONFIG_MAX_VFIOS);
	if (strlen(v) >= sizeof(text) || !vfio_address(at, (size_t)(rest - at), f.address) ||
	    !(f.pf ? vfio_virtual_rest(&f, rest) : vfio_rest(&f, rest)))
		return take_wrong(t, v,
				  "the address of a PCI function, such as 0000:01:00.0, and after "
				  "it ,bind or ,fd=N or nothing; or pf=ADDRESS,vf=auto, and after "
				  "it ,vfs=N or nothing; and without fd ,by=group or ,by=node");
	c->vfio[c->nvfios++] = f;
	return 0;
}

/* ---- by their names ---- */

static int set_metadata(const struct taking *t, const char *v)
{
	char *copy = strdup(v);
	int rc;

	if (!copy)
		return take_no_memory(t);
	t->c->metadata_open = cut_suffix(copy, ",tokens=optional");
	rc = take_path(t, &t->c->metadata, copy);
	free(copy);
	return rc;
}

static int set_template(const struct taking *t, const char *v)
{
	return config_set_set_flag(t, &t->c->template, v);
}

static int set_restore(const struct taking *t, const char *v)
{
	return take_path(t, &t->c->restore, v);
}

static int set_identity(const struct taking *t, const char *v)
{
	t->c->new_identity = !strcmp(v, "new");
	return t->c->new_identity || !strcmp(v, "kept") ? 0 : take_wrong(t, v, "new or kept");
}

static int set_hostname(const struct taking *t, const char *v)
{
	if (!*v || !gp_host_name_ok(v))
		return take_wrong(t, v, GP_HOST_NAME_FORM);
	return take_text(t, &t->c->hostname, v);
}

static int set_paused(const struct taking *t, const char *v)
{
	return config_set_set_flag(t, &t->c->paused, v);
}

static const struct {
	const char *name;
	int (*set)(const struct taking *t, const char *v);
} setters[] = {
	{"kernel", set_kernel},
	{"initrd", set_initrd},
	{"append", set_append},
	{"cpus", set_cpus},
	{"mem", set_mem},
	{"rootfs", set_rootfs},
	{"share", set_share},
	{"sgx", set_sgx},
	{"vfio", set_vfio},
	{"console", set_console},
	{"rng", set_rng},
	{"bus", set_bus},
	{"hotplug", set_hotplug},
	{"image", set_image},
	{"pull", set_pull},
	{"entrypoint", set_entrypoint},
	{"rootfs-size", set_rootfs_size},
	{"metrics", set_metrics},
	{"metadata", set_metadata},
	{"timeout", set_timeout},
	{"interactive", set_interactive},
	{"tty", set_tty},
	{"env", set_env},
	{"cwd", set_cwd},
	{"user", set_user},
	{"template", set_template},
	{"restore", set_restore},
	{"identity", set_identity},
	{"hostname", set_hostname},
	{"paused", set_paused},
};

int config_take(const struct taking *t, const char *value)
{
	t->c->given |= 1ull << (t->s - settings);
	if (t->s->items)
		return items_text(t, value);
	for (size_t i = 0; i < ARRAY_LEN(setters); i++) {
		if (!strcmp(setters[i].name, t->s->name))
			return setters[i].set(t, value);
	}
	panic("setting %s: nothing takes it", t->s->name);
}

uint64_t config_bit(const char *name)
{
	return 1ull << (setting_find(name) - settings);
}

int config_set(struct vm_config *c, const char *where, const char *name, const char *value,
	       struct err *e)
{
	const struct taking t = {
		.c = c, .s = setting_find(name), .where = where, .index = -1, .e = e};

	return t.s ? config_take(&t, value) : err_set(e, -EINVAL, "%s: no such setting", where);
}
