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

static size_t skip_blanks(const char *text, size_t len, size_t at)
{
	while (at < len && strchr(" \t\r\n", text[at]))
		at++;
	return at;
}

/* Where the scan is: in the value of the key that was asked for? In which element of its array? */
struct scan {
	unsigned depth;
	bool inside, list;
	int element;
};

/* A byte outside strings; true: an element of the array begins behind it. */
static bool step(struct scan *p, char c)
{
	if (c == '{' || c == '[') {
		p->depth++;
		if (p->inside && p->depth == 2)
			p->list = c == '[';
		return p->inside && p->depth == 2 && c == '[';
	}
	p->depth -= c == '}' || c == ']';
	if (c != ',')
		return false;
	p->inside &= p->depth > 1;
	if (p->inside && p->list && p->depth == 2) {
		p->element++;
		return true;
	}
	return false;
}

size_t json_place_of(const struct json_source *s, const char *key, int index, const char *member)
{
	struct scan p = {0};
	size_t found = s->len;

	for (size_t at = 0; at < s->len; at++) {
		size_t end;

		if (s->text[at] != '"') {
			if (step(&p, s->text[at]) && !member && p.element == index)
				return skip_blanks(s->text, s->len, at + 1);
			continue;
		}
		end = string_end(s->text, s->len, at);
		if (is_key(s->text, s->len, end) && p.depth == 1) {
			p = (struct scan){.depth = 1, .inside = says(s->text, at, end, key)};
			if (p.inside && index < 0 && !member)
				return at;
			found = p.inside ? at : found;
		} else if (p.inside && member && is_key(s->text, s->len, end) &&
			   p.depth == (index < 0 ? 2 : 3) && (index < 0 || p.element == index) &&
			   says(s->text, at, end, member)) {
			return at;
		}
		at = end - 1;
	}
	return found;
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
