/* SPDX-License-Identifier: BSD-2-Clause */
/* AML, written front to back. See aml.h. */
#include <string.h>

#include <insula/base.h>

#include "aml.h"

void aml_bytes(struct aml *o, const void *src, size_t n)
{
	if (n > o->cap - o->len)
		panic("ACPI tables exceed %zu bytes", o->cap);
	memcpy(o->mem + o->len, src, n);
	o->len += n;
}

void aml_int(struct aml *o, uint64_t v, unsigned n)
{
	for (; n--; v >>= 8)
		aml_bytes(o, &(uint8_t){(uint8_t)v}, 1);
}

#define PKG_LENGTH 3 /* bytes of a package length: always this form, which reaches 1 MiB */

void aml_name(struct aml *o, const char *seg)
{
	aml_int(o, AML_NAME, 1);
	aml_bytes(o, seg, 4);
}

void aml_byte(struct aml *o, unsigned v)
{
	aml_int(o, AML_BYTE, 1);
	aml_int(o, v, 1);
}

void aml_string(struct aml *o, const char *s)
{
	aml_int(o, AML_STRING, 1);
	aml_bytes(o, s, strlen(s) + 1);
}

size_t aml_begin(struct aml *o)
{
	size_t at = o->len;

	aml_int(o, 0, PKG_LENGTH);
	return at;
}

void aml_end(struct aml *o, size_t at)
{
	size_t n = o->len - at;

	o->mem[at] = (uint8_t)(2u << 6 | (n & 0xf)); /* two more bytes follow */
	o->mem[at + 1] = (uint8_t)(n >> 4);
	o->mem[at + 2] = (uint8_t)(n >> 12);
}

size_t aml_begin_device(struct aml *o, const char *seg)
{
	size_t at;

	aml_int(o, AML_EXT, 1);
	aml_int(o, AML_EXT_DEVICE, 1);
	at = aml_begin(o);
	aml_bytes(o, seg, 4);
	return at;
}

size_t aml_begin_method(struct aml *o, const char *seg, unsigned flags)
{
	size_t at;

	aml_int(o, AML_METHOD, 1);
	at = aml_begin(o);
	aml_bytes(o, seg, 4);
	aml_int(o, flags, 1);
	return at;
}

void aml_notify(struct aml *o, const char *seg, unsigned what)
{
	aml_int(o, AML_NOTIFY, 1);
	aml_bytes(o, seg, 4);
	aml_byte(o, what);
}

void aml_hid_uid(struct aml *o, const char *hid, unsigned uid)
{
	aml_name(o, "_HID");
	aml_string(o, hid);
	aml_name(o, "_UID");
	aml_byte(o, uid);
}

const char *aml_seg(char seg[5], char letter, unsigned n)
{
	static const char digit[] = "0123456789ABCDEF";

	seg[0] = letter;
	seg[1] = digit[n >> 8 & 0xf];
	seg[2] = digit[n >> 4 & 0xf];
	seg[3] = digit[n & 0xf];
	seg[4] = 0;
	return seg;
}

/* Resource descriptors, 6.4 */

void aml_res_io(struct aml *o, uint16_t port, uint8_t len)
{
	aml_int(o, 0x47, 1); /* 6.4.2.5 */
	aml_int(o, 1, 1);    /* decodes 16 bits */
	aml_int(o, port, 2);
	aml_int(o, port, 2);
	aml_int(o, 1, 1); /* alignment */
	aml_int(o, len, 1);
}

void aml_res_memory(struct aml *o, uint32_t base, uint32_t len)
{
	aml_int(o, 0x86, 1); /* 6.4.3.4 */
	aml_int(o, 9, 2);
	aml_int(o, 1, 1); /* read and write */
	aml_int(o, base, 4);
	aml_int(o, len, 4);
}

void aml_res_window(struct aml *o, unsigned kind, unsigned bytes, uint64_t first, uint64_t last)
{
	/* 6.4.3.5.3, 6.4.3.5.2, 6.4.3.5.1 */
	aml_int(o, bytes == 2 ? 0x88 : bytes == 4 ? 0x87 : 0x8a, 1);
	aml_int(o, 3 + 5 * bytes, 2);
	aml_int(o, kind & 0xff, 1);
	aml_int(o, 0x0c | (kind & WINDOW_OWN) >> 8, 1); /* first and last are fixed; consumer */
	aml_int(o, (kind & 0xff) == WINDOW_MEMORY, 1);  /* it can be written; not cached */
	aml_int(o, 0, bytes);                           /* granularity */
	aml_int(o, first, bytes);
	aml_int(o, last, bytes);
	aml_int(o, 0, bytes); /* translation */
	aml_int(o, last - first + 1, bytes);
}

void aml_res_interrupt(struct aml *o, uint32_t gsi)
{
	aml_int(o, 0x89, 1); /* 6.4.3.6 */
	aml_int(o, 6, 2);
	aml_int(o, 3, 1); /* consumer, edge, active high, exclusive */
	aml_int(o, 1, 1); /* one interrupt */
	aml_int(o, gsi, 4);
}

void aml_crs_of(struct aml *o, struct aml *t)
{
	size_t at;

	aml_int(t, 0x79, 1); /* end tag; checksum 0: not used */
	aml_int(t, 0, 1);
	aml_name(o, "_CRS");
	aml_int(o, AML_BUFFER, 1);
	at = aml_begin(o);
	aml_byte(o, (unsigned)t->len);
	aml_bytes(o, t->mem, t->len);
	aml_end(o, at);
}
