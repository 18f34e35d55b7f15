/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's configuration. See conf.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "conf.h"
#include "spec/config.h"
#include "spec/json.h"

#define DEPTH 6
#define PATH_IN_SOCKET 107

void conf_init(struct conf *c)
{
	*c = (struct conf){.socket_mode = 0660,
			   .metrics_mode = 0600,
			   .overcommit_percent = 100,
			   .max_vms = 4096,
			   .max_clients = 256,
			   .max_clients_per_uid = 64,
			   .max_requests = 64,
			   .idle_timeout = 600,
			   .max_line = 1u << 20,
			   .max_queue = 1u << 20,
			   .overhead_mib = 64,
			   .cpu_percent = 100,
			   .log_max = 4u << 20,
			   .limits = {.vms = 64, .vcpus = 64, .memory = 16ull << 30}};
	strcpy(c->cgroup, "auto");
	conf_init_paths(c);
}

/* ---- one parser per kind of value ---- */

struct conf_setting {
	const char *name; /* its key; for a message about its flag, that */
	int (*parse)(const struct conf_setting *s, struct conf *c, json_object *v, struct err *e);
	size_t offset, size;
	int64_t min, max;
	const char *flag; /* NULL: none */
	const char *value, *words, *help;
};

static int wrong(const struct conf_setting *s, json_object *v, const char *expected, struct err *e)
{
	return err_set(e, -EINVAL, "%s: %.60s; expected %s", s->name, j_text(v), expected);
}

static int text_setting(const struct conf_setting *s, struct conf *c, json_object *v, struct err *e)
{
	char expected[64];
	size_t len;

	if (!json_object_is_type(v, json_type_string))
		return wrong(s, v, "a string", e);
	len = strlen(json_object_get_string(v));
	if (len != (size_t)json_object_get_string_len(v) || len >= s->size ||
	    (s->max && len > (size_t)s->max)) {
		snprintf(expected, sizeof(expected), "at most %zu bytes of text",
			 s->max ? (size_t)s->max : s->size - 1);
		return wrong(s, v, expected, e);
	}
	for (const char *p = json_object_get_string(v); *p; p++) {
		if ((unsigned char)*p < 0x20)
			return wrong(s, v, "text of one line", e);
	}
	memcpy((char *)c + s->offset, json_object_get_string(v), len + 1);
	return 0;
}

static int path_setting(const struct conf_setting *s, struct conf *c, json_object *v, struct err *e)
{
	const char *text = json_object_get_string(v);

	if (json_object_is_type(v, json_type_string) && !path_is_absolute(text))
		return wrong(s, v, "an absolute path", e);
	return text_setting(s, c, v, e);
}

static int socket_setting(const struct conf_setting *s, struct conf *c, json_object *v,
			  struct err *e)
{
	if (json_object_is_type(v, json_type_string) && !conf_is_socket(json_object_get_string(v)))
		return wrong(s, v, conf_socket_words, e);
	return text_setting(s, c, v, e);
}

static int cgroup_setting(const struct conf_setting *s, struct conf *c, json_object *v,
			  struct err *e)
{
	const char *text = json_object_get_string(v);

	if (json_object_is_type(v, json_type_string) && text[0] != '/' && strcmp(text, "auto") &&
	    strcmp(text, "off"))
		return wrong(s, v, "auto, off or a directory of the cgroup2 file system", e);
	return text_setting(s, c, v, e);
}

static int number_setting(const struct conf_setting *s, struct conf *c, json_object *v,
			  struct err *e)
{
	char expected[64];
	unsigned n;

	snprintf(expected, sizeof(expected), "a number from %lld to %lld", (long long)s->min,
		 (long long)s->max);
	if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < s->min ||
	    json_object_get_int64(v) > s->max)
		return wrong(s, v, expected, e);
	n = (unsigned)json_object_get_int64(v);
	memcpy((char *)c + s->offset, &n, sizeof(n));
	return 0;
}

static int size_setting(const struct conf_setting *s, struct conf *c, json_object *v, struct err *e)
{
	uint64_t n;

	if (!json_object_is_type(v, json_type_string) ||
	    !parse_size(json_object_get_string(v), &n) || n < (uint64_t)s->min ||
	    n > (uint64_t)s->max)
		return wrong(s, v, "a size from \"64K\" to \"1G\"", e);
	memcpy((char *)c + s->offset, &n, sizeof(n));
	return 0;
}

