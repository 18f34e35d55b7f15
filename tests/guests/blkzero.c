/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the first MiB of a disk, as far as there is one, and says whether anything is in it. Writes
 * nothing. It is patient: what serves the disk may be killed, and wait for a server. */
#include "virtio.h"

#define STEP 4096u
#define SPAN (1u << 20)

static struct blk b;
static _Alignas(STEP) uint8_t in[STEP];

int main(void)
{
	uint64_t end;

	blk_patience_ms = 60000;
	if (!blk_find(&b)) {
		check("disk", false, "there is none");
		return 1;
	}
	if (!blk_start(&b, VFEATURE(VIRTIO_F_VERSION_1), 16)) {
		check("disk", false, "it does not start");
		return 1;
	}
	end = b.capacity < SPAN / SECTOR ? b.capacity : SPAN / SECTOR;
	for (uint64_t at = 0; at + STEP / SECTOR <= end; at += STEP / SECTOR) {
		if (blk_io(&b, VIRTIO_BLK_T_IN, at, in, STEP) != VIRTIO_BLK_S_OK)
			return !check("reads", false, "sector %lu", at);
		for (unsigned i = 0; i < STEP; i++) {
			if (in[i])
				return !check("zeros", false, "sector %lu, byte %u: 0x%x", at, i,
					      in[i]);
		}
	}
	check("zeros", end != 0, "an empty disk");
	return 0;
}
