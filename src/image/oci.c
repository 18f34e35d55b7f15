/* SPDX-License-Identifier: BSD-2-Clause */
/* JSON of images. See oci.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "oci.h"

#define DEPTH 24 /* of nested values; a configuration's history has some 5 */
#define ARCHITECTURE "amd64"
#define REF_NAME "org.opencontainers.image.ref.name"

/* ---- values ---- */

static int parse(const char *what, const char *text, size_t len, json_object **out, struct err *e)
{
	json_tokener *tok = json_tokener_new_ex(DEPTH);
	enum json_tokener_error why;
	json_object *o;

	*out = NULL;
	if (!tok)
		return err_set(e, -ENOMEM, "out of memory");
	if (len > OCI_TEXT_MAX) {
		json_tokener_free(tok);
		return err_set(e, -EINVAL, "%s: %zu bytes; expected at most %u", what, len,
			       OCI_TEXT_MAX);
	}
	/* json-c takes one in a comment, and what is kept of the text would end there. */
	if (memchr(text, 0, len)) {
		json_tokener_free(tok);
		return err_set(e, -EINVAL, "%s: not a JSON object: a NUL", what);
	}
	json_tokener_set_flags(tok, JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(tok, text, (int)len);
	why = json_tokener_get_error(tok);
	json_tokener_free(tok);
	if (!o || why != json_tokener_success || !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		return err_set(e, -EINVAL, "%s: not a JSON object: %s", what,
			       why == json_tokener_success    ? "another type"
			       : why == json_tokener_continue ? "it ends too early"
							      : json_tokener_error_desc(why));
	}
	*out = o;
	return 0;
}

static int wrong(const char *what, const char *key, const char *expected, struct err *e)
{
	return err_set(e, -EINVAL, "%s: %s: expected %s", what, key, expected);
}

/* Without NULs inside; NULL: it is no string of that kind. */
static const char *string_of(json_object *o)
{
	const char *s = json_object_is_type(o, json_type_string) ? json_object_get_string(o) : NULL;

	return s && strlen(s) == (size_t)json_object_get_string_len(o) ? s : NULL;
}

static json_object *member(json_object *o, const char *key)
{
	json_object *v = NULL;

	return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v)
		       ? v
		       : NULL;
}

/* "" if it is missing or null; NULL: of another type. */
static const char *text_member(json_object *o, const char *key)
{
	json_object *v = member(o, key);

	return v ? string_of(v) : "";
}

/* "sha256:" and 64 digits. */
static bool digest_of(const char *text, char hex[SHA256_TEXT])
{
	static const char algorithm[] = "sha256:";
	const char *digits = text + sizeof(algorithm) - 1;

	if (strncmp(text, algorithm, sizeof(algorithm) - 1) != 0 ||
	    strlen(digits) != 2 * SHA256_LEN || digits[strspn(digits, "0123456789abcdef")])
		return false;
	memcpy(hex, digits, SHA256_TEXT);
	return true;
}

/* A descriptor (OCI image specification, descriptor.md). */
static int blob_of(const char *what, json_object *o, uint64_t most, struct oci_blob *out,
		   struct err *e)
{
	json_object *size = member(o, "size");
	const char *digest = text_member(o, "digest");

	if (!digest || !digest_of(digest, out->hex))
		return wrong(what, "digest", "sha256: and 64 hexadecimal digits", e);
	if (!size || !json_object_is_type(size, json_type_int) || json_object_get_int64(size) < 0 ||
	    (uint64_t)json_object_get_int64(size) > most)
		return err_set(e, -EINVAL, "%s: size: expected a number up to %llu", what,
			       (unsigned long long)most);
	out->size = (uint64_t)json_object_get_int64(size);
	return 0;
}

/* ---- index ---- */

/* For this machine, as far as it says; `platform` NULL: it does not. */
static bool fits(json_object *platform)
{
	const char *os = text_member(platform, "os"), *arch = text_member(platform, "architecture");

	return !platform || (os && arch && (!*os || !strcmp(os, "linux")) &&
			     (!*arch || !strcmp(arch, ARCHITECTURE)));
}

static bool is_index(json_object *descriptor)
{
	const char *type = text_member(descriptor, "mediaType");

	return type && (!strcmp(type, "application/vnd.oci.image.index.v1+json") ||
			!strcmp(type, "application/vnd.docker.distribution.manifest.list.v2+json"));
}

