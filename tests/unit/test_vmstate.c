/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What insula-vmm saves of itself and takes back (src/vmm/save.h): all of it, and nothing of a
 * machine that is another one, or of a file that somebody has changed.
 */
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "vmstate.h"

static struct err e;
static uint8_t *saved;
static uint64_t saved_len;

static int memfd(const void *buf, size_t len)
{
	int fd = memfd_create("state", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, buf, len, 0), (ssize_t)len);
	return fd;
}

static void setup(void)
{
	int fd = memfd("", 0);

	vs_open();
	vs_fill();
	ck_assert_msg(!vs_save(fd, &saved_len, &e), "%s", e.text);
	saved = malloc(saved_len);
	ck_assert_int_eq(pread(fd, saved, saved_len, 0), (ssize_t)saved_len);
	close(fd);
	vs_close();
	vs_open();
}

static void teardown(void)
{
	vs_close();
	free(saved);
}

static int take_bytes(const uint8_t *buf, size_t len)
{
	int fd = memfd(buf, len), rc = save_read(&vs_vm, fd, &e);

	close(fd);
	return rc;
}

static void refused(const uint8_t *buf, size_t len, int code, const char *why)
{
	ck_assert_msg(take_bytes(buf, len) == code, "%d and not %d for '%s'", e.code, code, why);
	ck_assert_msg(strstr(e.text, why) != NULL, "'%s' is not in '%s'", why, e.text);
	ck_assert_ptr_eq(strchr(e.text, '\n'), NULL);
}

/* Offset of record `n`. */
static size_t record(unsigned n)
{
	struct state_head h;
	size_t at = 0;

	while (n--) {
		memcpy(&h, saved + at, sizeof(h));
		at += sizeof(h) + ((h.size + 7) & ~7u);
		ck_assert_uint_lt(at, saved_len);
	}
	return at;
}

static size_t record_len(unsigned n)
{
	struct state_head h;

	memcpy(&h, saved + record(n), sizeof(h));
	return sizeof(h) + ((h.size + 7) & ~7u);
}

enum {
	R_MACHINE,
	R_HV,
	R_IOAPIC,
	R_BOARD,
	R_VCPU,
	R_DEVICE = R_VCPU + VS_CPUS,
	R_PCI = R_DEVICE + VS_DEVICES,
	R_PORT,
	R_CPUS,
};

START_TEST(comes_back)
{
	uint8_t *again;
	uint64_t len;
	int fd;

	for (unsigned i = 0; i < VS_DEVICES; i++)
		vs_vm.dev[i].head = vs_vm.dev[i].seq = 0;
	ck_assert_msg(!take_bytes(saved, saved_len), "%s", e.text);
	ck_assert_uint_eq(vs_hv.len, 64);
	ck_assert_uint_eq(vs_hv.state[63], 64);
	ck_assert_uint_eq(vs_vcpu[1].len, 128);
	ck_assert_uint_eq(vs_vcpu[1].state[2], 7);
	(void)ioapic_write(vs_vm.ioapic, 0, 4, 0x10 + 2 * 5);
	ck_assert_uint_eq(ioapic_read(vs_vm.ioapic, 0x10, 4), 0x10041);
	ck_assert_uint_eq(atomic_load(&vs_vm.init_started), 1);
	ck_assert_uint_eq(atomic_load(&vs_vm.agent_ready), 1); /* it is told once more */
	ck_assert_uint_eq(vs_vm.dev[1].head, 101);
	ck_assert_uint_eq(vs_vm.dev[1].seq, 201);
	ck_assert_uint_eq(atomic_load(&vs_vm.pci.fn[0].at[0]), BOARD_PCI_MMIO + 0x10000);
	ck_assert_uint_eq(atomic_load(&vs_vm.cpus_in), 1);
	ck_assert_uint_eq(atomic_load(&vs_vm.cpus_parked), 2);
	ck_assert_uint_eq(atomic_load(&vs_vm.cpus_news), 1);
	ck_assert_uint_eq(atomic_load(&vs_vm.cpus_asked), 2);
	ck_assert_uint_eq(vs_vm.cpus_wanted, 2);
	ck_assert(hm.line[VS_PINS].bound && hm.line[VS_PINS].data == 0x55);
	ck_assert_uint_eq(vs_vm.pci.place[0].port.config[0x58 / 4], 0x00011429);
	ck_assert_uint_eq(vs_vm.pci.place[0].port.config[0x18 / 4], 0x00070707);
	ck_assert(hm.line[VS_PINS + 2].bound && hm.line[VS_PINS + 2].data == 0x66);
	/* One interrupt too many is harmless, one too few is not. */
	ck_assert(event_pending((int)vs_vm.pci.place[0].port.line.event));
	for (unsigned i = 0; i < VS_PLACE; i++)
		ck_assert_uint_eq(events_wait(&vs_irq[i], 1, -1, 0), 1);
	/* And what is saved of it is the same again. */
	atomic_store(&vs_vm.agent_ready, 2);
	fd = memfd("", 0);
	ck_assert_int_eq(vs_save(fd, &len, &e), 0);
	ck_assert_uint_eq(len, saved_len);
	again = malloc(len);
	ck_assert_int_eq(pread(fd, again, len, 0), (ssize_t)len);
	ck_assert_int_eq(memcmp(again, saved, len), 0);
	free(again);
	close(fd);
}
END_TEST

