/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulad: stages of start-up.
 *
 *   1. configuration       -n ends here
 *   2. state directory     locked: there is one daemon for it
 *   3. control groups
 *   4. sockets             made or taken from systemd; nobody is served yet
 *   5. records             VMs and pools that an earlier daemon has left are found again
 *   6. READY=1, loop
 *
 * At its end it leaves every VM alone.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "cgroup.h"
#include "client.h"
#include "closer.h"
#include "conf.h"
#include "daemon.h"
#include "discover.h"
#include "dlog.h"
#include "foreign.h"
#include "host.h"
#include "listen.h"
#include "logs.h"
#include "machine.h"
#include "notify.h"
#include "pool.h"
#include "spawn.h"
#include "state.h"
#include "watch.h"

#define STATUS_BAD_INPUT 2
#define STATUS_FAILED 1
#define MAX_SIGNALS 4

struct options {
	const char *config;
	json_object *flags; /* settings; the daemon's */
	bool check, api, verbose;
};

/* ---- the command line ---- */

enum { OPT_CONFIG = 256, OPT_API, OPT_VERSION, OPT_SETTING = 1000 };

static const struct option own_options[] = {{"config", required_argument, NULL, OPT_CONFIG},
					    {"api", no_argument, NULL, OPT_API},
					    {"help", no_argument, NULL, 'h'},
					    {"version", no_argument, NULL, OPT_VERSION}};

static int print_help(void)
{
	struct flag_words flags[CONF_FLAGS];
	size_t n = conf_flags(flags);

	printf("usage: insulad [options]\n\n"
	       "Keep microVMs and offer them on a socket: JSON-RPC 2.0, one object per line.\n\n");
	for (size_t i = 0; i < ndaemon_flags; i++)
		flag_print(&daemon_flags[i]);
	printf("\nSettings, which win over those of the configuration:\n\n");
	for (size_t i = 0; i < n; i++)
		flag_print(&flags[i]);
	printf("\nThe configuration is %s, if it exists.\n"
	       "See insulad(8), insulad.json(5), insulactl(1).\n",
	       conf_default_file());
	return fflush(stdout) || ferror(stdout) ? STATUS_FAILED : 0;
}

static int bad_option(const char *text, int how, const struct option *longopts)
{
	const char *known[CONF_FLAGS + ARRAY_LEN(own_options)], *meant = NULL;
	char name[64];
	size_t n = 0;

	if (how == ':') {
		fprintf(stderr, "insulad: '%.60s': no value; expected one (see --help)\n", text);
		return -EINVAL;
	}
	for (; longopts[n].name; n++)
		known[n] = longopts[n].name;
	if (!strncmp(text, "--", 2) && strlen(text) > 3) {
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(text + 2, "="), text + 2);
		meant = nearest(name, known, n);
	}
	fprintf(stderr, "insulad: '%.60s': unknown flag%s%s%s; see --help\n", text,
		meant ? "; did you mean --" : "", meant ? meant : "", meant ? "?" : "");
	return -EINVAL;
}

static int take_setting(struct options *o, const char *flag, const char *value)
{
	struct err e;
	int rc = conf_flag(o->flags, flag, value, &e);

	if (rc)
		fprintf(stderr, "insulad: %s\n", e.text);
	return rc;
}

static int take_option(struct options *o, int c, char **argv, const struct option *longopts)
{
	switch (c) {
	case OPT_CONFIG:
		o->config = optarg;
		return 0;
	case 'n':
		o->check = true;
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	case OPT_API:
		o->api = true;
		return 0;
	case 'h':
		exit(print_help());
	case OPT_VERSION:
		exit(puts("insulad " INSULA_VERSION) < 0 ? STATUS_FAILED : 0);
	default:
		break;
	}
	if (c < OPT_SETTING)
		return bad_option(argv[optind - 1], c, longopts);
	return take_setting(o, longopts[c - OPT_SETTING].name, optarg);
}

static int parse_options(struct options *o, int argc, char **argv)
{
	struct option longopts[CONF_FLAGS + ARRAY_LEN(own_options) + 1] = {0};
	struct flag_words flags[CONF_FLAGS];
	size_t n = conf_flags(flags);
	int c, rc = 0;

	for (size_t i = 0; i < n; i++)
		longopts[i] = (struct option){flags[i].name, required_argument, NULL,
					      OPT_SETTING + (int)i};
	memcpy(longopts + n, own_options, sizeof(own_options));
	opterr = 0;
	while (!rc && (c = getopt_long(argc, argv, ":nvh", longopts, NULL)) >= 0)
		rc = take_option(o, c, argv, longopts);
	if (rc || optind == argc)
		return rc;
	fprintf(stderr, "insulad: '%.60s': expected no argument\n", argv[optind]);
	return -EINVAL;
}

static int load_conf(const struct options *o, struct conf *c, struct err *e)
{
	int rc;

	conf_init(c);
	rc = conf_load(c, o->config ? o->config : conf_default_file(), o->config != NULL, o->flags,
		       e);
	c->verbose |= o->verbose;
	return rc;
}

/* And that what it names exists. */
static int check_conf(struct daemon *d, const struct options *o, struct err *e)
{
	int rc = load_conf(o, &d->conf, e);

	if (!rc)
		rc = clients_check(&d->conf, e);
	return rc ? rc : host_supervisor(d, e);
}

