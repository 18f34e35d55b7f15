/* SPDX-License-Identifier: BSD-2-Clause */
/* Kinds of values, and how one is refused. See config_take.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <insula/base.h>

#include "config_take.h"

/* ---- refusals ---- */

void config_field(char out[CONFIG_FIELD_MAX], const char *key, int index, const char *member)
{
	char at[16] = "";

	if (index >= 0)
		snprintf(at, sizeof(at), "[%d]", index);
	snprintf(out, CONFIG_FIELD_MAX, "%.40s%s%s%.40s", key, at, member ? "." : "",
		 member ? member : "");
	err_clean(out);
}

/* Where a setting stands is only looked for when its value is refused. */
static const char *taking_where(const struct taking *t, char out[WHERE_MAX])
{
	return t->read ? where_is(t->read, t->item ? t->item->key : NULL, out) : t->where;
}

static void note(const struct taking *t, const char *value, const char *expected)
{
	struct mistake *m = &t->c->mistake;

	config_field(m->field, setting_key(t->s), t->index, t->item ? t->item->key : NULL);
	snprintf(m->value, sizeof(m->value), "%s", value ? value : "");
	snprintf(m->expected, sizeof(m->expected), "%s", expected ? expected : "");
	m->has_value = value;
	err_clean(m->value);
	err_clean(m->expected);
}

int take_wrong(const struct taking *t, const char *value, const char *expected, ...)
{
	char words[sizeof(t->c->mistake.expected)], where[WHERE_MAX];
	va_list ap;

	va_start(ap, expected);
	vsnprintf(words, sizeof(words), expected, ap);
	va_end(ap);
	note(t, value, words);
	return err_set(t->e, -EINVAL, "%s: %s%s'%.80s'; expected %s", taking_where(t, where),
		       t->item ? t->item->key : "", t->item ? " " : "", value, words);
}

int take_refuse(const struct taking *t, const char *value, const char *expected, const char *fmt,
		...)
{
	char words[200], where[WHERE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	note(t, value, expected);
	return err_set(t->e, -EINVAL, "%s: %s", taking_where(t, where), words);
}

int take_no_memory(const struct taking *t)
{
	return err_set(t->e, -ENOMEM, "out of memory");
}

/* ---- kinds of values ---- */

/* "M", "MB", "MiB", in letters of either case: 20. */
static bool parse_unit(const char *unit, unsigned *shift)
{
	static const char letters[] = "kmg";
	const char *at = strchr(letters, *unit | 0x20);

	if (!at || !*at || (unit[1] && strcasecmp(unit + 1, "b") && strcasecmp(unit + 1, "ib")))
		return false;
	*shift = 10 * (unsigned)(at - letters + 1);
	return true;
}

bool parse_size(const char *text, uint64_t *out)
{
	char *end;
	uint64_t n;
	unsigned shift = 0;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end && !parse_unit(end, &shift))
		return false;
	if (shift && n >> (64 - shift))
		return false;
	*out = n << shift;
	return true;
}

bool parse_number(const char *text, uint64_t min, uint64_t max, unsigned *out)
{
	char *end;
	unsigned long long n;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || n < min || n > max)
		return false;
	*out = (unsigned)n;
	return true;
}

static bool in_range(const struct taking *t, uint64_t n)
{
	return n >= (t->item ? t->item->min : t->s->min) &&
	       n <= (t->item ? t->item->max : t->s->max);
}

bool take_number(const struct taking *t, const char *text, unsigned *out)
{
	unsigned n;

	if (!parse_number(text, 0, UINT32_MAX, &n) || !in_range(t, n))
		return false;
	*out = n;
	return true;
}

bool take_size(const struct taking *t, const char *text, uint64_t *out)
{
	uint64_t n;

	if (!parse_size(text, &n) || !in_range(t, n))
		return false;
	*out = n;
	return true;
}

const char *size_text(uint64_t n, char out[24])
{
	static const char units[] = "GMK";

	for (unsigned i = 0; i < 3; i++) {
		unsigned shift = 10 * (3 - i);

		if (n && !(n & ((1ull << shift) - 1))) {
			snprintf(out, 24, "%llu%c", (unsigned long long)n >> shift, units[i]);
			return out;
		}
	}
	snprintf(out, 24, "%llu", (unsigned long long)n);
	return out;
}

int take_text(const struct taking *t, char **slot, const char *v)
{
	char *copy = strdup(v);

	if (!copy)
		return take_no_memory(t);
	free(*slot);
	*slot = copy;
	return 0;
}

int take_path(const struct taking *t, char **slot, const char *v)
{
	if (!*v)
		return take_refuse(t, v, "a path", "empty; expected a path");
	return take_text(t, slot, v);
}

int take_pages(const struct taking *t, const char *v, const char *like, uint64_t *out)
{
	char least[24], most[24];
	uint64_t n;

	if (!take_size(t, v, &n))
		return take_wrong(t, v, "a size from %s to %s, such as %s",
				  size_text(t->s->min, least), size_text(t->s->max, most), like);
	if (n % BOARD_PAGE)
		return take_wrong(t, v, "a multiple of %u bytes", BOARD_PAGE);
	*out = n;
	return 0;
}
