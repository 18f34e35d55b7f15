/*
 * Between insula-run and insula-layer, the jailed program that turns layers of a container image
 * into one EROFS image (src/layer). Native byte order; see insula/proto.h for the channel.
 *
 *   insula-run                                          insula-layer
 *     MSG_START_LAYER: the image, empty ---------------> jail, seal
 *     <------------------------------------------------- MSG_READY
 *     verify /proc/PID; MSG_LAYER: a pipe -------------> reads it to its end
 *     <------------------------------------------------- MSG_LAYER_DONE: its uncompressed digest
 *     ... the next layer, which lies above ...
 *     MSG_LAYER_END -----------------------------------> writes directories and inodes
 *     <------------------------------------------------- MSG_LAYER_WRITTEN; exit 0
 *
 * Whatever is wrong is MSG_FAILED; bad_input: the layer is to blame. insula-run itself hashes the
 * bytes that it puts into the pipe, so nothing that insula-layer says decides under which name the
 * image is kept.
 */
#ifndef INSULA_LAYER_H
#define INSULA_LAYER_H

#include <stdint.h>

#include <insula/sha256.h>

enum layer_flags { LAYER_MERGE = 1 /* nothing lies below: whiteouts take away, and are gone */ };
/* MSG_START_LAYER. One descriptor: an empty file that can be written. */
struct msg_start_layer {
	uint32_t log_level;
	uint32_t flags; /* enum layer_flags */
};
_Static_assert(sizeof(struct msg_start_layer) == 8, "wire size");

/* MSG_LAYER: empty; one descriptor: the read end of a pipe. */

/* MSG_LAYER_DONE */
struct msg_layer_done {
	uint8_t diff_id[SHA256_LEN]; /* of the unpacked bytes */
	uint64_t bytes;              /* unpacked */
};
_Static_assert(sizeof(struct msg_layer_done) == SHA256_LEN + 8, "wire size");

/* MSG_LAYER_WRITTEN */
struct msg_layer_written {
	uint64_t size; /* of the image: whole blocks of 4 KiB */
	uint64_t files;
};
_Static_assert(sizeof(struct msg_layer_written) == 16, "wire size");

#endif
