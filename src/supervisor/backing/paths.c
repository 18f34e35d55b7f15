/* SPDX-License-Identifier: BSD-2-Clause */
/* Where things are. See paths.h. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#include "paths.h"

static int join(char *out, size_t size, const char *a, const char *b, struct err *e)
{
	int n = snprintf(out, size, "%s%s", a, b);

	return n < 0 || (size_t)n >= size ? err_set(e, -ENAMETOOLONG, "%.80s...: too long", a) : 0;
}

/* Root takes nothing out of a home directory: HOME may still be that of the user before sudo. */
static int find_own(struct paths *p, struct err *e)
{
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");

	p->own[0] = 0;
	if (!geteuid())
		return 0;
	if (data && *data == '/')
		return join(p->own, sizeof(p->own), data, "/insula/kernel", e);
	return home && *home == '/'
		       ? join(p->own, sizeof(p->own), home, "/.local/share/insula/kernel", e)
		       : 0;
}

int paths_find(struct paths *p, struct err *e)
{
	char top[PATH_MAX];
	int rc = program_above(2, top, sizeof(top), e);

	if (rc)
		return rc;
	rc = join(p->libexec, sizeof(p->libexec), top, "/libexec/insula", e);
	if (!rc)
		rc = join(p->guest, sizeof(p->guest), top, "/guest", e);
	if (!rc)
		rc = find_own(p, e);
	if (!rc)
		rc = image_cache_dir(p->cache, e);
	if (rc != -ENOENT)
		return rc;
	p->cache[0] = '\0'; /* what needs one says so */
	return 0;
}

static int is_kernel(const struct dirent *d)
{
	return !strncmp(d->d_name, "vmlinuz-", 8);
}

/* The kernel of the highest version in DIR/boot. 1: found, 0: none. */
static int newest_kernel(const char *dir, char *out, size_t size, struct err *e)
{
	char boot[PATH_MAX];
	struct dirent **names;
	int rc = join(boot, sizeof(boot), dir, "/boot/", e);
	int n = rc ? rc : scandir(boot, &names, is_kernel, versionsort);

	if (rc || n < 0)
		return rc;
	if (n)
		rc = join(out, size, boot, names[n - 1]->d_name, e);
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
	return rc ? rc : n > 0;
}

int paths_default_kernel(const struct paths *p, char *out, size_t size, struct err *e)
{
	const char *const places[] = {p->guest, p->own, PATHS_SYSTEM_KERNEL};
	struct utsname u;
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(places) && !rc; i++)
		rc = *places[i] ? newest_kernel(places[i], out, size, e) : 0;
	if (rc)
		return rc < 0 ? rc : 0;
	uname(&u);
	rc = join(out, size, "/boot/vmlinuz-", u.release, e);
	if (!rc && access(out, R_OK))
		rc = err_set(e, -ENOENT,
			     "--kernel: not given, and there is neither one in %.120s nor a "
			     "readable %.120s: insula-get-kernel fetches one",
			     *p->own ? p->own : PATHS_SYSTEM_KERNEL, out);
	return rc;
}
