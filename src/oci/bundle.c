/* SPDX-License-Identifier: BSD-2-Clause */
/* Bundles. See bundle.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "bundle.h"
#include "field.h"
#include "spec/json.h"

/* ---- ids ---- */

int bundle_check_id(const char *id, struct err *e)
{
	size_t n = strlen(id);
	bool bad = !n || n > CT_ID_MAX || !strcmp(id, ".") || !strcmp(id, "..");

	for (size_t i = 0; i < n && !bad; i++)
		bad = !((id[i] >= 'a' && id[i] <= 'z') || (id[i] >= 'A' && id[i] <= 'Z') ||
			(id[i] >= '0' && id[i] <= '9') || strchr("_+-.", id[i]));
	if (!strcmp(id, "sandbox"))
		return err_set(e, -EINVAL,
			       "invalid container id 'sandbox'; expected another one: a VM has its "
			       "own records by that name");
	return bad ? err_set(e, -EINVAL,
			     "invalid container id '%.140s'; expected 1 to %u letters, digits, "
			     "_ + - and .",
			     id, CT_ID_MAX)
		   : 0;
}

/* ---- files ---- */

int bundle_object(const char *path, const char *what, json_object **out, struct err *e)
{
	const char *why;
	char *text;
	size_t len;
	int rc = text_read(path, true, BUNDLE_MAX, &text, &len);

	if (rc)
		return err_sys(e, rc, "%s: %s", what, path);
	*out = j_parse(text, len, BUNDLE_DEPTH, &why);
	free(text);
	if (!*out)
		return err_set(e, -EINVAL, "%s: %s: %s", what, path, why);
	if (json_object_is_type(*out, json_type_object))
		return 0;
	json_object_put(*out);
	*out = NULL;
	return err_set(e, -EINVAL, "%s: %s: expected an object", what, path);
}

/* ---- the version ---- */

static int check_version(json_object *spec, struct err *e)
{
	const char *text;
	unsigned major, minor, patch;
	int n = 0, rc = field_text(spec, "", "ociVersion", &text, e);

	if (rc)
		return rc;
	if (!text)
		return err_set(e, -EINVAL, "ociVersion: missing; expected a string");
	if (sscanf(text, "%4u.%4u.%4u%n", &major, &minor, &patch, &n) != 3 ||
	    (text[n] && text[n] != '-' && text[n] != '+') || major != 1)
		return err_set(e, -EINVAL, "ociVersion: '%.40s'; expected 1.0.0 to 1.x (%s)", text,
			       OCI_VERSION);
	return 0;
}

/* ---- the root ---- */

static int find_root(struct bundle *b, struct err *e)
{
	char path[2 * PATH_MAX];
	json_object *root;
	const char *text;
	struct stat st;
	int rc = field_object(b->spec, "", "root", &root, e);

	if (!rc && !root)
		rc = err_set(e, -EINVAL, "root: missing; expected an object");
	if (!rc)
		rc = field_text(root, "root", "path", &text, e);
	if (rc)
		return rc;
	if (!text || !text[0])
		return err_set(e, -EINVAL, "root.path: missing; expected a directory");
	snprintf(path, sizeof(path), "%s%s%s", text[0] == '/' ? "" : b->path,
		 text[0] == '/' ? "" : "/", text);
	if (!realpath(path, b->rootfs) || stat(b->rootfs, &st))
		return err_sys(e, -errno, "root.path: %.150s", text);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "root.path: %.150s; expected a directory", text);
	return 0;
}

/* ---- the process ---- */

/* What `start` needs; the rest is record_process()'s. */
static int check_process(json_object *process, struct err *e)
{
	json_object *args;
	const char *cwd;
	int rc;

	if (!process)
		return err_set(e, -EINVAL, "process: missing; expected an object");
	rc = field_array(process, "process", "args", &args, e);
	if (!rc && !field_count(args))
		rc = err_set(e, -EINVAL, "process.args: missing; expected a program");
	if (!rc)
		rc = field_text(process, "process", "cwd", &cwd, e);
	if (!rc && (!cwd || cwd[0] != '/'))
		rc = err_set(e, -EINVAL, "process.cwd: '%.100s'; expected an absolute path",
			     cwd ? cwd : "");
	return rc;
}

