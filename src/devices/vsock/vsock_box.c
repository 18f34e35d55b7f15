/* SPDX-License-Identifier: BSD-2-Clause */
/* A mailbox between the two threads of a vsock device: bounded, in order. See vsock.h. */
#include "vsock.h"

void vsock_box_init(struct vsock_box *b)
{
	pthread_mutex_init(&b->lock, NULL);
	b->first = 0;
	atomic_store(&b->n, 0);
}

bool vsock_box_put(struct vsock_box *b, const struct vsock_mail *m)
{
	bool room;

	pthread_mutex_lock(&b->lock);
	room = b->n < VSOCK_MAIL;
	if (room)
		b->mail[(b->first + b->n++) % VSOCK_MAIL] = *m;
	pthread_mutex_unlock(&b->lock);
	return room;
}

bool vsock_box_get(struct vsock_box *b, struct vsock_mail *m)
{
	bool some;

	if (atomic_load(&b->n) == 0)
		return false;
	pthread_mutex_lock(&b->lock);
	some = b->n > 0;
	if (some) {
		*m = b->mail[b->first];
		b->first = (b->first + 1) % VSOCK_MAIL;
		b->n--;
	}
	pthread_mutex_unlock(&b->lock);
	return some;
}
