/* SPDX-License-Identifier: BSD-2-Clause */
/* Settings from text. See config.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <insula/proto.h>

#include "config.h"
#include "settings.h"

#define DEFAULT_MEM (256ull << 20)
#define DEFAULT_RNG_RATE (1ull << 20)
#define MIN_RNG_RATE 1024ull
#define MAX_RNG_RATE (1ull << 30)
#define MAX_TIMEOUT 31536000u /* a year */

void config_init(struct vm_config *c)
{
	*c = (struct vm_config){.cpus = 1,
				.mem = DEFAULT_MEM,
				.console = CONSOLE_STDIO,
				.rng_rate = DEFAULT_RNG_RATE,
				.vsock = {.cid = VSOCK_DEFAULT_CID}};
}

static void free_command(struct vm_config *c)
{
	for (unsigned i = 0; i < c->ncommand; i++)
		free(c->command[i]);
	free(c->command);
	c->command = NULL;
	c->ncommand = 0;
}

void config_drop_disks(struct vm_config *c)
{
	for (unsigned i = 0; i < c->ndisks; i++)
		free(c->disk[i].path);
	c->ndisks = 0;
}

void config_drop_nets(struct vm_config *c)
{
	for (unsigned i = 0; i < c->nnets; i++)
		free(c->net[i].name);
	c->nnets = 0;
}

void config_free(struct vm_config *c)
{
	char *one[] = {c->kernel,  c->initrd,       c->append,     c->rootfs,
		       c->metrics, c->console_file, c->vsock.path, c->cwd};

	for (unsigned i = 0; i < sizeof(one) / sizeof(one[0]); i++)
		free(one[i]);
	for (unsigned i = 0; i < c->nenv; i++)
		free(c->env[i]);
	for (unsigned i = 0; i < c->nshares; i++) {
		free(c->share[i].dir);
		free(c->share[i].guest);
	}
	config_drop_disks(c);
	config_drop_nets(c);
	free_command(c);
	config_init(c);
}

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

static int replace(char **slot, const char *value, struct err *e)
{
	char *copy = strdup(value);

	if (!copy)
		return out_of_memory(e);
	free(*slot);
	*slot = copy;
	return 0;
}

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

/* ---- one function per setting ---- */

typedef int setter(struct vm_config *c, const char *where, const char *v, struct err *e);

static int path_setting(char **slot, const char *where, const char *v, struct err *e)
{
	if (!*v)
		return err_set(e, -EINVAL, "%s: empty; expected a path", where);
	return replace(slot, v, e);
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

static int set_kernel(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	int rc = path_setting(&c->kernel, where, v, e);

	if (!rc)
		c->kernel_packed = cut_suffix(c->kernel, ",packed");
	return rc;
}

static int set_initrd(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	return path_setting(&c->initrd, where, v, e);
}

static int set_metrics(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	return path_setting(&c->metrics, where, v, e);
}

static int set_append(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	if (strpbrk(v, "\n\r"))
		return err_set(e, -EINVAL, "%s: a line break; expected one line", where);
	return replace(&c->append, v, e);
}

static int set_cpus(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	if (!parse_number(v, 1, BOARD_MAX_CPUS, &c->cpus))
		return err_set(e, -EINVAL, "%s: '%.40s'; expected a number from 1 to %d", where, v,
			       BOARD_MAX_CPUS);
	return 0;
}

static int set_timeout(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	if (!parse_number(v, 1, MAX_TIMEOUT, &c->timeout))
		return err_set(e, -EINVAL, "%s: '%.40s'; expected seconds from 1 to %u", where, v,
			       MAX_TIMEOUT);
	return 0;
}

/* SIZE[,hugepages] */
static int set_mem(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	const char *comma = strchr(v, ',');
	char size[32];
	unsigned mib;
	uint64_t n;

	snprintf(size, sizeof(size), "%.*s", comma ? (int)(comma - v) : (int)strlen(v), v);
	if (comma && strcmp(comma, ",hugepages") != 0)
		return err_set(e, -EINVAL, "%s: '%.40s'; expected SIZE or SIZE,hugepages", where,
			       v);
	if (!comma && parse_number(v, BOARD_MIN_MEM >> 20, BOARD_MAX_MEM >> 20, &mib))
		return err_set(e, -EINVAL, "%s: %u bytes; did you mean %uM?", where, mib, mib);
	if (!parse_size(size, &n) || n < BOARD_MIN_MEM || n > BOARD_MAX_MEM)
		return err_set(e, -EINVAL,
			       "%s: '%.40s'; expected a size from %lluM to %lluG, such as 256M",
			       where, v, BOARD_MIN_MEM >> 20, BOARD_MAX_MEM >> 30);
	if (n % BOARD_PAGE)
		return err_set(e, -EINVAL, "%s: '%.40s'; expected a multiple of %u bytes", where, v,
			       BOARD_PAGE);
	c->mem = n;
	c->mem_huge = comma != NULL;
	return 0;
}

/* FILE[,limit=SIZE]. A comma in the name of the file is a comma. */
static int set_console_file(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	static const char key[] = ",limit=";
	const char *at = NULL, *size;
	uint64_t limit = CONSOLE_LIMIT;
	int rc;

	for (const char *p = v; (p = strstr(p, key)); p++)
		at = p;
	size = at ? at + sizeof(key) - 1 : NULL;
	if (size && (at == v || !parse_size(size, &limit) || !limit || limit > CONSOLE_LIMIT_MOST))
		return err_set(e, -EINVAL,
			       "%s: limit '%.40s'; expected a size from 1 byte to %lluT, such as "
			       "64M",
			       where, size, CONSOLE_LIMIT_MOST >> 40);
	rc = replace(&c->console_file, v, e);
	if (rc)
		return rc;
	if (at)
		c->console_file[at - v] = 0;
	c->console_limit = limit;
	c->console_given = true;
	c->console = CONSOLE_FILE;
	return 0;
}

static int set_console(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	static const char *const names[] = {"stdio", "pty", "none", "stderr"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(v, names[i])) {
			c->console = (enum console_kind)i;
			c->console_given = true;
			return 0;
		}
	}
	if (strncmp(v, "file=", 5) || !v[5])
		return err_set(e, -EINVAL,
			       "%s: '%.80s'; expected stdio, stderr, pty, none or "
			       "file=FILE[,limit=SIZE]",
			       where, v);
	return set_console_file(c, where, v + 5, e);
}

