/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The board itself: its registers, what is not there, the IOAPIC's window, string output. Nothing
 * here may end the VM, so that a register that acts on the wrong value is a failure of the caller's
 * expectation of status 0.
 */
#include "payload.h"

#define SLP_EN (1u << 5)
#define ONES8 0xffu
#define ONES16 0xffffu
#define ONES32 0xffffffffu

static void sleep_registers(void)
{
	check("sleep_status", inb(BOARD_REG_SLEEP_STS) == 0, "reads 0x%x",
	      inb(BOARD_REG_SLEEP_STS));
	outb(BOARD_REG_SLEEP_STS, ONES8);
	check("sleep_status_is_read_only", inb(BOARD_REG_SLEEP_STS) == 0, "changed");
	outb(BOARD_REG_SLEEP_CTL, BOARD_SLEEP_TYP_S5 << 2); /* without SLP_EN */
	outb(BOARD_REG_SLEEP_CTL, SLP_EN);                  /* S0 */
	check("sleep_control", inb(BOARD_REG_SLEEP_CTL) == 0, "reads 0x%x",
	      inb(BOARD_REG_SLEEP_CTL));
}

static void other_registers(void)
{
	uint8_t events = inb(BOARD_REG_PVPANIC);

	outb(BOARD_REG_RESET, 0);
	outb(BOARD_REG_RESET, BOARD_RESET_VALUE + 1);
	check("reset_wants_its_value", inb(BOARD_REG_RESET) == 0, "reads 0x%x",
	      inb(BOARD_REG_RESET));
	check("pvpanic_events", events == BOARD_PVPANIC_EVENTS, "reads 0x%x", events);
	outb(BOARD_REG_PVPANIC, 0);
	outb(BOARD_REG_PVPANIC, BOARD_PVPANIC_CRASH_LOADED);
	outb(BOARD_REG_EVENT, 0);
	check("other_values_are_ignored", true, "-");
	outb(BOARD_REG_EXIT, 1); /* 8 and 16 bits of a 32-bit register */
	outw(BOARD_REG_EXIT, 1);
	check("exit_wants_32_bits", inb(BOARD_REG_EXIT) == ONES8, "8 bits read 0x%x",
	      inb(BOARD_REG_EXIT));
	check("registers_have_one_size", inl(BOARD_REGS) == ONES32, "32 bits read 0x%x",
	      inl(BOARD_REGS));
}

/* What a PC would have there, and must not be here: a kernel that finds half of it waits for it. */
static void absent(void)
{
	static const struct {
		uint16_t port;
		const char *name;
	} gone[] = {
		{0x20, "no_pic"},  {0x40, "no_pit"},      {0x60, "no_i8042_data"},
		{0x80, "no_post"}, {0x2f8, "no_com2"},    {0x3d4, "no_vga"},
		{0xcf8, "no_pci"}, {0xfffe, "last_port"},
	};

	for (unsigned i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
		uint16_t p = gone[i].port;

		outb(p, 0);
		check(gone[i].name, inb(p) == ONES8 && inw(p) == ONES16, "reads 0x%x", inw(p));
	}
	check("no_pci_data", inl(0xcfc) == ONES32, "reads 0x%x", inl(0xcfc));
	outb(BOARD_KBC, 0);
	check("no_i8042", inb(BOARD_KBC) == BOARD_KBC_STATUS && inw(BOARD_KBC) == ONES16,
	      "reads 0x%x", inb(BOARD_KBC));
	outb(0x70, 0x0a);
	check("no_rtc", inb(0x71) == ONES8, "reads 0x%x", inb(0x71));
	/* Half in a device, half outside: nobody's. */
	check("access_across_a_border", inw(BOARD_COM1 - 1) == ONES16, "reads 0x%x",
	      inw(BOARD_COM1 - 1));
}

static void absent_memory(void)
{
	const uint64_t at = 0xe0000000;

	write64(at, 1);
	write8(at, 1);
	check("hole_reads_all_ones",
	      read8(at + 1) == ONES8 && read16(at + 2) == ONES16 && read32(at + 4) == ONES32 &&
		      read64(at + 8) == ~0ull,
	      "reads 0x%lx", read64(at + 8));
	check("access_across_pages", read64(at + BOARD_PAGE - 4) == ~0ull, "reads 0x%lx",
	      read64(at + BOARD_PAGE - 4));
}