static int check_annotations(json_object *a, struct err *e)
{
	int rc = 0;

	if (!a)
		return 0;
	json_object_object_foreach(a, key, v)
	{
		if (!rc && !json_object_is_type(v, json_type_string))
			rc = field_wrong("annotations", key, v, "a string", e);
	}
	return rc;
}

/* ---- all of it ---- */

static int take_members(struct bundle *b, struct err *e)
{
	int rc = field_object(b->spec, "", "process", &b->process, e);

	if (!rc)
		rc = field_object(b->spec, "", "linux", &b->linux_, e);
	if (!rc)
		rc = field_array(b->spec, "", "mounts", &b->mounts, e);
	if (!rc)
		rc = field_object(b->spec, "", "hooks", &b->hooks, e);
	if (!rc)
		rc = field_object(b->spec, "", "annotations", &b->annotations, e);
	if (!rc)
		rc = check_process(b->process, e);
	if (!rc)
		rc = check_annotations(b->annotations, e);
	return rc;
}

int bundle_read(struct bundle *b, const char *dir, struct err *e)
{
	char path[PATH_MAX + 16];
	int rc;

	*b = (struct bundle){.spec = NULL};
	if (!realpath(dir ? dir : ".", b->path))
		return err_sys(e, -errno, "bundle: %.150s", dir ? dir : ".");
	snprintf(path, sizeof(path), "%s/config.json", b->path);
	rc = bundle_object(path, "bundle", &b->spec, e);
	if (!rc)
		rc = check_version(b->spec, e);
	if (!rc)
		rc = take_members(b, e);
	if (!rc)
		rc = find_root(b, e);
	if (rc)
		bundle_free(b);
	return rc;
}

void bundle_free(struct bundle *b)
{
	json_object_put(b->spec);
	*b = (struct bundle){.spec = NULL};
}

/* ---- pods ---- */

static const struct manager {
	const char *type, *sandbox;
} managers[] = {
	{"io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"},
	{"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"},
};

static int role_of(const struct bundle *b, const struct manager *m, const char *type,
		   enum bundle_role *role, const char **sandbox, struct err *e)
{
	if (!strcmp(type, "sandbox")) {
		*role = BUNDLE_SANDBOX;
		return 0;
	}
	if (strcmp(type, "container") != 0)
		return err_set(e, -EINVAL, "annotations.%s: '%.60s'; expected sandbox or container",
			       m->type, type);
	*role = BUNDLE_MEMBER;
	*sandbox = j_get_str(b->annotations, m->sandbox, "");
	return bundle_check_id(*sandbox, NULL)
		       ? err_set(e, -EINVAL, "annotations.%s: '%.60s'; expected a container's id",
				 m->sandbox, *sandbox)
		       : 0;
}

int bundle_role(const struct bundle *b, enum bundle_role *role, const char **sandbox, struct err *e)
{
	*role = BUNDLE_ALONE;
	*sandbox = NULL;
	for (size_t i = 0; i < ARRAY_LEN(managers); i++) {
		const char *type = j_get_str(b->annotations, managers[i].type, NULL);

		if (type)
			return role_of(b, &managers[i], type, role, sandbox, e);
	}
	return 0;
}

bool bundle_namespace(const struct bundle *b, const char *type, const char **path)
{
	json_object *list = j_get(b->linux_, "namespaces");

	*path = NULL;
	if (!json_object_is_type(list, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *n = json_object_array_get_idx(list, i);

		if (strcmp(j_get_str(n, "type", ""), type) != 0)
			continue;
		*path = j_get_str(n, "path", NULL);
		if (*path && !**path)
			*path = NULL;
		return true;
	}
	return false;
}
