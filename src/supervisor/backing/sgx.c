/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory for enclaves. See sgx.h. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include <insula/base.h>
#include <insula/board.h>

#include "spec/config.h"
#include "sgx.h"

#define LEAF_SGX 0x12u
#define ENTRIES 256u
#define SECTIONS 64u /* no host has so many */

void sgx_of_cpuid(struct sgx_host *h, const struct kvm_cpuid2 *c)
{
	bool feature = false, sgx1 = false, attributes = false;

	h->bits = 36;
	for (unsigned i = 0; i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *n = &c->entries[i];

		if (n->function == 7 && n->index == 0)
			feature = n->ebx >> 2 & 1;
		else if (n->function == LEAF_SGX && n->index == 0)
			sgx1 = n->eax & 1;
		else if (n->function == LEAF_SGX && n->index == 1)
			attributes = true;
		else if (n->function == 0x80000008)
			h->bits = n->eax & 0xff;
	}
	h->sgx = feature && sgx1 && attributes;
}

uint64_t sgx_section(const uint32_t r[4])
{
	return (r[0] & 0xf) == 1 ? (r[2] & 0xfffff000u) | (uint64_t)(r[3] & 0xfffff) << 32 : 0;
}

int sgx_look(struct sgx_host *h, int kvm, struct err *e)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + ENTRIES * sizeof(c->entries[0]));
	int rc = -ENOMEM;
	uint32_t r[4];

	*h = (struct sgx_host){0};
	if (!c)
		return err_set(e, rc, "--sgx: out of memory");
	c->nent = ENTRIES;
	rc = ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c) ? err_sys(e, -errno, "--sgx: what KVM supports")
						    : 0;
	if (!rc)
		sgx_of_cpuid(h, c);
	free(c);
	for (unsigned i = 0; i < SECTIONS && !rc && h->sgx; i++) {
		if (__get_cpuid_count(LEAF_SGX, 2 + i, &r[0], &r[1], &r[2], &r[3]))
			h->epc += sgx_section(r);
	}
	return rc;
}

int sgx_place(const struct sgx_host *h, uint64_t size, uint64_t end, struct mem_region *epc,
	      struct err *e)
{
	uint64_t at = (end + BOARD_ADDED_ALIGN - 1) & ~(BOARD_ADDED_ALIGN - 1);
	uint64_t most = 1ull << (h->bits < 52 ? h->bits : 52);
	char text[24], have[24];

	size_text(size, text);
	if (at < BOARD_HIGH_RAM)
		at = BOARD_HIGH_RAM;
	if (!h->sgx)
		return err_set(
			e, -EINVAL,
			"--sgx %s: KVM gives no SGX to guests here; expected a processor with "
			"SGX, which the firmware has switched on, and Linux 5.13 or newer",
			text);
	if (size > h->epc)
		return err_set(e, -EINVAL,
			       "--sgx %s: more memory for enclaves than this host has; expected at "
			       "most %s",
			       text, size_text(h->epc, have));
	if (at >= most || size > most - at)
		return err_set(e, -EINVAL,
			       "--sgx %s: no room behind the guest's memory; expected an end below "
			       "%s, which the processor can address",
			       text, size_text(most, have));
	*epc = (struct mem_region){.gpa = at, .size = size};
	return 0;
}

int sgx_open(const char *path, uint64_t size, int *fd, struct err *e)
{
	char text[24];

	*fd = open(path, O_RDWR | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	return err_sys(e, -errno, "--sgx %s: %s; expected %s", size_text(size, text), path,
		       errno == ENOENT
			       ? "it, which a kernel with CONFIG_X86_SGX_KVM makes"
			       : "that this user may open it, such as a member of the group sgx");
}
