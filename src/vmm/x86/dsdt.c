/* SPDX-License-Identifier: BSD-2-Clause */
/* The DSDT. See dsdt.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>

#include "aml.h"
#include "dsdt.h"

#define MAX_PINS 8 /* of one device */

/* What it decodes and the pins it interrupts by: at most 12 and 9 bytes each. */
static void aml_resources(struct aml *o, const struct device_desc *d)
{
	for (unsigned i = 0; i < d->nwindows; i++) {
		const struct device_window *w = &d->window[i];

		if (w->space == DEVICE_PIO)
			aml_res_io(o, (uint16_t)w->base, (uint8_t)w->len);
		else
			aml_res_memory(o, (uint32_t)w->base, (uint32_t)w->len);
	}
	for (unsigned i = 0; i < d->nvectors; i++)
		aml_res_interrupt(o, d->vector[i].number);
}

static void aml_crs(struct aml *o, const struct device_desc *d)
{
	uint8_t buf[2 + DEVICE_MAX_WINDOWS * 12 + MAX_PINS * 9];
	struct aml t = {.mem = buf, .cap = sizeof(buf)};

	aml_resources(&t, d);
	aml_crs_of(o, &t);
}

static void aml_device(struct aml *o, const char *seg, const char *hid, unsigned uid,
		       const struct device_desc *d)
{
	size_t at = aml_begin_device(o, seg);

	aml_hid_uid(o, hid, uid);
	aml_crs(o, d);
	aml_end(o, at);
}

/* _S5: what goes into SLP_TYP to power off; the other three elements mean nothing here. 7.4.2 */
static void aml_s5(struct aml *o)
{
	size_t at;

	aml_int(o, AML_NAME, 1);
	aml_int(o, AML_ROOT, 1);
	aml_bytes(o, "_S5_", 4);
	aml_int(o, AML_PACKAGE, 1);
	at = aml_begin(o);
	aml_int(o, 4, 1);
	aml_byte(o, BOARD_SLEEP_TYP_S5);
	aml_byte(o, 0);
	aml_byte(o, 0);
	aml_byte(o, 0);
	aml_end(o, at);
}

/* genid.h: the device, and where its bytes lie */
static void aml_genid(struct aml *o)
{
	static const char compatible[] = "VM_Gen_Counter";
	size_t at = aml_begin_device(o, "VGEN"), addr;

	aml_hid_uid(o, "INSL0001", 0);
	aml_name(o, "_CID");
	aml_string(o, compatible);
	aml_name(o, "_DDN");
	aml_string(o, compatible);
	aml_name(o, "ADDR");
	aml_int(o, AML_PACKAGE, 1);
	addr = aml_begin(o);
	aml_int(o, 2, 1);
	aml_int(o, AML_DWORD, 1);
	aml_int(o, BOARD_GENID, 4);
	aml_byte(o, 0); /* the upper half */
	aml_end(o, addr);
	aml_end(o, at);
}

/* genid.h: the VMClock. A real _CRS, unlike the identifier's. */
static void aml_vmclock(struct aml *o)
{
	const struct device_desc page = {
		.nwindows = 1,
		.window = {
			{.space = DEVICE_MMIO, .base = BOARD_VMCLOCK, .len = BOARD_VMCLOCK_SIZE}}};
	size_t at = aml_begin_device(o, "VCLK");

	aml_hid_uid(o, "AMZNC10C", 0);
	aml_name(o, "_CID");
	aml_string(o, "VMCLOCK");
	aml_crs(o, &page);
	aml_end(o, at);
}

/* ---- processors that come and go ---- */

#define NOTIFY_DEVICE_CHECK 1 /* 5.6.6 */
#define NOTIFY_EJECT 3
#define NOTIFY_GENID 0x80

_Static_assert(BOARD_CPUS == 0x610 && BOARD_CPUS_LEN == 16, "as it is in the code below");

/* OperationRegion (CREG, SystemIO, 0x610, 16)
 * Field (CREG, DWordAcc) {CPRE, 32, CNEW, 32, CASK, 32, CEJE, 32}
 * Method (CSTA, 1) {Return (((CPRE >> Arg0) & 1) * 15)} the _STA of processor Arg0 */
static void aml_cpu_registers(struct aml *o)
{
	static const char code[] = "\133\200CREG\001\013\020\006\012\020"
				   "\133\201\032CREG\003CPRE CNEW CASK CEJE "
				   "\024\025CSTA\001\244\167\173\172CPRE\150\000\001\000\012\017";

	aml_bytes(o, code, sizeof(code)); /* the NUL is its last byte */
}

struct madt_lapic madt_lapic_of(unsigned i, uint32_t flags)
{
	return (struct madt_lapic){.type = MADT_LAPIC,
				   .length = sizeof(struct madt_lapic),
				   .uid = (uint8_t)i,
				   .id = (uint8_t)i,
				   .flags = flags};
}

/* Method (_STA) {Return (CSTA (i))}
 * Method (_EJ0, 1) {CEJE = i}
 * Name (_MAT, Buffer () {its entry in the MADT}), 6.2.10: whoever is asked for it is there */
