/* SPDX-License-Identifier: BSD-2-Clause */
/* ACPI tables, written front to back into the guest's ACPI area. See acpi.h. ACPI 6.5. */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>

#include "acpi.h"
#include "aml.h"
#include "dsdt.h"

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
_Static_assert(BOARD_PCI_ECAM_SIZE == 1u << 20, "of each bus");

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
static size_t begin_table(struct aml *o)
{
	while (o->len % 16)
		aml_int(o, 0, 1);
	return o->len;
}

/* It ends here: its length and checksum become known. Returns its gpa. */
static uint64_t end_table(struct aml *o, size_t at)
{
	uint32_t len = (uint32_t)(o->len - at);

	memcpy(o->mem + at + offsetof(struct header, length), &len, sizeof(len));
	o->mem[at + offsetof(struct header, checksum)] = checksum(o->mem + at, len);
	return BOARD_ACPI + at;
}

/* ---- tables ---- */

static uint64_t make_dsdt(struct aml *o, const struct acpi_params *p)
{
	size_t at = begin_table(o);

	aml_bytes(o, &(struct header[]){make_header("DSDT", 2)}, sizeof(struct header));
	dsdt_write(o, p);
	return end_table(o, at);
}

static struct gas io_byte(uint16_t port)
{
	return (struct gas){
		.space = GAS_SYSTEM_IO, .bit_width = 8, .access_size = GAS_BYTE, .address = port};
}

static uint64_t make_fadt(struct aml *o, uint64_t dsdt)
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

	aml_bytes(o, &f, sizeof(f));
	return end_table(o, at);
}

static uint64_t make_madt(struct aml *o, const struct acpi_params *p)
{
	size_t at = begin_table(o);
	struct madt m = {.h = make_header("APIC", 5), .lapic = (uint32_t)BOARD_LAPIC};
	struct madt_ioapic io = {
		.type = MADT_IOAPIC, .length = sizeof(io), .address = (uint32_t)BOARD_IOAPIC};

	aml_bytes(o, &m, sizeof(m));
	for (unsigned i = 0; i < p->ncpus; i++) {
		const struct madt_lapic l = madt_lapic_of(
			i, i < p->ncpus_in ? MADT_LAPIC_ENABLED : MADT_LAPIC_ONLINE_CAPABLE);

		aml_bytes(o, &l, sizeof(l));
	}
	aml_bytes(o, &io, sizeof(io));
	return end_table(o, at);
}

/* 0: there is no PCI. */
static uint64_t make_mcfg(struct aml *o, const struct acpi_params *p)
{
	const struct mcfg m = {.h = make_header("MCFG", 1),
			       .ecam = BOARD_PCI_ECAM,
			       .last_bus = (uint8_t)dsdt_places(p)};
	size_t at;

	if (!dsdt_has_pci(p))
		return 0;
	at = begin_table(o);
	aml_bytes(o, &m, sizeof(m));
	return end_table(o, at);
}

/* `table`: 0 is none. */
static uint64_t make_xsdt(struct aml *o, const uint64_t *table, unsigned n)
{
	size_t at = begin_table(o);

	aml_bytes(o, &(struct header[]){make_header("XSDT", 1)}, sizeof(struct header));
	for (unsigned i = 0; i < n; i++) {
		if (table[i])
			aml_int(o, table[i], 8);
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
	struct aml o = {.mem = gm_ptr(gm, BOARD_ACPI, BOARD_ACPI_SIZE),
			.cap = BOARD_RESET_CODE - BOARD_ACPI};
	struct rsdp r = {.revision = 0};
	uint64_t table[3];
	int rc = 0;

	if (p->ncpus < 1 || p->ncpus > BOARD_MAX_CPUS || p->ndevices > VM_MAX_DEVICES)
		return err_set(e, -EINVAL,
			       "ACPI: %u CPUs and %u devices, expected 1 to %u and at most %u",
			       p->ncpus, p->ndevices, BOARD_MAX_CPUS, VM_MAX_DEVICES);
	if (p->ncpus_in < 1 || p->ncpus_in > p->ncpus ||
	    (p->ncpus_in < p->ncpus && !p->cpus_change))
		return err_set(e, -EINVAL, "ACPI: %u of %u CPUs are there, expected %s",
			       p->ncpus_in, p->ncpus, p->cpus_change ? "1 or more of them" : "all");
	for (unsigned i = 0; i < p->ndevices && !rc; i++)
		rc = dsdt_check(p->device[i], e);
	if (rc)
		return rc;
	if (!o.mem)
		return err_set(e, -EINVAL, "ACPI: no RAM at 0x%llx", BOARD_ACPI);
	aml_bytes(&o, &r, sizeof(r)); /* its place: it is the first, and found by a scan as well */
	table[0] = make_fadt(&o, make_dsdt(&o, p));
	table[1] = make_madt(&o, p);
	table[2] = make_mcfg(&o, p);
	make_rsdp(&r, make_xsdt(&o, table, ARRAY_LEN(table)));
	memcpy(o.mem, &r, sizeof(r));
	*rsdp = BOARD_ACPI;
	return 0;
}
