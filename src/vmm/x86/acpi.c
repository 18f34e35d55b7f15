/* SPDX-License-Identifier: BSD-2-Clause */
/* ACPI tables, written front to back into the guest's ACPI area; the DSDT by a small AML writer.
 * See acpi.h. ACPI 6.5. */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>

#include "acpi.h"

/* ---- the area: everything goes through out_bytes(), which cannot write beyond it ---- */

struct out {
	uint8_t *mem;
	size_t len, cap;
};

/* 32 CPUs and 32 devices take some 4 of the 128 KiB: to run out is a bug here, not an error of
 * somebody's. */
static void out_bytes(struct out *o, const void *src, size_t n)
{
	if (n > o->cap - o->len)
		panic("ACPI tables exceed %zu bytes", o->cap);
	memcpy(o->mem + o->len, src, n);
	o->len += n;
}

/* `n` bytes of `v`, little endian. */
static void out_int(struct out *o, uint64_t v, unsigned n)
{
	for (; n--; v >>= 8)
		out_bytes(o, &(uint8_t){(uint8_t)v}, 1);
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

/* ---- structures: 5.2.5.3, 5.2.6, 5.2.3.2, 5.2.9, 5.2.12 ---- */

struct rsdp {
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum;
	uint8_t reserved[3];
} __attribute__((packed));
_Static_assert(sizeof(struct rsdp) == 36, "5.2.5.3");
#define RSDP_V1_LEN 20

struct header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));
_Static_assert(sizeof(struct header) == 36, "5.2.6");

struct gas { /* generic address structure */
	uint8_t space, bit_width, bit_offset, access_size;
	uint64_t address;
} __attribute__((packed));
_Static_assert(sizeof(struct gas) == 12, "5.2.3.2");
#define GAS_SYSTEM_IO 1
#define GAS_BYTE 1

struct fadt {
	struct header h;
	uint32_t facs, dsdt;
	uint8_t reserved1, pm_profile;
	uint8_t fixed_hw[63]; /* SCI_INT to CENTURY: fixed hardware, ignored when HW_REDUCED_ACPI is
				 set */
	uint16_t iapc_boot_arch;
	uint8_t reserved2;
	uint32_t flags;
	struct gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor;
	uint64_t x_facs, x_dsdt;
	struct gas x_fixed_hw[8];
	struct gas sleep_control, sleep_status;
	char hypervisor[8];
} __attribute__((packed));
_Static_assert(offsetof(struct fadt, iapc_boot_arch) == 109, "5.2.9");
_Static_assert(offsetof(struct fadt, reset_reg) == 116, "5.2.9");
_Static_assert(offsetof(struct fadt, sleep_control) == 244, "5.2.9");
_Static_assert(sizeof(struct fadt) == 276, "5.2.9");

#define FADT_REVISION 6
#define FADT_MINOR 5
/* IAPC_BOOT_ARCH, 5.2.9.3. Clear: no legacy devices, no 8042; MSI works. */
#define BOOT_NO_VGA (1u << 2)
#define BOOT_NO_CMOS_RTC (1u << 5)
/* Flags, 5.2.9 */
#define FADT_WBINVD (1u << 0)     /* required */
#define FADT_PROC_C1 (1u << 2)    /* required */
#define FADT_PWR_BUTTON (1u << 4) /* neither button is fixed hardware */
#define FADT_SLP_BUTTON (1u << 5)
#define FADT_RESET_REG_SUP (1u << 10)
#define FADT_HW_REDUCED_ACPI (1u << 20)

struct madt {
	struct header h;
	uint32_t lapic;
	uint32_t flags; /* PCAT_COMPAT clear: no 8259 */
} __attribute__((packed));
_Static_assert(sizeof(struct madt) == 44, "5.2.12");

struct madt_lapic {
	uint8_t type, length, uid, id;
	uint32_t flags;
} __attribute__((packed));
_Static_assert(sizeof(struct madt_lapic) == 8, "5.2.12.2");
#define MADT_LAPIC 0
#define MADT_LAPIC_ENABLED 1

