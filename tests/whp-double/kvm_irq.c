/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupts and doorbells.
 *
 * KVM reports the end of a level-triggered interrupt only for messages that are in its routing
 * table: each such message enters it when it is first requested.
 *
 * A doorbell is an ioeventfd; a thread of the partition turns its signals into the Windows event.
 */
#include <string.h>

#include "kvm.h"

#define MSI_ADDRESS 0xfee00000u
#define MSI_LOGICAL (1u << 2)
#define MSI_LEVEL (1u << 15 | 1u << 14) /* asserted */

/* ---- interrupts ---- */

static int set_routing(struct partition *p)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry[DOUBLE_LEVELS];
	} t = {.head = {.nr = p->nlevels}};

	memcpy(t.entry, p->level, sizeof(t.entry));
	return sys_ioctl(p->vm, KVM_SET_GSI_ROUTING, &t);
}

static int know_level(struct partition *p, const struct kvm_msi *m)
{
	struct kvm_irq_routing_entry e = {.type = KVM_IRQ_ROUTING_MSI, .gsi = p->nlevels};

	e.u.msi.address_lo = m->address_lo;
	e.u.msi.data = m->data;
	for (uint32_t i = 0; i < p->nlevels; i++)
		if (p->level[i].u.msi.address_lo == m->address_lo &&
		    p->level[i].u.msi.data == m->data)
			return 0;
	if (p->nlevels == DOUBLE_LEVELS)
		return -1;
	p->level[p->nlevels++] = e;
	return set_routing(p);
}

HRESULT WINAPI WHvRequestInterrupt(WHV_PARTITION_HANDLE h, const WHV_INTERRUPT_CONTROL *i,
				   UINT32 size)
{
	struct partition *p = partition_of(h, "WHvRequestInterrupt");
	struct kvm_msi m = {0};
	int r = 0;

	if (!p || size != sizeof(*i) || i->Destination > 255 || i->Vector > 255)
		return complain(E_INVALIDARG, "WHvRequestInterrupt: vector %u", i->Vector);
	m.address_lo = MSI_ADDRESS | i->Destination << 12;
	if (i->DestinationMode == WHvX64InterruptDestinationModeLogical)
		m.address_lo |= MSI_LOGICAL;
	m.data = i->Vector | (uint32_t)i->Type << 8;
	if (i->TriggerMode == WHvX64InterruptTriggerModeLevel) {
		m.data |= MSI_LEVEL;
		AcquireSRWLockExclusive(&p->lock);
		r = know_level(p, &m);
		ReleaseSRWLockExclusive(&p->lock);
	}
	if (r < 0)
		return complain(from_errno(r), "level-triggered vector %u: errno %d", i->Vector,
				-r);
	r = sys_ioctl(p->vm, KVM_SIGNAL_MSI, &m);
	return r < 0 && r != -1 ? from_errno(r) : S_OK; /* -1: nobody takes it */
}

/* ---- doorbells ---- */

static DWORD WINAPI watch(void *arg)
{
	struct partition *p = arg;
	static const unsigned max = DOUBLE_BELLS + 1;
	int fds[DOUBLE_BELLS + 1];
	bool ready[DOUBLE_BELLS + 1];
	unsigned which[DOUBLE_BELLS + 1], n;

	for (;;) {
		fds[0] = p->wake;
		n = 1;
		AcquireSRWLockShared(&p->lock);
		for (unsigned i = 0; i < DOUBLE_BELLS && n < max; i++) {
			if (!p->bell[i].used)
				continue;
			which[n] = i;
			fds[n++] = p->bell[i].event;
		}
		ReleaseSRWLockShared(&p->lock);
		sys_wait(fds, ready, n);
		if (p->stop)
			return 0;
		if (ready[0])
			sys_drain_event(p->wake);
		AcquireSRWLockShared(&p->lock);
		for (unsigned i = 1; i < n; i++) {
			struct bell *b = &p->bell[which[i]];

			if (!ready[i] || !b->used || b->event != fds[i])
				continue;
			sys_drain_event(b->event);
			SetEvent(b->handle);
		}
		ReleaseSRWLockShared(&p->lock);
	}
}

int start_watcher(struct partition *p)
{
	p->wake = sys_eventfd();
	if (p->wake < 0)
		return p->wake;
	p->watcher = CreateThread(NULL, 0, watch, p, 0, NULL);
	return p->watcher ? 0 : -12;
}

void stop_watcher(struct partition *p)
{
	if (p->watcher) {
		p->stop = true;
		sys_signal_event(p->wake);
		WaitForSingleObject(p->watcher, INFINITE);
		CloseHandle(p->watcher);
	}
	sys_close(p->wake);
}

