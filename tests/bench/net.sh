# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2154
# What the benchmarks of network cards have in common; for scripts that have read lib.sh and tests/lab/lib.sh.

# net_program FILE: `FILE serve` gives each byte back, `FILE ADDRESS` asks it on one connection and prints "rr MICROSECONDS"
net_program() {
	cat >"$T/rr.c" <<'C'
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#define N 1000
static int serve(int fd)
{
	int c, one = 1;
	char b;

	for (listen(fd, 1); (c = accept(fd, 0, 0)) >= 0; close(c)) {
		setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		while (read(c, &b, 1) == 1 && write(c, &b, 1) == 1)
			;
	}
	return 1;
}
int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7000)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct timespec t, u;
	char b = 1;

	if (argc != 2)
		return 2;
	if (strcmp(argv[1], "serve") == 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		return bind(fd, (struct sockaddr *)&a, sizeof a) ? 1 : serve(fd);
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	a.sin_addr.s_addr = inet_addr(argv[1]);
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		return 1;
	for (int i = 0; i < N / 10; i++)
		if (write(fd, &b, 1) != 1 || read(fd, &b, 1) != 1)
			return 1;
	clock_gettime(CLOCK_MONOTONIC, &t);
	for (int i = 0; i < N; i++)
		if (write(fd, &b, 1) != 1 || read(fd, &b, 1) != 1)
			return 1;
	clock_gettime(CLOCK_MONOTONIC, &u);
	printf("rr %.1f\n", ((u.tv_sec - t.tv_sec) * 1e9 + (u.tv_nsec - t.tv_nsec)) / 1e3 / N);
	return 0;
}
C
	gcc -O2 -static -o "$1" "$T/rr.c"
}

# net_root IMAGE ADDRESS: a root with iperf3 and net_program's $T/rr, whose job is to set up eth0 and to do what comes on standard input
net_root() {
	local f root=$T/root.$2
	make_root "$root"
	mkdir -p "$root/lib64" "$root/lib" "$root/usr" "$root/tmp"
	cp "$T/rr" "$root/bin/rr"
	for f in $(command -v iperf3) $(ldd "$(command -v iperf3)" | grep -oE '/[^ ]+'); do
		install -D "$(realpath "$f")" "$root$f"
	done
	for f in ifconfig sleep seq; do ln -s busybox "$root/bin/$f"; done
	{ printf '#!/bin/sh\nifconfig lo up\nifconfig eth0 %s netmask 255.255.255.0 up\n' "$2"; cat; } >"$root/bin/job"
	chmod +x "$root/bin/job"
	mke2fs -q -F -t ext4 -d "$root" "$1" 128M >/dev/null 2>&1
}