struct madt_ioapic {
	uint8_t type, length, id, reserved;
	uint32_t address, gsi_base;
} __attribute__((packed));
_Static_assert(sizeof(struct madt_ioapic) == 12, "5.2.12.3");
#define MADT_IOAPIC 1

struct mcfg { /* PCI Firmware 3.3, 4.1.2 */
	struct header h;
	uint64_t reserved1;
	uint64_t ecam; /* of bus 0 */
	uint16_t segment;
	uint8_t first_bus, last_bus;
	uint32_t reserved2;
} __attribute__((packed));
_Static_assert(sizeof(struct mcfg) == 60, "one range of buses");
_Static_assert(BOARD_PCI_ECAM_SIZE == 1u << 20, "one bus");

_Static_assert(BOARD_MAX_CPUS <= 255,
	       "no x2APIC entries are needed, and a byte is enough for a _UID");

static struct header make_header(const char *signature, uint8_t revision)
{
	struct header h = {.revision = revision, .oem_revision = 1, .creator_revision = 1};

	memcpy(h.signature, signature, sizeof(h.signature));
	memcpy(h.oem_id, "INSULA", sizeof(h.oem_id));
	memcpy(h.oem_table_id, "INSULAVM", sizeof(h.oem_table_id));
	memcpy(h.creator_id, "INSL", sizeof(h.creator_id));
	return h;
}

/* A table begins: aligned, at the returned offset. */
static size_t begin_table(struct out *o)
{
	while (o->len % 16)
		out_int(o, 0, 1);
	return o->len;
}

/* It ends here: its length and checksum become known. Returns its gpa. */
static uint64_t end_table(struct out *o, size_t at)
{
	uint32_t len = (uint32_t)(o->len - at);

	memcpy(o->mem + at + offsetof(struct header, length), &len, sizeof(len));
	o->mem[at + offsetof(struct header, checksum)] = checksum(o->mem + at, len);
	return BOARD_ACPI + at;
}

/* ---- AML, chapter 20 ---- */

#define AML_NAME 0x08
#define AML_BYTE 0x0a
#define AML_DWORD 0x0c
#define AML_STRING 0x0d
#define AML_SCOPE 0x10
#define AML_BUFFER 0x11
#define AML_PACKAGE 0x12
#define AML_METHOD 0x14
#define AML_ROOT '\\'
#define AML_EXT 0x5b
#define AML_ARG3 0x6b
#define AML_STORE 0x70
#define AML_OR 0x7d
#define AML_DWORD_FIELD 0x8a
#define AML_RETURN 0xa4
#define AML_SERIALIZED 8 /* in the flags of a method: it makes names */
#define AML_EXT_DEVICE 0x82
#define AML_NOTIFY 0x86

#define PKG_LENGTH 3 /* bytes of a package length: always this form, which reaches 1 MiB */

static void aml_name(struct out *o, const char *seg)
{
	out_int(o, AML_NAME, 1);
	out_bytes(o, seg, 4);
}

static void aml_byte(struct out *o, unsigned v)
{
	out_int(o, AML_BYTE, 1);
	out_int(o, v, 1);
}

static void aml_string(struct out *o, const char *s)
{
	out_int(o, AML_STRING, 1);
	out_bytes(o, s, strlen(s) + 1);
}

/* A package length counts from its own first byte and is filled in at the end. */
static size_t aml_begin(struct out *o)
{
	size_t at = o->len;

	out_int(o, 0, PKG_LENGTH);
	return at;
}

static void aml_end(struct out *o, size_t at)
{
	size_t n = o->len - at;

	o->mem[at] = (uint8_t)(2u << 6 | (n & 0xf)); /* two more bytes follow */
	o->mem[at + 1] = (uint8_t)(n >> 4);
	o->mem[at + 2] = (uint8_t)(n >> 12);
}

static size_t aml_begin_device(struct out *o, const char *seg)
{
	size_t at;

	out_int(o, AML_EXT, 1);
	out_int(o, AML_EXT_DEVICE, 1);
	at = aml_begin(o);
	out_bytes(o, seg, 4);
	return at;
}

