/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest physical memory. See insula/guestmem.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/guestmem.h>
#include <insula/proto.h>

static int map_region(struct guestmem *gm, int memfd, const struct mem_region *m, struct err *e)
{
	void *host;
	int rc = shm_map(memfd, 0, m->offset, m->size, true, &host, e);

	if (rc)
		return rc;
	shm_is_guest(host, m->size);
	gm->region[gm->nregions++] =
		(struct gm_region){.gpa = m->gpa, .size = m->size, .host = host};
	return 0;
}

int gm_map(struct guestmem *gm, const struct memmap *map, const int *fds, unsigned nfds,
	   struct err *e)
{
	int rc = memmap_check(map, nfds, e);

	memset(gm, 0, sizeof(*gm));
	for (unsigned i = 0; !rc && i < map->nregions; i++)
		rc = map_region(gm, fds[map->region[i].fd], &map->region[i], e);
	if (rc)
		gm_unmap(gm);
	return rc;
}

static int give_one(const struct gm_region *r, uint64_t offset, int dev, bool missing, int channel,
		    struct err *e)
{
	const struct msg_faults m = {.offset = offset, .addr = (uintptr_t)r->host, .len = r->size};
	bool guards;
	int fd = faults_open(dev, &guards, e), rc;

	if (fd < 0)
		return fd;
	rc = missing ? faults_catch(fd, r->host, r->size, e) : 0;
	if (!rc && (rc = msg_send(channel, MSG_FAULTS, &m, sizeof(m), &fd, 1)))
		err_sys(e, rc, "channel");
	fd_close(&fd);
	return rc;
}

int gm_give_faults(const struct guestmem *gm, const struct memmap *map, const struct start_fds *f,
		   int channel, struct err *e)
{
	bool missing = f->n[START_FAULTS];
	enum start_role role = missing ? START_FAULTS : START_WATCH;
	int rc = 0;

	if (!f->n[role])
		return 0;
	for (unsigned i = 0; i < gm->nregions && !rc; i++)
		rc = give_one(&gm->region[i], map->region[i].offset, f->fd[role][0], missing,
			      channel, e);
	fd_close(&(int){f->fd[role][0]});
	return rc;
}

uint64_t gm_size(const struct guestmem *gm)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < gm->nregions; i++)
		sum += gm->region[i].size;
	return sum;
}

void gm_unmap(struct guestmem *gm)
{
	for (unsigned i = 0; i < gm->nregions; i++)
		shm_unmap(gm->region[i].host, gm->region[i].size);
	memset(gm, 0, sizeof(*gm));
}

int gm_collapse(const struct guestmem *gm, gpa_t from, gpa_t to)
{
	void *host;

	from = (from + GM_HUGE_PAGE - 1) & ~(GM_HUGE_PAGE - 1);
	to &= ~(GM_HUGE_PAGE - 1);
	host = from < to ? gm_ptr(gm, from, to - from) : NULL;
	return host ? shm_collapse(host, to - from) : 0;
}

void *gm_ptr(const struct guestmem *gm, gpa_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < gm->nregions && len; i++) {
		const struct gm_region *r = &gm->region[i];
		uint64_t off = gpa - r->gpa;

		if (gpa >= r->gpa && off < r->size && len <= r->size - off)
			return r->host + off;
	}
	return NULL;
}
