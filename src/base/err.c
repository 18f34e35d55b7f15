/* SPDX-License-Identifier: BSD-2-Clause */
/* Error texts and panic. See insula/err.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/err.h>

#include "base/errtext.h"

/* The analyser's macros are for those that call. */
#undef err_set
#undef err_sys

/* Bytes of the character at `s`; 0 if it is malformed (RFC 3629) or a control character, which a
 * terminal may obey. The terminating NUL is not a continuation byte, so nothing behind it is looked
 * at. */
static size_t printable(const unsigned char *s)
{
	static const uint32_t least[] = {0, 0, 0xa0, 0x800,
					 0x10000}; /* 0x80 to 0x9f: C1 controls */
	size_t n = *s >= 0xf0 ? 4 : *s >= 0xe0 ? 3 : 2;
	uint32_t c = *s & (0x7fu >> n);

	if (*s < 0x80)
		return *s >= 0x20 && *s != 0x7f;
	if (*s < 0xc2 || *s > 0xf4)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

void err_clean(char *text)
{
	while (*text) {
		size_t n = printable((const unsigned char *)text);

		if (!n)
			*text = '?';
		text += n ? n : 1;
	}
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	err_clean(e->text);
	return code;
}

int err_sys(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	if (!e)
		return code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	const char *why = err_text(-code);
	snprintf(e->text + n, sizeof(e->text) - n, ": %s", why ? why : "unknown error");
	err_clean(e->text);
	return code;
}

void panic(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(line), "panic: ");
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	err_clean(line);
	n = (int)strlen(line);
	line[n++] = '\n';
	/* Nothing can be done about a failing write here. */
	ssize_t r = write(STDERR_FILENO, line, (unsigned)n);
	(void)r;
	_exit(70);
}