static int mode_setting(const struct conf_setting *s, struct conf *c, json_object *v, struct err *e)
{
	const char *text = json_object_get_string(v);
	char *end;
	unsigned long n;

	if (!json_object_is_type(v, json_type_string) || !text[0])
		return wrong(s, v, "an octal mode such as \"0660\"", e);
	n = strtoul(text, &end, 8);
	if (*end || n > 0777 || text[0] == '-' || text[0] == '+' || text[0] == ' ')
		return wrong(s, v, "an octal mode such as \"0660\"", e);
	*(unsigned *)(void *)((char *)c + s->offset) = (unsigned)n;
	return 0;
}

static int log_setting(const struct conf_setting *s, struct conf *c, json_object *v, struct err *e)
{
	const char *text = json_object_get_string(v);

	if (!json_object_is_type(v, json_type_string) ||
	    (strcmp(text, "text") && strcmp(text, "json")))
		return wrong(s, v, "text or json", e);
	c->log_json = !strcmp(text, "json");
	return 0;
}

static int flag_setting(const struct conf_setting *s, struct conf *c, json_object *v, struct err *e)
{
	if (!json_object_is_type(v, json_type_boolean))
		return wrong(s, v, "true or false", e);
	*((bool *)((char *)c + s->offset)) = json_object_get_boolean(v);
	return 0;
}

/* ---- limits ---- */

static int limit_number(const char *where, json_object *v, unsigned *out, struct err *e)
{
	if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0 ||
	    json_object_get_int64(v) > 1000000)
		return err_set(e, -EINVAL, "%s: %.60s; expected a number from 0 to 1000000", where,
			       j_text(v));
	*out = (unsigned)json_object_get_int64(v);
	return 0;
}

static int limit_member(struct limits *l, const char *where, const char *key, json_object *v,
			struct err *e)
{
	char name[96];

	snprintf(name, sizeof(name), "%.40s.%.40s", where, key);
	if (!strcmp(key, "vms"))
		return limit_number(name, v, &l->vms, e);
	if (!strcmp(key, "vcpus"))
		return limit_number(name, v, &l->vcpus, e);
	if (strcmp(key, "memory") != 0)
		return err_set(e, -EINVAL, "%s: unknown; expected vms, vcpus or memory", name);
	if (!json_object_is_type(v, json_type_string) ||
	    !parse_size(json_object_get_string(v), &l->memory))
		return err_set(e, -EINVAL, "%s: %.60s; expected a size such as \"16G\"", name,
			       j_text(v));
	return 0;
}

static int parse_limits(struct limits *l, const char *where, json_object *v, struct err *e)
{
	int rc = 0;

	if (!json_object_is_type(v, json_type_object))
		return err_set(e, -EINVAL, "%s: %.60s; expected an object", where, j_text(v));
	json_object_object_foreach(v, key, member)
	{
		if (!rc)
			rc = limit_member(l, where, key, member, e);
	}
	return rc;
}

static int limits_setting(const struct conf_setting *s, struct conf *c, json_object *v,
			  struct err *e)
{
	return parse_limits(&c->limits, s->name, v, e);
}

/* {"1000": {...}}: what is not said is as for everybody. */
static int one_user(const struct conf_setting *s, struct conf *c, const char *key, json_object *v,
		    struct err *e)
{
	char where[40], *end;
	unsigned long uid = strtoul(key, &end, 10);

	if (key[0] < '0' || key[0] > '9' || *end || uid >= UINT32_MAX)
		return err_set(e, -EINVAL, "%s: '%.40s'; expected a numeric user id", s->name, key);
	if (c->nusers == CONF_MAX_USERS)
		return err_set(e, -EINVAL, "%s: more than %d", s->name, CONF_MAX_USERS);
	snprintf(where, sizeof(where), "%s.%lu", s->name, uid);
	c->user[c->nusers].uid = (uint32_t)uid;
	c->user[c->nusers].limits = c->limits;
	return parse_limits(&c->user[c->nusers++].limits, where, v, e);
}

