/* SPDX-License-Identifier: BSD-2-Clause */
/* Flags of insula-run as a configuration for insulad, which wants absolute paths. See ctl.h. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "daemon/json.h"

#define JSON_MAX (1u << 20)
#define DEPTH 16

enum { PLAIN, PATH, CONSOLE, DISK };
enum { NAME = 256, CONFIG, DETACH, SETTING };
#define OWN_FLAGS 3

/* The settings of insula-run; insulad checks their values. */
static const struct {
	const char *name;
	int kind;
} settings[] = {{"kernel", PATH},  {"initrd", PATH},  {"append", PLAIN}, {"cpus", PLAIN},
		{"mem", PLAIN},    {"disk", DISK},    {"rootfs", PATH},  {"console", CONSOLE},
		{"metrics", PATH}, {"timeout", PLAIN}};

/* `prefix` + an absolute path; the caller's. */
static char *absolute(const char *prefix, const char *path)
{
	char cwd[PATH_MAX] = "", *out = NULL;

	if (path[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		return asprintf(&out, "%s%s", prefix, path) < 0 ? NULL : out;
	return asprintf(&out, "%s%s/%s", prefix, cwd, path) < 0 ? NULL : out;
}

/* path=FILE,... in any order; the first path= counts, as there can be only one. */
static char *absolute_disk(const char *text)
{
	const char *at = !strncmp(text, "path=", 5) ? text : strstr(text, ",path=");
	char *head, *out;

	if (!at)
		return strdup(text);
	at += *at == ',' ? 6 : 5;
	head = strndup(text, (size_t)(at - text));
	out = head ? absolute(head, at) : NULL;
	free(head);
	return out;
}

static int add_setting(json_object *config, size_t i, const char *value)
{
	json_object *disks = j_get(config, "disks");
	char *text;

	switch (settings[i].kind) {
	case PATH:
		text = absolute("", value);
		break;
	case CONSOLE:
		text = !strncmp(value, "file=", 5) ? absolute("file=", value + 5) : strdup(value);
		break;
	case DISK:
		text = absolute_disk(value);
		break;
	default:
		text = strdup(value);
	}
	if (!text)
		return -ENOMEM;
	if (settings[i].kind == DISK && !disks)
		j_obj(config, "disks", disks = json_object_new_array());
	if (settings[i].kind == DISK)
		json_object_array_add(disks, json_object_new_string(text));
	else
		j_str(config, settings[i].name, text);
	free(text);
	return 0;
}

static int read_config(json_object **out, const char *path, struct err *e)
{
	bool std = !strcmp(path, "-");
	int fd = std ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
	char *text = malloc(JSON_MAX + 1);
	const char *why = "out of memory";
	size_t len = 0;
	ssize_t n = 1;

	*out = NULL;
	while (fd >= 0 && text && n > 0 && len <= JSON_MAX) {
		n = read(fd, text + len, JSON_MAX + 1 - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (fd < 0 || n < 0)
		err_sys(e, -errno, "--config: %s", path);
	else if (!text || len > JSON_MAX || !(*out = j_parse(text, len, DEPTH, &why)))
		err_set(e, -EINVAL, "--config: %s: %s", path, why);
	fd_close(&fd);
	free(text);
	return *out ? 0 : e->code;
}

static int add_command(json_object *config, int argc, char **argv)
{
	json_object *list;

	if (!argc)
		return 0;
	list = json_object_new_array();
	for (int i = 0; i < argc; i++)
		json_object_array_add(list, json_object_new_string(argv[i]));
	j_obj(config, "command", list);
	return 0;
}

static int one_flag(struct run_options *o, int c, int index, struct err *e)
{
	switch (c) {
	case NAME:
		o->name = optarg;
		return 0;
	case CONFIG:
		json_object_put(o->config);
		return read_config(&o->config, optarg, e);
	case 'd':
	case DETACH:
		o->detach = true;
		return 0;
	case SETTING:
		return add_setting(o->config, (size_t)index - OWN_FLAGS, optarg)
			       ? err_set(e, -ENOMEM, "out of memory")
			       : 0;
	default:
		return err_set(e, -EINVAL, "unknown flag, or one without its value; see --help");
	}
}

int config_flags(struct run_options *o, int argc, char **argv, struct err *e)
{
	struct option longopts[ARRAY_LEN(settings) + OWN_FLAGS + 1] = {
		{"name", required_argument, NULL, NAME},
		{"config", required_argument, NULL, CONFIG},
		{"detach", no_argument, NULL, DETACH}};
	int c, index = 0, rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(settings); i++)
		longopts[OWN_FLAGS + i] =
			(struct option){settings[i].name, required_argument, NULL, SETTING};
	o->config = json_object_new_object();
	optind = 0;
	opterr = 0;
	while (!rc && (c = getopt_long(argc, argv, "+d", longopts, &index)) >= 0)
		rc = one_flag(o, c, index, e);
	if (!rc)
		rc = add_command(o->config, argc - optind, argv + optind);
	return rc;
}