static void aml_hid_uid(struct out *o, const char *hid, unsigned uid)
{
	aml_name(o, "_HID");
	aml_string(o, hid);
	aml_name(o, "_UID");
	aml_byte(o, uid);
}

/* "C01F": a letter and a number in three hexadecimal digits */
static const char *aml_seg(char seg[5], char letter, unsigned n)
{
	static const char digit[] = "0123456789ABCDEF";

	seg[0] = letter;
	seg[1] = digit[n >> 8 & 0xf];
	seg[2] = digit[n >> 4 & 0xf];
	seg[3] = digit[n & 0xf];
	seg[4] = 0;
	return seg;
}

/* Resource descriptors, 6.4 */

#define WINDOW_MEMORY 0
#define WINDOW_BUS 2

static void res_io(struct out *o, uint16_t port, uint8_t len)
{
	out_int(o, 0x47, 1); /* 6.4.2.5 */
	out_int(o, 1, 1);    /* decodes 16 bits */
	out_int(o, port, 2);
	out_int(o, port, 2);
	out_int(o, 1, 1); /* alignment */
	out_int(o, len, 1);
}

static void res_memory(struct out *o, uint32_t base, uint32_t len)
{
	out_int(o, 0x86, 1); /* 6.4.3.4 */
	out_int(o, 9, 2);
	out_int(o, 1, 1); /* read and write */
	out_int(o, base, 4);
	out_int(o, len, 4);
}

/* What a bridge hands on: numbers of 2 or 4 bytes, from `first` to `last`. */
static void res_window(struct out *o, unsigned kind, unsigned bytes, uint32_t first, uint32_t last)
{
	out_int(o, bytes == 2 ? 0x88 : 0x87, 1); /* 6.4.3.5.3, 6.4.3.5.2 */
	out_int(o, 3 + 5 * bytes, 2);
	out_int(o, kind, 1);
	out_int(o, 0x0c, 1);                  /* producer; first and last are fixed */
	out_int(o, kind == WINDOW_MEMORY, 1); /* it can be written; not cached */
	out_int(o, 0, bytes);                 /* granularity */
	out_int(o, first, bytes);
	out_int(o, last, bytes);
	out_int(o, 0, bytes); /* translation */
	out_int(o, last - first + 1, bytes);
}

static void res_interrupt(struct out *o, uint32_t gsi)
{
	out_int(o, 0x89, 1); /* 6.4.3.6 */
	out_int(o, 6, 2);
	out_int(o, 3, 1); /* consumer, edge, active high, exclusive */
	out_int(o, 1, 1); /* one interrupt */
	out_int(o, gsi, 4);
}

#define MAX_PINS 8 /* of one device */

/* What it decodes and the pins it interrupts by: at most 12 and 9 bytes each. */
static void aml_resources(struct out *o, const struct device_desc *d)
{
	for (unsigned i = 0; i < d->nwindows; i++) {
		const struct device_window *w = &d->window[i];

		if (w->space == DEVICE_PIO)
			res_io(o, (uint16_t)w->base, (uint8_t)w->len);
		else
			res_memory(o, (uint32_t)w->base, (uint32_t)w->len);
	}
	for (unsigned i = 0; i < d->nvectors; i++)
		res_interrupt(o, d->vector[i].number);
}

/* `t`: descriptors, with room for the end tag. */
static void aml_crs_of(struct out *o, struct out *t)
{
	size_t at;

	out_int(t, 0x79, 1); /* end tag; checksum 0: not used */
	out_int(t, 0, 1);
	aml_name(o, "_CRS");
	out_int(o, AML_BUFFER, 1);
	at = aml_begin(o);
	aml_byte(o, (unsigned)t->len);
	out_bytes(o, t->mem, t->len);
	aml_end(o, at);
}

static void aml_crs(struct out *o, const struct device_desc *d)
{
	uint8_t buf[2 + DEVICE_MAX_WINDOWS * 12 + MAX_PINS * 9];
	struct out t = {.mem = buf, .cap = sizeof(buf)};

	aml_resources(&t, d);
	aml_crs_of(o, &t);
}

