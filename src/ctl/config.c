/* SPDX-License-Identifier: BSD-2-Clause */
/* Flags of insula-run as a configuration for insulad, which wants absolute paths. See ctl.h. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "base/errtext.h"
#include "ctl.h"
#include "spec/config.h"
#include "spec/json.h"
#include "spec/settings.h"

#define JSON_MAX (1u << 20)
#define DEPTH 16

enum { NAME = 256, CONFIG };

static const struct flag_words own_words[] = {
	{"name", 0, "NAME", NULL, false, "the name of the VM (default: one is made)"},
	{"config", 0, "FILE", NULL, true, "what insula-run --json takes; flags behind it win"},
	{"detach", 'd', NULL, NULL, false, "run: in the background; print the id"},
	{"help", 'h', NULL, NULL, false, "this help"},
};
static const struct option own_options[] = {{"name", required_argument, NULL, NAME},
					    {"config", required_argument, NULL, CONFIG},
					    {"detach", no_argument, NULL, 'd'},
					    {"help", no_argument, NULL, 'h'}};

static void add_text(json_object *config, const struct setting *s, const char *text)
{
	json_object *list = s->many ? j_get(config, s->many) : NULL;

	if (!s->many) {
		j_str(config, s->name, text);
		return;
	}
	if (!json_object_is_type(list, json_type_array))
		j_obj(config, s->many, list = json_object_new_array());
	json_object_array_add(list, json_object_new_string(text));
}

/* insulad checks the value. */
static int add_setting(json_object *config, const struct setting *s, const char *value)
{
	char cwd[CTL_PATH_MAX], *text;
	int rc = 1;

	if (s->type == SETTING_FLAG) {
		j_bool(config, s->name, true);
		return 0;
	}
	wire_directory(cwd, sizeof(cwd));
	if (!strcmp(s->name, "env") && *value)
		rc = setting_env(value, &text);
	else
		text = setting_absolute(s, value, cwd);
	if (rc > 0 && !text)
		rc = -ENOMEM;
	if (rc > 0)
		add_text(config, s, text);
	free(text);
	return rc < 0 ? rc : 0;
}

static int read_config(json_object **out, const char *path, struct err *e)
{
	const char *why = "";
	char *text;
	size_t len;
	int rc = text_read(path, true, JSON_MAX, &text, &len);

	*out = rc ? NULL : j_parse(text, len, DEPTH, &why);
	if (rc)
		err_set(e, -EINVAL, "--config: %s: %s", path, strerror(-rc));
	else if (!*out)
		err_set(e, -EINVAL, "--config: %s: %s", path, why);
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

static int config_refuse(const struct run_options *o, int how, char **argv, struct err *e)
{
	const char *known[ARRAY_LEN(own_options) + SETTINGS];
	size_t n = 0;
	char text[64];

	flag_text(argv, text);
	if (how == ':')
		return err_set(e, -EINVAL, "%s: '%.60s' needs a value; see insula-run(1)", o->verb,
			       text);
	for (size_t i = 0; i < ARRAY_LEN(own_options); i++)
		known[n++] = own_options[i].name;
	for (size_t i = 0; i < SETTINGS; i++)
		known[n++] = settings[i].letter ? NULL : settings[i].name;
	return unknown_flag(o->verb, text, known, n, e);
}

static int one_flag(struct run_options *o, int c, char **argv, struct err *e)
{
	const struct setting *s = setting_of_flag(c);

	switch (c) {
	case NAME:
		o->name = optarg;
		return 0;
	case CONFIG:
		json_object_put(o->config);
		return read_config(&o->config, optarg, e);
	case 'd':
		o->detach = true;
		return 0;
	case 'h':
		o->help = true;
		return 0;
	default:
		if (!s)
			return config_refuse(o, c, argv, e);
		return add_setting(o->config, s, optarg) ? err_set(e, -ENOMEM, "out of memory") : 0;
	}
}

int config_flags(struct run_options *o, int argc, char **argv, struct err *e)
{
	struct option longopts[SETTINGS + ARRAY_LEN(own_options) + 1] = {0};
	char letters[2 * SETTINGS + 8] = "+:dh";
	int c, rc = 0;

	memcpy(longopts, own_options, sizeof(own_options));
	settings_longopts(longopts + ARRAY_LEN(own_options));
	settings_letters(letters + strlen(letters));
	o->config = json_object_new_object();
	optind = 0;
	opterr = 0;
	while (!rc && (c = getopt_long(argc, argv, letters, longopts, NULL)) >= 0)
		rc = one_flag(o, c, argv, e);
	if (!rc)
		rc = add_command(o->config, argc - optind, argv + optind);
	return rc;
}

size_t config_words(struct flag_words *out)
{
	size_t n = settings_flags(out);

	memcpy(out + n, own_words, sizeof(own_words));
	return n + ARRAY_LEN(own_words);
}

/* ---- what it names ---- */

static int config_look_at(const char *what, const char *path, struct err *e)
{
	int rc = path ? wire_look(path) : 0;

	return rc ? err_set(e, -EINVAL, "--%s: %s: %s", what, path, err_text(-rc)) : 0;
}

static int look_at_all(const struct vm_config *c, struct err *e)
{
	int rc = config_look_at("kernel", c->kernel, e);

	if (!rc)
		rc = config_look_at("initrd", c->initrd, e);
	if (!rc)
		rc = config_look_at("rootfs", c->rootfs, e);
	for (unsigned i = 0; i < c->ndisks && !rc; i++)
		rc = config_look_at("disk", c->disk[i].path, e);
	for (unsigned i = 0; i < c->nshares && !rc; i++)
		rc = config_look_at("share", c->share[i].dir, e);
	return rc;
}

int config_look(const struct run_options *o, struct err *e)
{
	struct vm_config *c = calloc(1, sizeof(*c));
	const char *text = j_text(o->config);
	int rc;

	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	config_init(c);
	rc = config_json(c, NULL, text, strlen(text), e) ? 0 : look_at_all(c, e);
	config_free(c);
	free(c);
	return rc;
}
