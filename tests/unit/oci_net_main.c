/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests/oci-net: what insula-oci does with a pod's network, in the namespace that this runs in.
 *
 *   oci_net join          prints {"nets": ..., "kept": ...}, then the records, one a line
 *   oci_net leave KEPT
 *   oci_net relay TAP A B a guest behind a TAP: frames go to and from the TAP TAP of the network
 *                         namespace A, which is opened there, and the TAP g0 of B; until killed
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/if_tun.h>

#include "oci/conf.h"
#include "oci/net.h"
#include "spec/json.h"

static int join(void)
{
	json_object *nets, *kept, *o = json_object_new_object();
	struct oci_conf conf;
	struct rec r;
	struct err e;

	rec_init(&r);
	if (conf_text(&conf, "{}", 2, &e) || net_join(&conf, false, &r, &nets, &kept, &e)) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	j_obj(o, "nets", nets);
	j_obj(o, "kept", kept);
	puts(j_text(o));
	for (const char *p = r.at; p < r.at + r.len; p += strlen(p) + 1)
		puts(p);
	rec_free(&r);
	json_object_put(o);
	conf_free(&conf);
	return 0;
}

static int leave(const char *text)
{
	const char *why;
	json_object *o = j_parse(text, strlen(text), 4, &why);

	if (!o)
		return 2;
	net_leave(o);
	json_object_put(o);
	return 0;
}

static int tap_in(const char *netns, const char *name)
{
	struct ifreq r = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)};
	int ns = open(netns, O_RDONLY | O_CLOEXEC), fd;

	if (ns < 0 || setns(ns, CLONE_NEWNET))
		return -1;
	close(ns);
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (fd >= 0 && !ioctl(fd, TUNSETIFF, &r))
		return fd;
	perror(name);
	return -1;
}

static int relay(const char *tap, const char *a, const char *b)
{
	struct pollfd p[2] = {{.fd = tap_in(a, tap), .events = POLLIN},
			      {.fd = tap_in(b, "g0"), .events = POLLIN}};
	static char frame[70000];
	const unsigned long csum = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;

	if (p[0].fd < 0 || p[1].fd < 0 || ioctl(p[0].fd, TUNSETOFFLOAD, csum) ||
	    ioctl(p[1].fd, TUNSETOFFLOAD, csum))
		return 1;
	while (poll(p, 2, -1) > 0) {
		for (int i = 0; i < 2; i++) {
			ssize_t n = p[i].revents ? read(p[i].fd, frame, sizeof(frame)) : 0;

			if (n < 0)
				return 1;
			if (n > 0 && write(p[!i].fd, frame, (size_t)n) < 0 && errno != EIO)
				return 1;
		}
	}
	return 1;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "join"))
		return join();
	if (argc == 3 && !strcmp(argv[1], "leave"))
		return leave(argv[2]);
	if (argc == 5 && !strcmp(argv[1], "relay"))
		return relay(argv[2], argv[3], argv[4]);
	return 2;
}