static void aml_device(struct out *o, const char *seg, const char *hid, unsigned uid,
		       const struct device_desc *d)
{
	size_t at = aml_begin_device(o, seg);

	aml_hid_uid(o, hid, uid);
	if (d)
		aml_crs(o, d);
	aml_end(o, at);
}

/* _S5: what goes into SLP_TYP to power off; the other three elements mean nothing here. 7.4.2 */
static void aml_s5(struct out *o)
{
	size_t at;

	out_int(o, AML_NAME, 1);
	out_int(o, AML_ROOT, 1);
	out_bytes(o, "_S5_", 4);
	out_int(o, AML_PACKAGE, 1);
	at = aml_begin(o);
	out_int(o, 4, 1);
	aml_byte(o, BOARD_SLEEP_TYP_S5);
	aml_byte(o, 0);
	aml_byte(o, 0);
	aml_byte(o, 0);
	aml_end(o, at);
}

/* genid.h: the device, and where its bytes lie */
static void aml_genid(struct out *o)
{
	static const char compatible[] = "VM_Gen_Counter";
	size_t at = aml_begin_device(o, "VGEN"), addr;

	aml_hid_uid(o, "INSL0001", 0);
	aml_name(o, "_CID");
	aml_string(o, compatible);
	aml_name(o, "_DDN");
	aml_string(o, compatible);
	aml_name(o, "ADDR");
	out_int(o, AML_PACKAGE, 1);
	addr = aml_begin(o);
	out_int(o, 2, 1);
	out_int(o, AML_DWORD, 1);
	out_int(o, BOARD_GENID, 4);
	aml_byte(o, 0); /* the upper half */
	aml_end(o, addr);
	aml_end(o, at);
}

/* What notifies it, 5.6.9: of one pin, so that _EVT need not ask which. */
static void aml_events(struct out *o)
{
	const struct device_desc pin = {.nvectors = 1, .vector = {{.number = BOARD_GSI_EVENTS}}};
	size_t at = aml_begin_device(o, "GEVT"), method;

	aml_hid_uid(o, "ACPI0013", 0);
	aml_crs(o, &pin);
	out_int(o, AML_METHOD, 1);
	method = aml_begin(o);
	out_bytes(o, "_EVT", 4);
	out_int(o, 1, 1); /* arguments */
	out_int(o, AML_NOTIFY, 1);
	out_bytes(o, "VGEN", 4);
	aml_byte(o, 0x80);
	aml_end(o, method);
	aml_end(o, at);
}

/* A word of the buffer that is the fourth argument. */
static void aml_word_of_arg3(struct out *o, unsigned at, const char *seg)
{
	out_int(o, AML_DWORD_FIELD, 1);
	out_int(o, AML_ARG3, 1);
	aml_byte(o, at);
	out_bytes(o, seg, 4);
}

/* Which parts of PCI Express the kernel may have for itself (6.2.11): of those that there are, all,
 * and that is none yet. What it was asked comes back, with nothing in the third word, and bit 4 of
 * the first one set: "masked". */
static void aml_osc(struct out *o)
{
	size_t at;

	out_int(o, AML_METHOD, 1);
	at = aml_begin(o);
	out_bytes(o, "_OSC", 4);
	out_int(o, 4 | AML_SERIALIZED, 1);
	aml_word_of_arg3(o, 0, "CDW1");
	aml_word_of_arg3(o, 8, "CDW3");
	out_int(o, AML_OR, 1);
	out_bytes(o, "CDW1", 4);
	aml_byte(o, 0x10);
	out_bytes(o, "CDW1", 4);
	out_int(o, AML_STORE, 1);
	out_int(o, 0, 1);
	out_bytes(o, "CDW3", 4);
	out_int(o, AML_RETURN, 1);
	out_int(o, AML_ARG3, 1);
	aml_end(o, at);
}

