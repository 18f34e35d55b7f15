/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between insula-run and insula-metadata, the jailed program that answers a guest at 169.254.169.254
 * (src/metadata). Native byte order; see insula/proto.h for the channel.
 *
 *   insula-run                                          insula-metadata
 *     MSG_START_METADATA: frames, a tree ---------------> jail, seal
 *     <-------------------------------------------------- MSG_READY
 *     MSG_METADATA_TREE: another tree -----------------> from the next request on
 *
 * The first descriptor is one end of a pair of SOCK_SEQPACKET sockets: each message is one Ethernet
 * frame. The other end is insula-net's. insula-run has both, so that neither process sees the end of
 * the other. A tree is sealed memory: what insula-run has parsed, flat, so that no parser of JSON is
 * in the jail.
 */
#ifndef INSULA_METADATA_H
#define INSULA_METADATA_H

#include <stdint.h>

#define METADATA_JSON_MAX 51200u         /* bytes of a tree as JSON: Firecracker's limit */
#define METADATA_BLOB_MAX (1u << 20)     /* of a flat one */
#define METADATA_DEPTH 32u               /* of objects in objects */
#define METADATA_FRAME_MAX (65535u + 18) /* insula-net's */

enum metadata_flags { METADATA_OPEN = 1 /* without a token, too */ };
/* Descriptors: frames, the tree. */
struct msg_start_metadata {
	uint32_t log_level;
	uint32_t len;   /* bytes of the tree */
	uint32_t flags; /* enum metadata_flags */
	uint32_t pad;
};
_Static_assert(sizeof(struct msg_start_metadata) == 16, "wire size");

/* A descriptor: the tree. */
struct msg_metadata_tree {
	uint32_t len, pad;
};
_Static_assert(sizeof(struct msg_metadata_tree) == 8, "wire size");

/* A flat tree: the head, its nodes, each object before its members, and `bytes` of text: all of it as
 * JSON, then names and strings as they are. */
#define METADATA_MAGIC 0x3144544du /* "MTD1" */
struct metadata_head {
	uint32_t magic;
	uint32_t nodes; /* at least 1: the first is the root, which is an object */
	uint32_t bytes;
	uint32_t pad;
};
enum metadata_kind { METADATA_OBJECT = 1, METADATA_STRING, METADATA_OTHER };
/* A piece of the text. */
struct metadata_piece {
	uint32_t off, len;
};
struct metadata_node {
	uint32_t kind;              /* enum metadata_kind */
	uint32_t next;              /* index of the node behind this one and all that is in it */
	struct metadata_piece name; /* in its parent; the root has none */
	struct metadata_piece json;
	struct metadata_piece text; /* of a string: its bytes */
};
_Static_assert(sizeof(struct metadata_head) == 16 && sizeof(struct metadata_node) == 32,
	       "wire size");

#endif
