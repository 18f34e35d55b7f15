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
	rc = file_size(b->files, at);
	if (!rc)
		rc = write_full(b->files, text, (size_t)n + 1);
	explicit_bzero(text, sizeof(text));
	*len = (size_t)n;
	return rc ? err_sys(e, rc, "options: %s", s->key) : 0;
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
