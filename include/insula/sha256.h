/*
 * SHA-256 (FIPS 180-4): what names the blobs of container images. Uses the processor's own
 * instructions for it where there are some. Thread: one per context.
 */
#ifndef INSULA_SHA256_H
#define INSULA_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_LEN 32
#define SHA256_TEXT 65 /* in hexadecimal, with the NUL */

struct sha256 {
	uint32_t h[8];
	uint64_t len;  /* bytes so far */
	uint32_t fast; /* the processor has instructions for it; 0 does without them */
	uint8_t block[64];
};

void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *data, size_t len);
void sha256_end(struct sha256 *s, uint8_t out[SHA256_LEN]);
void sha256_text(const uint8_t digest[SHA256_LEN], char out[SHA256_TEXT]);

#endif
