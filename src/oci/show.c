/* SPDX-License-Identifier: BSD-2-Clause */
/* state, list, ps, features, spec, check. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "bundle.h"
#include "commands.h"
#include "conf.h"
#include "mountopt.h"
#include "seccomp.h"
#include "spec/json.h"

#define PIDS_MAX 4096

static void print(json_object *o)
{
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY |
						       JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

/* table or json; *json is which. */
static int format_of(const struct flags *f, bool *json, struct err *e)
{
	*json = f->format && !strcmp(f->format, "json");
	if (!f->format || *json || !strcmp(f->format, "table"))
		return 0;
	return err_set(e, -EINVAL, "--format: '%.20s'; expected table or json", f->format);
}

/* ---- state, list ---- */

int state_command(const struct flags *f, struct err *e)
{
	struct container c;
	int rc = container_state_open(&c, f->root, f->id, false, e);

	if (rc)
		return rc;
	print(state_json(&c, state_status(&c)));
	state_close(&c);
	return 0;
}

struct listing {
	const struct flags *f;
	json_object *all; /* NULL: lines */
};

static int list_one(void *ctx, const struct container *c)
{
	const struct listing *l = ctx;
	enum status s = state_status(c);

	if (l->f->quiet)
		puts(c->id);
	else if (l->all)
		json_object_array_add(l->all, state_json(c, s));
	else
		printf("%-24s %-8d %-9s %s  %s  root\n", c->id,
		       s == STATUS_STOPPED ? 0 : c->proxy.pid, state_word(s), c->bundle,
		       c->created);
	return 0;
}

int list_command(const struct flags *f, struct err *e)
{
	struct listing l = {.f = f};
	bool json;
	int rc = format_of(f, &json, e);

	if (rc)
		return rc;
	if (json && !f->quiet)
		l.all = json_object_new_array();
	else if (!f->quiet)
		puts("ID                       PID      STATUS    BUNDLE  CREATED  OWNER");
	rc = state_each(f->root, list_one, &l, e);
	if (l.all)
		print(l.all);
	return rc;
}

/* ---- ps ---- */

/* All that the host has of it; in a group of its own all are there. */
static int pids_of(const struct container *c, pid_t *pids, struct err *e)
{
	int n = c->group.path[0] ? cgroup_pids(&c->group, pids, PIDS_MAX, e) : 0;

	if (n < 0 || c->group.path[0] || !proc_alive(&c->proxy))
		return n;
	pids[0] = c->proxy.pid;
	return 1;
}

/* As ps shows them, with the caller's own options for it; we become it. */
static int ps_table(const struct flags *f, const pid_t *pids, int n, struct err *e)
{
	static char ps[] = "ps", long_form[] = "-f", of[] = "-p";
	char **argv = calloc(f->nargs + 5u, sizeof(*argv)), *list = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&list, &len);
	unsigned k = 0;

	if (!argv || !out) {
		free(argv);
		if (out)
			fclose(out);
		free(list);
		return err_sys(e, -ENOMEM, "ps");
	}
	for (int i = 0; i < n; i++)
		fprintf(out, "%s%d", i ? "," : "", pids[i]);
	fclose(out);
	argv[k++] = ps;
	for (unsigned i = 0; i < f->nargs; i++)
		argv[k++] = f->args[i];
	if (!f->nargs)
		argv[k++] = long_form;
	argv[k++] = of;
	argv[k] = list;
	if (n)
		execvp(ps, argv);
	n = n ? err_sys(e, -errno, "ps") : 0;
	free(argv);
	free(list);
	return n;
}

int ps_command(const struct flags *f, struct err *e)
{
	static pid_t pids[PIDS_MAX];
	json_object *list;
	struct container c;
	bool json;
	int n, rc = format_of(f, &json, e);

	if (!rc)
		rc = container_state_open(&c, f->root, f->id, false, e);
	if (rc)
		return rc;
	n = pids_of(&c, pids, e);
	state_close(&c);
	if (n < 0)
		return n;
	if (!json)
		return ps_table(f, pids, n, e);
	list = json_object_new_array();
	for (int i = 0; i < n; i++)
		json_object_array_add(list, json_object_new_int(pids[i]));
	puts(j_text(list));
	json_object_put(list);
	return 0;
}

/* ---- features ---- */

static json_object *texts(const char *const *list, size_t n)
{
	json_object *o = json_object_new_array();

	for (size_t i = 0; i < n; i++)
		json_object_array_add(o, json_object_new_string(list[i]));
	return o;
}