static int users_setting(const struct conf_setting *s, struct conf *c, json_object *v,
			 struct err *e)
{
	int rc = 0;

	if (!json_object_is_type(v, json_type_object))
		return wrong(s, v, "an object of user ids", e);
	c->nusers = 0;
	json_object_object_foreach(v, key, member)
	{
		if (!rc)
			rc = one_user(s, c, key, member, e);
	}
	return rc;
}

#define AT(field) offsetof(struct conf, field), sizeof(((struct conf *)0)->field)

/* "limits" stands before "users", which start from it, whatever the order in the file. What is said
 * of flags here is in --help and in insulad(8); insulad.json(5) says more. */
static const struct conf_setting conf_settings[] = {
	{"socket", socket_setting, AT(socket), 0, PATH_IN_SOCKET, "socket", "PATH", NULL,
	 "the control socket"},
	{"socket_mode", mode_setting, AT(socket_mode), 0, 0, "socket-mode", "MODE", NULL,
	 "its mode, in octal; default 0660"},
	{"socket_group", text_setting, AT(socket_group), 0, 0, "socket-group", "GROUP", NULL,
	 "its group; default: the daemon's"},
	{"metrics_socket", socket_setting, AT(metrics_socket), 0, PATH_IN_SOCKET, "metrics-socket",
	 "PATH", NULL, "a second socket, for Prometheus; default: none"},
	{"metrics_mode", mode_setting, AT(metrics_mode), 0, 0, "metrics-mode", "MODE", NULL,
	 "the mode of that one; default 0600"},
	{"state_dir", path_setting, AT(state_dir), 0, 0, "state-dir", "DIR", NULL,
	 "where records and logs of VMs are kept"},
	{"supervisor", path_setting, AT(supervisor), 0, 0, "supervisor", "FILE", NULL,
	 "insula-run; default: next to insulad"},
	{"cgroup", cgroup_setting, AT(cgroup), 0, 0, "cgroup", "auto|off|DIR", "auto off",
	 "where VMs have control groups; default auto"},
	{"io_max", text_setting, AT(io_max), 0, 0, "io-max", "LINE", NULL,
	 "a line for io.max of each VM's group; default: none"},
	{"log", log_setting, 0, 0, 0, 0, "log", "text|json", "text json",
	 "how messages are written; default text"},
	{"verbose", flag_setting, AT(verbose), 0, 0, NULL, NULL, NULL, NULL}, /* -v */
	{"overcommit_percent", number_setting, AT(overcommit_percent), 1, 10000,
	 "overcommit-percent", "N", NULL,
	 "memory of all running guests, in percent of the host's; default 100"},
	{"max_vms", number_setting, AT(max_vms), 1, 65536, "max-vms", "N", NULL,
	 "VMs that it keeps; default 4096"},
	{"max_clients", number_setting, AT(max_clients), 1, 65536, "max-clients", "N", NULL,
	 "connections; default 256"},
	{"max_clients_per_uid", number_setting, AT(max_clients_per_uid), 1, 65536,
	 "max-clients-per-uid", "N", NULL, "connections of one user; default 64"},
	{"max_requests", number_setting, AT(max_requests), 1, 4096, "max-requests", "N", NULL,
	 "requests of one connection that are under way; default 64"},
	{"idle_timeout", number_setting, AT(idle_timeout), 0, 86400, "idle-timeout", "SECONDS",
	 NULL, "until an idle connection is closed, 0: never; default 600"},
	{"max_line", number_setting, AT(max_line), 4096, 16 << 20, "max-line", "BYTES", NULL,
	 "of one request; default 1048576"},
	{"max_queue", number_setting, AT(max_queue), 65536, 64 << 20, "max-queue", "BYTES", NULL,
	 "that a client has not read; default 1048576"},
	{"overhead_mib", number_setting, AT(overhead_mib), 16, 65536, "overhead-mib", "N", NULL,
	 "memory of a VM beside its guest's, in MiB; default 64"},
	{"cpu_percent", number_setting, AT(cpu_percent), 1, 100, "cpu-percent", "N", NULL,
	 "processor time of a VM, in percent of a processor for each vCPU; default 100"},
	{"log_max", size_setting, AT(log_max), 64 << 10, 1 << 30, "log-max", "SIZE", NULL,
	 "of each of the two files of a VM's log, 64K to 1G; default 4M"},
	{"limits", limits_setting, 0, 0, 0, 0, "limits", "JSON", NULL,
	 "of each user but root, such as {\"vms\":16,\"vcpus\":16,\"memory\":\"8G\"}"},
	{"users", users_setting, 0, 0, 0, 0, "users", "JSON", NULL,
	 "limits of single users, such as {\"1000\":{\"memory\":\"32G\"}}"},
};

