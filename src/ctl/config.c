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

enum { NAME = 256, CONFIG, REMOVE, ENV_FILE, POOL };

/* Verbs that have one; 0: all that take the flags of a VM. */
enum { IN_RUN = 1, IN_CREATE = 2, IN_POOL = 4 };

/* Those that others have for our settings are settings: `setting` is what they stand for. */
static const struct own_flag {
	struct flag_words words;
	int value; /* getopt_long()'s */
	const char *setting;
	unsigned of;
} own[] = {
	{{"name", 0, "NAME", NULL, false, "the name of the VM (default: one is made)"},
	 NAME,
	 NULL,
	 IN_RUN | IN_CREATE},
	{{"pool", 0, "NAME", NULL, false,
	  "run: take a VM that stands in this pool; of the flags only --name, -d, --rm and "
	  "--timeout "
	  "may be there"},
	 POOL,
	 NULL,
	 IN_RUN},
	{{"count", 'n', "N", NULL, false, "how many VMs stand; default 1"}, 'n', NULL, IN_POOL},
	{{"config", 0, "FILE", NULL, true, "what insula-run --json takes; flags behind it win"},
	 CONFIG,
	 NULL,
	 0},
	{{"detach", 'd', NULL, NULL, false, "run: in the background; print the id"},
	 'd',
	 NULL,
	 IN_RUN | IN_CREATE},
	{{"rm", 0, NULL, NULL, false, "run: delete the VM when it ends"},
	 REMOVE,
	 NULL,
	 IN_RUN | IN_CREATE},
	{{"publish", 'p', "[ADDR:]HOST:GUEST[/udp]", NULL, false,
	  "a port of this host leads to one of the guest: --net user,fwd=..."},
	 'p',
	 NULL,
	 0},
	{{"volume", 'v', "DIR:GUESTDIR[:ro]", NULL, true, "--share"}, 'v', "share", 0},
	{{"memory", 'm', "SIZE", NULL, false, "--mem"}, 'm', "mem", 0},
	{{NULL, 'c', "N", NULL, false, "--cpus"}, 'c', "cpus", 0},
	{{"interactive", 0, NULL, NULL, false, "-i"}, 'i', NULL, 0},
	{{"tty", 0, NULL, NULL, false, "-t"}, 't', NULL, 0},
	{{"env", 0, "NAME=VALUE", NULL, false, "-e"}, 'e', NULL, 0},
	{{"env-file", 0, "FILE", NULL, true, "lines as -e takes them"}, ENV_FILE, NULL, 0},
	{{"workdir", 0, "DIR", NULL, false, "-w"}, 'w', NULL, 0},
	{{"user", 0, "USER[:GROUP]", NULL, false, "-u"}, 'u', NULL, 0},
	{{"help", 'h', NULL, NULL, false, "this help"}, 'h', NULL, 0},
};

static unsigned verb_bit(const char *verb)
{
	return !strcmp(verb, "run") ? IN_RUN : !strcmp(verb, "create") ? IN_CREATE : IN_POOL;
}

static bool has_own(const struct own_flag *f, unsigned verb)
{
	return !f->of || (f->of & verb);
}

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
	const char *known[ARRAY_LEN(own) + SETTINGS];
	size_t n = 0;
	char text[64];

	flag_text(argv, text);
	if (how == ':')
		return err_set(e, -EINVAL, "%s: '%.60s' needs a value; see insula-run(1)", o->verb,
			       text);
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		if (has_own(&own[i], verb_bit(o->verb)))
			known[n++] = own[i].words.name;
	}
	for (size_t i = 0; i < SETTINGS; i++)
		known[n++] = settings[i].letter ? NULL : settings[i].name;
	return unknown_flag(o->verb, text, known, n, e);
}

static int add_forward(struct run_options *o, const char *text)
{
	char *forward = alias_forward(text);

	if (!forward)
		return -ENOMEM;
	if (!o->publish)
		o->publish = json_object_new_array();
	json_object_array_add(o->publish, json_object_new_string(forward));
	free(forward);
	return 0;
}

/* The setting that a flag is, by whichever name. */
static const struct setting *setting_meant(int c)
{
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		if (own[i].value == c && own[i].setting)
			return setting_find(own[i].setting);
	}
	return setting_of_flag(c);
}

static int take_count(struct run_options *o, const char *text, struct err *e)
{
	int64_t n;

	if (!flag_number(text, 256, &n) || !n)
		return err_set(e, -EINVAL, "-n: '%.20s'; expected 1 to 256", text);
	o->count = (unsigned)n;
	return 0;
}