START_TEST(another_machine)
{
	vs_vm.ncpus = 1;
	refused(saved, saved_len, -EINVAL, "cpus 2, and this one has 1");
	vs_vm.ncpus = VS_CPUS;
	vs_vm.ndevices = 1;
	refused(saved, saved_len, -EINVAL, "devices 4, and this one has 1");
	vs_vm.ndevices = VS_DEVICES;
	vs_vm.npins = 48;
	refused(saved, saved_len, -EINVAL, "pins 24, and this one has 48");
	vs_vm.npins = VS_PINS;
	memmap_of_board(&vs_vm.memmap, 128u << 20);
	refused(saved, saved_len, -EINVAL, "another memory map");
	ck_assert_uint_eq(vs_hv.len, 0); /* nothing has been changed by any of these */
}
END_TEST

START_TEST(another_device)
{
	describe_virtio_mmio(&vs_vm.dev[1].desc, 0xd0000000, 5, 3);
	vs_vm.dev[1].desc.index = 1;
	strcpy(vs_vm.dev[1].desc.name, "vda");
	refused(saved, saved_len, -EINVAL, "device 1 was another one than vda");
	vs_device(1);
	strcpy(vs_vm.dev[1].desc.name, "vdb");
	refused(saved, saved_len, -EINVAL, "device 1 was another one than vdb");
	vs_device(1);
	vs_device(0);
	vs_vm.dev[0].desc = vs_vm.dev[1].desc;
	refused(saved, saved_len, -EINVAL, "device 0 was another one");
	vs_device(0);
	vs_vm.dev[VS_PLACE].desc.pci.number = 30;
	refused(saved, saved_len, -EINVAL, "device 3 was another one than slot1");
}
END_TEST

/* What was in a place is not in the empty one; nor the other way round. */
START_TEST(something_is_plugged)
{
	struct device_desc d;
	int fds[DEVICE_MAX_SLOTS], fd = memfd("", 0);
	uint8_t *full;
	uint64_t len;

	describe_virtio_pci(&d, 31, 0, 4, 1);
	d.index = VS_PLACE;
	strcpy(d.name, "vdb");
	for (unsigned i = 0; i < d.nslots; i++)
		fds[i] = event_create();
	ck_assert_int_eq(pci_plug(&vs_vm.pci, &vs_vm.pci.place[0], &d, fds, d.nslots, &e), 0);
	refused(saved, saved_len, -EINVAL, "device 3 was another one than vdb");
	ck_assert_int_eq(vs_save(fd, &len, &e), 0);
	full = malloc(len);
	ck_assert_int_eq(pread(fd, full, len, 0), (ssize_t)len);
	ck_assert_int_eq(pci_unplug(&vs_vm.pci, &vs_vm.pci.place[0], &e), 0);
	refused(full, len, -EINVAL, "device 3 was another one than slot1");
	ck_assert_int_eq(take_bytes(saved, saved_len), 0);
	free(full);
	close(fd);
}
END_TEST