static void open_groups(struct daemon *d)
{
	struct err e;

	cgroups_open(&d->cgroups, d->conf.cgroup, &e);
	if (d->cgroups.on)
		dlog(LOG_LVL_INFO, NULL, "control groups below %s", d->cgroups.path);
	else
		dlog(LOG_LVL_WARN, NULL,
		     "no control groups (%s): VMs have no limit of processor time, and of memory "
		     "only what the guest was given",
		     e.text);
}

static int open_all(struct daemon *d, struct err *e)
{
	int rc;

	rc = schemas_load(&d->schemas, e);
	if (!rc)
		rc = spawn_prepare(e);
	if (!rc)
		rc = foreign_open(d, e);
	if (rc)
		return rc;
	d->state_lock = state_lock(d->conf.state_dir, e);
	if (d->state_lock < 0)
		return d->state_lock;
	d->state = state_open(d->conf.state_dir, "vm", e);
	if (d->state < 0)
		return d->state;
	d->pool_state = state_open(d->conf.state_dir, "pool", e);
	if (d->pool_state < 0)
		return d->pool_state;
	open_groups(d);
	rc = clients_listen(d, e);
	if (!rc)
		rc = machines_load(d, e);
	return rc ? rc : pools_load(d, e);
}

/* ---- signals ---- */

static void reload(struct daemon *d)
{
	struct conf fresh;
	struct err e;
	char kept[200];
	bool named = strcmp(d->conf_path, conf_default_file()) != 0;

	notify_send("RELOADING=1");
	conf_init(&fresh);
	if (conf_load(&fresh, d->conf_path, named, d->flags, &e)) {
		dlog(LOG_LVL_ERROR, NULL, "%s; the old configuration stays", e.text);
	} else {
		fresh.verbose |= d->conf.verbose;
		conf_reload(&d->conf, &fresh, kept, sizeof(kept));
		dlog_setup(&d->conf);
		if (kept[0])
			dlog(LOG_LVL_WARN, NULL, "takes a restart: %s", kept);
		dlog(LOG_LVL_INFO, NULL, "configuration read again");
	}
	notify_send("READY=1");
}

static void main_on_signal(uv_signal_t *s, int number)
{
	struct daemon *d = s->data;

	if (number == host_reload_signal)
		reload(d);
	else
		uv_stop(&d->loop);
}

/* systemd kills a daemon whose loop stands still. Without a watchdog there is no timer. */
static void on_watchdog(void *ctx)
{
	struct daemon *d = ctx;

	notify_send("WATCHDOG=1");
	d->watchdog = timer_after(&d->loop, notify_watchdog_ms(), on_watchdog, d);
}

static void main_close_handle(uv_handle_t *h, void *arg)
{
	(void)arg;
	/* Ours close themselves; only the signals are static. */
	if (h->type == UV_SIGNAL && !uv_is_closing(h))
		uv_close(h, NULL);
}

static void shut(struct daemon *d)
{
	notify_send("STOPPING=1");
	timer_cancel(d->watchdog);
	clients_close(d);
	logs_close(d);
	pools_close(d);
	machines_close(d);
	closer_free(d->closer);
	uv_walk(&d->loop, main_close_handle, NULL);
	/* What is left are closing handles and timers of graves. */
	for (int i = 0; i < 100 && uv_run(&d->loop, UV_RUN_NOWAIT); i++)
		;
	cgroups_close(&d->cgroups);
	json_object_put(d->flags);
	schemas_free(&d->schemas);
	fd_close(&d->state);
	fd_close(&d->pool_state);
	fd_close(&d->state_lock);
	fd_close(&d->supervisor);
}

static void main_run(struct daemon *d)
{
	uv_signal_t signals[MAX_SIGNALS];

	for (size_t i = 0; i < host_nsignals; i++) {
		uv_signal_init(&d->loop, &signals[i]);
		signals[i].data = d;
		uv_signal_start(&signals[i], main_on_signal, host_signals[i]);
	}
	if (notify_watchdog_ms())
		on_watchdog(d);
	notify_send("READY=1");
	dlog(LOG_LVL_INFO, NULL, "ready on %s, %u VMs", d->conf.socket, d->nmachines);
	uv_run(&d->loop, UV_RUN_DEFAULT);
	dlog(LOG_LVL_INFO, NULL, "ends; VMs run on");
	shut(d);
}

int main(int argc, char **argv)
{
	static struct daemon d = {.state = -1,
				  .pool_state = -1,
				  .state_lock = -1,
				  .supervisor = -1,
				  .cgroups = {.dir = -1}};
	struct options o = {0};
	struct err e;
	int rc;

	host_prepare(&d);
	o.flags = d.flags = json_object_new_object();
	argv = host_arguments(&argc, argv);
	if (!argv || parse_options(&o, argc, argv))
		return STATUS_BAD_INPUT;
	if (o.api)
		return discover_markdown() ? STATUS_FAILED : 0;
	if (check_conf(&d, &o, &e)) {
		fprintf(stderr, "insulad: %s\n", e.text);
		return STATUS_BAD_INPUT;
	}
	if (o.check) {
		puts("insulad: the configuration is good; nothing was started");
		return 0;
	}
	d.conf_path = o.config ? o.config : conf_default_file();
	d.started_ns = clock_ns();
	if (dlog_start(&d.conf) || uv_loop_init(&d.loop))
		return STATUS_FAILED;
	rc = open_all(&d, &e);
	if (!rc)
		main_run(&d);
	log_queue_finish();
	if (rc)
		fprintf(stderr, "insulad: %s\n", e.text);
	return rc ? STATUS_FAILED : 0;
}
