/* SPDX-License-Identifier: BSD-2-Clause */
/* What the guest was told of its disk. See known.h. */
#include "known.h"

void known_from(const struct lun *lun, uint64_t own, struct module_disk *k)
{
	*k = (struct module_disk){.size = lun->size, .logical = lun->logical, .own = own};
	if (lun->physical >= lun->logical && lun->physical <= 65536)
		k->physical = lun->physical;
	k->flags = MODULE_DISK_ZEROES;
	if (lun->ro)
		k->flags |= MODULE_DISK_RO;
	if (lun->cache)
		k->flags |= MODULE_DISK_FLUSH;
	if (lun->fua)
		k->flags |= MODULE_DISK_FUA;
	if (lun->thin && ((lun->unmap && lun->max_unmap) || lun->same))
		k->flags |= MODULE_DISK_DISCARD;
}

const char *known_changed(const struct module_disk *k, const struct module_disk *now)
{
	if (now->size < k->size)
		return "the disk is smaller than before";
	if (now->logical != k->logical)
		return "its blocks have another size than before";
	if ((now->flags & MODULE_DISK_RO) && !(k->flags & MODULE_DISK_RO))
		return "the disk can only be read now";
	if ((now->flags & MODULE_DISK_FLUSH) && !(k->flags & MODULE_DISK_FLUSH))
		return "the disk has a cache now, and had none";
	if ((k->flags & ~now->flags) & (MODULE_DISK_FUA | MODULE_DISK_DISCARD))
		return "the target cannot do what it could before (FUA or UNMAP)";
	return NULL;
}