START_TEST(any_byte)
{
	for (size_t i = 0; i < saved_len; i++) {
		uint8_t old = saved[i];

		for (unsigned bit = 0; bit < 8; bit++) {
			saved[i] = old ^ (uint8_t)(1u << bit);
			ck_assert_msg(take_bytes(saved, saved_len) < 0,
				      "bit %u of byte %zu: not seen", bit, i);
			ck_assert(e.text[0] && !strchr(e.text, '\n'));
		}
		saved[i] = old;
	}
	ck_assert_int_eq(take_bytes(saved, saved_len), 0);
}
END_TEST

START_TEST(any_length)
{
	for (size_t n = 0; n < saved_len; n++)
		ck_assert_msg(take_bytes(saved, n) == -EPROTO, "%zu bytes", n);
}
END_TEST

START_TEST(other_orders)
{
	uint8_t *buf = malloc(saved_len + 65536), *p = buf;
	size_t a = record(R_VCPU), b = record(R_VCPU + 1), end = record(R_DEVICE);

	/* The two vCPUs changed over. */
	memcpy(p, saved, saved_len);
	memcpy(p + a, saved + b, end - b);
	memcpy(p + a + (end - b), saved + a, b - a);
	refused(buf, saved_len, -EPROTO, "vCPU");
	/* One there twice. */
	memcpy(p, saved, b);
	memcpy(p + b, saved + a, saved_len - a);
	refused(buf, saved_len + (b - a), -EPROTO, "vCPU");
	/* One missing. */
	memcpy(p, saved, record(R_IOAPIC));
	memcpy(p + record(R_IOAPIC), saved + record(R_BOARD), saved_len - record(R_BOARD));
	refused(buf, saved_len - record_len(R_IOAPIC), -EPROTO, "unknown type 0x203");
	free(buf);
}
END_TEST

/* With a sum that is right. */
static void forge(unsigned n, uint32_t version, const void *body, uint32_t size, int code,
		  const char *why)
{
	uint8_t *buf = malloc(saved_len + HV_STATE_MAX + 65536);
	struct state_head h;
	size_t at = record(n), old = record_len(n);
	struct state_out o = {buf, saved_len + HV_STATE_MAX + 65536, at};

	memcpy(buf, saved, at);
	memcpy(&h, saved + at, sizeof(h));
	ck_assert_int_eq(state_put(&o, h.type, version, h.index, body, size), 0);
	memcpy(buf + o.len, saved + at + old, saved_len - at - old);
	if (code)
		refused(buf, o.len + saved_len - at - old, code, why);
	else
		ck_assert_msg(!take_bytes(buf, o.len + saved_len - at - old), "%s", e.text);
	free(buf);
}

