/* SPDX-License-Identifier: BSD-2-Clause */
/* Where in a JSON text something stands. See json_place.h. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "json_place.h"

/* The end of the string that begins at text[at], its closing quote included. */
static size_t string_end(const char *text, size_t len, size_t at)
{
	for (at++; at < len && text[at] != '"'; at++)
		at += text[at] == '\\';
	return at < len ? at + 1 : len;
}

static bool is_key(const char *text, size_t len, size_t end)
{
	while (end < len && strchr(" \t\r\n", text[end]))
		end++;
	return end < len && text[end] == ':';
}

static bool says(const char *text, size_t from, size_t to, const char *word)
{
	size_t n = strlen(word);

	return to - from == n + 2 && !memcmp(text + from + 1, word, n);
}

size_t json_place_of_key(const char *text, size_t len, const char *above, const char *key)
{
	unsigned depth = 0;
	bool inside = !above;

	for (size_t at = 0; at < len; at++) {
		size_t end;

		depth += text[at] == '{' || text[at] == '[';
		depth -= text[at] == '}' || text[at] == ']';
		if (text[at] != '"')
			continue;
		end = string_end(text, len, at);
		if (is_key(text, len, end)) {
			if (above && depth == 1)
				inside = says(text, at, end, above);
			if (inside && (depth == 1) == !above && says(text, at, end, key))
				return at;
		}
		at = end - 1;
	}
	return len;
}

void json_place(const struct json_source *s, size_t at, char *out, size_t size)
{
	unsigned line = 1, column = 1;

	for (size_t i = 0; i < at && i < s->len; i++) {
		bool next = s->text[i] == '\n';

		line += next;
		column = next ? 1 : column + ((s->text[i] & 0xc0) != 0x80); /* UTF-8 */
	}
	snprintf(out, size, "%.80s:%u:%u", s->name, line, column);
}
