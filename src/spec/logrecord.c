/* SPDX-License-Identifier: BSD-2-Clause */
/* Records of a VM's log. See logrecord.h. */
#include "logrecord.h"

#include <string.h>

#define TIME_DIGITS 13

const char *const vmlog_names[VMLOG_STREAMS] = {"console", "stdout", "stderr", "insula"};
const char vmlog_letters[] = "coei";

static bool digits(const char *text, size_t len, uint64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*out = *out * 10 + (uint64_t)(text[i] - '0');
	}
	return len > 0;
}

void vmlog_parse(const char *line, size_t len, struct vmlog_record *out)
{
	const char *letter;
	uint64_t ms;

	*out = (struct vmlog_record){
		.time_ms = -1, .stream = VMLOG_INSULA, .text = line, .len = len};
	if (len < VMLOG_PREFIX || !digits(line, TIME_DIGITS, &ms) || line[13] != ' ' ||
	    line[16] != ' ' || (line[15] != '-' && line[15] != '+'))
		return;
	letter = line[14] ? strchr(vmlog_letters, line[14]) : NULL;
	if (!letter)
		return;
	out->time_ms = (int64_t)ms;
	out->stream = (enum vmlog_stream)(letter - vmlog_letters);
	out->more = line[15] == '+';
	out->text = line + VMLOG_PREFIX;
	out->len = len - VMLOG_PREFIX;
}

uint64_t vmlog_number(const char *text, size_t size, size_t *len)
{
	const char *end = memchr(text, '\n', size);
	const size_t n = sizeof(VMLOG_MAGIC) - 1;
	uint64_t number;

	*len = 0;
	if (!end || (size_t)(end - text) < n || (size_t)(end - text) > n + 18 ||
	    memcmp(text, VMLOG_MAGIC, n) != 0 ||
	    !digits(text + n, (size_t)(end - text) - n, &number))
		return 0;
	*len = (size_t)(end - text) + 1;
	return number;
}
