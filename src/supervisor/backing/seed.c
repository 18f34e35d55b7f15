/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk for cloud-init. See seed.h.
 *
 * ECMA-119 (ISO 9660), as little of it as there can be: one directory with all files in it, each in a
 * row of sectors of its own. A name such as "USER-DATA.;1" has a dash, which the standard does not
 * want and every system reads; Linux shows "user-data". Numbers are there twice, in both byte orders.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "seed.h"
#include "spec/config.h"

#define SECTOR 2048u
#define FILE_MAX (16u << 20)
#define RECORD_MAX 64u /* bytes of an entry: 33 and its name */

/* Sectors: the first 16 are the system's. */
enum { VOLUME = 16, VOLUME_END, PATHS_LITTLE, PATHS_BIG, DIRECTORY, FILES };

struct seed_file {
	char name[24]; /* "USER-DATA.;1" */
	char *data;
	size_t len;
	uint32_t at; /* sector */
};

struct seed {
	struct seed_file file[CONFIG_SEED_FILES];
	unsigned n;
	uint32_t sectors;
};

static void put_both16(uint8_t *p, uint32_t v)
{
	p[0] = p[3] = (uint8_t)v;
	p[1] = p[2] = (uint8_t)(v >> 8);
}

static void put_both32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = p[7 - i] = (uint8_t)(v >> 8 * i);
}

/* 9.1; its length. */
static size_t put_record(uint8_t *p, const char *name, size_t len, uint32_t at, uint32_t size,
			 bool dir)
{
	size_t total = (33 + len + 1) & ~(size_t)1;

	p[0] = (uint8_t)total;
	put_both32(p + 2, at);
	put_both32(p + 10, size);
	p[18] = 70; /* of no particular time: the first day of 1970 */
	p[19] = p[20] = 1;
	p[25] = dir ? 2 : 0;
	put_both16(p + 28, 1);
	p[32] = (uint8_t)len;
	memcpy(p + 33, name, len);
	return total;
}

/* 9.4: the root, which is all there is. */
static void put_path(uint8_t *p, bool big)
{
	p[0] = 1;
	p[big ? 5 : 2] = DIRECTORY;
	p[big ? 7 : 6] = 1;
}

/* 8.4 */
static void put_volume(uint8_t *p, uint32_t sectors)
{
	memcpy(p, "\1CD001\1", 7);
	memset(p + 8, ' ', 64);
	memcpy(p + 40, "cidata", 6);
	put_both32(p + 80, sectors);
	put_both16(p + 120, 1);
	put_both16(p + 124, 1);
	put_both16(p + 128, SECTOR);
	put_both32(p + 132, 10);
	p[140] = PATHS_LITTLE;
	p[151] = PATHS_BIG;
	(void)put_record(p + 156, "", 1, DIRECTORY, SECTOR, true);
	memset(p + 190, ' ', 623);
	for (unsigned at = 813; at < 881; at += 17)
		memset(p + at, '0', 16);
	p[881] = 1;
	memcpy(p + SECTOR, "\377CD001\1", 7); /* 8.3: no other volume descriptors */
}

static void put_files(uint8_t *image, const struct seed *s)
{
	uint8_t *p = image + DIRECTORY * SECTOR;

	_Static_assert((CONFIG_SEED_FILES + 2) * RECORD_MAX <= SECTOR, "one sector of a directory");
	p += put_record(p, "\0", 1, DIRECTORY, SECTOR, true);
	p += put_record(p, "\1", 1, DIRECTORY, SECTOR, true);
	for (unsigned i = 0; i < s->n; i++) {
		const struct seed_file *f = &s->file[i];

		p += put_record(p, f->name, strlen(f->name), f->at, (uint32_t)f->len, false);
		if (f->len)
			memcpy(image + (size_t)f->at * SECTOR, f->data, f->len);
	}
}

/* What cloud-init calls it, in capitals, which is also the order that the standard wants. */
static void seed_name(struct seed_file *f, const char *name)
{
	size_t n = 0;

	for (; name[n]; n++)
		f->name[n] =
			(char)(name[n] >= 'a' && name[n] <= 'z' ? name[n] - 'a' + 'A' : name[n]);
	memcpy(f->name + n, ".;1", 4);
}

static int seed_read(struct seed *s, const struct seed_config *c, struct err *e)
{
	s->sectors = FILES;
	for (unsigned i = 0; i < CONFIG_SEED_FILES; i++) {
		struct seed_file *f = &s->file[s->n];
		int rc = c->file[i] ? text_read(c->file[i], false, FILE_MAX, &f->data, &f->len) : 0;

		if (rc)
			return err_sys(e, rc, "--cloud-init: %s: %s", config_seed_names[i],
				       c->file[i]);
		/* cloud-init wants these two, and is content with nothing in them. */
		if (!c->file[i] && strcmp(config_seed_names[i], "meta-data") != 0 &&
		    strcmp(config_seed_names[i], "user-data") != 0)
			continue;
		seed_name(f, config_seed_names[i]);
		f->at = s->sectors;
		s->sectors += (uint32_t)((f->len + SECTOR - 1) / SECTOR);
		s->n++;
	}
	return 0;
}

static int seed_write(const struct seed *s, struct err *e)
{
	size_t size = (size_t)s->sectors * SECTOR;
	int fd = shm_create("insula-seed", size, e), rc;
	uint8_t *image;
	void *at;

	if (fd < 0)
		return fd;
	rc = shm_map(fd, 0, 0, size, true, &at, e);
	if (rc) {
		fd_close(&fd);
		return rc;
	}
	image = at;
	put_volume(image + VOLUME * SECTOR, s->sectors);
	put_path(image + PATHS_LITTLE * SECTOR, false);
	put_path(image + PATHS_BIG * SECTOR, true);
	put_files(image, s);
	shm_unmap(at, size);
	return fd;
}

int seed_make(const struct seed_config *c, struct err *e)
{
	struct seed s = {.n = 0};
	int rc = seed_read(&s, c, e);

	if (!rc)
		rc = seed_write(&s, e);
	for (unsigned i = 0; i < CONFIG_SEED_FILES; i++)
		free(s.file[i].data);
	return rc;
}