static void aml_cpu_that_changes(struct aml *o, unsigned i)
{
	const struct madt_lapic l = madt_lapic_of(i, MADT_LAPIC_ENABLED);

	aml_bytes(o, "\024\015_STA\000\244CSTA", 12);
	aml_byte(o, i);
	aml_bytes(o, "\024\015_EJ0\001\160", 8);
	aml_byte(o, i);
	aml_bytes(o, "CEJE\010_MAT\021\013", 11);
	aml_byte(o, sizeof(l));
	aml_bytes(o, &l, sizeof(l));
}

static void aml_cpu(struct aml *o, const struct acpi_params *p, unsigned i) /* 8.4 */
{
	char seg[5];
	size_t at = aml_begin_device(o, aml_seg(seg, 'C', i));

	aml_hid_uid(o, "ACPI0007", i);
	if (p->cpus_change && i)
		aml_cpu_that_changes(o, i);
	aml_end(o, at);
}

/* If Local0 has the bit: notify. */
static void aml_notify_if(struct aml *o, unsigned bit, const char *seg, unsigned what)
{
	size_t at;

	aml_int(o, AML_IF, 1);
	at = aml_begin(o);
	aml_int(o, AML_AND, 1);
	aml_int(o, AML_LOCAL0, 1);
	aml_int(o, AML_DWORD, 1);
	aml_int(o, 1u << bit, 4);
	aml_int(o, 0, 1);
	aml_notify(o, seg, what);
	aml_end(o, at);
}

static void aml_store_local0(struct aml *o, const char *seg)
{
	aml_int(o, AML_STORE, 1);
	aml_bytes(o, seg, 4);
	aml_int(o, AML_LOCAL0, 1);
}

/* Which of them it was, the registers say, and forget it: an event that comes meanwhile has its own
 * turn. Those that are to go hear it in the order in which they shall. */
static void aml_tell_cpus(struct aml *o, const struct acpi_params *p)
{
	char seg[5];

	aml_store_local0(o, "CNEW");
	aml_notify_if(o, 0, "VGEN", NOTIFY_GENID);
	aml_notify_if(o, 0, "VCLK", NOTIFY_GENID);
	for (unsigned i = 1; i < p->ncpus; i++)
		aml_notify_if(o, i, aml_seg(seg, 'C', i), NOTIFY_DEVICE_CHECK);
	aml_store_local0(o, "CASK");
	for (unsigned i = p->ncpus; i-- > 1;)
		aml_notify_if(o, i, aml_seg(seg, 'C', i), NOTIFY_EJECT);
}

/* What notifies, 5.6.9: of one pin, so that _EVT need not ask which. */
static void aml_events(struct aml *o, const struct acpi_params *p)
{
	const struct device_desc pin = {.nvectors = 1, .vector = {{.number = BOARD_GSI_EVENTS}}};
	size_t at = aml_begin_device(o, "GEVT"), method;

	aml_hid_uid(o, "ACPI0013", 0);
	aml_crs(o, &pin);
	method = aml_begin_method(o, "_EVT", p->cpus_change ? 1 | AML_SERIALIZED : 1);
	if (p->cpus_change) {
		aml_tell_cpus(o, p);
	} else {
		aml_notify(o, "VGEN", NOTIFY_GENID);
		aml_notify(o, "VCLK", NOTIFY_GENID);
	}
	aml_end(o, method);
	aml_end(o, at);
}

/* _OSC: bits of the third word. Linux wants the second for the first. */
#define OSC_HOTPLUG 0x01    /* native hot-plug of PCI Express */
#define OSC_CAPABILITY 0x10 /* the capability of PCI Express */

/* A word of the buffer that is the fourth argument. */
static void aml_word_of_arg3(struct aml *o, unsigned at, const char *seg)
{
	aml_int(o, AML_DWORD_FIELD, 1);
	aml_int(o, AML_ARG3, 1);
	aml_byte(o, at);
	aml_bytes(o, seg, 4);
}

/* Bit 4 of the first word: "masked". */
static void aml_osc_masked(struct aml *o)
{
	aml_int(o, AML_OR, 1);
	aml_bytes(o, "CDW1", 4);
	aml_byte(o, 0x10);
	aml_bytes(o, "CDW1", 4);
}

/* What is left of the third word; that more was asked for is said, and only then: a kernel takes
 * that for a refusal. */
static void aml_osc_grant(struct aml *o)
{
	size_t at;

	aml_int(o, AML_AND, 1);
	aml_bytes(o, "CDW3", 4);
	aml_byte(o, OSC_HOTPLUG | OSC_CAPABILITY);
	aml_int(o, AML_LOCAL0, 1);
	aml_int(o, AML_IF, 1);
	at = aml_begin(o);
	aml_int(o, AML_LNOT, 1);
	aml_int(o, AML_LEQUAL, 1);
	aml_int(o, AML_LOCAL0, 1);
	aml_bytes(o, "CDW3", 4);
	aml_osc_masked(o);
	aml_end(o, at);
	aml_int(o, AML_STORE, 1);
	aml_int(o, AML_LOCAL0, 1);
	aml_bytes(o, "CDW3", 4);
}

