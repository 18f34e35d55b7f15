/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starts virtiofsd, the file server of a live share, in a jail that we make (confine.h). See
 * share.h.
 *
 * It runs with --sandbox chroot: it changes its root to /share, drops two capabilities, and puts
 * its own seccomp filter on, before it reads from its socket. Its sandbox "namespace" would make
 * most of our jail once more, but needs CAP_SYS_ADMIN for that: in charge of its mounts it could
 * make a ro share writable.
 */
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "confine.h"
#include "share.h"

#define NOFILE (1u << 20) /* each file that the guest knows is a descriptor of virtiofsd's */
#define THREADS 64        /* one a queue, and what it starts for requests that may wait */
#define MAX_ARGS 24

static const struct {
	const char *path;
	enum virtiofsd_kind kind;
} virtiofsd_places[] = {
	{"/usr/libexec/virtiofsd", VIRTIOFSD_RUST},
	{"/usr/lib/virtiofsd", VIRTIOFSD_RUST},
	{"/usr/lib/qemu/virtiofsd", VIRTIOFSD_C},
};

const char *virtiofsd_find(enum virtiofsd_kind *kind)
{
	for (size_t i = 0; i < ARRAY_LEN(virtiofsd_places); i++) {
		*kind = virtiofsd_places[i].kind;
		if (!access(virtiofsd_places[i].path, X_OK))
			return virtiofsd_places[i].path;
	}
	return NULL;
}

/* A file that the guest knew when it was saved, and that is not there any more, is an error for who
 * uses it: the others are not to suffer from that. Saved are the paths of files (--migration-mode's
 * default): for handles it would need a capability of the host's (CAP_DAC_READ_SEARCH), and the
 * very same file system.
 *
 * One thread for requests, which both take by default: so the used ring has them in the order of
 * the available ring, and insula-vhost knows where the next virtiofsd has to go on. */
static void virtiofsd_args(const struct share *s, const char *v[MAX_ARGS])
{
	static const char *const c_cache[] = {[SHARE_CACHE_AUTO] = "cache=auto",
					      [SHARE_CACHE_NONE] = "cache=none",
					      [SHARE_CACHE_ALWAYS] = "cache=always"};
	static const char *const rust_cache[] = {[SHARE_CACHE_AUTO] = "--cache=auto",
						 [SHARE_CACHE_NONE] = "--cache=never",
						 [SHARE_CACHE_ALWAYS] = "--cache=always"};
	const char *const c[] = {"virtiofsd",
				 "-f",
				 "--fd=3",
				 "--rlimit-nofile=0",
				 "--thread-pool-size=0",
				 "-o",
				 "source=/share",
				 "-o",
				 "sandbox=chroot",
				 "-o",
				 "log_level=warn",
				 "-o",
				 "modcaps=-mknod:-setfcap",
				 "-o",
				 c_cache[s->conf->cache],
				 NULL};
	const char *const rust[] = {"virtiofsd",
				    "--fd=3",
				    "--rlimit-nofile=0",
				    "--thread-pool-size=0",
				    "--shared-dir=/share",
				    "--sandbox=chroot",
				    "--log-level=warn",
				    "--modcaps=-mknod:-setfcap",
				    rust_cache[s->conf->cache],
				    s->back.loads ? "--migration-on-error=guest-error" : NULL,
				    NULL};

	if (s->kind == VIRTIOFSD_C)
		memcpy(v, c, sizeof(c));
	else
		memcpy(v, rust, sizeof(rust));
}

#define CAP(n) (1ull << (n))

/* All in its user namespace: they count for files whose owners are mapped there, nothing else. */
static const uint64_t keep =
	CAP(CAP_CHOWN) |        /* the guest's chown */
	CAP(CAP_DAC_OVERRIDE) | /* the guest's root reads and writes what belongs to others */
	CAP(CAP_FOWNER) |       /* and changes their modes and times */
	CAP(CAP_FSETID) |       /* and keeps set-id bits where its kernel says that they stay */
	CAP(CAP_SETGID) |       /* it takes the ids of the guest's process while it makes a file, */
	CAP(CAP_SETUID) | /* so that the file belongs to that, and the kernel checks its rights */
	CAP(CAP_SYS_CHROOT) | /* at its start, for its sandbox; then it drops this one */
	CAP(CAP_SETPCAP);     /* likewise, to empty its bounding set */

int virtiofsd_spawn(struct share *s, int listener, struct err *e)
{
	const char *argv[MAX_ARGS];
	const struct confine_plan plan = {.name = "virtiofsd",
					  .program = s->program,
					  .exec_fd = -1,
					  .argv = argv,
					  .listener = listener,
					  .dir = s->dir,
					  .ro = s->conf->ro,
					  .range = true,
					  .keep = keep,
					  .nproc = THREADS,
					  .nofile = NOFILE};
	enum confine_ids ids;
	int rc;

	virtiofsd_args(s, argv);
	rc = confine_spawn(&plan, &s->virtiofsd, &ids, e);
	if (!rc && ids == CONFINE_ONE)
		log_info("--share: %s: files of other users belong to nobody in the guest: there "
			 "is no range of ids for this user in /etc/subuid, or no newuidmap "
			 "(Debian: apt-get install uidmap)",
			 s->conf->dir);
	return rc;
}
