/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Passwords and keys of a storage module: settings whose value is a file. See module.h.
 *
 * The supervisor reads them, once, with the rights of the user who starts the VM, and gives the
 * module what they hold, in one sealed piece of memory. So they are in no argument and no
 * environment, and the module, which can open nothing, needs no path. /dev/fd/N is a file too: a
 * descriptor that whoever starts the VM has left open. While a VM runs nothing may be waited for, so
 * it has to be a regular file then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "module.h"

/* Of lines "USER:...", that of `user` is left in text[n], a NUL in place of its end. Its length;
 * 0: there is none. */
static size_t keep_line(char *text, size_t n, const char *user)
{
	size_t len = strlen(user), line;

	for (char *p = text, *end = text + n; p < end; p += line + 1) {
		const char *stop = memchr(p, '\n', (size_t)(end - p));

		line = (size_t)((stop ? stop : end) - p);
		/* One without a key is none. The key may be behind it. */
		if (line > len + 1 && !memcmp(p, user, len) && p[len] == ':' &&
		    p[len + 1] != '\r') {
			memmove(text, p, line);
			text[line] = 0;
			return line;
		}
	}
	return 0;
}

/* Somebody else's key is not for this VM's module. */
static int take_line(const struct module_back *b, const struct manifest_setting *s, char *text,
		     ssize_t *n, struct err *e)
{
	if (!b->uri.user[0])
		return err_set(e, -EINVAL, "options: %s: expected a user in the URI, USER@",
			       s->key);
	*n = (ssize_t)keep_line(text, (size_t)*n, b->uri.user);
	return *n ? 0
		  : err_set(e, -EINVAL, "options: %s: no line of '%.60s'; expected %.60s:KEY",
			    s->key, b->uri.user, b->uri.user);
}

static int put_file(struct module_back *b, const struct manifest_setting *s, const char *text,
		    size_t n, uint64_t *at, struct err *e)
{
	int rc = file_size(b->files, at);

	if (!rc)
		rc = write_full(b->files, text, n + 1);
	return rc ? err_sys(e, rc, "options: %s", s->key) : 0;
}

/* What a setting's file holds, with a NUL behind it, at the end of b->files. */
static int append_file(struct module_back *b, const struct manifest_setting *s, const char *path,
		       uint64_t *at, size_t *len, struct err *e)
{
	static char text[MANIFEST_FILE_MAX + 2];
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc;
	bool waits = b->late && fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode));
	ssize_t n = fd < 0 ? -errno : waits ? 0 : module_read(fd, text, (size_t)s->max + 1);

	fd_close(&fd);
	if (waits)
		return err_set(e, -EINVAL,
			       "options: %s %.120s; expected a regular file while the VM runs",
			       s->key, path);
	if (n < 0)
		return err_sys(e, (int)n, "options: %s %.120s", s->key, path);
	if (!n || (uint64_t)n > s->max)
		return err_set(e, -EINVAL, "options: %s %.120s: %s; expected 1 to %llu bytes in it",
			       s->key, path, n ? "more" : "empty", (unsigned long long)s->max);
	text[n] = 0;
	rc = s->line_of_user ? take_line(b, s, text, &n, e) : 0;
	if (!rc)
		rc = put_file(b, s, text, (size_t)n, at, e);
	explicit_bzero(text, sizeof(text));
	*len = (size_t)n;
	return rc;
}

/* One item of the text, into out[size] at *n. */
static int take_item(struct module_back *b, const char *item, char *out, size_t size, size_t *n,
		     struct err *e)
{
	size_t key = strcspn(item, "="), len = 0;
	const struct manifest_setting *s = manifest_setting(&b->manifest, item, key);
	uint64_t at = 0;
	int rc = 0, k;

	if (!s || s->type != MANIFEST_FILE) {
		k = snprintf(out + *n, size - *n, "%s", item);
	} else {
		if (b->files < 0)
			b->files = memfd_create("module-files", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		rc = b->files < 0 ? err_sys(e, -errno, "options: %s", s->key)
				  : append_file(b, s, item + key + 1, &at, &len, e);
		k = snprintf(out + *n, size - *n, "%s=%llu:%zu", s->key, (unsigned long long)at,
			     len);
	}
	if (!rc && (k < 0 || (size_t)k + 1 > size - *n))
		rc = err_set(e, -EINVAL, "options: too long");
	*n += rc ? 0 : (size_t)k + 1;
	return rc;
}

int module_take_files(struct module_back *b, struct err *e)
{
	char out[MODULE_TEXT_MAX];
	size_t n = strlen(b->text) + 1;
	int rc = 0;

	memcpy(out, b->text, n);
	for (size_t p = n; p < b->text_len && !rc; p += strlen(b->text + p) + 1)
		rc = take_item(b, b->text + p, out, sizeof(out), &n, e);
	if (!rc && b->files >= 0 &&
	    fcntl(b->files, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
		rc = err_sys(e, -errno, "options: seals");
	if (rc)
		return rc;
	memcpy(b->text, out, n);
	b->text_len = (unsigned)n;
	return 0;
}
