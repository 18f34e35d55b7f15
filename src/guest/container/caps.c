/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-container: the five sets of capabilities. Those that this kernel does not know are left
 * out: no process could have them. */
#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"
#include "kernel.h"

static uint64_t known_caps(void)
{
	uint64_t known = 0;

	for (unsigned i = 0; i < K_CAP_COUNT; i++)
		if (prctl(PR_CAPBSET_READ, (unsigned long)i, 0ul, 0ul, 0ul) >= 0)
			known |= UINT64_C(1) << i;
	return known;
}

int caps_bound(uint64_t bounding, struct err *e)
{
	uint64_t drop = known_caps() & ~bounding;

	for (unsigned i = 0; i < K_CAP_COUNT; i++)
		if (drop >> i & 1 && prctl(PR_CAPBSET_DROP, (unsigned long)i, 0ul, 0ul, 0ul) < 0)
			return err_sys(e, -errno, "drop capability %u", i);
	return 0;
}

static int set_three(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct k_cap_header h = {.version = K_CAPABILITY_VERSION_3};
	struct k_cap_data d[2];

	for (unsigned i = 0; i < 2; i++)
		d[i] = (struct k_cap_data){.effective = (uint32_t)(effective >> 32 * i),
					   .permitted = (uint32_t)(permitted >> 32 * i),
					   .inheritable = (uint32_t)(inheritable >> 32 * i)};
	return syscall(SYS_capset, &h, d) < 0 ? -errno : 0;
}

static int raise_ambient(uint64_t set)
{
	if (prctl(PR_CAP_AMBIENT, (unsigned long)PR_CAP_AMBIENT_CLEAR_ALL, 0ul, 0ul, 0ul) < 0)
		return -errno;
	for (unsigned long i = 0; i < K_CAP_COUNT; i++)
		if (set >> i & 1 &&
		    prctl(PR_CAP_AMBIENT, (unsigned long)PR_CAP_AMBIENT_RAISE, i, 0ul, 0ul) < 0)
			return -errno;
	return 0;
}

int caps_set(const uint64_t cap[CAP_SETS], uint64_t more, struct err *e)
{
	uint64_t known = known_caps(), inheritable = cap[CAP_INHERITABLE] & known;
	uint64_t permitted = (cap[CAP_PERMITTED] | more) & known;
	uint64_t effective = (cap[CAP_EFFECTIVE] | more) & known;
	int r = set_three(effective, permitted, inheritable);

	if (r)
		return err_sys(e, r, "capabilities effective %llx permitted %llx inheritable %llx",
			       (unsigned long long)effective, (unsigned long long)permitted,
			       (unsigned long long)inheritable);
	if (more) /* not the last time */
		return 0;
	/* buildah asks for ambient ones that are not inheritable; the kernel gives none such, and other
	 * runtimes go on without them, too. */
	r = raise_ambient(cap[CAP_AMBIENT] & permitted & inheritable);
	return r ? err_sys(e, r, "ambient capabilities %llx", (unsigned long long)cap[CAP_AMBIENT])
		 : 0;
}
