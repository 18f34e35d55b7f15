/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processors that come and go, of a guest that means no good: `--cpus 3,max=5`. Registers of all
 * sizes from two of them at once, SIPI to those that are not there, ejects of the first one and of
 * absent ones. What has been given back must not run one more instruction, whatever is sent to it.
 *
 * Command line: `wait`: then it prints `gone` and waits until one comes, which must not run before
 * it is started, and must then. It prints `here`, and ends when it has none but the first.
 */
#include "smp.h"

#define ALL 5u
#define ROUNDS 20000u
#define PATIENCE_MS 20000u

static volatile uint64_t turns[ALL]; /* of each processor, by its LAPIC's number */
static volatile bool up[ALL], hammers, ejects_itself;
static volatile uint64_t after_its_end;

static uint32_t present(void)
{
	return inl(BOARD_CPUS_PRESENT);
}
static void eject(uint32_t i)
{
	outl(BOARD_CPUS_EJECT, i);
}

/* Anything but the number of a processor that is there. */
static void hammer(uint64_t *seed)
{
	uint32_t r = (uint32_t)xorshift(seed), v = (uint32_t)xorshift(seed);
	uint16_t port = (uint16_t)(BOARD_CPUS + r % BOARD_CPUS_LEN);

	if (r & 0x100)
		v %= 40;
	if (v == 1 || v == 2)
		v = 0;
	switch (r >> 16 & 7) {
	case 0:
		outb(port, (uint8_t)v);
		break;
	case 1:
		outw(port, (uint16_t)v);
		break;
	case 2:
		outl(port, v);
		break;
	case 3:
		(void)inb(port);
		break;
	case 4:
		(void)inw(port);
		break;
	case 5:
		(void)inl(port);
		break;
	case 6:
		eject(v);
		break;
	default:
		outsb(port, &v, 4);
	}
}

void ap_main(void)
{
	uint32_t me = read32(BOARD_LAPIC + 0x20) >> 24;
	uint64_t seed = 77 + me;

	up[me] = true;
	for (;;) {
		turns[me]++;
		if (ejects_itself) {
			ejects_itself = false;
			eject(me);
			after_its_end++;
		}
		if (hammers)
			hammer(&seed);
	}
}

static void send_sipi(uint32_t i)
{
	write32(SMP_ICR_HIGH, i << 24);
	write32(SMP_ICR, SMP_STARTUP | SMP_PAGE);
}
static void send_init(uint32_t i)
{
	write32(SMP_ICR_HIGH, i << 24);
	write32(SMP_ICR, SMP_INIT);
	wait_ms(10);
}
static bool start(uint32_t i)
{
	uint64_t end = deadline_ms(PATIENCE_MS);

	up[i] = false;
	send_init(i);
	send_sipi(i);
	while (!up[i] && rdtsc() < end)
		__asm__ volatile("pause");
	return up[i];
}
/* Not one of its instructions, in that time. */
static bool stands(uint32_t i)
{
	uint64_t was = turns[i];

	wait_ms(150);
	return turns[i] == was;
}

/* On a busy machine a processor may wait long for its turn. */
static bool runs(uint32_t i)
{
	uint64_t was = turns[i], end = deadline_ms(PATIENCE_MS);

	while (turns[i] == was && rdtsc() < end)
		__asm__ volatile("pause");
	return turns[i] != was;
}

static void registers(void)
{
	check("three_are_there", present() == 7, "0x%x", present());
	check("nothing_is_new", inl(BOARD_CPUS_NEWS) == 0 && inl(BOARD_CPUS_ASKED) == 0, "-");
	check("eject_reads_0", inl(BOARD_CPUS_EJECT) == 0, "-");
	check("one_size", inb(BOARD_CPUS_PRESENT) == 0xff && inw(BOARD_CPUS_PRESENT) == 0xffff,
	      "0x%x", inw(BOARD_CPUS_PRESENT));
	check("one_place", inl(BOARD_CPUS_PRESENT + 2) == 0xffffffff, "0x%x",
	      inl(BOARD_CPUS_PRESENT + 2));
	for (uint32_t i = 0; i < 64; i += i == 0 ? 3 : 1)
		eject(i);
	outb(BOARD_CPUS_EJECT, 1);
	outw(BOARD_CPUS_EJECT, 1);
	outl(BOARD_CPUS_PRESENT, 1);
	outl(BOARD_CPUS_NEWS, 1);
	outl(BOARD_CPUS_ASKED, 1);
	check("nobody_is_gone", present() == 7, "0x%x", present());
}

static void absent(void)
{
	for (uint32_t i = 3; i < 8; i++) {
		send_init(i);
		send_sipi(i);
		send_sipi(i);
	}
	check("absent_ones_do_not_run", stands(3) && stands(4) && !turns[3] && !turns[4],
	      "%lu, %lu turns", turns[3], turns[4]);
}

static void two_at_once(void)
{
	uint64_t seed = 5;

	hammers = true;
	for (uint32_t i = 0; i < ROUNDS; i++)
		hammer(&seed);
	hammers = false;
	check("two_at_once", present() == 7 && runs(1), "0x%x", present());
}

static void go_away(void)
{
	uint64_t end;

	eject(1);
	check("is_not_there", present() == 5, "0x%x", present());
	wait_ms(20);
	check("does_not_run", stands(1), "it does");
	send_init(1);
	send_sipi(1);
	check("cannot_be_started", stands(1), "it was");
	eject(1); /* once more */
	check("twice", present() == 5, "0x%x", present());
	check("the_other_one_starts", start(2), "in 20 s");
	ejects_itself = true;
	end = deadline_ms(PATIENCE_MS);
	while (present() != 1 && rdtsc() < end)
		__asm__ volatile("pause");
	check("ends_itself", present() == 1 && stands(2), "0x%x", present());
	check("not_one_instruction", after_its_end == 0, "%lu", after_its_end);
}

/* SIPI has been sent to it since it went. */
static void comes_back(void)
{
	uint64_t end = deadline_ms(PATIENCE_MS);
	uint32_t news = 0;

	print("gone\n");
	while (!news && rdtsc() < end)
		news = inl(BOARD_CPUS_NEWS);
	check("it_comes", news == 2 && present() == 3, "news 0x%x, present 0x%x", news, present());
	check("it_waits", stands(1), "it runs");
	check("it_starts", start(1) && runs(1), "it does not");
	print("here\n");
	end = deadline_ms(PATIENCE_MS);
	while (!(news = inl(BOARD_CPUS_ASKED)) && rdtsc() < end)
		__asm__ volatile("pause");
	check("it_is_asked_back", news == 2, "0x%x", news);
	eject(1);
	wait_ms(20);
	check("and_stops", stands(1), "it runs");
}

int main(void)
{
	bool waits = cmdline_word("wait");

	memcpy((void *)(uintptr_t)(SMP_PAGE << 12), ap_begin, (size_t)(ap_end - ap_begin));
	registers();
	check("the_second_starts", start(1), "in 20 s");
	absent();
	two_at_once();
	go_away();
	if (waits)
		comes_back();
	return finish();
}
