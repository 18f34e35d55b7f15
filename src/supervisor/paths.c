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

#include <insula/image.h>

#include "paths.h"

static int join(char *out, size_t size, const char *a, const char *b, struct err *e)
{
	int n = snprintf(out, size, "%s%s", a, b);

	return n < 0 || (size_t)n >= size ? err_set(e, -ENAMETOOLONG, "%.80s...: too long", a) : 0;
}

int paths_find(struct paths *p, struct err *e)
{
	char top[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", top, sizeof(top) - 1);
	int rc;

	if (n < 0)
		return err_sys(e, -errno, "/proc/self/exe");
	top[n] = 0;
	for (int up = 0; up < 2; up++) {
		char *slash = strrchr(top, '/');
		if (slash)
			*slash = 0;
	}
	rc = join(p->libexec, sizeof(p->libexec), top, "/libexec/insula", e);
	if (!rc)
		rc = join(p->guest, sizeof(p->guest), top, "/guest", e);
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
	struct utsname u;
	int rc = newest_kernel(p->guest, out, size, e);

	if (rc)
		return rc < 0 ? rc : 0;
	uname(&u);
	rc = join(out, size, "/boot/vmlinuz-", u.release, e);
	if (!rc && access(out, R_OK))
		rc = err_set(e, -ENOENT,
			     "--kernel: not given, and there is neither one in %.80s/boot nor a "
			     "readable %s",
			     p->guest, out);
	return rc;
}