/* ---- flags ---- */

const struct flag_words daemon_flags[] = {
	{"config", 0, "FILE", NULL, true, "the configuration"},
	{NULL, 'n', NULL, NULL, false, "check everything, start nothing"},
	{"api", 0, NULL, NULL, false, "print the methods as Markdown, start nothing"},
	{NULL, 'v', NULL, NULL, false, "say more"},
	{"help", 'h', NULL, NULL, false, "this help"},
	{"version", 0, NULL, NULL, false, "the version"},
};
const size_t ndaemon_flags = ARRAY_LEN(daemon_flags);

static bool is_missing(const char *name)
{
	for (const char *const *m = conf_missing; *m; m++) {
		if (!strcmp(*m, name))
			return true;
	}
	return false;
}

size_t conf_flags(struct flag_words *out)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(conf_settings); i++) {
		const struct conf_setting *s = &conf_settings[i];

		if (!s->flag || is_missing(s->name))
			continue;
		out[n++] = (struct flag_words){.name = s->flag,
					       .value = s->value,
					       .words = s->words,
					       .path = !strcmp(s->value, "PATH") ||
						       !strcmp(s->value, "FILE") ||
						       !strcmp(s->value, "DIR"),
					       .help = s->help};
	}
	return n;
}

static const struct conf_setting *find_flag(const char *flag)
{
	for (size_t i = 0; i < ARRAY_LEN(conf_settings); i++) {
		if (conf_settings[i].flag && !strcmp(conf_settings[i].flag, flag))
			return &conf_settings[i];
	}
	return NULL;
}

/* The text of a flag as the value that it has in the file. What is no such value becomes a string,
 * which its parser refuses in its own words. */
static json_object *value_of(const struct conf_setting *s, const char *text)
{
	const char *why;
	json_object *v = NULL;

	if (s->parse == number_setting && text[0] && strspn(text, "0123456789") == strlen(text))
		v = j_parse(text, strlen(text), 1, &why);
	else if (s->parse == limits_setting || s->parse == users_setting)
		v = j_parse(text, strlen(text), DEPTH, &why);
	return v ? v : json_object_new_string(text);
}

int conf_flag(json_object *flags, const char *flag, const char *text, struct err *e)
{
	const struct conf_setting *s = find_flag(flag);
	struct conf_setting named;
	json_object *v;
	struct conf *scratch;
	char name[64];
	int rc;

	if (!s)
		return err_set(e, -EINVAL, "--%s: no such setting", flag);
	scratch = calloc(1, sizeof(*scratch));
	if (!scratch)
		return err_set(e, -ENOMEM, "out of memory");
	conf_init(scratch);
	snprintf(name, sizeof(name), "--%s", flag);
	named = *s;
	named.name = name;
	v = value_of(s, text);
	rc = named.parse(&named, scratch, v, e);
	free(scratch);
	if (rc)
		json_object_put(v);
	else
		j_obj(flags, s->name, v);
	return rc;
}

/* ---- the file ---- */

static const char *nearest_setting(const char *key)
{
	const char *known[ARRAY_LEN(conf_settings)];

	for (size_t i = 0; i < ARRAY_LEN(conf_settings); i++)
		known[i] = conf_settings[i].name;
	return nearest(key, known, ARRAY_LEN(conf_settings));
}

static int check_keys(json_object *root, struct err *e)
{
	json_object_object_foreach(root, key, v)
	{
		const char *near = nearest_setting(key);
		bool known = false;

		(void)v;
		for (size_t i = 0; i < ARRAY_LEN(conf_settings); i++)
			known |= !strcmp(conf_settings[i].name, key);
		if (is_missing(key))
			return err_set(e, -EOPNOTSUPP, "%s: not on this system", key);
		if (!known)
			return err_set(e, -EINVAL,
				       "unknown setting '%.60s'%s%s%s; see insulad.json(5)", key,
				       near ? "; did you mean '" : "", near ? near : "",
				       near ? "'?" : "");
	}
	return 0;
}

