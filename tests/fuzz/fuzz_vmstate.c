/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What insula-vmm is restored from: the input is the file. Its sums are mended first, or no change
 * would get beyond them; an odd first byte leaves them as they are.
 *
 * Besides not crashing: a refusal is one clean line; what was taken is, saved once more, taken
 * again, and no bit is set that the guest could not set itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "../unit/vmstate.h"
#include "must.h"

#define LEN_MAX 262144u

static uint8_t buf[LEN_MAX + 64], one[LEN_MAX + 64];

/* Each record again, with the sum of what it holds; what is no record stays. */
static size_t mend(const uint8_t *data, size_t size)
{
	struct state_out o = {buf, sizeof(buf), 0};
	size_t at = 0;

	while (size - at >= sizeof(struct state_head)) {
		struct state_head h;
		size_t len;

		memcpy(&h, data + at, sizeof(h));
		len = sizeof(h) + (((size_t)h.size + 7) & ~(size_t)7);
		if (len > size - at)
			break;
		memcpy(one, data + at + sizeof(h), h.size);
		MUST(!state_put(&o, h.type, h.version, h.index, one, h.size));
		at += len;
	}
	memcpy(buf + o.len, data + at, size - at);
	return o.len + size - at;
}

static int take(int fd, struct err *e)
{
	int rc = save_read(&vs_vm, fd, e);

	if (!rc)
		return 0;
	MUST(rc == -EPROTO || rc == -EINVAL);
	MUST(e->text[0]);
	for (const char *p = e->text; *p; p++)
		MUST((unsigned char)*p >= 0x20 && *p != 0x7f);
	return rc;
}

/* VMSTATE_SEED=FILE makes the seed: what is saved of a machine that has run. */
static void write_seed(const char *path)
{
	FILE *f = fopen(path, "wb");
	uint64_t len;
	struct err e;

	MUST(f && fputc(0, f) == 0 && !fflush(f));
	vs_open();
	vs_fill();
	MUST(!vs_save(fileno(f), &len, &e));
	vs_close();
	fclose(f);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *seed = getenv("VMSTATE_SEED");

	(void)argc;
	(void)argv;
	if (seed)
		write_seed(seed);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct err e = {0};
	uint64_t again;
	size_t len;

	if (!size || size > LEN_MAX)
		return 0;
	if (data[0] & 1) {
		len = size - 1;
		memcpy(buf, data + 1, len);
	} else {
		len = mend(data + 1, size - 1);
	}
	if (fd < 0)
		fd = memfd_create("state", MFD_CLOEXEC);
	MUST(!ftruncate(fd, 0) && pwrite(fd, buf, len, 0) == (ssize_t)len);
	vs_open();
	if (!take(fd, &e)) {
		MUST(!(atomic_load(&vs_vm.rst_cnt) & ~(uint32_t)BOARD_RST_BITS));
		MUST(atomic_load(&vs_vm.init_started) <= 1);
		MUST(!ftruncate(fd, 0) && lseek(fd, 0, SEEK_SET) == 0);
		MUST(!vs_save(fd, &again, &e));
		MUST(!take(fd, &e));
	}
	vs_close();
	return 0;
}
