/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of images, and what an image adds to a configuration. See config.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "config.h"

/* containers-transports(5). Anything else before a colon is a host or a name: "debian:12". */
static const char *const transports[] = {
	"oci:",      "oci-archive:",   "docker-archive:",
	"docker://", "docker-daemon:", "containers-storage:",
	"dir:",      "ostree:",        "sif:",
};

static const char *transport_of(const char *text)
{
	for (size_t i = 0; i < ARRAY_LEN(transports); i++) {
		if (!strncmp(text, transports[i], strlen(transports[i])))
			return transports[i];
	}
	return NULL;
}

/* distribution/reference: a name, a tag, a digest. What it means is skopeo's business. */
static bool is_registry_name(const char *s)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ._-:/@+[]";

	return *s && *s != '-' && *s != '/' && s[strspn(s, letters)] == 0;
}

static bool has_control(const char *s)
{
	for (; *s; s++) {
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return true;
	}
	return false;
}

char *image_reference(const char *text, const char **why)
{
	const char *transport = transport_of(text);
	const char *rest = transport ? text + strlen(transport) : text;
	char *out;

	*why = NULL;
	if (strlen(text) + sizeof("docker://") > CONFIG_IMAGE_MAX)
		*why = "at most 1000 bytes";
	else if (!*rest || has_control(rest))
		*why = "a reference such as oci:DIR:TAG, docker-archive:FILE or debian:12";
	else if ((!transport || !strcmp(transport, "docker://")) && !is_registry_name(rest))
		*why = "a name such as debian:12 or HOST/NAME@DIGEST, or a transport that skopeo "
		       "knows";
	if (*why)
		return NULL;
	return asprintf(&out, "%s%s", transport ? "" : "docker://", text) < 0 ? NULL : out;
}

int config_add_defaults(struct vm_config *c, char *const *env, unsigned n, struct err *e)
{
	if (n > CONFIG_MAX_ENV - c->nenv)
		return err_set(e, -EINVAL,
			       "%u variables of the image and %u more; expected at "
			       "most %d",
			       n, c->nenv, CONFIG_MAX_ENV);
	memmove(c->env + n, c->env, c->nenv * sizeof(*c->env));
	for (unsigned i = 0; i < n; i++) {
		c->env[i] = strdup(env[i]);
		if (!c->env[i]) { /* config_free() frees what is there */
			memmove(c->env + i, c->env + n, c->nenv * sizeof(*c->env));
			c->nenv += i;
			memset(c->env + c->nenv, 0,
			       (CONFIG_MAX_ENV + 1 - c->nenv) * sizeof(*c->env));
			return err_set(e, -ENOMEM, "out of memory");
		}
	}
	c->nenv += n;
	return 0;
}