int features_command(const struct flags *f, struct err *e)
{
	static const char *const hooks[] = {"prestart",       "createRuntime", "createContainer",
					    "startContainer", "poststart",     "poststop"};
	static const char *const spaces[] = {"cgroup", "ipc",  "mount", "network",
					     "pid",    "user", "uts"};
	json_object *o = json_object_new_object(), *linux_ = json_object_new_object(),
		    *cgroup = json_object_new_object(), *notes = json_object_new_object();

	(void)f;
	(void)e;
	j_str(o, "ociVersionMin", "1.0.0");
	j_str(o, "ociVersionMax", OCI_VERSION);
	j_obj(o, "hooks", texts(hooks, ARRAY_LEN(hooks)));
	j_obj(linux_, "namespaces", texts(spaces, ARRAY_LEN(spaces)));
	j_bool(cgroup, "v1", false);
	j_bool(cgroup, "v2", true);
	j_bool(cgroup, "systemd", true);
	j_bool(cgroup, "systemdUser", false);
	j_obj(linux_, "cgroup", cgroup);
	j_obj(linux_, "seccomp", seccomp_features());
	j_obj(o, "linux", linux_);
	j_str(notes, "org.insula.version", INSULA_VERSION);
	j_obj(o, "annotations", notes);
	print(o);
	return 0;
}

/* ---- spec ---- */

static const char spec_text[] =
	"{\"ociVersion\":\"" OCI_VERSION "\","
	"\"process\":{\"terminal\":true,\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"sh\"],"
	"\"env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\","
	"\"TERM=xterm\"],\"cwd\":\"/\","
	"\"capabilities\":{\"bounding\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\","
	"\"CAP_NET_BIND_SERVICE\"],\"effective\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\","
	"\"CAP_NET_BIND_SERVICE\"],\"permitted\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\","
	"\"CAP_NET_BIND_SERVICE\"]},"
	"\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"hard\":1024,\"soft\":1024}],"
	"\"noNewPrivileges\":true},"
	"\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"hostname\":\"insula\","
	"\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
	"{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\","
	"\"options\":[\"nosuid\",\"strictatime\",\"mode=755\",\"size=65536k\"]},"
	"{\"destination\":\"/dev/pts\",\"type\":\"devpts\",\"source\":\"devpts\","
	"\"options\":[\"nosuid\",\"noexec\",\"newinstance\",\"ptmxmode=0666\",\"mode=0620\","
	"\"gid=5\"]},"
	"{\"destination\":\"/dev/shm\",\"type\":\"tmpfs\",\"source\":\"shm\","
	"\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"mode=1777\",\"size=65536k\"]},"
	"{\"destination\":\"/dev/mqueue\",\"type\":\"mqueue\",\"source\":\"mqueue\","
	"\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
	"{\"destination\":\"/sys\",\"type\":\"sysfs\",\"source\":\"sysfs\","
	"\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"ro\"]},"
	"{\"destination\":\"/sys/fs/cgroup\",\"type\":\"cgroup\",\"source\":\"cgroup\","
	"\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"relatime\",\"ro\"]}],"
	"\"linux\":{\"resources\":{\"devices\":[{\"allow\":false,\"access\":\"rwm\"}]},"
	"\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"network\"},{\"type\":\"ipc\"},"
	"{\"type\":\"uts\"},{\"type\":\"mount\"},{\"type\":\"cgroup\"}],"
	"\"maskedPaths\":[\"/proc/acpi\",\"/proc/kcore\",\"/proc/keys\",\"/proc/latency_stats\","
	"\"/proc/timer_list\",\"/proc/timer_stats\",\"/proc/sched_debug\",\"/sys/firmware\","
	"\"/proc/scsi\"],"
	"\"readonlyPaths\":[\"/proc/bus\",\"/proc/fs\",\"/proc/irq\",\"/proc/sys\","
	"\"/proc/sysrq-trigger\"]}}";

int spec_command(const struct flags *f, struct err *e)
{
	char path[PATH_MAX];
	json_object *o = json_tokener_parse(spec_text);
	const char *text = json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/config.json", f->bundle ? f->bundle : ".");
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		rc = err_sys(e, -errno, "%.200s", path);
	else
		rc = write_full(fd, text, strlen(text));
	fd_close(&fd);
	json_object_put(o);
	return rc;
}

/* ---- check ---- */

int check_command(const struct flags *f, struct err *e)
{
	struct oci_conf c;
	int rc = conf_read(&c, f->config, f->config_named, e);

	if (rc)
		return rc;
	conf_free(&c);
	puts("insula-oci: the configuration is good");
	return 0;
}
