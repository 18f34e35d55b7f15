/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inside of the connection table (vsock_conn.h): slots, lookup by ports, the two lists, rings, and
 * the ways in which a connection ends. Used by vsock_conn.c (the host's side) and vsock_packet.c
 * (the guest's side) only. Thread: as there.
 */
#ifndef DEVICES_VSOCK_TABLE_H
#define DEVICES_VSOCK_TABLE_H

#include "vsock_conn.h"

#define VSOCK_SHUT_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

/* A free slot (there must be one) in this state. */
struct vconn *vtab_new(struct vconns *t, enum vconn_state state, int fd);
/* Give it ports, by which the guest's packets find it. */
void vtab_name(struct vconns *t, struct vconn *c, uint32_t guest_port, uint32_t host_port);
void vtab_unname(struct vconns *t, struct vconn *c);
struct vconn *vtab_find(struct vconns *t, uint32_t guest_port, uint32_t host_port);
void vtab_deadline(struct vconns *t, struct vconn *c, uint64_t from_now);

void vtab_list(struct vconns *t, struct vconn *c, enum vconn_list l);
void vtab_unlist(struct vconns *t, struct vconn *c);
struct vconn *vtab_first(struct vconns *t, enum vconn_list l);

/* What the guest may still be sent. */
uint32_t vtab_credit(const struct vconn *c);
/* Is there, as far as we know, something to read and somebody to give it to? */
bool vtab_reads(const struct vconn *c);
/* Something has changed: list it for a turn if it has something for the guest. */
void vtab_wake(struct vconns *t, struct vconn *c);

/* The host has taken data: tell the guest when it is worth a packet. */
void vtab_owe_credit(struct vconns *t, struct vconn *c);

uint32_t vtab_ring_size(const struct vconns *t, const struct vconn *c);
/* Copy the bytes with the numbers from `at` on into the ring. */
void vtab_ring_put(struct vconns *t, struct vconn *c, uint32_t at, const uint8_t *data, size_t len);
/* Up to two segments with all that is in the ring. */
unsigned vtab_ring_get(const struct vconns *t, const struct vconn *c, struct iovec iov[2]);

/* Is there something in the ring that waits for the host? Then vconn_writable() is wanted. */
void vtab_watch(struct vconns *t, struct vconn *c);

/* Close the host's end. */
void vtab_close(struct vconns *t, struct vconn *c);
/* Close and forget; the guest hears nothing. */
void vtab_release(struct vconns *t, struct vconn *c);
/* Close; the guest is owed a reset. */
void vtab_reset(struct vconns *t, struct vconn *c);
/* The host will not receive or not send any more (VIRTIO_VSOCK_SHUTDOWN_*): tell the guest. */
void vtab_host_shut(struct vconns *t, struct vconn *c, uint8_t what);
/* Ask the supervisor for the other ends, as many at a time as may be. */
void vtab_ask(struct vconns *t);

#endif
