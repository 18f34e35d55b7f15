/* SPDX-License-Identifier: BSD-2-Clause */
/* SHA-256. See insula/sha256.h. */
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <insula/sha256.h>

/* FIPS 180-4, 4.2.2. */
static const uint32_t k[64] __attribute__((aligned(16))) = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

static uint32_t rotr(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* 6.2.2 */
static void blocks_plain(uint32_t h[8], const uint8_t *p, size_t n)
{
	uint32_t w[64], v[8];

	for (; n; n--, p += 64) {
		for (unsigned t = 0; t < 16; t++)
			w[t] = be32(p + 4 * t);
		for (unsigned t = 16; t < 64; t++) {
			uint32_t a = w[t - 15], b = w[t - 2];

			w[t] = w[t - 16] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + w[t - 7] +
			       (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
		}
		memcpy(v, h, sizeof(v));
		for (unsigned t = 0; t < 64; t++) {
			uint32_t e = v[4], a = v[0];
			uint32_t t1 = v[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) +
				      ((e & v[5]) ^ (~e & v[6])) + k[t] + w[t];
			uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) +
				      ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));

			memmove(v + 1, v, 7 * sizeof(*v));
			v[4] += t1;
			v[0] = t1 + t2;
		}
		for (unsigned i = 0; i < 8; i++)
			h[i] += v[i];
	}
}

#ifdef __x86_64__
/* Intel SDM, SHA256RNDS2: the state is kept as {a, b, e, f} and {c, d, g, h}; each instruction does
 * two rounds with the two lowest words of the sum of message and constants. */
__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_sha(uint32_t h[8], const uint8_t *p,
								   size_t n)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i lo = _mm_loadu_si128((const __m128i *)h);       /* d c b a */
	__m128i hi = _mm_loadu_si128((const __m128i *)(h + 4)); /* h g f e */
	__m128i abef, cdgh, w[4];

	lo = _mm_shuffle_epi32(lo, 0xb1);
	hi = _mm_shuffle_epi32(hi, 0x1b);
	abef = _mm_alignr_epi8(lo, hi, 8);
	cdgh = _mm_blend_epi16(hi, lo, 0xf0);
	for (; n; n--, p += 64) {
		__m128i abef0 = abef, cdgh0 = cdgh;

		for (unsigned i = 0; i < 4; i++)
			w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)),
						swap);
		for (unsigned i = 0; i < 16; i++) {
			__m128i now = w[i & 3], sum;

			sum = _mm_add_epi32(now, _mm_load_si128((const __m128i *)(k + 4 * i)));
			cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
			abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
			/* The four words that are needed 16 rounds later take this one's place. */
			w[i & 3] = _mm_sha256msg2_epu32(
				_mm_add_epi32(_mm_sha256msg1_epu32(now, w[(i + 1) & 3]),
					      _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4)),
				w[(i + 3) & 3]);
		}
		abef = _mm_add_epi32(abef, abef0);
		cdgh = _mm_add_epi32(cdgh, cdgh0);
	}
	lo = _mm_shuffle_epi32(abef, 0x1b);
	hi = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((__m128i *)h, _mm_blend_epi16(lo, hi, 0xf0));
	_mm_storeu_si128((__m128i *)(h + 4), _mm_alignr_epi8(hi, lo, 8));
}
#endif

/* CPUID 7: EBX bit 29. What has it has the two older extensions too. */
static uint32_t has_sha(void)
{
	uint32_t found = 0;
#ifdef __x86_64__
	unsigned a, b = 0, c, d;

	__asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0), "c"(0));
	if (a >= 7) {
		__asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
		found = b >> 29 & 1;
	}
#endif
	return found;
}

static void blocks(struct sha256 *s, const uint8_t *p, size_t n)
{
#ifdef __x86_64__
	if (s->fast) {
		blocks_sha(s->h, p, n);
		return;
	}
#endif
	blocks_plain(s->h, p, n);
}

void sha256_init(struct sha256 *s)
{
	/* 5.3.3 */
	static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

	memcpy(s->h, first, sizeof(first));
	s->len = 0;
	s->fast = has_sha();
}

void sha256_add(struct sha256 *s, const void *data, size_t len)
{
	size_t have = s->len % sizeof(s->block), n;
	const uint8_t *p = data;

	s->len += len;
	if (have) {
		n = sizeof(s->block) - have < len ? sizeof(s->block) - have : len;
		memcpy(s->block + have, p, n);
		if (have + n < sizeof(s->block))
			return;
		blocks(s, s->block, 1);
		p += n;
		len -= n;
	}
	if (len >= sizeof(s->block))
		blocks(s, p, len / sizeof(s->block));
	p += len - len % sizeof(s->block);
	memcpy(s->block, p, len % sizeof(s->block));
}

void sha256_end(struct sha256 *s, uint8_t out[SHA256_LEN])
{
	uint64_t bits = s->len * 8;
	size_t pad = (s->len % 64 < 56 ? 56 : 120) - s->len % 64;
	uint8_t tail[72] = {0x80};

	for (unsigned i = 0; i < 8; i++)
		tail[pad + i] = (uint8_t)(bits >> (56 - 8 * i));
	sha256_add(s, tail, pad + 8);
	for (unsigned i = 0; i < SHA256_LEN; i++)
		out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_text(const uint8_t digest[SHA256_LEN], char out[SHA256_TEXT])
{
	static const char hex[] = "0123456789abcdef";

	for (unsigned i = 0; i < SHA256_LEN; i++) {
		out[2 * i] = hex[digest[i] >> 4];
		out[2 * i + 1] = hex[digest[i] & 15];
	}
	out[2 * SHA256_LEN] = 0;
}
