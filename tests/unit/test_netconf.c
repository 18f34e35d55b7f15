/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Network cards in the supervisor: the setting from text and JSON, addresses, backings that are
 * refused, connections, and passt (a stand-in for it) from start to end.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/if_tun.h>

#include <insula/base.h>

#include "supervisor/backing/nic.h"

static struct vm_config c;
static struct err e;
static char dir[64];

static void setup(void)
{
	config_init(&c);
	memset(&e, 0, sizeof(e));
	strcpy(dir, "/tmp/insula-test-nic-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
	char cmd[96];

	config_free(&c);
	snprintf(cmd, sizeof(cmd), "/bin/rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

static int set(const char *v)
{
	e.text[0] = 0;
	return config_set(&c, "--net", "net", v, &e);
}

START_TEST(texts)
{
	const struct net_config *n = c.net;

	ck_assert_int_eq(set("tap=tap0"), 0);
	ck_assert_int_eq(n[0].kind, NET_ON_TAP);
	ck_assert_str_eq(n[0].name, "tap0");
	ck_assert_uint_eq(n[0].queues, 1);
	ck_assert(!n[0].has_mac && !n[0].dhcp && !n[0].mtu && !n[0].rate && !n[0].vhost);
	ck_assert_int_eq(set("tap=t,queues=8,mac=02:aB:00:00:00:ff,mtu=9000,rate=10M,pps=1000,"
			     "ip=192.0.2.2/24,gw=192.0.2.1,dns=192.0.2.53"),
			 0);
	ck_assert_uint_eq(n[1].queues, 8);
	ck_assert_uint_eq(n[1].mac[1], 0xab);
	ck_assert_uint_eq(n[1].mac[5], 0xff);
	ck_assert_uint_eq(n[1].mtu, 9000);
	ck_assert_uint_eq(n[1].rate, 10u << 20);
	ck_assert_uint_eq(n[1].pps, 1000);
	ck_assert_str_eq(n[1].ip, "192.0.2.2/24");
	ck_assert_str_eq(n[1].gw, "192.0.2.1");
	ck_assert_str_eq(n[1].dns, "192.0.2.53");
	ck_assert_int_eq(set("fd=5:7,queues=2"), 0);
	ck_assert_uint_eq(n[2].nfds, 2);
	ck_assert_int_eq(n[2].fd[1], 7);
	ck_assert_int_eq(set("fd=5"), 0);
	ck_assert_uint_eq(n[3].queues, 1);
	ck_assert_int_eq(set("user,fwd=tcp:8080:80,fwd=udp:0.0.0.0:53:5353"), 0);
	ck_assert(n[4].dhcp);
	ck_assert_uint_eq(n[4].nforwards, 2);
	ck_assert_str_eq(n[4].forward[0].address, "127.0.0.1");
	ck_assert_uint_eq(n[4].forward[0].host, 8080);
	ck_assert_uint_eq(n[4].forward[0].guest, 80);
	ck_assert(!n[4].forward[0].udp && n[4].forward[1].udp);
	ck_assert_str_eq(n[4].forward[1].address, "0.0.0.0");
	ck_assert_uint_eq(n[4].forward[1].host, 53);
	ck_assert_uint_eq(n[4].forward[1].guest, 5353);
	ck_assert_int_eq(set("socket=/a,,b"), 0);
	ck_assert_str_eq(n[5].name, "/a,b");
	ck_assert_int_eq(set("tap=x,ip=dhcp"), 0);
	ck_assert(n[6].dhcp);
	ck_assert_int_eq(set("user"), 0);
	ck_assert_int_eq(set("user"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "more than 8"));
}
END_TEST

START_TEST(made_texts)
{
	const struct net_config *n = c.net;
	uint8_t a[6], b[6];
	char id[300] = "ovs=b,iface-id=";
	size_t len = strlen(id);

	ck_assert_int_eq(set("ovs=br-int,iface-id=ns_pod.x/a:b-c,tag=4094,queues=2"), 0);
	ck_assert_int_eq(n[0].kind, NET_ON_OVS);
	ck_assert_str_eq(n[0].name, "br-int");
	ck_assert_str_eq(n[0].iface_id, "ns_pod.x/a:b-c");
	ck_assert_uint_eq(n[0].vlan, 4094);
	ck_assert_int_eq(set("macvtap=eth0"), 0);
	ck_assert_int_eq(n[1].kind, NET_ON_MACVTAP);
	ck_assert_int_eq(n[1].mode, MACVTAP_BRIDGE);
	ck_assert_int_eq(set("macvtap=eth0,mode=private,queues=8"), 0);
	ck_assert_int_eq(n[2].mode, MACVTAP_PRIVATE);
	ck_assert_int_eq(set("mode=vepa,macvtap=eth0,vhost=on"), 0);
	ck_assert(n[3].vhost && !n[2].vhost);
	ck_assert_int_eq(n[3].mode, MACVTAP_VEPA);
	memset(id + len, 'x', CONFIG_PORT_ID_MAX);
	ck_assert_int_eq(set(id), 0);
	id[len + CONFIG_PORT_ID_MAX] = 'x';
	ck_assert_int_eq(set(id), -EINVAL);
	/* Stable by the port's name, whatever else there is. */
	nic_address(&n[0], 0, a);
	nic_address(&n[4], 0, b);
	ck_assert(memcmp(a, b, 6) != 0);
	nic_address(&n[0], 0, b);
	ck_assert_mem_eq(a, b, 6);
}
END_TEST

/* Another process is another VM on the same parent. */
START_TEST(made_addresses)
{
	uint8_t ours[6], theirs[6];
	int pair[2];
	pid_t pid;

	ck_assert_int_eq(set("macvtap=eth0"), 0);
	nic_address(&c.net[0], 0, ours);
	ck_assert_int_eq(pipe(pair), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		nic_address(&c.net[0], 0, theirs);
		_exit(write(pair[1], theirs, 6) != 6);
	}
	ck_assert_int_eq(read(pair[0], theirs, 6), 6);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert(memcmp(ours, theirs, 6) != 0);
	close(pair[0]);
	close(pair[1]);
}
END_TEST

START_TEST(refused_texts)
{
	static const char *const bad[] = {
		"",
		",",
		"tap",
		"tap=",
		"tap=0123456789abcdef",
		"tap=a/b",
		"user=1",
		"users",
		"socket=",
		"fd=",
		"fd=2",
		"fd=-1",
		"fd=x",
		"fd=5:",
		"fd=5:6,queues=3",
		"fd=3:4:5:6:7:8:9:10:11",
		"tap=a,user",
		"tap=a,tap=b",
		"mac=02:00:00:00:00:01",
		"user,mac=02:00:00:00:00",
		"user,mac=02:00:00:00:00:0",
		"user,mac=02:00:00:00:00:001",
		"user,mac=01:00:00:00:00:01",
		"user,mac=00:00:00:00:00:00",
		"user,mac=02-00-00-00-00-01",
		"user,queues=2",
		"socket=/x,queues=2",
		"tap=a,queues=0",
		"tap=a,queues=9",
		"tap=a,mtu=67",
		"tap=a,mtu=65536",
		"tap=a,rate=0",
		"tap=a,rate=1023",
		"tap=a,rate=9999999G",
		"tap=a,pps=0",
		"tap=a,pps=-1",
		"tap=a,fwd=tcp:1:2",
		"user,fwd=",
		"user,fwd=tcp",
		"user,fwd=tcp:",
		"user,fwd=tcp:80",
		"user,fwd=icmp:1:2",
		"user,fwd=tcp:0:80",
		"user,fwd=tcp:80:65536",
		"user,fwd=tcp:80:8x",
		"user,fwd=tcp:1K:2",
		"user,fwd=tcp::80",
		"user,fwd=tcp:host:80:80",
		"user,fwd=tcp:1.2.3.4.5:80:80",
		"user,fwd=tcp:1.2.3.4,,5:80:80",
		"user,fwd=tcp:255.255.255.255.255.255:1:1",
		"user,ip=192.0.2.1/24",
		"tap=a,ip=192.0.2.1",
		"tap=a,ip=192.0.2.1/0",
		"tap=a,ip=192.0.2.1/33",
		"tap=a,ip=192.0.2/24",
		"tap=a,ip=::1/64",
		"tap=a,gw=192.0.2.1",
		"tap=a,ip=192.0.2.2/24,gw=x",
		"tap=a,ip=192.0.2.2/24,dns=2001:db8::1",
		"tap=a,nonsense",
		"tap=a,vhost",
		"tap=a,vhost=",
		"tap=a,vhost=1",
		"tap=a,vhost=on,rate=1M",
		"tap=a,pps=10,vhost=on",
		"tap=a,vhost=on,metadata",
		"tap=a,vhost=on,deny",
		"tap=a,vhost=on,allow=192.0.2.0/24",
		"tap=a,vhost=on,serve=tcp:80",
		"tap=a,vhost=on,ip=192.0.2.2/24,from=192.0.2.2",
		"user,vhost=on",
		"socket=/x,vhost=on",
		"ovs=",
		"ovs=-br",
		"ovs=b/r",
		"ovs=0123456789abcdef",
		"ovs=b,iface-id=",
		"ovs=b,iface-id=-x",
		"ovs=b,iface-id=a\"b",
		"ovs=b,iface-id=a b",
		"ovs=b,tag=0",
		"ovs=b,tag=4095",
		"ovs=b,tag=x",
		"ovs=b,mode=bridge",
		"ovs=b,tap=t",
		"tap=a,tag=1",
		"user,iface-id=x",
		"macvtap=",
		"macvtap=a/b",
		"macvtap=e,mode=source",
		"macvtap=e,mode=",
		"macvtap=e,tag=1",
		"tap=a,mode=bridge",
		"tap=a,mac",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_msg(set(bad[i]) == -EINVAL, "'%s' is taken", bad[i]);
		ck_assert_msg(!strncmp(e.text, "--net: ", 7), "%s", e.text);
		ck_assert_ptr_null(strchr(e.text, '\n'));
		ck_assert_uint_eq(c.nnets, 0);
	}
	ck_assert_int_eq(set("tap=a,vhost=on,queues=2"), 0);
	ck_assert_int_eq(set("fd=5:6,vhost=on"), 0);
	config_drop_nets(&c);
	/* Off is nothing that others could be against. */
	ck_assert_int_eq(set("user,vhost=off"), 0);
	ck_assert_int_eq(set("tap=a,vhost=on"), 0);
	ck_assert_int_eq(config_set(&c, "", "restore", "/x", &e), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--net: vhost=on with --restore; expected vhost=off");
	ck_assert_str_eq(c.mistake.field, "nets");
	config_drop_nets(&c);
	ck_assert_int_eq(config_check(&c, &e), 0);
	/* One too many ports. */
	char many[1024] = "user";
	for (unsigned i = 0; i <= CONFIG_MAX_FORWARDS; i++)
		strcat(many, ",fwd=tcp:1:1");
	ck_assert_int_eq(set(many), -EINVAL);
}
END_TEST

START_TEST(json)
{
	static const char good[] =
		"{\"nets\":[{\"tap\":\"t\",\"queues\":2,\"mtu\":1400,\"rate\":\"1M\"},"
		"{\"user\":true,\"fwd\":[\"tcp:1:2\",\"udp:3:4\"]},{\"user\":true,\"fwd\":\"tcp:5:"
		"6\"},"
		"\"socket=/a\",{\"fd\":9,\"user\":false},"
		"{\"ovs\":\"br0\",\"iface-id\":\"p\",\"tag\":5}]}";
	static const char *const bad[] = {
		"{\"nets\":{}}",
		"{\"nets\":[1]}",
		"{\"nets\":[{}]}",
		"{\"nets\":[{\"tap\":1}]}",
		"{\"nets\":[{\"user\":\"yes\"}]}",
		"{\"nets\":[{\"user\":true,\"fwd\":[1]}]}",
		"{\"nets\":[{\"user\":true,\"fwd\":{}}]}",
		"{\"nets\":[{\"tap\":\"t\",\"queues\":1.5}]}",
		"{\"nets\":[{\"tap\":\"t\",\"path\":\"x\"}]}",
		"{\"nets\":[{\"tap\":\"t,user\"}]}",
		"{\"net\":\"user\"}",
	};

	ck_assert_int_eq(config_json(&c, NULL, good, strlen(good), &e), 0);
	ck_assert_uint_eq(c.nnets, 6);
	ck_assert_uint_eq(c.net[0].queues, 2);
	ck_assert_uint_eq(c.net[0].rate, 1u << 20);
	ck_assert_uint_eq(c.net[1].nforwards, 2);
	ck_assert_uint_eq(c.net[2].forward[0].guest, 6);
	ck_assert_str_eq(c.net[3].name, "/a");
	ck_assert_int_eq(c.net[4].fd[0], 9);
	ck_assert_str_eq(c.net[5].iface_id, "p");
	ck_assert_uint_eq(c.net[5].vlan, 5);
	config_drop_nets(&c);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int rc = config_json(&c, NULL, bad[i], strlen(bad[i]), &e);

		/* A comma in a name stays a part of it: that name is only too odd for a TAP later.
		 */
		if (i == 9)
			ck_assert_str_eq(c.net[0].name, "t,user");
		else
			ck_assert_msg(rc == -EINVAL, "%s", bad[i]);
		config_drop_nets(&c);
	}
}
END_TEST

START_TEST(addresses)
{
	uint8_t a[6], b[6];

	ck_assert_int_eq(set("tap=tap0"), 0);
	ck_assert_int_eq(set("tap=tap1"), 0);
	ck_assert_int_eq(set("user"), 0);
	nic_address(&c.net[0], 0, a);
	nic_address(&c.net[0], 0, b);
	ck_assert_mem_eq(a, b, 6);
	for (unsigned i = 0; i < 3; i++) {
		nic_address(&c.net[i], i, b);
		ck_assert_uint_eq(b[0] & 3, 2);
		ck_assert(i == 0 || memcmp(a, b, 6) != 0);
	}
	nic_address(&c.net[0], 1, b);
	ck_assert(memcmp(a, b, 6) != 0);
}
END_TEST

static void refused(const char *setting, const char *words)
{
	struct nic n;

	ck_assert_int_eq(set(setting), 0);
	ck_assert_int_lt(nic_open(&n, &c.net[c.nnets - 1], 0, &c, ATTACH_NOW, &e), 0);
	ck_assert_msg(strstr(e.text, words) != NULL, "'%s' lacks '%s'", e.text, words);
	nic_close(&n);
	config_drop_nets(&c);
}

START_TEST(refused_backings)
{
	char text[160];
	int fd = open("/dev/null", O_RDWR);

	refused("tap=insula-none", "no such interface; make one with: ip tuntap add");
	refused("tap=lo", "not a TAP interface");
	snprintf(text, sizeof(text), "fd=%d", fd);
	refused(text, "not a TAP");
	close(fd);
	refused("fd=999", "fd 999");
	snprintf(text, sizeof(text), "socket=%s/none", dir);
	refused(text, "No such file");
	snprintf(text, sizeof(text), "socket=%s", dir);
	refused(text, "not a socket");
	setenv("PATH", dir, 1);
	refused("user", "apt-get install passt");
	refused("macvtap=insula-none", "no such interface; expected one that is up");
	setenv("PATH", ".:", 1); /* no program of the current directory */
	refused("user", "apt-get install passt");
}
END_TEST

static int listener(char path[108])
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path, 108, "%s/switch", dir);
	strcpy(a.sun_path, path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(listen(fd, 4), 0);
	return fd;
}

static void wait_due(const struct nic *n)
{
	ck_assert(n->away);
	while (clock_ns() < nic_due(n))
		usleep(1000);
}

/* Every helper has a connection of its own. */
/* A supervisor that runs in a pod's network namespace, and whose /sys is the host's. */
START_TEST(a_tap_of_another_namespace)
{
	struct ifreq r = {.ifr_name = "insulatest9",
			  .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)};
	struct nic n;
	int fd;

	if (geteuid() || unshare(CLONE_NEWNET))
		return;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return; /* this machine has none */
	ck_assert_int_eq(ioctl(fd, TUNSETIFF, &r), 0);
	ck_assert_int_eq(ioctl(fd, TUNSETPERSIST, 1), 0);
	close(fd);
	ck_assert_int_ne(access("/sys/class/net/insulatest9", F_OK), 0);
	ck_assert_int_eq(set("tap=insulatest9"), 0);
	ck_assert_msg(nic_open(&n, &c.net[0], 0, &c, ATTACH_NOW, &e) == 0, "%s", e.text);
	ck_assert_uint_eq(n.ntaps, 1);
	nic_close(&n);
	ck_assert_int_eq(set("tap=insulatest9,queues=2"), 0);
	c.cpus = 2;
	ck_assert_int_eq(nic_open(&n, &c.net[1], 0, &c, ATTACH_NOW, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--net: tap insulatest9: expected a TAP with several queues");
}
END_TEST

START_TEST(connections)
{
	char path[108], text[160];
	int fd = listener(path), conn, a, b;
	struct nic n;

	snprintf(text, sizeof(text), "socket=%s", path);
	ck_assert_int_eq(set(text), 0);
	ck_assert_int_eq(nic_open(&n, &c.net[0], 0, &c, ATTACH_CHECK, &e), 0);
	ck_assert_int_eq(n.conn, -1); /* checked, not connected */
	nic_close(&n);
	ck_assert_int_eq(nic_open(&n, &c.net[0], 0, &c, ATTACH_NOW, &e), 0);
	conn = nic_stream(&n, &e);
	ck_assert_int_ge(conn, 0);
	a = accept(fd, NULL, NULL);
	ck_assert_int_eq(write(conn, "x", 1), 1);
	ck_assert_int_eq(read(a, text, 1), 1);
	close(conn);
	conn = nic_stream(&n, &e);
	ck_assert_int_ge(conn, 0);
	b = accept(fd, NULL, NULL);
	ck_assert_int_ge(b, 0);
	ck_assert(!n.away);
	ck_assert_uint_eq(nic_due(&n), 0);
	close(conn);
	nic_close(&n);
	close(fd);
	close(a);
	close(b);
}
END_TEST

/* The switch goes away and comes back: tried again and again, ever less often, never blocking; a
 * helper that starts meanwhile gets a stream that has ended. */
START_TEST(reconnects)
{
	char path[108], text[160];
	int fd = listener(path), conn;
	unsigned last = 0;
	struct nic n;

	snprintf(text, sizeof(text), "socket=%s", path);
	ck_assert_int_eq(set(text), 0);
	ck_assert_int_eq(nic_open(&n, &c.net[0], 0, &c, ATTACH_NOW, &e), 0);
	conn = nic_stream(&n, &e);
	ck_assert_int_ge(conn, 0);
	close(conn);
	close(fd);
	ck_assert(nic_lost(&n));
	ck_assert(!nic_lost(&n)); /* it is said once */
	for (unsigned i = 0; i < 5; i++) {
		ck_assert_uint_gt(n.backoff_ms, last);
		last = n.backoff_ms;
		conn = nic_stream(&n, &e); /* of a new helper, before it is time */
		ck_assert_int_ge(conn, 0);
		ck_assert_int_eq(read(conn, text, 1), 0);
		close(conn);
		wait_due(&n);
		ck_assert_int_lt(nic_retry(&n, &e), 0);
	}
	unlink(path);
	wait_due(&n);
	ck_assert_int_lt(nic_retry(&n, &e), 0);
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_lt(nic_retry(&n, &e), 0);
	ck_assert_uint_eq(n.backoff_ms, 5000);
	ck_assert(nic_due(&n) <= clock_ns() + 5000000000ull);
	fd = listener(path);
	conn = nic_retry(&n, &e);
	ck_assert_int_ge(conn, 0);
	ck_assert(!n.away);
	/* One that accepts and hangs up is no better than none. */
	ck_assert(nic_lost(&n));
	ck_assert_uint_eq(n.backoff_ms, 5000);
	/* But after some time the connection counts as good. */
	close(conn);
	conn = nic_retry(&n, &e);
	n.up_ns -= 5000000000ull;
	ck_assert(nic_lost(&n));
	ck_assert_uint_eq(n.backoff_ms, 10);
	close(conn);
	nic_close(&n);
	close(fd);
}
END_TEST

/* A VM may start while its switch is away: a socket where nobody listens, or where the queue is
 * full. Nothing blocks. */
START_TEST(starts_without_switch)
{
	char path[108], text[160];
	int fd = listener(path), conn, full[64], nfull = 0;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct nic n;

	snprintf(text, sizeof(text), "socket=%s", path);
	ck_assert_int_eq(set(text), 0);
	strcpy(a.sun_path, path);
	if (_i == 0) {
		close(fd);
		fd = -1;
	}
	while (_i && nfull < 64) {
		full[nfull] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (connect(full[nfull++], (struct sockaddr *)&a, sizeof(a)))
			break;
	}
	ck_assert_int_eq(nic_open(&n, &c.net[0], 0, &c, ATTACH_NOW, &e), 0);
	conn = nic_stream(&n, &e);
	ck_assert_int_ge(conn, 0);
	ck_assert(n.away);
	ck_assert_int_eq(read(conn, text, 1), 0);
	close(conn);
	ck_assert_uint_gt(nic_due(&n), 0);
	while (nfull)
		close(full[--nfull]);
	nic_close(&n);
	fd_close(&fd);
}
END_TEST

/* A stand-in: says its arguments and its descriptors, then waits for the end of its socket. */
static void fake_passt(void)
{
	char path[96];
	FILE *f;

	snprintf(path, sizeof(path), "%s/passt", dir);
	f = fopen(path, "w");
	fprintf(f, "#!/bin/sh\nPATH=/usr/bin:/bin\necho \"$@\" >&2\n"
		   "echo sockets $(ls -l /proc/$$/fd | grep -c socket:) >&2\ncat <&3 "
		   ">/dev/null\nexit 9\n");
	fclose(f);
	chmod(path, 0755);
	setenv("PATH", dir, 1);
}

static void log_until(struct child *p, const char *word)
{
	char all[2048] = "";
	size_t n = 0;

	for (unsigned i = 0; i < 100 && !strstr(all, word); i++) {
		ssize_t k = read(p->os.jail.log, all + n, sizeof(all) - 1 - n);

		if (k > 0)
			n += (size_t)k;
		else
			usleep(50000);
		all[n] = 0;
	}
	ck_assert_msg(strstr(all, word) != NULL, "'%s' lacks '%s'", all, word);
}

static bool ends(const struct child *p)
{
	struct pollfd fd = {p->os.jail.pidfd, POLLIN, 0};

	return poll(&fd, 1, 10000) == 1;
}

START_TEST(passt_life)
{
	struct nic n;
	pid_t first;
	int conn;

	fake_passt();
	ck_assert_int_eq(set("user,mtu=1400,dns=192.0.2.53,fwd=tcp:8080:80,fwd=udp:0.0.0.0:5:6"),
			 0);
	ck_assert_int_eq(nic_open(&n, &c.net[0], 0, &c, ATTACH_NOW, &e), 0);
	ck_assert_int_eq(n.passt.os.jail.pid, -1); /* not before the VM starts */
	conn = nic_stream(&n, &e);
	ck_assert_int_ge(conn, 0);
	first = n.passt.os.jail.pid;
	log_until(&n.passt, "--no-map-gw --fd 3");
	/* It ends with its connection: nobody else has the other end. */
	close(conn);
	ck_assert(ends(&n.passt));
	child_kill(&n.passt);
	/* The next helper gets another one. */
	conn = nic_stream(&n, &e);
	ck_assert_int_ge(conn, 0);
	ck_assert_int_ne(n.passt.os.jail.pid, first);
	/* One whose connection has ended has to go, and to be heard, before there is a third. */
	ck_assert(nic_lost(&n));
	ck_assert_uint_eq(nic_due(&n), 0);
	ck_assert(ends(&n.passt));
	child_kill(&n.passt);
	ck_assert_uint_gt(nic_due(&n), 0);
	close(conn);
	conn = nic_retry(&n, &e);
	ck_assert_int_ge(conn, 0);
	ck_assert_uint_eq(n.passts, 3);
	log_until(&n.passt, "--mtu 1400 --dns 192.0.2.53 --tcp-ports 127.0.0.1/8080:80 "
			    "--udp-ports 0.0.0.0/5:6\nsockets 1");
	close(conn);
	nic_close(&n);
	ck_assert_int_eq(kill(n.passt.os.jail.pid > 0 ? n.passt.os.jail.pid : first, 0), -1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("netconf");
	TCase *t = tcase_create("all");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, texts);
	tcase_add_test(t, made_texts);
	tcase_add_test(t, made_addresses);
	tcase_add_test(t, refused_texts);
	tcase_add_test(t, json);
	tcase_add_test(t, addresses);
	tcase_add_test(t, refused_backings);
	tcase_add_test(t, a_tap_of_another_namespace);
	tcase_add_test(t, connections);
	tcase_add_test(t, reconnects);
	tcase_add_loop_test(t, starts_without_switch, 0, 2);
	tcase_add_test(t, passt_life);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
