/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of a supervisor that was killed: its keeper (keeper.h) deletes it. See nft.h.
 *
 * Not before the TAP is gone, or has nobody at its end: insula-net dies with the supervisor, but not
 * before it, and what it could still send has to meet the rules. If that takes too long, because
 * another program has the TAP as well, the table stays, and drops.
 *
 * And not the table of the next VM on the same TAP: of each supervisor's table a chain has a name of
 * its own, and is deleted first, in the same transaction.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>

#include "nft.h"

#define KEEP_LOOK_US 20000u
#define KEEP_LOOKS 500u

/* What cannot be seen is alive. */
static bool tap_has_a_user(const struct nft *n)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = {0};
	bool has;

	memcpy(r.ifr_name, n->device, sizeof(r.ifr_name));
	has = fd < 0 || (ioctl(fd, SIOCGIFFLAGS, &r) ? errno != ENODEV : r.ifr_flags & IFF_RUNNING);
	fd_close(&fd);
	return has;
}

/* In the keeper: system calls only. */
static int nft_keep(const void *nft)
{
	const struct nft *n = nft;
	char *const argv[] = {(char *)(uintptr_t) "nft", (char *)(uintptr_t)n->undo, NULL};
	char *const env[] = {NULL};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	/* Nobody waits for what it has to say. */
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
	    (n->netns >= 0 && setns(KEEPER_HELD, CLONE_NEWNET)))
		return -errno;
	for (unsigned i = 0; tap_has_a_user(n); i++) {
		if (i == KEEP_LOOKS)
			return -EBUSY;
		usleep(KEEP_LOOK_US);
	}
	execve(n->path, argv, env);
	return -errno;
}

int nft_keep_start(struct nft *n, struct err *e)
{
	if (n->keeper.pid)
		return 0;
	snprintf(n->undo, sizeof(n->undo), "delete chain netdev %s %s; delete table netdev %s",
		 n->table, n->mark, n->table);
	return keeper_start_with(&n->keeper, n->netns, nft_keep, n, "--net: nft", e);
}
