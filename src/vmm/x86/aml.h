/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A writer of ACPI's machine language (AML; ACPI 6.5, chapter 20) and of resource descriptors
 * (6.4), front to back into an area of a fixed size.
 *
 * Everything goes through aml_bytes(), which cannot write beyond the area: it panics. 32 CPUs that
 * come and go and 50 devices take some 10 of the 128 KiB, so to run out is a bug here and not an
 * error of somebody's.
 *
 * Thread: any, each with its own struct aml.
 */
#ifndef VMM_AML_H
#define VMM_AML_H

#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *mem;
	size_t len, cap;
};

#define AML_NAME 0x08
#define AML_BYTE 0x0a
#define AML_DWORD 0x0c
#define AML_STRING 0x0d
#define AML_SCOPE 0x10
#define AML_BUFFER 0x11
#define AML_PACKAGE 0x12
#define AML_METHOD 0x14
#define AML_ROOT '\\'
#define AML_EXT 0x5b
#define AML_LOCAL0 0x60
#define AML_ARG3 0x6b
#define AML_STORE 0x70
#define AML_AND 0x7b
#define AML_OR 0x7d
#define AML_DWORD_FIELD 0x8a
#define AML_LNOT 0x92
#define AML_LEQUAL 0x93
#define AML_IF 0xa0
#define AML_RETURN 0xa4
#define AML_SERIALIZED 8 /* in the flags of a method: it makes names */
#define AML_EXT_DEVICE 0x82
#define AML_NOTIFY 0x86

void aml_bytes(struct aml *o, const void *src, size_t n);
/* `n` bytes of `v`, little endian. */
void aml_int(struct aml *o, uint64_t v, unsigned n);

void aml_name(struct aml *o, const char *seg);
void aml_byte(struct aml *o, unsigned v);
void aml_string(struct aml *o, const char *s);
/* A package length, which counts from its own first byte and is filled in at the end. */
size_t aml_begin(struct aml *o);
void aml_end(struct aml *o, size_t at);
size_t aml_begin_device(struct aml *o, const char *seg);
/* `flags`: how many arguments, and AML_SERIALIZED. */
size_t aml_begin_method(struct aml *o, const char *seg, unsigned flags);
void aml_notify(struct aml *o, const char *seg, unsigned what);
void aml_hid_uid(struct aml *o, const char *hid, unsigned uid);
/* "C01F": a letter and a number in three hexadecimal digits. Returns `seg`. */
const char *aml_seg(char seg[5], char letter, unsigned n);

/* Resource descriptors: into a struct aml of their own, with 2 bytes of room behind them; then
 * aml_crs_of(). */
#define WINDOW_MEMORY 0
#define WINDOW_BUS 2
#define WINDOW_OWN 0x100 /* besides: the device's own, not handed on */
void aml_res_io(struct aml *o, uint16_t port, uint8_t len);
void aml_res_memory(struct aml *o, uint32_t base, uint32_t len);
/* What a bridge hands on, or WINDOW_OWN: numbers of 2, 4 or 8 bytes, from `first` to `last`. */
void aml_res_window(struct aml *o, unsigned kind, unsigned bytes, uint64_t first, uint64_t last);
void aml_res_interrupt(struct aml *o, uint32_t gsi);
/* _CRS of `t`. */
void aml_crs_of(struct aml *o, struct aml *t);

#endif