enum console_kind config_console(const struct vm_config *c)
{
	return c->console_given ? c->console : c->command ? CONSOLE_STDERR : CONSOLE_STDIO;
}

/* ---- the command's ---- */

static int set_env(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	const char *eq = strchr(v, '=');

	if (!eq || eq == v)
		return err_set(e, -EINVAL, "%s: '%.60s'; expected NAME=VALUE", where, v);
	if (c->nenv == CONFIG_MAX_ENV)
		return err_set(e, -EINVAL, "%s: more than %d variables", where, CONFIG_MAX_ENV);
	c->env[c->nenv] = strdup(v);
	if (!c->env[c->nenv])
		return out_of_memory(e);
	c->nenv++;
	return 0;
}

static int set_cwd(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	if (*v != '/')
		return err_set(e, -EINVAL, "%s: '%.80s'; expected an absolute path in the guest",
			       where, v);
	return replace(&c->cwd, v, e);
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

static int set_user(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	const char *colon = strchr(v, ':');
	bool user_named = false, group_named = false;
	char user[40] = "";
	unsigned u = 0, g = 0;

	snprintf(user, sizeof(user), "%.*s", colon ? (int)(colon - v) : 39, v);
	if (strlen(v) > CONFIG_USER_MAX || !user_or_group(user, &u, &user_named) ||
	    (colon && !user_or_group(colon + 1, &g, &group_named)))
		return err_set(e, -EINVAL,
			       "%s: '%.40s'; expected UID or NAME, and perhaps :GID or :GROUP",
			       where, v);
	c->uid = u;
	c->gid = g;
	c->has_user = true;
	c->has_gid = colon;
	snprintf(c->user, sizeof(c->user), "%s", user_named || group_named ? v : "");
	return 0;
}

static int set_flag(bool *flag, const char *where, const char *v, struct err *e)
{
	*flag = !strcmp(v, "on");
	if (!*flag && strcmp(v, "off") != 0)
		return err_set(e, -EINVAL, "%s: '%.40s'; expected on or off", where, v);
	return 0;
}

static int set_tty(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	return set_flag(&c->tty, where, v, e);
}

static int set_interactive(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	return set_flag(&c->interactive, where, v, e);
}

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

/* DIR:GUESTDIR[:ro], from the right: a host path may hold colons. */
static int set_share(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	struct share_config *s = &c->share[c->nshares];
	char *copy, *guest;
	int rc = 0;

	if (c->nshares == CONFIG_MAX_SHARES)
		return err_set(e, -EINVAL, "%s: more than %d directories", where,
			       CONFIG_MAX_SHARES);
	copy = strdup(v);
	if (!copy)
		return out_of_memory(e);
	if (cut_suffix(copy, ":rw"))
		rc = err_set(e, -EINVAL,
			     "%s: '%.80s': the guest gets a packed copy, which it can only read; "
			     "expected DIR:GUESTDIR[:ro]",
			     where, v);
	cut_suffix(copy, ":ro");
	guest = strrchr(copy, ':');
	if (rc)
		goto out;
	if (!guest || guest == copy || guest[1] != '/' || !guest[2] || has_dots(guest + 1)) {
		rc = err_set(e, -EINVAL,
			     "%s: '%.80s'; expected DIR:GUESTDIR[:ro], GUESTDIR an absolute path "
			     "below /",
			     where, v);
		goto out;
	}
	*guest++ = 0;
	if (is_shared(c, guest)) {
		rc = err_set(e, -EINVAL,
			     "%s: '%.80s': %s is given twice; expected a GUESTDIR of its own",
			     where, v, guest);
		goto out;
	}
	*s = (struct share_config){.dir = strdup(copy), .guest = strdup(guest)};
	c->nshares++; /* config_free() frees what is there */
	if (!s->dir || !s->guest)
		rc = out_of_memory(e);
out:
	free(copy);
	return rc;
}

static int set_rng(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	uint64_t n = DEFAULT_RNG_RATE;

	c->rng_off = !strcmp(v, "off");
	if (!c->rng_off && strcmp(v, "on") != 0 &&
	    (strncmp(v, "rate=", 5) != 0 || !parse_size(v + 5, &n) || n < MIN_RNG_RATE ||
	     n > MAX_RNG_RATE))
		return err_set(
			e, -EINVAL,
			"%s: '%.40s'; expected on, off or rate=BYTES (a second, %lluK to %lluG)",
			where, v, MIN_RNG_RATE >> 10, MAX_RNG_RATE >> 30);
	c->rng_rate = n;
	return 0;
}

static int set_rootfs(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	int rc = path_setting(&c->rootfs, where, v, e);

	if (rc)
		return rc;
	c->rootfs_rw = cut_suffix(c->rootfs, ",rw");
	if (!c->rootfs_rw)
		cut_suffix(c->rootfs, ",ro");
	return 0;
}

char *config_next_item(char **rest)
{
	char *start = *rest, *in = start, *out = start;

	if (!start)
		return NULL;
	while (*in && (*in != ',' || in[1] == ',')) {
		if (*in == ',')
			in++;
		*out++ = *in++;
	}
	*rest = *in ? in + 1 : NULL;
	*out = 0;
	return start;
}

#define DISK_FORM "[path=]FILE[,ro][,direct][,serial=S][,engine=threads]"

static int set_serial(struct disk_config *d, const char *where, const char *v, struct err *e)
{
	if (!*v || strlen(v) > DISK_SERIAL_LEN)
		return err_set(e, -EINVAL, "%s: serial '%.40s'; expected 1 to %d characters", where,
			       v, DISK_SERIAL_LEN);
	strcpy(d->serial, v);
	return 0;
}

static int set_engine(struct disk_config *d, const char *where, const char *v, struct err *e)
{
	d->threads = !strcmp(v, "threads");
	if (!d->threads && strcmp(v, "auto") != 0)
		return err_set(e, -EINVAL, "%s: engine '%.40s'; expected auto or threads", where,
			       v);
	return 0;
}

static int disk_item(struct disk_config *d, const char *where, const char *item, struct err *e)
{
	if (!strncmp(item, "path=", 5))
		return path_setting(&d->path, where, item + 5, e);
	if (!strncmp(item, "serial=", 7))
		return set_serial(d, where, item + 7, e);
	if (!strncmp(item, "engine=", 7))
		return set_engine(d, where, item + 7, e);
	if (!strcmp(item, "ro"))
		d->ro = true;
	else if (!strcmp(item, "direct"))
		d->direct = true;
	else
		return err_set(e, -EINVAL, "%s: '%.80s'; expected " DISK_FORM, where, item);
	return 0;
}

static int set_disk(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	struct disk_config *d = &c->disk[c->ndisks];
	char *copy, *rest, *item;
	int rc = 0;

	if (c->ndisks == CONFIG_MAX_DISKS)
		return err_set(e, -EINVAL, "%s: more than %d disks", where, CONFIG_MAX_DISKS);
	memset(d, 0, sizeof(*d));
	copy = strdup(v);
	if (!copy)
		return out_of_memory(e);
	rest = copy;
	if (setting_is_bare(setting_find("disk"), v))
		rc = path_setting(&d->path, where, config_next_item(&rest), e);
	while (!rc && (item = config_next_item(&rest)))
		rc = disk_item(d, where, item, e);
	if (!rc && !d->path)
		rc = err_set(e, -EINVAL, "%s: '%.80s'; expected " DISK_FORM, where, v);
	free(copy);
	if (rc)
		free(d->path);
	else
		c->ndisks++;
	return rc;
}

static int vsock_item(struct vsock_config *k, const char *where, const char *item, struct err *e)
{
	if (!strncmp(item, "path=", 5))
		return path_setting(&k->path, where, item + 5, e);
	if (strncmp(item, "cid=", 4) != 0)
		return err_set(e, -EINVAL, "%s: '%.80s'; expected [path=]FILE[,cid=N]", where,
			       item);
	if (!parse_number(item + 4, VSOCK_MIN_CID, VSOCK_MAX_CID, &k->cid))
		return err_set(e, -EINVAL, "%s: cid '%.40s'; expected a number from %u to %u",
			       where, item + 4, VSOCK_MIN_CID, VSOCK_MAX_CID);
	return 0;
}

static int set_vsock(struct vm_config *c, const char *where, const char *v, struct err *e)
{
	char *copy = strdup(v), *rest = copy, *item;
	int rc = copy ? 0 : out_of_memory(e);

	free(c->vsock.path);
	c->vsock = (struct vsock_config){.on = true, .cid = VSOCK_DEFAULT_CID};
	if (!rc && setting_is_bare(setting_find("vsock"), v))
		rc = path_setting(&c->vsock.path, where, config_next_item(&rest), e);
	while (!rc && (item = config_next_item(&rest)))
		rc = vsock_item(&c->vsock, where, item, e);
	if (!rc && !c->vsock.path)
		rc = err_set(e, -EINVAL, "%s: '%.80s'; expected [path=]FILE[,cid=N]", where, v);
	free(copy);
	return rc;
}

static const struct {
	const char *name;
	setter *set;
} setters[] = {
	{"kernel", set_kernel},
	{"initrd", set_initrd},
	{"append", set_append},
	{"cpus", set_cpus},
	{"mem", set_mem},
	{"disk", set_disk},
	{"rootfs", set_rootfs},
	{"console", set_console},
	{"metrics", set_metrics},
	{"timeout", set_timeout},
	{"rng", set_rng},
	{"vsock", set_vsock},
	{"env", set_env},
	{"cwd", set_cwd},
	{"user", set_user},
	{"tty", set_tty},
	{"interactive", set_interactive},
	{"share", set_share},
	{"net", config_net},
};

int config_set(struct vm_config *c, const char *where, const char *name, const char *value,
	       struct err *e)
{
	for (unsigned i = 0; i < sizeof(setters) / sizeof(setters[0]); i++) {
		if (!strcmp(setters[i].name, name))
			return setters[i].set(c, where, value, e);
	}
	return err_set(e, -EINVAL, "%s: no such setting", where);
}

int config_set_command(struct vm_config *c, char *const *argv, unsigned n, struct err *e)
{
	if (n > CONFIG_MAX_ARGS)
		return err_set(e, -EINVAL, "command: %u arguments; expected at most %d", n,
			       CONFIG_MAX_ARGS);
	free_command(c);
	if (!n)
		return 0;
	c->command = calloc(n + 1, sizeof(char *));
	if (!c->command)
		return out_of_memory(e);
	for (; c->ncommand < n; c->ncommand++) {
		c->command[c->ncommand] = strdup(argv[c->ncommand]);
		if (!c->command[c->ncommand])
			return out_of_memory(e);
	}
	return 0;
}

/* What belongs to a command and was given without one. */
static const char *commands_own(const struct vm_config *c)
{
	return c->tty           ? "-t"
	       : c->interactive ? "-i"
	       : c->nenv        ? "-e"
	       : c->cwd         ? "-w"
	       : c->has_user    ? "-u"
				: NULL;
}

int config_check(const struct vm_config *c, struct err *e)
{
	if (c->initrd && c->command)
		return err_set(
			e, -EINVAL,
			"--initrd: a command is run by Insula's own initrd; leave out one of "
			"the two");
	if (c->initrd && c->rootfs)
		return err_set(
			e, -EINVAL,
			"--initrd: --rootfs is mounted by Insula's own initrd; leave out one "
			"of the two, or use --disk");
	if (c->initrd && c->nshares)
		return err_set(
			e, -EINVAL,
			"--initrd: --share is mounted by Insula's own initrd; leave out one of "
			"the two, or use --disk");
	if (!c->command && commands_own(c))
		return err_set(e, -EINVAL, "%s: no command; expected one at the end of the line",
			       commands_own(c));
	if (c->command && c->console_given && c->console == CONSOLE_STDIO)
		return err_set(
			e, -EINVAL,
			"--console: stdio; with a command, standard input and output are the "
			"command's; expected stderr, pty, none or file=FILE");
	if (c->command && !c->command[0][0])
		return err_set(e, -EINVAL, "command: empty; expected a program's name");
	return 0;
}
