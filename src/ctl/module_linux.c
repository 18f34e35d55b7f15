/* SPDX-License-Identifier: BSD-2-Clause */
/* "module ls": the storage modules that are installed beside this program, without insulad. See
 * ctl.h. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"
#include "spec/manifest.h"

static int module_dir(char *out, size_t size, struct err *e)
{
	char top[PATH_MAX - 64];
	int rc = program_above(2, top, sizeof(top), e);

	if (rc)
		return rc;
	snprintf(out, size, "%s/libexec/insula/modules", top);
	return 0;
}

static int is_manifest(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > 5 && !strcmp(d->d_name + n - 5, ".json");
}

static const char *const type_names[] = {[MANIFEST_TEXT_TYPE] = "text",
					 [MANIFEST_NUMBER] = "number",
					 [MANIFEST_CHOICE] = "choice",
					 [MANIFEST_FILE] = "file"};

static void module_json(const char *name, const struct manifest *m, const struct err *e)
{
	json_object *o = json_object_new_object(), *list = json_object_new_array();

	j_str(o, "name", name);
	j_str(o, "refused", e->code ? e->text : NULL);
	j_str(o, "about", e->code ? NULL : m->about);
	for (unsigned i = 0; i < m->nsettings && !e->code; i++) {
		const struct manifest_setting *s = &m->setting[i];
		json_object *one = json_object_new_object();

		j_str(one, "key", s->key);
		j_str(one, "type", type_names[s->type]);
		j_str(one, "default", s->value[0] ? s->value : NULL);
		j_str(one, "help", s->help);
		json_object_array_add(list, one);
	}
	j_obj(o, "settings", list);
	print_json(o);
	json_object_put(o);
}

static void print_choices(const struct manifest_setting *s)
{
	for (unsigned i = 0; i < s->nchoices; i++)
		printf("%s%s", i ? "|" : "", s->choice[i]);
}

static void module_lines(const char *name, const struct manifest *m, const struct err *e)
{
	if (e->code) {
		printf("%s  refused: %s\n", name, e->text);
		return;
	}
	printf("%s  %s\n", name, m->about);
	for (unsigned i = 0; i < m->nsettings; i++) {
		const struct manifest_setting *s = &m->setting[i];

		printf("    %s=", s->key);
		if (s->type == MANIFEST_NUMBER)
			printf("%llu-%llu", (unsigned long long)s->min, (unsigned long long)s->max);
		else if (s->type == MANIFEST_CHOICE)
			print_choices(s);
		else
			printf("%s", s->type == MANIFEST_FILE ? "FILE" : "TEXT");
		printf("%s%s%s  %s\n", s->value[0] ? " (" : "", s->value, s->value[0] ? ")" : "",
		       s->help);
	}
}

static void module_one(const struct ctl *c, const char *dir, const char *file)
{
	static struct manifest m;
	char name[NAME_MAX + 1];
	struct err e = {0};
	int fd = -1;

	snprintf(name, sizeof(name), "%.*s", (int)(strlen(file) - 5), file);
	(void)manifest_open(&m, dir, name, &fd, &e);
	fd_close(&fd);
	if (print_is_table(c->json))
		module_lines(print_clean(name, strlen(name)), &m, &e);
	else
		module_json(name, &m, &e);
}

int ctl_module(struct ctl *c, int argc, char **argv)
{
	struct dirent **found;
	char dir[PATH_MAX];
	struct err e;
	int n;

	if (strcmp(argv[1], "ls") != 0 || argc != 2) {
		err_set(&e, -EINVAL, "module: '%.40s'; expected ls", argv[1]);
		print_message("", e.text);
		return CTL_BAD_INPUT;
	}
	if (module_dir(dir, sizeof(dir), &e)) {
		print_message("", e.text);
		return CTL_FAILED;
	}
	n = scandir(dir, &found, is_manifest, alphasort);
	for (int i = 0; i < n; i++) {
		module_one(c, dir, found[i]->d_name);
		free(found[i]);
	}
	if (n >= 0)
		free(found);
	return 0;
}
