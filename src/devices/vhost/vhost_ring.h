/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a back end that has gone has left undone of a split ring (virtio 1.2, 2.7), as far as the
 * ring itself tells.
 *
 * The next back end is told where in the available ring to begin, and that can only be the number
 * of requests that were answered (used.idx). So what it finds from there on must be exactly what
 * was not answered. That is so if the last back end has answered in order. If it has not, the
 * unanswered heads are found by taking the answered ones away from the offered ones, and the
 * entries of the available ring from used.idx on are written again: those that are undone, in the
 * order in which they were offered. The driver has published these entries and does not look at
 * them any more.
 *
 * The counting begins at a point before which everything was answered that was offered there: where
 * the ring began, or was last mended, or was given back with nothing undone. When a whole turn has
 * passed since then, a point is looked for that must have been one, or the oldest one that all later
 * ones agree with (docs/protocol.md says how sure that is). If there is none, the ring contradicts
 * itself. A back end with INFLIGHT_SHMFD keeps account itself, and needs none of this.
 */
#ifndef DEVICES_VHOST_RING_H
#define DEVICES_VHOST_RING_H

#include "devices/virtio/virtqueue.h"

/* used.idx, where a back end begins; of a ring that vq_check() passes. */
uint16_t vring_used(const struct vq_state *q, const struct guestmem *gm);
/* Make the available ring right for a back end that begins at vring_used(). *since: the last point
 * of which it is known that what was offered before it was answered before it; another one
 * afterwards. The number of requests that it will find; -EAGAIN: the driver does not let the ring
 * rest; -EINVAL: the rings contradict themselves, and the device needs a reset. */
int vring_mend(const struct vq_state *q, const struct guestmem *gm, uint16_t *since, struct err *e);

#endif
