/* SPDX-License-Identifier: BSD-2-Clause */
/* A buffer of records. See rec.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/container.h>

#include "rec.h"

#define FIRST_ROOM 4096u

void rec_init(struct rec *r)
{
	*r = (struct rec){0};
	rec_add(r, "version", CT_VERSION);
}

void rec_free(struct rec *r)
{
	free(r->at);
	*r = (struct rec){0};
}

static bool rec_room(struct rec *r, size_t more)
{
	size_t room = r->room ? r->room : FIRST_ROOM;
	char *at;

	if (r->error)
		return false;
	if (more > CT_FILE_MAX || r->len + more > CT_FILE_MAX) {
		r->error = -E2BIG;
		return false;
	}
	while (room < r->len + more)
		room *= 2;
	at = room == r->room ? r->at : realloc(r->at, room);
	if (!at) {
		r->error = -ENOMEM;
		return false;
	}
	r->at = at;
	r->room = room;
	return true;
}

void rec_add(struct rec *r, const char *key, const char *value)
{
	size_t nkey = strlen(key), nvalue = strlen(value);

	if (!rec_room(r, nkey + nvalue + 2))
		return;
	memcpy(r->at + r->len, key, nkey);
	r->at[r->len + nkey] = '=';
	memcpy(r->at + r->len + nkey + 1, value, nvalue + 1);
	r->len += nkey + nvalue + 2;
}

void rec_addf(struct rec *r, const char *key, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0) {
		r->error = r->error ? r->error : -ENOMEM;
		return;
	}
	rec_add(r, key, text);
	free(text);
}

static int rec_error(const struct rec *r, const char *name, struct err *e)
{
	if (r->error == -E2BIG)
		return err_set(e, -E2BIG, "%s: more than %u bytes of records", name, CT_FILE_MAX);
	return err_sys(e, r->error, "%s", name);
}

int rec_write(const struct rec *r, int at, const char *name, struct err *e)
{
	int fd, rc;

	if (r->error)
		return rec_error(r, name, e);
	fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "%s", name);
	rc = write_full(fd, r->at, r->len);
	fd_close(&fd);
	if (!rc)
		return 0;
	unlinkat(at, name, 0);
	return err_sys(e, rc, "%s", name);
}