static int pick(json_object *list, const char *tag, json_object **out, struct err *e)
{
	size_t n = json_object_array_length(list), found = 0, others = 0;

	for (size_t i = 0; i < n; i++) {
		json_object *d = json_object_array_get_idx(list, i);
		const char *name = text_member(member(d, "annotations"), REF_NAME);

		if (*tag && (!name || strcmp(name, tag) != 0))
			continue;
		if (!fits(member(d, "platform"))) {
			others++;
			continue;
		}
		if (!found++)
			*out = d;
	}
	if (found == 1)
		return 0;
	if (found > 1 && !*tag)
		return err_set(e, -EINVAL, "%zu images; expected a tag that says which", found);
	if (found > 1)
		return err_set(e, -EINVAL, "%zu images have the tag %.60s", found, tag);
	if (others)
		return err_set(e, -EINVAL, "no image for linux/" ARCHITECTURE " among its %zu",
			       others);
	if (*tag)
		return err_set(e, -EINVAL, "no image with the tag %.60s", tag);
	return err_set(e, -EINVAL, "no image in it");
}

int oci_index(const char *text, size_t len, const char *tag, struct oci_blob *out, bool *index,
	      struct err *e)
{
	json_object *o, *list, *d = NULL;
	int rc = parse("index", text, len, &o, e);

	if (rc)
		return rc;
	list = member(o, "manifests");
	if (!json_object_is_type(list, json_type_array))
		rc = wrong("index", "manifests", "an array", e);
	if (!rc)
		rc = pick(list, tag, &d, e);
	if (!rc)
		rc = blob_of("index", d, OCI_TEXT_MAX, out, e);
	if (!rc)
		*index = is_index(d);
	json_object_put(o);
	return rc;
}

/* ---- manifest ---- */

/* An artifact that is no image has a configuration of another type. */
static bool is_image_config(json_object *config)
{
	const char *type = text_member(config, "mediaType");

	return type && (!strcmp(type, "application/vnd.oci.image.config.v1+json") ||
			!strcmp(type, "application/vnd.docker.container.image.v1+json"));
}

static int layers_of(json_object *list, struct oci_manifest *m, struct err *e)
{
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	int rc = 0;

	if (n == 0 || n > OCI_MAX_LAYERS)
		return err_set(e, -EINVAL, "manifest: layers: %zu; expected 1 to %d", n,
			       OCI_MAX_LAYERS);
	for (size_t i = 0; i < n && !rc; i++) {
		json_object *d = json_object_array_get_idx(list, i);
		const char *type = text_member(d, "mediaType");

		if (type && strstr(type, "+encrypted"))
			rc = err_set(e, -EINVAL, "manifest: layer %zu is encrypted", i);
		if (!rc)
			rc = blob_of("manifest: layers", d, OCI_BLOB_MAX, &m->layer[m->nlayers++],
				     e);
	}
	return rc;
}

int oci_manifest(const char *text, size_t len, struct oci_manifest *m, struct err *e)
{
	json_object *o;
	int rc = parse("manifest", text, len, &o, e);

	m->nlayers = 0;
	if (rc)
		return rc;
	if (!is_image_config(member(o, "config")))
		rc = wrong("manifest", "config", "the configuration of an image", e);
	if (!rc)
		rc = blob_of("manifest: config", member(o, "config"), OCI_TEXT_MAX, &m->config, e);
	if (!rc)
		rc = layers_of(member(o, "layers"), m, e);
	json_object_put(o);
	return rc;
}

/* ---- configuration ---- */

static void free_strings(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free((void *)list);
}

void oci_config_free(struct oci_config *c)
{
	free_strings(c->entrypoint);
	free_strings(c->cmd);
	free_strings(c->env);
	free(c->user);
	free(c->cwd);
	free(c->text);
	*c = (struct oci_config){0};
}