/* The host bridge, PCI Firmware 3.3, 4.; and who keeps others off its configuration space. */
static void aml_pci(struct out *o)
{
	uint8_t buf[64];
	struct out t = {.mem = buf, .cap = sizeof(buf)};
	size_t at = aml_begin_device(o, "PCI0");

	aml_hid_uid(o, "PNP0A08", 0);
	aml_name(o, "_CID");
	aml_string(o, "PNP0A03");
	res_window(&t, WINDOW_BUS, 2, 0, 0);
	res_window(&t, WINDOW_MEMORY, 4, BOARD_PCI_MMIO, BOARD_PCI_MMIO_END - 1);
	aml_crs_of(o, &t);
	aml_osc(o);
	aml_end(o, at);
	at = aml_begin_device(o, "PCFG");
	aml_hid_uid(o, "PNP0C02", 0);
	t.len = 0;
	res_memory(&t, BOARD_PCI_ECAM, BOARD_PCI_ECAM_SIZE);
	aml_crs_of(o, &t);
	aml_end(o, at);
}

static bool has_pci(const struct acpi_params *p)
{
	unsigned i = 0;

	while (i < p->ndevices && !device_is_pci(p->device[i]))
		i++;
	return i < p->ndevices;
}

static void aml_devices(struct out *o, const struct acpi_params *p)
{
	const struct device_desc pvpanic = {
		.nwindows = 1,
		.window = {{.space = DEVICE_PIO, .base = BOARD_REG_PVPANIC, .len = 1}}};
	char seg[5];

	for (unsigned i = 0; i < p->ncpus; i++)
		aml_device(o, aml_seg(seg, 'C', i), "ACPI0007", i, NULL); /* 8.4 */
	aml_device(o, "PEVT", "QEMU0001", 0, &pvpanic);
	aml_genid(o);
	aml_events(o);
	if (has_pci(p))
		aml_pci(o);
	for (unsigned i = 0; i < p->ndevices; i++) {
		const struct device_desc *d = p->device[i];

		if (d->hid[0])
			aml_device(o, aml_seg(seg, 'D', i), d->hid, d->uid, d);
	}
}

/* The tables have 8 bits for a number of ports and 32 for an address. */
static int check_resources(const struct device_desc *d, struct err *e)
{
	if (d->hid[0] && d->nvectors > MAX_PINS)
		return err_set(e, -EINVAL, "ACPI: %s: %u pins; expected at most %d", d->name,
			       d->nvectors, MAX_PINS);
	for (unsigned i = 0; i < d->nwindows && d->hid[0]; i++) {
		const struct device_window *w = &d->window[i];

		if (w->space == DEVICE_PIO ? w->len > 255 : w->base + w->len > UINT32_MAX)
			return err_set(
				e, -EINVAL,
				"ACPI: %s: window %u at 0x%llx of %llu bytes; expected up to "
				"255 ports, or memory below 4 GiB",
				d->name, i, (unsigned long long)w->base,
				(unsigned long long)w->len);
	}
	return 0;
}

/* ---- tables ---- */

static uint64_t make_dsdt(struct out *o, const struct acpi_params *p)
{
	size_t at = begin_table(o), scope;

	out_bytes(o, &(struct header[]){make_header("DSDT", 2)}, sizeof(struct header));
	aml_s5(o);
	out_int(o, AML_SCOPE, 1);
	scope = aml_begin(o);
	out_int(o, AML_ROOT, 1);
	out_bytes(o, "_SB_", 4);
	aml_devices(o, p);
	aml_end(o, scope);
	return end_table(o, at);
}

static struct gas io_byte(uint16_t port)
{
	return (struct gas){
		.space = GAS_SYSTEM_IO, .bit_width = 8, .access_size = GAS_BYTE, .address = port};
}

static uint64_t make_fadt(struct out *o, uint64_t dsdt)
{
	size_t at = begin_table(o);
	struct fadt f = {
		.h = make_header("FACP", FADT_REVISION),
		.iapc_boot_arch = BOOT_NO_VGA | BOOT_NO_CMOS_RTC,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_PWR_BUTTON | FADT_SLP_BUTTON |
			 FADT_RESET_REG_SUP | FADT_HW_REDUCED_ACPI,
		.reset_reg = io_byte(BOARD_REG_RESET),
		.reset_value = BOARD_RESET_VALUE,
		.minor = FADT_MINOR,
		.x_dsdt = dsdt,
		.sleep_control = io_byte(BOARD_REG_SLEEP_CTL),
		.sleep_status = io_byte(BOARD_REG_SLEEP_STS),
		.hypervisor = {'I', 'N', 'S', 'U', 'L', 'A'},
	};

	out_bytes(o, &f, sizeof(f));
	return end_table(o, at);
}

