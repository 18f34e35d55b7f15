/* SPDX-License-Identifier: BSD-2-Clause */
/* The verb for devices of a VM that runs. See ctl.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/config.h"
#include "spec/json.h"
#include "spec/settings.h"

#define DEVICE_FORM                                                        \
	"disk=FILE[,...], net=..., share=DIR:..., device=vhost-user,..., " \
	"vfio=0000:01:00.0, vsock=FILE or console=pty|file=FILE"

static json_object *of_device(const char *vm, const char *device)
{
	json_object *params = ctl_with_id(vm);

	j_str(params, "device", device);
	return params;
}

static int device_restart(struct ctl *c, int argc, char **argv)
{
	(void)argc;
	return ctl_simple(c, "vm.device.restart", of_device(argv[0], argv[1]));
}

/* "disk=FILE,ro": the setting, and its value with the paths in it absolute. */
static int device_config(const char *text, json_object **out, struct err *e)
{
	size_t n = strcspn(text, "=");
	char cwd[CTL_PATH_MAX], *value;

	wire_directory(cwd, sizeof(cwd));
	for (const char *const *kind = config_plug_kinds; *kind; kind++) {
		if (text[n] != '=' || strlen(*kind) != n || strncmp(*kind, text, n) != 0)
			continue;
		value = setting_absolute(setting_find(*kind), text + n + 1, cwd);
		if (!value)
			return err_set(e, -ENOMEM, "out of memory");
		*out = json_object_new_object();
		j_str(*out, *kind, value);
		free(value);
		return 0;
	}
	return err_set(e, -EINVAL, "device add: '%.60s'; expected " DEVICE_FORM, text);
}

static int device_add(struct ctl *c, int argc, char **argv)
{
	json_object *params, *config, *r;
	struct err e;

	(void)argc;
	if (device_config(argv[1], &config, &e))
		return ctl_fail(&e);
	params = ctl_with_id(argv[0]);
	j_obj(params, "config", config);
	j_str(params, "device", c->name);
	r = conn_call(&c->conn, "vm.device.add", params, &e);
	if (!r)
		return ctl_fail(&e);
	if (print_is_table(c->json))
		puts(j_get_str(r, "device", ""));
	else
		print_json(r);
	json_object_put(r);
	return 0;
}

static int device_rm(struct ctl *c, int argc, char **argv)
{
	int status = 0;

	for (int i = 1; i < argc; i++) {
		json_object *params = of_device(argv[0], argv[i]), *r;
		struct err e;

		if (c->force)
			j_bool(params, "force", true);
		if (c->timeout >= 0)
			j_int(params, "timeout_ms", c->timeout * 1000);
		r = conn_call(&c->conn, "vm.device.remove", params, &e);
		if (!r)
			status = ctl_fail(&e); /* the line names it */
		else
			ctl_print_done(c, argv[i], r);
		json_object_put(r);
	}
	return status;
}

static int device_ls(struct ctl *c, int argc, char **argv)
{
	struct err e;
	json_object *r = conn_call(&c->conn, "vm.device.list", ctl_with_id(argv[0]), &e);

	(void)argc;
	if (!r)
		return ctl_fail(&e);
	if (print_is_table(c->json))
		print_devices(r);
	else
		print_json(r);
	json_object_put(r);
	return 0;
}

static const struct {
	const char *name, *form;
	int (*run)(struct ctl *c, int argc, char **argv);
	int min, max; /* arguments behind it; max < 0: any */
} device_verbs[] = {
	{"add", "VM KIND=VALUE", device_add, 2, 2},
	{"rm", "VM DEVICE...", device_rm, 2, -1},
	{"ls", "VM", device_ls, 1, 1},
	{"restart", "VM DEVICE", device_restart, 2, 2},
};

int verb_device(struct ctl *c, int argc, char **argv)
{
	struct err e;

	for (size_t i = 0; i < ARRAY_LEN(device_verbs); i++) {
		int n = argc - 2;

		if (strcmp(device_verbs[i].name, argv[1]) != 0)
			continue;
		if (n >= device_verbs[i].min &&
		    (n <= device_verbs[i].max || device_verbs[i].max < 0))
			return device_verbs[i].run(c, n, argv + 2);
		err_set(&e, -EINVAL, "device %s: %d argument%s; expected %s", argv[1], n,
			n == 1 ? "" : "s", device_verbs[i].form);
		return ctl_fail(&e);
	}
	err_set(&e, -EINVAL, "device: '%.40s'; expected add, rm, ls or restart", argv[1]);
	return ctl_fail(&e);
}
