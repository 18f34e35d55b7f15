/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A core that says to insula-vfio whatever it likes. The device is a file whose regions lie between
 * others; the input is a list of accesses of 16 bytes: whether it is a read, size, place, value.
 *
 * Besides not crashing, after each: nothing outside of the BARs has changed but the command
 * register, and that decodes memory, has no pin, and masters the bus if and only if the guest said
 * so.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "devices/vfio/vfio.h"
#include "must.h"

#define FILE_SIZE 0x800u
#define CONFIG 0x500u
#define COMMAND 4u
#define OPS_MAX 256

struct op {
	uint32_t what, at;
	uint64_t value;
};

static const struct {
	uint32_t region, at, size;
} regions[] = {{0, 0x100, 0x200}, {3, 0x400, 0x7}, {VFIO_CONFIG, CONFIG, 0x100}};

/* [from, to) of the file is as it was in the beginning. */
static bool untouched(const uint8_t *file, uint32_t from, uint32_t to)
{
	static uint8_t fresh[FILE_SIZE];

	fresh[0] = 0xee;
	if (fresh[1] != 0xee)
		memset(fresh, 0xee, sizeof(fresh));
	return !memcmp(file + from, fresh, to - from);
}

static void fuzz_check(const struct assigned *a, const uint8_t *file, bool written)
{
	const uint8_t *command = file + CONFIG + COMMAND;
	uint32_t from = 0;

	for (size_t i = 0; i < 2; i++) {
		MUST(untouched(file, from, regions[i].at));
		from = regions[i].at + regions[i].size;
	}
	MUST(untouched(file, from, CONFIG + COMMAND));
	MUST(untouched(file, CONFIG + COMMAND + 2, FILE_SIZE));
	MUST(!written || (command[0] | command[1] << 8) == (0x402 | (a->st->command & 4)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static uint8_t *file;
	struct assigned_state st = {0};
	struct assigned a = {.st = &st};
	bool written = false;
	struct op o;

	log_setup("", LOG_LVL_ERROR);
	if (fd < 0) {
		fd = memfd_create("device", 0);
		MUST(fd >= 0 && !ftruncate(fd, FILE_SIZE));
		file = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		MUST(file != MAP_FAILED);
	}
	memset(file, 0xee, FILE_SIZE);
	a.fd = fd;
	if (size) {
		a.conf.express = data[0];
		a.conf.power = data[size - 1];
		a.conf.soft_reset = data[size / 2] & 1;
	}
	for (size_t i = 0; i < ARRAY_LEN(regions); i++) {
		a.conf.region[regions[i].region].at = regions[i].at;
		a.conf.region[regions[i].region].size = regions[i].size;
	}
	for (size_t n = 0; n < OPS_MAX && size >= sizeof(o); n++) {
		memcpy(&o, data, sizeof(o));
		data += sizeof(o);
		size -= sizeof(o);
		if (o.what & 8) /* most places are nowhere */
			o.at = VFIO_AT(regions[o.what / 16 % 3].region, o.at % 0x210);
		if (o.what & 4)
			(void)assigned_ops.regs.read(&a, o.at, 1u << (o.what & 3));
		else
			assigned_ops.regs.write(&a, o.at, 1u << (o.what & 3), o.value);
		written |= file[CONFIG + COMMAND] != 0xee;
		fuzz_check(&a, file, written);
	}
	return 0;
}