static uint64_t make_madt(struct out *o, const struct acpi_params *p)
{
	size_t at = begin_table(o);
	struct madt m = {.h = make_header("APIC", 5), .lapic = (uint32_t)BOARD_LAPIC};
	struct madt_ioapic io = {
		.type = MADT_IOAPIC, .length = sizeof(io), .address = (uint32_t)BOARD_IOAPIC};

	out_bytes(o, &m, sizeof(m));
	for (unsigned i = 0; i < p->ncpus; i++) {
		struct madt_lapic l = {.type = MADT_LAPIC,
				       .length = sizeof(l),
				       .uid = (uint8_t)i,
				       .id = (uint8_t)i,
				       .flags = MADT_LAPIC_ENABLED};

		out_bytes(o, &l, sizeof(l));
	}
	out_bytes(o, &io, sizeof(io));
	return end_table(o, at);
}

/* 0: there is no PCI. */
static uint64_t make_mcfg(struct out *o, const struct acpi_params *p)
{
	const struct mcfg m = {.h = make_header("MCFG", 1), .ecam = BOARD_PCI_ECAM};
	size_t at;

	if (!has_pci(p))
		return 0;
	at = begin_table(o);
	out_bytes(o, &m, sizeof(m));
	return end_table(o, at);
}

/* `table`: 0 is none. */
static uint64_t make_xsdt(struct out *o, const uint64_t *table, unsigned n)
{
	size_t at = begin_table(o);

	out_bytes(o, &(struct header[]){make_header("XSDT", 1)}, sizeof(struct header));
	for (unsigned i = 0; i < n; i++) {
		if (table[i])
			out_int(o, table[i], 8);
	}
	return end_table(o, at);
}

static void make_rsdp(struct rsdp *r, uint64_t xsdt)
{
	*r = (struct rsdp){.revision = 2, .length = sizeof(*r), .xsdt = xsdt};
	memcpy(r->signature, "RSD PTR ", sizeof(r->signature));
	memcpy(r->oem_id, "INSULA", sizeof(r->oem_id));
	r->checksum = checksum((const uint8_t *)r, RSDP_V1_LEN);
	r->extended_checksum = checksum((const uint8_t *)r, sizeof(*r));
}

int acpi_build(const struct guestmem *gm, const struct acpi_params *p, uint64_t *rsdp,
	       struct err *e)
{
	struct out o = {.mem = gm_ptr(gm, BOARD_ACPI, BOARD_ACPI_SIZE),
			.cap = BOARD_RESET_CODE - BOARD_ACPI};
	struct rsdp r = {.revision = 0};
	uint64_t table[3];
	int rc = 0;

	if (p->ncpus < 1 || p->ncpus > BOARD_MAX_CPUS || p->ndevices > VM_MAX_DEVICES)
		return err_set(e, -EINVAL,
			       "ACPI: %u CPUs and %u devices, expected 1 to %u and at most %u",
			       p->ncpus, p->ndevices, BOARD_MAX_CPUS, VM_MAX_DEVICES);
	for (unsigned i = 0; i < p->ndevices && !rc; i++)
		rc = check_resources(p->device[i], e);
	if (rc)
		return rc;
	if (!o.mem)
		return err_set(e, -EINVAL, "ACPI: no RAM at 0x%llx", BOARD_ACPI);
	out_bytes(&o, &r, sizeof(r)); /* its place: it is the first, and found by a scan as well */
	table[0] = make_fadt(&o, make_dsdt(&o, p));
	table[1] = make_madt(&o, p);
	table[2] = make_mcfg(&o, p);
	make_rsdp(&r, make_xsdt(&o, table, ARRAY_LEN(table)));
	memcpy(o.mem, &r, sizeof(r));
	*rsdp = BOARD_ACPI;
	return 0;
}
