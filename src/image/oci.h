/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the OCI image specification writes in JSON: an index, a manifest, a configuration; and
 * Docker's forms of them (manifest schema 2), which have the same members. Whoever made an image
 * made them: nothing is believed, and a member that is used has the right type or the whole is
 * refused. Others are passed over.
 *
 * Functions on text alone; no file is opened here. Texts are refused with -EINVAL and a line.
 */
#ifndef IMAGE_OCI_H
#define IMAGE_OCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/sha256.h>

#define OCI_TEXT_MAX (4u << 20)    /* bytes of a manifest, an index, a configuration: as others */
#define OCI_MAX_LAYERS 127         /* what Docker makes at most */
#define OCI_MAX_STRINGS 1024       /* in an array of the configuration */
#define OCI_TAG_MAX 256            /* with the NUL */
#define OCI_BLOB_MAX (64ull << 30) /* a layer, packed */

struct oci_blob {
	char hex[SHA256_TEXT]; /* of its SHA-256, which is the only digest that is taken */
	uint64_t size;
};

struct oci_manifest {
	struct oci_blob config;
	unsigned nlayers;
	struct oci_blob layer[OCI_MAX_LAYERS]; /* the lowest first */
};

struct oci_config {
	char **entrypoint, **cmd, **env; /* NULL-terminated; NULL: there is none */
	char *user, *cwd;                /* NULL or not empty */
	unsigned ndiff;
	char diff_id[OCI_MAX_LAYERS][SHA256_TEXT]; /* of the layers, unpacked */
	char *text;                                /* the whole, as it was */
};

/* The entry of an index that `tag` names (annotation org.opencontainers.image.ref.name), or if that
 * is "" the only one there is, for this machine: linux, amd64. *index: it is another index. */
int oci_index(const char *text, size_t len, const char *tag, struct oci_blob *out, bool *index,
	      struct err *e);
int oci_manifest(const char *text, size_t len, struct oci_manifest *out, struct err *e);
/* oci_config_free() in any case. */
int oci_config(const char *text, size_t len, struct oci_config *out, struct err *e);
void oci_config_free(struct oci_config *c);

/* What is kept of an image: the digests of its layers, and its configuration. As a text, the
 * caller's (NULL: no memory); and back. */
char *oci_record(const struct oci_manifest *m, const char *hex, const struct oci_config *c);
int oci_record_read(const char *text, size_t len, struct oci_manifest *m, struct oci_config *c,
		    struct err *e);

#endif