static struct kvm_ioeventfd to_kvm(const WHV_DOORBELL_MATCH_DATA *m, int event)
{
	struct kvm_ioeventfd k = {
		.addr = m->GuestAddress,
		.len = m->MatchOnLength ? m->Length : 0,
		.fd = event,
	};

	if (m->MatchOnValue) {
		k.datamatch = m->Value;
		k.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
	}
	return k;
}

/* The lock is held. */
static int ring_on(struct partition *p, struct bell *b, const WHV_DOORBELL_MATCH_DATA *m,
		   HANDLE event)
{
	HANDLE self = GetCurrentProcess();
	int r;

	b->event = sys_eventfd();
	b->match = *m;
	b->bound = to_kvm(m, b->event);
	if (!DuplicateHandle(self, event, self, &b->handle, 0, FALSE, DUPLICATE_SAME_ACCESS)) {
		sys_close(b->event);
		return -22;
	}
	r = sys_ioctl(p->vm, KVM_IOEVENTFD, &b->bound);
	b->used = r >= 0;
	if (r < 0) {
		CloseHandle(b->handle);
		sys_close(b->event);
	}
	return r;
}

static HRESULT add_bell(struct partition *p, const WHV_DOORBELL_MATCH_DATA *m, HANDLE event,
			struct bell **out)
{
	int r = -12;

	AcquireSRWLockExclusive(&p->lock);
	for (unsigned i = 0; i < DOUBLE_BELLS; i++) {
		*out = &p->bell[i];
		if (p->bell[i].used)
			continue;
		r = ring_on(p, &p->bell[i], m, event);
		break;
	}
	ReleaseSRWLockExclusive(&p->lock);
	sys_signal_event(p->wake);
	return from_errno(r);
}

static HRESULT remove_bell(struct partition *p, struct bell *b)
{
	int r;

	AcquireSRWLockExclusive(&p->lock);
	b->bound.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	r = sys_ioctl(p->vm, KVM_IOEVENTFD, &b->bound);
	b->used = false;
	CloseHandle(b->handle);
	sys_close(b->event);
	ReleaseSRWLockExclusive(&p->lock);
	sys_signal_event(p->wake);
	return from_errno(r);
}

HRESULT WINAPI WHvCreateNotificationPort(WHV_PARTITION_HANDLE h,
					 const WHV_NOTIFICATION_PORT_PARAMETERS *params,
					 HANDLE event, WHV_NOTIFICATION_PORT_HANDLE *port)
{
	struct partition *p = partition_of(h, "WHvCreateNotificationPort");
	struct bell *b = NULL;
	HRESULT hr;

	*port = NULL;
	if (!p || params->NotificationPortType != WHvNotificationPortTypeDoorbell)
		return complain(E_INVALIDARG, "WHvCreateNotificationPort: not a doorbell");
	hr = add_bell(p, &params->Doorbell, event, &b);
	if (hr == S_OK)
		*port = b;
	return hr;
}

HRESULT WINAPI WHvDeleteNotificationPort(WHV_PARTITION_HANDLE h, WHV_NOTIFICATION_PORT_HANDLE port)
{
	struct partition *p = partition_of(h, "WHvDeleteNotificationPort");
	struct bell *b = port;

	if (!p || b < p->bell || b >= p->bell + DOUBLE_BELLS || !b->used)
		return complain(E_INVALIDARG, "WHvDeleteNotificationPort: no such port");
	return remove_bell(p, b);
}

HRESULT WINAPI WHvRegisterPartitionDoorbellEvent(WHV_PARTITION_HANDLE h,
						 const WHV_DOORBELL_MATCH_DATA *m, HANDLE event)
{
	struct partition *p = partition_of(h, "WHvRegisterPartitionDoorbellEvent");
	struct bell *b;

	return p ? add_bell(p, m, event, &b) : E_INVALIDARG;
}

HRESULT WINAPI WHvUnregisterPartitionDoorbellEvent(WHV_PARTITION_HANDLE h,
						   const WHV_DOORBELL_MATCH_DATA *m)
{
	struct partition *p = partition_of(h, "WHvUnregisterPartitionDoorbellEvent");

	for (unsigned i = 0; p && i < DOUBLE_BELLS; i++)
		if (p->bell[i].used && memcmp(&p->bell[i].match, m, sizeof(*m)) == 0)
			return remove_bell(p, &p->bell[i]);
	return complain(E_INVALIDARG, "WHvUnregisterPartitionDoorbellEvent: no such doorbell");
}
