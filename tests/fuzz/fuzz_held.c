/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a back end held, in a snapshot's file `devices`: the first byte of the input says whether
 * sums are mended, or no change would get beyond them; the rest is the file.
 *
 * Besides not crashing: a refusal is one clean line, and nothing is kept of it; what was taken is
 * what the records say, and written again it is read as the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/state.h>

#include "devices/vhost/vhost_start.h"
#include "supervisor/device/device.h"
#include "supervisor/snapshot/held.h"
#include "supervisor/snapshot/snapdir.h"
#include "must.h"

#define INDEX 1u
#define MOST (1u << 20) /* of bytes that are compared */

static int file = -1;
static struct snapdir dir;
static struct device one, two;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void clear(int fd)
{
	MUST(!ftruncate(fd, 0) && !lseek(fd, 0, SEEK_SET));
}

static void init_once(void)
{
	if (file >= 0)
		return;
	file = memfd_create("file", MFD_CLOEXEC);
	snapdir_none(&dir);
	dir.file[SNAPDIR_DEVICES] = memfd_create("again", MFD_CLOEXEC);
	MUST(file >= 0 && dir.file[SNAPDIR_DEVICES] >= 0);
	strcpy(one.desc.name, "fs0");
	strcpy(two.desc.name, "fs1");
}

static void put_file(const uint8_t *p, size_t n, bool mend)
{
	struct state_head h;
	uint8_t *room = malloc(n + sizeof(h));

	clear(file);
	while (n >= sizeof(h)) {
		struct state_out o = {room, n, 0};
		size_t len;

		memcpy(&h, p, sizeof(h));
		if (!mend || state_size(&h) > n)
			break;
		len = (size_t)state_size(&h);
		MUST(!state_put(&o, h.type, h.version, h.index, p + sizeof(h), h.size));
		MUST(!write_full(file, room, len));
		p += len;
		n -= len;
	}
	MUST(!write_full(file, p, n));
	free(room);
}

static int read_from(struct device *d, int fd, struct held_file *f, struct err *e)
{
	*f = (struct held_file){.fd = fd};
	MUST(!file_size(fd, &f->size));
	return held_read(d, INDEX, f, e);
}

static void check_refusal(const struct err *e)
{
	MUST(e->code < 0 && e->text[0]);
	for (const char *p = e->text; *p; p++)
		MUST((unsigned char)*p >= 0x20 && *p != 0x7f);
	MUST(!one.held);
}

static void check_same(void)
{
	uint64_t len = one.held->len;
	uint8_t *a = malloc((size_t)len), *b = malloc((size_t)len);

	MUST(two.held && two.held->len == len && two.held->loads && two.held->whole);
	MUST(!shm_read(one.held->fd, a, (size_t)len, 0));
	MUST(!shm_read(two.held->fd, b, (size_t)len, 0) && !memcmp(a, b, (size_t)len));
	free(a);
	free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct held_file f, again;
	struct err e = {0};

	init_once();
	if (!size)
		return 0;
	put_file(data + 1, size - 1, data[0] & 1);
	if (read_from(&one, file, &f, &e)) {
		check_refusal(&e);
		return 0;
	}
	MUST(f.at <= f.size);
	if (!one.held)
		return 0;
	MUST(one.held->len && one.held->len <= VHOST_HELD_MAX && held_is_to_load(&one));
	clear(dir.file[SNAPDIR_DEVICES]);
	MUST(!held_write(&one, INDEX, &dir, &e));
	MUST(!read_from(&two, dir.file[SNAPDIR_DEVICES], &again, &e) && again.at == again.size);
	MUST(again.size == f.at);
	if (one.held->len <= MOST)
		check_same();
	held_free(&one);
	held_free(&two);
	return 0;
}
