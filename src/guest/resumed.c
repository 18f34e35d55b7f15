/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: the machine goes on after a pause, or from the memory of another one (GP_RESUMED).
 * First, without waiting for anything, what must not be the other one's for an instant longer:
 * clock and random numbers. Then names, network cards, and the guest's own hooks.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define HOOKS "/etc/insula/resume.d"

/* linux/random.h, which is not musl's */
struct entropy {
	int bits, bytes;
	uint8_t seed[GP_SEED_LEN];
};
#define ADD_ENTROPY _IOW('R', 0x03, int[2])
#define RESEED _IO('R', 0x07)

static void set_clock(uint64_t ns, char why[GP_TEXT_LEN])
{
	const struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u),
				   .tv_nsec = (long)(ns % 1000000000u)};

	if (clock_settime(CLOCK_REALTIME, &t) < 0)
		note(why, "clock: %s", strerror(errno));
}

/* Mixed into the kernel's pool, and used from the next byte on. */
static void reseed(const uint8_t seed[GP_SEED_LEN], char why[GP_TEXT_LEN])
{
	struct entropy e = {.bits = 8 * GP_SEED_LEN, .bytes = GP_SEED_LEN};
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

	memcpy(e.seed, seed, sizeof e.seed);
	if (fd < 0 || ioctl(fd, ADD_ENTROPY, &e) < 0 || ioctl(fd, RESEED) < 0)
		note(why, "random numbers: %s", strerror(errno));
	explicit_bzero(&e, sizeof e);
	if (fd >= 0)
		close(fd);
}

void resumed_now(const struct gp_resumed *r, char why[GP_TEXT_LEN])
{
	reseed(r->seed, why);
	if (r->flags & GP_RESUMED_CLOCK)
		set_clock(r->clock_ns, why);
}

/* 0 or -errno */
static int write_id(const char *path, int flags, const char *id)
{
	char line[34];
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | flags, 0444), rc;

	if (fd < 0)
		return -errno;
	memcpy(line, id, 32);
	line[32] = '\n';
	rc = write(fd, line, 33) == 33 ? 0 : -EIO;
	close(fd);
	return rc;
}

/* In a root that cannot be written to systemd has it in /run, mounted over the one in /etc. Without
 * an /etc nobody looks for it. */
static void set_machine_id(const char *id, char why[GP_TEXT_LEN])
{
	int run = write_id("/run/machine-id", 0, id);
	int etc = write_id("/etc/machine-id", O_CREAT, id);

	if (etc && etc != -ENOENT && (run || etc != -EROFS) &&
	    (etc != -EROFS || access("/etc/machine-id", F_OK) == 0))
		note(why, "machine-id: %s", strerror(-etc));
}

void resumed_rest(char *const *strings, char why[GP_TEXT_LEN])
{
	const char *host = strings[GP_NAME_HOST], *id = strings[GP_NAME_MACHINE_ID];
	static struct hook_env told;
	bool begins = template_goes_on();

	hooks_environment(&told, strings); /* before net_renew() changes them */
	if (host[0] && sethostname(host, strlen(host)) < 0)
		note(why, "host name: %s", strerror(errno));
	if (id[0])
		set_machine_id(id, why);
	net_renew(strings + GP_RESUMED_NAMES, GP_CARDS_MAX, why);
	if (begins)
		template_shares();
	hooks_run(HOOKS, "resumed", told.set, HOOK_MS, why);
}
