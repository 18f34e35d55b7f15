/* SPDX-License-Identifier: BSD-2-Clause */
/* The beginning and the end of insulad's door: its set-up, where console and log go, the result.
 * See control.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "control_os.h"
#include "spec/json.h"
#include "supervisor/vm_common.h"

#define SETUP_MAX (CONFIG_JSON_MAX + 4096)
#define DEPTH 16

static json_object *read_setup(int fd, struct err *e)
{
	json_object *o = NULL;
	uint64_t size = 0;
	const char *why = "";
	char *text;
	int rc = file_size(fd, &size);

	if (rc || !size || size > SETUP_MAX) {
		err_set(e, -EPROTO, "control: the set-up is not a file of 1 to %u bytes",
			SETUP_MAX);
		return NULL;
	}
	text = malloc((size_t)size);
	rc = text ? read_full(fd, text, (size_t)size, 0) : -ENOMEM;
	if (!rc)
		o = j_parse(text, (size_t)size, DEPTH, &why);
	free(text);
	if (!o)
		err_set(e, rc ? rc : -EPROTO, "control: the set-up cannot be read: %s", why);
	return o;
}

static int use_setup(struct control *k, json_object *o, struct vm_config *c, struct err *e)
{
	const char *token = j_get_str(o, "token", ""), *name = j_get_str(o, "name", NULL), *text;
	json_object *config = j_get(o, "config");
	int rc;

	if (!config || strlen(token) != CONTROL_TOKEN_LEN)
		return err_set(e, -EPROTO, "control: the set-up lacks token or config");
	strcpy(k->token, token);
	text = j_text(config);
	c->json = strdup(text);
	c->vm_name = name ? strdup(name) : NULL;
	rc = config_json(c, NULL, text, strlen(text), e);
	if (!rc)
		rc = config_check(c, e);
	/* insulad has counted what it was told, or the defaults: a snapshot cannot be larger. */
	c->given |= config_bit("cpus") | config_bit("mem");
	/* Where every program of the host reaches the guest's ports there is no agent. */
	c->serve = !c->vsock.vhost;
	c->serve_alone = j_get_bool(o, "alone", false);
	return rc;
}

int control_setup(struct control *k, int fd, struct vm_config *c, json_object **setup,
		  struct err *e)
{
	*setup = read_setup(fd, e);
	return *setup ? use_setup(k, *setup, c, e) : e->code;
}

/* What insula-run has on its standard streams: the console, or the streams of the command. What it
 * would write to standard error goes to the log by a stream of its own. */
bool control_use_console(struct control *k, struct vm_config *c, const struct control_ends *ends)
{
	enum console_kind kind = config_console(c);

	if (kind == CONSOLE_STDIO || kind == CONSOLE_STDERR) {
		c->console = CONSOLE_STREAM;
		c->console_given = true;
		c->console_in = kind == CONSOLE_STDIO ? ends->in : -1;
		c->console_out = kind == CONSOLE_STDIO ? ends->out : ends->serial;
	}
	if (c->command) {
		c->command_in = ends->in;
		c->command_out = ends->out;
		c->command_err = ends->errors;
	}
	k->has_console = kind == CONSOLE_STDIO || c->command;
	return c->command != NULL;
}

/* The process's log, while there is one: set and used by the supervisor's thread. */
static struct vmlog *own_log;

static void own_line(const char *line, size_t len)
{
	vmlog_add(own_log, VMLOG_INSULA, line, len);
}

int control_use_log(struct control *k, json_object *setup, int fd, struct err *e)
{
	int64_t max = j_get_int(setup, "log_max", 0);
	const int both[2] = {fd_copy(stderr_fd()), fd};

	if (vmlog_open(&k->log, both, max > 0 ? (uint64_t)max : 0))
		return err_set(e, -ENOMEM, "out of memory");
	own_log = &k->log;
	log_output(own_line);
	return 0;
}

struct control *control_new(int result, struct err *e)
{
	struct control *k = calloc(1, sizeof(*k));

	if (!k) {
		err_set(e, -ENOMEM, "out of memory");
		return NULL;
	}
	k->result = result;
	k->turn.conn = k->balloon.conn = k->resize.conn = k->owner = CONTROL_CONNS;
	vmlog_init(&k->log);
	return k;
}

static void write_result(struct control *k, const struct vm *vm)
{
	json_object *o = result_json(vm);
	size_t len;
	char *line;
	int rc;

	if (k->stopping)
		j_str(o, "stop", k->forced ? "forced" : "clean");
	j_str(o, "token", k->token);
	line = strdup(j_text(o));
	json_object_put(o);
	if (!line)
		return;
	len = strlen(line);
	line[len] = '\n'; /* instead of the NUL: complete with its line end, or not at all */
	rc = write_full(k->result, line, len + 1);
	if (rc)
		log_error("control: the result cannot be written: error %d", -rc);
	free(line);
}

void control_finish(struct control *k, const struct vm *vm)
{
	const char *why = vm_why(vm);

	if (!k)
		return;
	control_os_drain(k);
	log_output(stderr_write);
	vmlog_finish(&k->log); /* before insulad hears of the end */
	write_result(k, vm);
	control_event(k, "ended", NULL, why[0] ? why : NULL);
	control_os_close(k);
	vmlog_close(&k->log);
	fd_close(&k->result);
	free(k);
}
