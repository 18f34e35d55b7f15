/* SPDX-License-Identifier: BSD-2-Clause */
/* One function for each setting that is one value. See config.h and config_take.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <insula/base.h>
#include <insula/guestproto.h>

#include "config_take.h"

/* ---- refusals ---- */

void config_field(char out[CONFIG_FIELD_MAX], const char *key, int index, const char *member)
{
	char at[16] = "";

	if (index >= 0)
		snprintf(at, sizeof(at), "[%d]", index);
	snprintf(out, CONFIG_FIELD_MAX, "%.40s%s%s%.40s", key, at, member ? "." : "",
		 member ? member : "");
	err_clean(out);
}

/* Where a setting stands is only looked for when its value is refused. */
static const char *taking_where(const struct taking *t, char out[WHERE_MAX])
{
	return t->read ? where_is(t->read, t->item ? t->item->key : NULL, out) : t->where;
}

static void note(const struct taking *t, const char *value, const char *expected)
{
	struct mistake *m = &t->c->mistake;

	config_field(m->field, setting_key(t->s), t->index, t->item ? t->item->key : NULL);
	snprintf(m->value, sizeof(m->value), "%s", value ? value : "");
	snprintf(m->expected, sizeof(m->expected), "%s", expected ? expected : "");
	m->has_value = value;
	err_clean(m->value);
	err_clean(m->expected);
}

int take_wrong(const struct taking *t, const char *value, const char *expected, ...)
{
	char words[sizeof(t->c->mistake.expected)], where[WHERE_MAX];
	va_list ap;

	va_start(ap, expected);
	vsnprintf(words, sizeof(words), expected, ap);
	va_end(ap);
	note(t, value, words);
	return err_set(t->e, -EINVAL, "%s: %s%s'%.80s'; expected %s", taking_where(t, where),
		       t->item ? t->item->key : "", t->item ? " " : "", value, words);
}

int take_refuse(const struct taking *t, const char *value, const char *expected, const char *fmt,
		...)
{
	char words[200], where[WHERE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	note(t, value, expected);
	return err_set(t->e, -EINVAL, "%s: %s", taking_where(t, where), words);
}

int take_no_memory(const struct taking *t)
{
	return err_set(t->e, -ENOMEM, "out of memory");
}

/* ---- kinds of values ---- */

/* "M", "MB", "MiB", in letters of either case: 20. */
static bool parse_unit(const char *unit, unsigned *shift)
{
	static const char letters[] = "kmg";
	const char *at = strchr(letters, *unit | 0x20);

	if (!at || !*at || (unit[1] && strcasecmp(unit + 1, "b") && strcasecmp(unit + 1, "ib")))
		return false;
	*shift = 10 * (unsigned)(at - letters + 1);
	return true;
}

bool parse_size(const char *text, uint64_t *out)
{
	char *end;
	uint64_t n;
	unsigned shift = 0;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end && !parse_unit(end, &shift))
		return false;
	if (shift && n >> (64 - shift))
		return false;
	*out = n << shift;
	return true;
}

static bool parse_number(const char *text, uint64_t min, uint64_t max, unsigned *out)
{
	char *end;
	unsigned long long n;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || n < min || n > max)
		return false;
	*out = (unsigned)n;
	return true;
}

static bool in_range(const struct taking *t, uint64_t n)
{
	return n >= (t->item ? t->item->min : t->s->min) &&
	       n <= (t->item ? t->item->max : t->s->max);
}

bool take_number(const struct taking *t, const char *text, unsigned *out)
{
	unsigned n;

	if (!parse_number(text, 0, UINT32_MAX, &n) || !in_range(t, n))
		return false;
	*out = n;
	return true;
}

bool take_size(const struct taking *t, const char *text, uint64_t *out)
{
	uint64_t n;

	if (!parse_size(text, &n) || !in_range(t, n))
		return false;
	*out = n;
	return true;
}

const char *size_text(uint64_t n, char out[24])
{
	static const char units[] = "GMK";

	for (unsigned i = 0; i < 3; i++) {
		unsigned shift = 10 * (3 - i);

		if (n && !(n & ((1ull << shift) - 1))) {
			snprintf(out, 24, "%llu%c", (unsigned long long)n >> shift, units[i]);
			return out;
		}
	}
	snprintf(out, 24, "%llu", (unsigned long long)n);
	return out;
}

int take_text(const struct taking *t, char **slot, const char *v)
{
	char *copy = strdup(v);

	if (!copy)
		return take_no_memory(t);
	free(*slot);
	*slot = copy;
	return 0;
}

int take_path(const struct taking *t, char **slot, const char *v)
{
	if (!*v)
		return take_refuse(t, v, "a path", "empty; expected a path");
	return take_text(t, slot, v);
}

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
	char least[24], most[24];
	uint64_t n;

	if (!take_size(t, v, &n))
		return take_wrong(t, v, "a size from %s to %s, such as 2G",
				  size_text(t->s->min, least), size_text(t->s->max, most));
	if (n % BOARD_PAGE)
		return take_wrong(t, v, "a multiple of %u bytes", BOARD_PAGE);
	t->c->rootfs_size = n;
	return 0;
}

static int set_append(const struct taking *t, const char *v)
{
	if (strpbrk(v, "\n\r"))
		return take_refuse(t, v, "one line", "a line break; expected one line");
	return take_text(t, &t->c->append, v);
}

static int set_cpus(const struct taking *t, const char *v)
{
	if (!take_number(t, v, &t->c->cpus))
		return take_wrong(t, v, "a number from %llu to %llu", (unsigned long long)t->s->min,
				  (unsigned long long)t->s->max);
	return 0;
}

static int set_timeout(const struct taking *t, const char *v)
{
	if (!take_number(t, v, &t->c->timeout))
		return take_wrong(t, v, "seconds from %llu to %llu", (unsigned long long)t->s->min,
				  (unsigned long long)t->s->max);
	return 0;
}

/* SIZE[,hugepages] */
static int set_mem(const struct taking *t, const char *v)
{
	const char *comma = strchr(v, ',');
	char size[32], least[24], most[24], meant[48];
	unsigned mib;
	uint64_t n;

	snprintf(size, sizeof(size), "%.*s", comma ? (int)(comma - v) : (int)strlen(v), v);
	if (comma && strcmp(comma, ",hugepages") != 0)
		return take_wrong(t, v, "SIZE or SIZE,hugepages");
	if (!comma && parse_number(v, BOARD_MIN_MEM >> 20, BOARD_MAX_MEM >> 20, &mib)) {
		snprintf(meant, sizeof(meant), "a size such as %uM", mib);
		return take_refuse(t, v, meant, "%u bytes; did you mean %uM?", mib, mib);
	}
	if (!take_size(t, size, &n))
		return take_wrong(t, v, "a size from %s to %s, such as 256M",
				  size_text(t->s->min, least), size_text(t->s->max, most));
	if (n % BOARD_PAGE)
		return take_wrong(t, v, "a multiple of %u bytes", BOARD_PAGE);
	t->c->mem = n;
	t->c->mem_huge = comma != NULL;
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

/* ---- by their names ---- */

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
	{"console", set_console},
	{"rng", set_rng},
	{"bus", set_bus},
	{"image", set_image},
	{"pull", set_pull},
	{"entrypoint", set_entrypoint},
	{"rootfs-size", set_rootfs_size},
	{"metrics", set_metrics},
	{"timeout", set_timeout},
	{"interactive", set_interactive},
	{"tty", set_tty},
	{"env", set_env},
	{"cwd", set_cwd},
	{"user", set_user},
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