/* An array of strings; null, missing and empty are none. */
static int strings_of(json_object *o, const char *key, char ***out, struct err *e)
{
	json_object *list = member(o, key);
	size_t n;

	if (!list)
		return 0;
	if (!json_object_is_type(list, json_type_array))
		return wrong("configuration", key, "an array of strings", e);
	n = json_object_array_length(list);
	if (n > OCI_MAX_STRINGS)
		return err_set(e, -EINVAL, "configuration: %s: %zu strings; expected at most %d",
			       key, n, OCI_MAX_STRINGS);
	if (!n)
		return 0;
	*out = calloc(n + 1, sizeof(char *));
	for (size_t i = 0; i < n && *out; i++) {
		const char *s = string_of(json_object_array_get_idx(list, i));

		if (!s)
			return wrong("configuration", key, "an array of strings", e);
		(*out)[i] = strdup(s);
		if (!(*out)[i])
			return err_set(e, -ENOMEM, "out of memory");
	}
	return *out ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int string_in(json_object *o, const char *key, char **out, struct err *e)
{
	const char *s = text_member(o, key);

	if (!s)
		return wrong("configuration", key, "a string", e);
	if (!*s)
		return 0;
	*out = strdup(s);
	return *out ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* "NAME=VALUE": others, and what has no name, are nobody's variables, as for Docker. */
static void drop_odd_variables(char **env)
{
	char **to = env;

	for (char **from = env; from && *from; from++) {
		const char *equals = strchr(*from, '=');

		if (equals && equals != *from)
			*to++ = *from;
		else
			free(*from);
	}
	if (env)
		*to = NULL;
}

static int diff_ids(json_object *rootfs, struct oci_config *c, struct err *e)
{
	json_object *list = member(rootfs, "diff_ids");
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

	if (n > OCI_MAX_LAYERS)
		return err_set(e, -EINVAL, "configuration: diff_ids: %zu; expected at most %d", n,
			       OCI_MAX_LAYERS);
	for (size_t i = 0; i < n; i++) {
		const char *s = string_of(json_object_array_get_idx(list, i));

		if (!s || !digest_of(s, c->diff_id[i]))
			return wrong("configuration", "diff_ids",
				     "sha256: and 64 hexadecimal digits", e);
	}
	c->ndiff = (unsigned)n;
	return 0;
}

static int for_us(json_object *o, struct err *e)
{
	const char *os = text_member(o, "os"), *arch = text_member(o, "architecture");

	if (fits(o))
		return 0;
	return err_set(e, -EINVAL, "the image is for %.30s/%.30s; expected linux/" ARCHITECTURE,
		       os ? os : "?", arch ? arch : "?");
}

int oci_config(const char *text, size_t len, struct oci_config *c, struct err *e)
{
	json_object *o, *run;
	int rc = parse("configuration", text, len, &o, e);

	*c = (struct oci_config){0};
	if (rc)
		return rc;
	run = member(o, "config");
	rc = for_us(o, e);
	if (!rc && run && !json_object_is_type(run, json_type_object))
		rc = wrong("configuration", "config", "an object", e);
	if (!rc)
		rc = strings_of(run, "Entrypoint", &c->entrypoint, e);
	if (!rc)
		rc = strings_of(run, "Cmd", &c->cmd, e);
	if (!rc)
		rc = strings_of(run, "Env", &c->env, e);
	if (!rc)
		rc = string_in(run, "User", &c->user, e);
	if (!rc)
		rc = string_in(run, "WorkingDir", &c->cwd, e);
	if (!rc)
		rc = diff_ids(member(o, "rootfs"), c, e);
	json_object_put(o);
	if (!rc) {
		drop_odd_variables(c->env);
		c->text = strndup(text, len);
		rc = c->text ? 0 : err_set(e, -ENOMEM, "out of memory");
	}
	if (rc)
		oci_config_free(c);
	return rc;
}

/* ---- records ---- */

char *oci_record(const struct oci_manifest *m, const char *hex, const struct oci_config *c)
{
	json_object *o = json_object_new_object(), *layers = json_object_new_array();
	char *text = NULL;

	json_object_object_add(o, "digest", json_object_new_string(hex));
	for (unsigned i = 0; i < m->nlayers; i++) {
		json_object *l = json_object_new_object();

		json_object_object_add(l, "hex", json_object_new_string(m->layer[i].hex));
		json_object_object_add(l, "size", json_object_new_int64((int64_t)m->layer[i].size));
		json_object_array_add(layers, l);
	}
	json_object_object_add(o, "layers", layers);
	json_object_object_add(o, "config", json_object_new_string(c->text));
	text = strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
	return text;
}

/* Written by ourselves into a directory that is ours: what is wrong with it is damage. */
static int read_record(json_object *o, struct oci_manifest *m, struct oci_config *c, struct err *e)
{
	json_object *list = member(o, "layers"), *config = member(o, "config");
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	const char *text = string_of(config);

	m->nlayers = 0;
	if (!n || n > OCI_MAX_LAYERS || !text)
		return err_set(e, -EINVAL, "a record of an image that is damaged");
	for (size_t i = 0; i < n; i++) {
		json_object *l = json_object_array_get_idx(list, i);
		const char *hex = text_member(l, "hex");
		struct oci_blob *b = &m->layer[m->nlayers++];

		if (!hex || strlen(hex) != 2 * SHA256_LEN || hex[strspn(hex, "0123456789abcdef")])
			return err_set(e, -EINVAL, "a record of an image that is damaged");
		memcpy(b->hex, hex, sizeof(b->hex));
		b->size = (uint64_t)json_object_get_int64(member(l, "size"));
	}
	return oci_config(text, strlen(text), c, e);
}

int oci_record_read(const char *text, size_t len, struct oci_manifest *m, struct oci_config *c,
		    struct err *e)
{
	json_object *o;
	int rc;

	*c = (struct oci_config){0};
	/* The configuration is in it as a string, which may have twice its length. */
	rc = len > 3ull * OCI_TEXT_MAX ? -EFBIG : 0;
	o = rc ? NULL : json_tokener_parse(text);
	rc = o ? read_record(o, m, c, e) : err_set(e, -EINVAL, "a record that is no JSON");
	json_object_put(o);
	return rc;
}