START_TEST(forged)
{
	static uint8_t big[HV_STATE_MAX + 8192];
	uint32_t board[4] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
	struct ioapic_state io = {.npins = UINT32_MAX};
	/* in, parked, news, asked, wanted; the last one is good. Not the first one; the first one
	 * twice; one that there is not, three times; wanted; news are cut. */
	static const uint32_t cpus[][6] = {{2, 1},
					   {3, 1},
					   {5, 0},
					   {1, 4},
					   {1, 2, 0, 4},
					   {1, 2, 0, 0, 3},
					   {3, 2, UINT32_MAX, 2, 2}};

	for (unsigned n = 0; n <= R_CPUS; n++) {
		struct state_head h;

		memcpy(&h, saved + record(n), sizeof(h));
		forge(n, 2, saved + record(n) + sizeof(h), h.size, -EPROTO, "version 2");
		forge(n, 1, big, sizeof(big), -EPROTO, "bytes");
	}
	forge(R_MACHINE, 1, big, 8, -EPROTO, "the machine");
	forge(R_BOARD, 1, board, sizeof(board), 0, "");
	ck_assert_uint_eq(atomic_load(&vs_vm.rst_cnt) & ~(uint32_t)BOARD_RST_BITS, 0);
	ck_assert_uint_eq(atomic_load(&vs_vm.init_started), 1);
	ck_assert_uint_eq(atomic_load(&vs_vm.agent_ready), 1);
	forge(R_IOAPIC, 1, &io, sizeof(io), -EINVAL, "pins");
	memset(&io, 0xff, sizeof(io));
	io.npins = VS_PINS;
	forge(R_IOAPIC, 1, &io, sizeof(io), 0, "");
	forge(R_DEVICE, 1, big, 0, -EINVAL, "device 0 was another one");
	forge(R_DEVICE, 1, big, 8, -EINVAL, "device 0 was another one");
	forge(R_DEVICE, 1, big, 12, -EINVAL, "device 0 was another one");
	memset(big, 0xff, sizeof(big));
	forge(R_PCI, 1, big, sizeof(struct pci_state), 0, "");
	ck_assert_uint_eq(vs_vm.pci.fn[0].config[1], 0x00100406);
	forge(R_PCI, 1, big, sizeof(struct pci_state) - 8, -EPROTO, "PCI function");
	forge(R_PORT, 1, big, sizeof(struct pci_port_state), 0, "");
	ck_assert_uint_eq(vs_vm.pci.place[0].port.config[0x58 / 4], 0x01091729);
	ck_assert_uint_eq(vs_vm.pci.place[0].port.config[0], 0x000c1b36);
	forge(R_PORT, 1, big, sizeof(struct pci_port_state) - 4, -EPROTO, "PCI port");
	forge(R_CPUS, 1, big, 24, -EPROTO, "the processors: expected some of 2");
	for (unsigned i = 0; i < ARRAY_LEN(cpus); i++)
		forge(R_CPUS, 1, cpus[i], 24, i + 1 == ARRAY_LEN(cpus) ? 0 : -EPROTO,
		      "the processors");
	ck_assert_uint_eq(atomic_load(&vs_vm.cpus_news), 3);
	forge(R_HV, 1, big, 72, -EPROTO, "does not know that");
	forge(R_VCPU + 1, 1, big, 7, -EPROTO, "vCPU");
}
END_TEST

START_TEST(the_hypervisor_refuses)
{
	vs_hv.fail = -EOPNOTSUPP;
	refused(saved, saved_len, -EOPNOTSUPP, "does not want to");
	vs_hv.fail = 0;
	vs_vcpu[1].fail = -EINVAL;
	refused(saved, saved_len, -EINVAL, "does not want to");
}
END_TEST

START_TEST(cannot_be_saved)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	uint64_t len;

	vs_fill();
	ck_assert_int_eq(vs_save(fd, &len, &e), -EBADF);
	ck_assert_ptr_nonnull(strstr(e.text, "cannot be written"));
	close(fd);
	fd = memfd("", 0);
	vs_vcpu[1].fail = -EIO;
	ck_assert_int_eq(vs_save(fd, &len, &e), -EIO);
	vs_vcpu[1].fail = 0;
	vs_hv.fail = -EOPNOTSUPP;
	ck_assert_int_eq(vs_save(fd, &len, &e), -EOPNOTSUPP);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vmstate");
	TCase *c = tcase_create("vmstate");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, comes_back);
	tcase_add_test(c, another_machine);
	tcase_add_test(c, another_device);
	tcase_add_test(c, something_is_plugged);
	tcase_add_test(c, any_byte);
	tcase_add_test(c, any_length);
	tcase_add_test(c, other_orders);
	tcase_add_test(c, forged);
	tcase_add_test(c, the_hypervisor_refuses);
	tcase_add_test(c, cannot_be_saved);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