#define IOAPIC_SELECT (BOARD_IOAPIC + 0x00)
#define IOAPIC_DATA (BOARD_IOAPIC + 0x10)
#define IOAPIC_VERSION 1
#define IOAPIC_ENTRY(pin) (0x10 + 2u * (pin))
#define ENTRY_MASKED (1u << 16)

static uint32_t ioapic(uint32_t reg)
{
	write32(IOAPIC_SELECT, reg);
	return read32(IOAPIC_DATA);
}
static void set_ioapic(uint32_t reg, uint32_t v)
{
	write32(IOAPIC_SELECT, reg);
	write32(IOAPIC_DATA, v);
}

static void ioapic_window(void)
{
	uint32_t pins = (ioapic(IOAPIC_VERSION) >> 16 & 0xff) + 1;

	check("ioapic_pins",
	      pins >= BOARD_IOAPIC_PINS(0) && pins <= BOARD_IOAPIC_PINS(BOARD_MAX_VIRTIO), "%u",
	      pins);
	check("ioapic_masked_at_reset", ioapic(IOAPIC_ENTRY(BOARD_GSI_COM1)) & ENTRY_MASKED, "0x%x",
	      ioapic(IOAPIC_ENTRY(BOARD_GSI_COM1)));
	set_ioapic(IOAPIC_ENTRY(0), ENTRY_MASKED | 0x55);
	set_ioapic(IOAPIC_ENTRY(0) + 1, 0x3000000);
	check("ioapic_entry", ioapic(IOAPIC_ENTRY(0)) == (ENTRY_MASKED | 0x55), "0x%x",
	      ioapic(IOAPIC_ENTRY(0)));
	check("ioapic_destination", ioapic(IOAPIC_ENTRY(0) + 1) == 0x3000000, "0x%x",
	      ioapic(IOAPIC_ENTRY(0) + 1));
	/* Beyond the last pin, and other sizes: whatever they do, they do it to nobody. */
	set_ioapic(0xff, ONES32);
	write8(BOARD_IOAPIC + 0xfff, 1);
	write64(IOAPIC_DATA, ~0ull);
	check("ioapic_survives_nonsense", ((ioapic(IOAPIC_VERSION) >> 16 & 0xff) + 1) == pins,
	      "0x%x", ioapic(IOAPIC_VERSION));
}

/* Both directions of string instructions: elements one by one, in order. */
static void strings(void)
{
	static const char text[] = "ok string_output\n";
	static uint8_t in[64];
	unsigned ones = 0;

	outsb(BOARD_COM1, text, sizeof(text) - 1);
	insb(0x71, in, sizeof(in));
	for (unsigned i = 0; i < sizeof(in); i++)
		ones += in[i] == ONES8;
	check("string_input", ones == sizeof(in), "%u of %u bytes", ones, (unsigned)sizeof(in));
}

static void generation_identifier(void)
{
	check("generation_identifier", read64(BOARD_GENID) != 0 && read64(BOARD_GENID + 8) != 0,
	      "%lx %lx", read64(BOARD_GENID), read64(BOARD_GENID + 8));
	check("vmclock",
	      read64(BOARD_VMCLOCK) == 0x10004b4c4356ul && read64(BOARD_VMCLOCK + 16) != 0,
	      "%lx %lx", read64(BOARD_VMCLOCK), read64(BOARD_VMCLOCK + 16));
}

static void lapic(void)
{
	uint32_t version = read32(BOARD_LAPIC + 0x30);

	check("lapic_is_there", version != ONES32 && version != 0, "version 0x%x", version);
	check("apic_id_of_the_boot_cpu", read32(BOARD_LAPIC + 0x20) >> 24 == 0, "0x%x",
	      read32(BOARD_LAPIC + 0x20));
}

int main(void)
{
	sleep_registers();
	other_registers();
	absent();
	absent_memory();
	lapic();
	ioapic_window();
	generation_identifier();
	strings();
	return finish();
}
