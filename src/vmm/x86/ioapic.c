/* SPDX-License-Identifier: BSD-2-Clause */
/* IOAPIC registers and what they mean for the hypervisor's lines. See ioapic.h. Intel 82093AA
 * datasheet, chapter 3. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "ioapic.h"

/* window */
#define IOREGSEL 0x00
#define IOWIN 0x10
/* (0x40, the EOI register of version 0x20: nothing to do for edges, so it is not told apart from
 * undefined offsets) */

/* index */
#define REG_ID 0x00
#define REG_VER 0x01
#define REG_ARB 0x02
#define REG_RTE 0x10

#define VERSION 0x20u
#define ID_MASK 0x0f000000u

/* redirection table entry */
#define RTE_VECTOR 0xffull
#define RTE_MODE(v) ((v) >> 8 & 7)
#define RTE_MODE_FIXED 0
#define RTE_MODE_LOWEST 1
#define RTE_LOGICAL (1ull << 11)
#define RTE_MASKED (1ull << 16)
#define RTE_DEST(v) ((v) >> 56)
/* vector, mode, destination mode, polarity, trigger, mask; destination. Delivery status and remote
 * IRR are read-only. */
#define RTE_WRITABLE 0xff0000000001afffull
#define VECTOR_MIN 16 /* Intel SDM vol. 3, 11.5.2: lower ones are illegal */

/* MSI message, Intel SDM vol. 3, 11.11 */
#define MSI_ADDR 0xfee00000ull
#define MSI_ADDR_DEST_SHIFT 12
#define MSI_ADDR_LOGICAL (1u << 2)
#define MSI_DATA_MODE_SHIFT 8

struct pin {
	uint64_t rte;
	struct line line;
};

struct ioapic {
	pthread_mutex_t lock; /* everything below */
	struct err failure;
	uint32_t id;
	uint8_t index;
	unsigned npins;
	struct pin pin[];
};

static bool delivers(const struct pin *p)
{
	unsigned mode = RTE_MODE(p->rte);

	return p->line.event >= 0 && !(p->rte & RTE_MASKED) &&
	       (p->rte & RTE_VECTOR) >= VECTOR_MIN &&
	       (mode == RTE_MODE_FIXED || mode == RTE_MODE_LOWEST);
}

/* Make the hypervisor's line what the entry says. */
static int update(struct pin *p, struct err *e)
{
	uint64_t addr = MSI_ADDR | RTE_DEST(p->rte) << MSI_ADDR_DEST_SHIFT;
	uint32_t data = (uint32_t)((p->rte & RTE_VECTOR) | RTE_MODE(p->rte) << MSI_DATA_MODE_SHIFT);

	if (p->rte & RTE_LOGICAL)
		addr |= MSI_ADDR_LOGICAL;
	return delivers(p) ? line_deliver(&p->line, addr, data, e) : line_hold(&p->line, e);
}

int ioapic_create(struct ioapic **out, unsigned npins, const struct line_ops *ops, struct hv_vm *vm,
		  struct err *e)
{
	struct ioapic *a;

	if (npins < 1 || npins > IOAPIC_MAX_PINS)
		return err_set(e, -EINVAL, "IOAPIC: %u pins, expected 1 to %u", npins,
			       IOAPIC_MAX_PINS);
	a = calloc(1, sizeof(*a) + npins * sizeof(a->pin[0]));
	if (!a)
		return err_sys(e, -ENOMEM, "IOAPIC");
	pthread_mutex_init(&a->lock, NULL);
	a->npins = npins;
	for (unsigned i = 0; i < npins; i++) {
		a->pin[i].rte = RTE_MASKED;
		a->pin[i].line = (struct line){.ops = ops, .vm = vm, .number = i, .event = -1};
	}
	*out = a;
	return 0;
}

void ioapic_destroy(struct ioapic *a)
{
	if (!a)
		return;
	for (unsigned i = 0; i < a->npins; i++)
		(void)line_hold(&a->pin[i].line,
				NULL); /* the VM is next to go, and its lines with it */
	pthread_mutex_destroy(&a->lock);
	free(a);
}