static int apply(struct conf *c, json_object *root, struct err *e)
{
	json_object *v;
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(conf_settings) && !rc; i++) {
		if (json_object_object_get_ex(root, conf_settings[i].name, &v))
			rc = conf_settings[i].parse(&conf_settings[i], c, v, e);
	}
	c->socket_rights = j_get(root, "socket_mode") || j_get(root, "socket_group") ||
			   j_get(root, "metrics_mode");
	return rc;
}

/* A well-formed object of known members, the caller's. */
static int read_object(json_object **out, const char *text, size_t len, struct err *e)
{
	const char *why;
	int rc = 0;

	*out = j_parse(text, len, DEPTH, &why);
	if (!*out)
		return err_set(e, -EINVAL, "not JSON: %s", why);
	rc = json_object_is_type(*out, json_type_object)
		     ? check_keys(*out, e)
		     : err_set(e, -EINVAL, "expected one object");
	if (rc)
		json_object_put(*out);
	return rc;
}

int conf_parse(struct conf *c, const char *text, size_t len, struct err *e)
{
	json_object *root;
	int rc = read_object(&root, text, len, e);

	if (rc)
		return rc;
	rc = apply(c, root, e);
	json_object_put(root);
	return rc;
}

/* The file's settings first, so that what is wrong in it is said, then those of flags. */
static int apply_both(struct conf *c, json_object *root, json_object *flags, struct err *e)
{
	int rc = apply(c, root, e);

	if (rc || !flags)
		return rc;
	json_object_object_foreach(flags, key, v)
	{
		j_obj(root, key, json_object_get(v));
	}
	/* Together: the limits of users start from those of everybody. */
	return apply(c, root, e);
}

int conf_load(struct conf *c, const char *path, bool must_exist, json_object *flags, struct err *e)
{
	json_object *root = NULL;
	struct err why;
	char *text;
	size_t len;
	int rc = text_read(path, false, CONF_MAX_BYTES, &text, &len);

	if (rc == -ENOENT && !must_exist) {
		root = json_object_new_object();
		rc = apply_both(c, root, flags, e);
		json_object_put(root);
		return rc;
	}
	if (rc == -EFBIG || rc == -EINVAL)
		return err_set(e, -EINVAL, "%s: expected a file of at most %u bytes", path,
			       CONF_MAX_BYTES);
	if (rc)
		return err_sys(e, rc, "%s", path);
	rc = read_object(&root, text, len, &why);
	free(text);
	if (!rc) {
		rc = apply_both(c, root, flags, &why);
		json_object_put(root);
	}
	return rc ? err_set(e, -EINVAL, "%.100s: %s", path, why.text) : 0;
}

const struct limits *conf_limits(const struct conf *c, uint32_t uid)
{
	for (unsigned i = 0; i < c->nusers; i++) {
		if (c->user[i].uid == uid)
			return &c->user[i].limits;
	}
	return &c->limits;
}

uint64_t conf_group_memory(const struct conf *c, uint64_t mem)
{
	return mem + ((uint64_t)c->overhead_mib << 20);
}

void conf_reload(struct conf *c, const struct conf *from, char *kept, size_t size)
{
	static const char *const fixed[] = {"socket",         "socket_mode",  "socket_group",
					    "metrics_socket", "metrics_mode", "state_dir",
					    "supervisor",     "cgroup"};
	struct conf old = *c;

	*c = *from;
	kept[0] = 0;
	for (size_t i = 0; i < ARRAY_LEN(conf_settings); i++) {
		for (size_t k = 0; k < ARRAY_LEN(fixed); k++) {
			const struct conf_setting *s = &conf_settings[i];
			char *to = (char *)c + s->offset;
			const char *was = (const char *)&old + s->offset;
			size_t n = strlen(kept);

			if (strcmp(s->name, fixed[k]) != 0)
				continue;
			if (memcmp(to, was, s->size) != 0)
				snprintf(kept + n, size - n, "%s%s", n ? ", " : "", s->name);
			memcpy(to, was, s->size);
		}
	}
}