/* Which parts of PCI Express the kernel may have for itself (6.2.11): of those that there are, all:
 * without places none, with them their slots. What it was asked comes back, with what it may have
 * in the third word. */
static void aml_osc(struct aml *o, bool places)
{
	size_t at;

	at = aml_begin_method(o, "_OSC", 4 | AML_SERIALIZED);
	aml_word_of_arg3(o, 0, "CDW1");
	aml_word_of_arg3(o, 8, "CDW3");
	if (places) {
		aml_osc_grant(o);
	} else {
		aml_osc_masked(o);
		aml_int(o, AML_STORE, 1);
		aml_int(o, 0, 1);
		aml_bytes(o, "CDW3", 4);
	}
	aml_int(o, AML_RETURN, 1);
	aml_int(o, AML_ARG3, 1);
	aml_end(o, at);
}

/* The host bridge, PCI Firmware 3.3, 4.; and who keeps others off its configuration space. */
static void aml_pci(struct aml *o, const struct acpi_params *p, unsigned places)
{
	uint64_t wide_from = UINT64_MAX, wide_to = 0;
	uint8_t buf[128];
	struct aml t = {.mem = buf, .cap = sizeof(buf)};
	size_t at = aml_begin_device(o, "PCI0");

	aml_hid_uid(o, "PNP0A08", 0);
	aml_name(o, "_CID");
	aml_string(o, "PNP0A03");
	aml_res_window(&t, WINDOW_BUS, 2, 0, places);
	aml_res_window(&t, WINDOW_MEMORY, 4, BOARD_PCI_MMIO, BOARD_PCI_MMIO_END - 1);
	for (unsigned i = 0; i < p->ndevices; i++)
		device_wide_range(p->device[i], &wide_from, &wide_to);
	if (wide_to)
		aml_res_window(&t, WINDOW_MEMORY, 8, wide_from, wide_to - 1);
	aml_crs_of(o, &t);
	aml_osc(o, places);
	aml_end(o, at);
	at = aml_begin_device(o, "PCFG");
	aml_hid_uid(o, "PNP0C02", 0);
	t.len = 0;
	aml_res_memory(&t, BOARD_PCI_ECAM, (1 + places) * (uint32_t)BOARD_PCI_ECAM_SIZE);
	aml_crs_of(o, &t);
	aml_end(o, at);
}

/* Memory for enclaves, as Intel's firmware names it. Linux asks CPUID, and does without this. */
static void aml_epc(struct aml *o, const struct acpi_params *p)
{
	uint8_t buf[48];
	struct aml t = {.mem = buf, .cap = sizeof(buf)};
	size_t at = aml_begin_device(o, "EPC_");

	aml_hid_uid(o, "INT0E0C", 0);
	aml_res_window(&t, WINDOW_MEMORY | WINDOW_OWN, 8, p->epc.gpa, p->epc.gpa + p->epc.size - 1);
	aml_crs_of(o, &t);
	aml_end(o, at);
}

unsigned dsdt_places(const struct acpi_params *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->ndevices; i++)
		n += device_is_place(p->device[i]);
	return n;
}

bool dsdt_has_pci(const struct acpi_params *p)
{
	unsigned i = 0;

	while (i < p->ndevices && !device_is_pci(p->device[i]) && !device_is_place(p->device[i]))
		i++;
	return i < p->ndevices;
}

static void aml_devices(struct aml *o, const struct acpi_params *p)
{
	const struct device_desc pvpanic = {
		.nwindows = 1,
		.window = {{.space = DEVICE_PIO, .base = BOARD_REG_PVPANIC, .len = 1}}};
	char seg[5];

	if (p->cpus_change)
		aml_cpu_registers(o);
	for (unsigned i = 0; i < p->ncpus; i++)
		aml_cpu(o, p, i);
	aml_device(o, "PEVT", "QEMU0001", 0, &pvpanic);
	aml_genid(o);
	aml_vmclock(o);
	aml_events(o, p);
	if (dsdt_has_pci(p))
		aml_pci(o, p, dsdt_places(p));
	if (p->epc.size)
		aml_epc(o, p);
	for (unsigned i = 0; i < p->ndevices; i++) {
		const struct device_desc *d = p->device[i];

		if (d->hid[0])
			aml_device(o, aml_seg(seg, 'D', i), d->hid, d->uid, d);
	}
}

void dsdt_write(struct aml *o, const struct acpi_params *p)
{
	size_t scope;

	aml_s5(o);
	aml_int(o, AML_SCOPE, 1);
	scope = aml_begin(o);
	aml_int(o, AML_ROOT, 1);
	aml_bytes(o, "_SB_", 4);
	aml_devices(o, p);
	aml_end(o, scope);
}

int dsdt_check(const struct device_desc *d, struct err *e)
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