int ioapic_set_event(struct ioapic *a, unsigned pin, hv_event event, struct err *e)
{
	struct line *l;
	int rc = 0;

	if (pin >= a->npins)
		return err_set(e, -EINVAL, "IOAPIC: pin %u of %u", pin, a->npins);
	l = &a->pin[pin].line;
	pthread_mutex_lock(&a->lock);
	if (event >= 0 && l->event >= 0 && event != l->event) {
		rc = err_set(e, -EEXIST, "IOAPIC: two devices on pin %u", pin);
	} else if (event != l->event) {
		rc = line_hold(l, e);
		if (rc == 0) {
			l->event = event;
			rc = update(&a->pin[pin], e);
		}
	}
	pthread_mutex_unlock(&a->lock);
	return rc;
}

/* False if the index names no half of an entry. */
static bool find_rte(const struct ioapic *a, unsigned *pin, unsigned *shift)
{
	if (a->index < REG_RTE || (unsigned)(a->index - REG_RTE) / 2 >= a->npins)
		return false;
	*pin = (unsigned)(a->index - REG_RTE) / 2;
	*shift = a->index & 1 ? 32 : 0;
	return true;
}

static uint32_t read_reg(const struct ioapic *a)
{
	unsigned pin, shift;

	if (find_rte(a, &pin, &shift))
		return (uint32_t)(a->pin[pin].rte >> shift);
	switch (a->index) {
	case REG_ID:
	case REG_ARB: /* arbitration begins with the ID; there is no APIC bus to arbitrate */
		return a->id;
	case REG_VER:
		return VERSION | (a->npins - 1) << 16;
	default:
		return 0;
	}
}

static int write_reg(struct ioapic *a, uint32_t value)
{
	unsigned pin, shift;

	if (a->index == REG_ID)
		a->id = value & ID_MASK;
	if (!find_rte(a, &pin, &shift))
		return 0;
	a->pin[pin].rte &= ~(0xffffffffull << shift);
	a->pin[pin].rte |= ((uint64_t)value << shift) & RTE_WRITABLE;
	return update(&a->pin[pin], &a->failure);
}

uint64_t ioapic_read(struct ioapic *a, uint64_t off, unsigned size)
{
	uint64_t v = 0;

	pthread_mutex_lock(&a->lock);
	if (off == IOREGSEL)
		v = a->index;
	else if (off == IOWIN && size == 4)
		v = read_reg(a);
	pthread_mutex_unlock(&a->lock);
	return v;
}

int ioapic_write(struct ioapic *a, uint64_t off, unsigned size, uint64_t value)
{
	int rc = 0;

	pthread_mutex_lock(&a->lock);
	if (off == IOREGSEL)
		a->index = (uint8_t)value;
	else if (off == IOWIN && size == 4)
		rc = write_reg(a, (uint32_t)value);
	pthread_mutex_unlock(&a->lock);
	return rc;
}

void ioapic_failure(struct ioapic *a, struct err *e)
{
	pthread_mutex_lock(&a->lock);
	*e = a->failure;
	pthread_mutex_unlock(&a->lock);
}

void ioapic_get(struct ioapic *a, struct ioapic_state *s)
{
	pthread_mutex_lock(&a->lock);
	*s = (struct ioapic_state){.id = a->id, .index = a->index, .npins = a->npins};
	for (unsigned i = 0; i < a->npins; i++)
		s->rte[i] = a->pin[i].rte;
	pthread_mutex_unlock(&a->lock);
}

int ioapic_set(struct ioapic *a, const struct ioapic_state *s, struct err *e)
{
	int rc = 0;

	if (s->npins != a->npins)
		return err_set(e, -EINVAL, "IOAPIC: %u pins, expected %u", s->npins, a->npins);
	pthread_mutex_lock(&a->lock);
	a->id = s->id & ID_MASK;
	a->index = (uint8_t)s->index;
	for (unsigned i = 0; i < a->npins && !rc; i++) {
		a->pin[i].rte = s->rte[i] & RTE_WRITABLE;
		rc = update(&a->pin[i], e);
	}
	pthread_mutex_unlock(&a->lock);
	return rc;
}
