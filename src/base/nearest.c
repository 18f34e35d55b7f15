/* SPDX-License-Identifier: BSD-2-Clause */
/* Did you mean? See nearest() in insula/base.h. */
#include <ctype.h>
#include <string.h>

#include <insula/base.h>

#define WORD_MAX 40u /* longer words are nobody's typing mistake */

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static bool same(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Letters to insert, delete, replace or swap with their neighbour: the table's rows one by one, of
 * which a swap needs the last two. */
static unsigned distance(const char *a, size_t na, const char *b, size_t nb)
{
	unsigned row[3][WORD_MAX + 1];

	for (size_t j = 0; j <= nb; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			bool eq = same(a[i - 1], b[j - 1]);

			now[j] = least(least(last[j], now[j - 1]) + 1, last[j - 1] + !eq);
			if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
				now[j] = least(now[j], before[j - 2] + 1);
		}
	}
	return row[na % 3][nb];
}

/* A third of the letters may be wrong; or one is the other's beginning, of three letters at least.
 */
static bool is_near(unsigned d, const char *word, size_t len, const char *known, size_t nk)
{
	size_t both = len < nk ? len : nk;

	if (both >= 3 && !strncmp(word, known, both))
		return true;
	return d <= (len + 1) / 3;
}

const char *nearest(const char *word, const char *const *list, size_t n)
{
	size_t len = strlen(word);
	const char *best = NULL;
	unsigned least_d = 2 * WORD_MAX;

	for (size_t i = 0; i < n && len && len <= WORD_MAX; i++) {
		size_t nk = list[i] ? strlen(list[i]) : 0;
		unsigned d;

		if (!nk || nk > WORD_MAX)
			continue;
		d = distance(word, len, list[i], nk);
		if (d < least_d && is_near(d, word, len, list[i], nk)) {
			best = list[i];
			least_d = d;
		}
	}
	return best;
}
