/* SPDX-License-Identifier: BSD-2-Clause */
/* Which template serves a VM, and who may have made it. See template.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "spec/config.h"
#include "spec/json.h"
#include "template.h"

#define FILE_MAX (256u << 10)

/* ---- what it is for ---- */

void template_name(const struct vm_size *size, unsigned cards, char name[TEMPLATE_NAME_MAX])
{
	char mem[24];

	snprintf(name, TEMPLATE_NAME_MAX, "%s-%ucpu-%unet", size_text(size->mem, mem), size->cpus,
		 cards);
}

/* What the guest has seen by then, and what a snapshot brings back. */
static int check_vm(json_object *vm, struct err *e)
{
	static const char *const known[] = {"append", "balloon", "bus", "hotplug", "rng"};

	if (!vm)
		return 0;
	json_object_object_foreach(vm, key, v)
	{
		size_t i = 0;

		(void)v;
		while (i < ARRAY_LEN(known) && strcmp(key, known[i]) != 0)
			i++;
		if (i == ARRAY_LEN(known))
			return err_set(
				e, -ENOENT,
				"vm.%.40s of the configuration: there are no templates with it; "
				"expected append, balloon, bus, hotplug or rng",
				key);
	}
	return 0;
}

int template_key(const struct oci_conf *conf, const struct vm_size *size, unsigned cards,
		 json_object **key, struct err *e)
{
	int rc = check_vm(conf->vm, e);

	*key = NULL;
	if (rc)
		return rc;
	*key = json_object_new_object();
	j_str(*key, "insula", INSULA_VERSION);
	j_int(*key, "memory", (int64_t)size->mem);
	j_int(*key, "cpus", size->cpus);
	j_int(*key, "cards", cards);
	j_str(*key, "kernel", size->kernel);
	j_str(*key, "initrd", conf->initrd);
	j_obj(*key, "vm", conf->vm ? json_object_get(conf->vm) : json_object_new_object());
	return 0;
}

/* ---- whose it is ---- */

static int check_owner(const struct stat *st, const char *path, struct err *e)
{
	if (st->st_uid == geteuid() && !(st->st_mode & (S_IWGRP | S_IWOTH)))
		return 0;
	return err_set(e, -EPERM,
		       "template: %.150s: of user %u, mode %04o; expected of user %u, and nobody "
		       "else may write to it",
		       path, st->st_uid, st->st_mode & 07777, geteuid());
}

static int open_dir(int at, const char *name, struct err *e)
{
	struct stat st;
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc;

	if (fd < 0)
		return err_sys(e, -errno, "template: %.150s", name);
	rc = fstat(fd, &st) ? err_sys(e, -errno, "template: %.150s", name)
			    : check_owner(&st, name, e);
	if (rc)
		close(fd);
	return rc ? rc : fd;
}

static int check_file(int at, const char *name, struct err *e)
{
	struct stat st;

	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW))
		return err_sys(e, errno == ENOENT ? -EINVAL : -errno, "template: %s", name);
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
		return err_set(e, -EINVAL, "template: %s: expected a file with one name", name);
	return check_owner(&st, name, e);
}

static int check_above(char *path, struct err *e)
{
	struct stat st;

	for (char *slash; (slash = strrchr(path, '/')) && path[1];) {
		slash[slash == path] = 0;
		if (stat(path, &st))
			return err_sys(e, -errno, "template: %.150s", path);
		if ((st.st_uid && st.st_uid != geteuid()) || st.st_mode & (S_IWGRP | S_IWOTH))
			return err_set(e, -EPERM,
				       "template: %.150s: of user %u, mode %04o; expected that "
				       "nobody else may write to what leads to it",
				       path, st.st_uid, st.st_mode & 07777);
	}
	return 0;
}

int template_way(const char *path, struct err *e)
{
	char way[PATH_MAX];
	int rc;

	snprintf(way, sizeof(way), "%s", path);
	rc = check_above(way, e);
	if (rc)
		return rc;
	/* There may be links on the way. */
	return realpath(path, way) ? check_above(way, e)
				   : err_sys(e, -errno, "template: %.150s", path);
}

int template_top(const struct oci_conf *conf, bool make, struct err *e)
{
	char path[PATH_MAX];

	if (!conf->templates[0])
		return err_set(e, -ENOENT, "templates of the configuration: none");
	snprintf(path, sizeof(path), "%s", conf->templates);
	for (char *p = path + 1; make && (p = strchr(p, '/')); p++) {
		*p = 0;
		mkdir(path, 0755);
		*p = '/';
	}
	if (make && mkdir(path, 0700) && errno != EEXIST)
		return err_sys(e, -errno, "templates: %.150s", path);
	return open_dir(AT_FDCWD, path, e);
}

static int read_key(int at, json_object **key, struct err *e)
{
	char path[64], *text = NULL;
	const char *why = "";
	size_t len;
	int rc = check_file(at, TEMPLATE_FILE, e);

	if (rc)
		return rc;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/" TEMPLATE_FILE, at);
	rc = text_read(path, false, FILE_MAX, &text, &len);
	if (rc)
		return err_sys(e, rc, "template: " TEMPLATE_FILE);
	*key = j_parse(text, len, 16, &why);
	free(text);
	return *key ? 0 : err_set(e, -EINVAL, "template: " TEMPLATE_FILE ": not JSON: %s", why);
}

static int check_snapshot(int at, struct err *e)
{
	static const char *const files[] = {"machine.json", "vmm", "devices", "memory", "seal"};
	int fd = open_dir(at, TEMPLATE_SNAPSHOT, e), rc = fd < 0 ? fd : 0;

	for (size_t i = 0; i < ARRAY_LEN(files) && !rc; i++)
		rc = check_file(fd, files[i], e);
	fd_close(&fd);
	return rc;
}

int template_check(int top, const char *name, json_object **key, struct err *e)
{
	json_object *got = NULL;
	int at = open_dir(top, name, e), rc = at < 0 ? at : read_key(at, &got, e);

	if (!rc)
		rc = check_snapshot(at, e);
	fd_close(&at);
	if (!rc && key)
		*key = got;
	else
		json_object_put(got);
	return rc;
}

/* ---- for a VM ---- */

static int compare(json_object *want, json_object *got, struct err *e)
{
	json_object_object_foreach(want, name, v)
	{
		json_object *other = j_get(got, name);

		if (!json_object_equal(v, other))
			return err_set(e, -ENOENT,
				       "template: it was made for %s %.60s, and not %.60s", name,
				       other ? j_text(other) : "null", j_text(v));
	}
	return 0;
}

int template_find(const struct oci_conf *conf, const struct vm_size *size, unsigned cards,
		  char path[PATH_MAX], struct err *e)
{
	json_object *want = NULL, *got = NULL;
	char name[TEMPLATE_NAME_MAX];
	int rc = template_key(conf, size, cards, &want, e), top = -1;

	template_name(size, cards, name);
	if (!rc)
		rc = top = template_top(conf, false, e);
	if (top >= 0)
		rc = template_check(top, name, &got, e);
	if (!rc)
		rc = compare(want, got, e);
	if (!rc &&
	    snprintf(path, PATH_MAX, "%s/%s/" TEMPLATE_SNAPSHOT, conf->templates, name) >= PATH_MAX)
		rc = err_set(e, -ENAMETOOLONG, "templates: too long");
	fd_close(&top);
	json_object_put(want);
	json_object_put(got);
	return rc;
}