static int one_flag(struct run_options *o, int c, char **argv, struct err *e)
{
	const struct setting *s = setting_meant(c);
	int rc;

	switch (c) {
	case NAME:
		o->name = optarg;
		return 0;
	case CONFIG:
		json_object_put(o->config);
		return read_config(&o->config, optarg, e);
	case ENV_FILE:
		return alias_env_file(o->config, optarg, e);
	case REMOVE:
		o->remove = true;
		return 0;
	case POOL:
		o->pool = optarg;
		return 0;
	case 'n':
		return take_count(o, optarg, e);
	case 'd':
		o->detach = true;
		return 0;
	case 'h':
		o->help = true;
		return 0;
	default:
		if (c != 'p' && !s)
			return config_refuse(o, c, argv, e);
		rc = c == 'p' ? add_forward(o, optarg) : add_setting(o->config, s, optarg);
		return rc ? err_set(e, -ENOMEM, "out of memory") : 0;
	}
}

/* Settings first, then ours: longopts and letters for getopt_long(). */
static void describe_flags(unsigned verb, struct option *longopts, char *letters)
{
	longopts += settings_longopts(longopts);
	letters += strlen(strcpy(letters, "+:"));
	settings_letters(letters);
	letters += strlen(letters);
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		const struct flag_words *w = &own[i].words;

		if (!has_own(&own[i], verb))
			continue;
		if (w->name)
			*longopts++ =
				(struct option){w->name, w->value ? required_argument : no_argument,
						NULL, own[i].value};
		if (w->letter) {
			*letters++ = w->letter;
			if (w->value)
				*letters++ = ':';
		}
	}
	*letters = 0;
}

/* IMAGE, then a command; or "--" and a command alone. */
static int take_operands(struct run_options *o, bool dashes, int argc, char **argv)
{
	const struct setting *image = setting_find("image");
	int rc = 0;

	if (!dashes && argc && image) {
		rc = add_setting(o->config, image, argv[0]);
		argc--;
		argv++;
	}
	return rc ? rc : add_command(o->config, argc, argv);
}

/* insulad counts what a VM may use before it starts one, and opens nothing of its users: how large
 * a snapshot's VM is it hears from us. */
static int add_size(json_object *config, struct err *e)
{
	static const char *const keys[] = {"cpus", "mem"};
	const char *dir = j_get_str(config, "restore", NULL), *why = "";
	char path[CTL_PATH_MAX], *text;
	json_object *machine;
	size_t len;
	int rc;

	if (!dir)
		return 0;
	snprintf(path, sizeof(path), "%s/machine.json", dir);
	rc = text_read(path, false, 2 * JSON_MAX, &text, &len);
	if (rc)
		return err_set(e, -EINVAL,
			       "--restore: %s: %s; expected the directory of a snapshot", path,
			       err_text(-rc));
	machine = j_parse(text, len, DEPTH, &why);
	free(text);
	for (size_t i = 0; i < ARRAY_LEN(keys) && machine; i++) {
		if (!j_get(config, keys[i]))
			j_int(config, keys[i], j_get_int(machine, keys[i], 0));
	}
	if (!machine)
		err_set(e, -EINVAL, "--restore: %s: %s", path, why);
	json_object_put(machine);
	return machine ? 0 : -EINVAL;
}

int config_flags(struct run_options *o, int argc, char **argv, struct err *e)
{
	struct option longopts[SETTINGS + ARRAY_LEN(own) + 1] = {0};
	char letters[2 * SETTINGS + 2 * ARRAY_LEN(own) + 4];
	int c, rc = 0, before;

	describe_flags(verb_bit(o->verb), longopts, letters);
	o->config = json_object_new_object();
	optind = 0;
	opterr = 0;
	do {
		before = optind;
		c = getopt_long(argc, argv, letters, longopts, NULL);
		rc = c < 0 ? 0 : one_flag(o, c, argv, e);
	} while (!rc && c >= 0);
	if (!rc && alias_publish(o->config, o->publish))
		rc = err_set(e, -ENOMEM, "out of memory");
	/* It goes one further for "--" alone. The first call begins at 1, whatever was there. */
	if (!rc && take_operands(o, optind > (before ? before : 1), argc - optind, argv + optind))
		rc = err_set(e, -ENOMEM, "out of memory");
	return rc ? rc : add_size(o->config, e);
}

void config_options_free(struct run_options *o)
{
	json_object_put(o->config);
	json_object_put(o->publish);
	o->config = o->publish = NULL;
}

size_t config_words(const char *verb, struct flag_words *out)
{
	size_t n = settings_flags(out);

	_Static_assert(ARRAY_LEN(own) <= CONFIG_WORDS - SETTINGS, "room for our flags");
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		if (has_own(&own[i], verb_bit(verb)))
			out[n++] = own[i].words;
	}
	return n;
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
	for (unsigned i = 0; i < c->ndisks && !rc; i++) {
		if (!config_module(c->disk[i].path))
			rc = config_look_at("disk", c->disk[i].path, e);
	}
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
