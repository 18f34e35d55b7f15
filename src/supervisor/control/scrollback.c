/* SPDX-License-Identifier: BSD-2-Clause */
/* A ring of printed bytes. See scrollback.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "scrollback.h"

int scrollback_init(struct scrollback *s)
{
	*s = (struct scrollback){.ring = malloc(SCROLLBACK_LEN)};
	return s->ring ? 0 : -ENOMEM;
}

void scrollback_free(struct scrollback *s)
{
	free(s->ring);
	s->ring = NULL;
}

void scrollback_add(struct scrollback *s, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		size_t at = s->total % SCROLLBACK_LEN, n = SCROLLBACK_LEN - at;

		if (n > len)
			n = len;
		memcpy(s->ring + at, p, n);
		s->total += n;
		p += n;
		len -= n;
	}
}

uint64_t scrollback_from(const struct scrollback *s, uint64_t want)
{
	uint64_t have = s->total < SCROLLBACK_LEN ? s->total : SCROLLBACK_LEN;

	return s->total - (want < have ? want : have);
}

size_t scrollback_at(const struct scrollback *s, uint64_t *pos, const uint8_t **out, uint64_t *lost)
{
	uint64_t oldest = scrollback_from(s, SCROLLBACK_LEN), n;
	size_t at;

	if (*pos > s->total)
		*pos = s->total;
	if (*pos < oldest) {
		*lost += oldest - *pos;
		*pos = oldest;
	}
	at = *pos % SCROLLBACK_LEN;
	n = s->total - *pos;
	if (n > SCROLLBACK_LEN - at)
		n = SCROLLBACK_LEN - at;
	*out = s->ring + at;
	return (size_t)n;
}
