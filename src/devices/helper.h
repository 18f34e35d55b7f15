/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every helper program has in common: its control thread.
 *
 *   main()           jail_enter(), receive MSG_START_xxx, map, start threads, helper_open(), the
 *                    device, helper_attach(), jail_seal(): helper_rules() and the program's own
 *                    (jail.h adds what all programs need)
 *   helper_loop()    MSG_READY, then registers and messages until MSG_STOP or the end of the
 *                    channel
 *
 * The control thread never does I/O on a disk or a terminal: a vCPU waits for its answers.
 */
#ifndef DEVICES_HELPER_H
#define DEVICES_HELPER_H

#include <pthread.h>

#include <insula/jail.h>
#include <insula/log.h>
#include <insula/proto.h>

#include "dev_port.h"

struct helper_ops {
	struct dev_ops regs;
	/* What an earlier helper left pending is executed, and lost accesses are known: only now is
	 * the state what the guest wants. Carry on from it. May be NULL. */
	void (*resume)(void *dev);
	/* Nothing has happened for a while: last chance before the thread sleeps. May be NULL. */
	void (*idle)(void *dev);
	/* The device's own event was signalled (and is drained): one of its threads wants
	 * something. */
	void (*event)(void *dev);
	/* h->wait_fd is ready: deal with what is the device's own there, bounded. True: the channel
	 * has something. NULL: wait_fd is the channel. */
	bool (*woken)(void *dev);
	/* A message that only this device gets. It owns the descriptors, whatever it returns.
	 * -EPROTO: not a message for it. May be NULL: there is none. */
	int (*message)(void *dev, enum msg_type type, const void *body, size_t len, const int *fds,
		       unsigned nfds);
	/* MSG_STOP: finish what is in flight, bounded in time, then fill in the program's counters.
	 */
	void (*stop)(void *dev, struct msg_stats *s);
	/* MSG_QUIET: from now on touch neither guest memory nor what is behind the device, and say
	 * helper_is_quiet() when nothing is in flight any more, from here or from the control
	 * thread later. */
	void (*quiet)(void *dev);
	/* MSG_RESUME: go on where quiet() stopped; h->quiet is false by now. */
	void (*go_on)(void *dev);
	/* MSG_COUNT: the program's counters, as far as they go, while all goes on. May be NULL: it
	 * has none before its end. */
	void (*count)(void *dev, struct msg_stats *s);
};

struct helper {
	struct dev_port port;
	const struct helper_ops *ops;
	void *dev;
	void *page;
	int page_fd; /* owned until helper_open() returns */
	int channel; /* borrowed */
	int wait_fd; /* borrowed: the channel; or what is ready when it is, or something else of
		       * the device's own (an epoll set: ops->woken) */
	int call_fd; /* owned: the core's wake-up */
	/* owned: what interrupts the guest, by vector. One, or one for each entry of the MSI-X
	 * table of a PCI function. */
	int irq_fd[DEVICE_MAX_VECTORS];
	unsigned nirqs;
	bool msix;
	int event_fd; /* owned: for the device's own threads; may be signalled by any thread */
	bool spin;    /* more than one CPU */
	bool stops;   /* MSG_STOP: go_on() is for the end alone */
	bool quiet;   /* MSG_QUIET until MSG_RESUME: */
	struct msg_quiet quiet_order;
	uint64_t irqs, wakeups;
};

/* How long the control thread looks for more after the last thing it did, before it sleeps. A
 * wake-up costs some 10 us, so a burst of register accesses is worth the wait; it is also what the
 * core spins for an answer. */
#define HELPER_SPIN_NS DP_SPIN_NS
/* A busy core must not keep the thread from its messages for longer than this. */
#define HELPER_BUSY_NS 1000000ull

/* The answer to MSG_QUIET. The control thread. */
void helper_is_quiet(struct helper *h);

/* Map the page and take over START_PAGE, START_CALL, START_IRQ and START_VECTOR (closed on error as
 * well). `tag` as in port_state. */
int helper_open(struct helper *h, const struct start_fds *f, uint32_t tag, struct err *e);
/* The device is ready: execute what an earlier helper left pending, then ops->resume(). -EPROTO as
 * port_run(). */
int helper_attach(struct helper *h, const struct helper_ops *ops, void *dev, struct err *e);
/* Unmap and close. For tests; a program just exits. */
void helper_close(struct helper *h);

/* Send MSG_READY and serve. 0: stopped and MSG_STOPPED sent; -EPIPE: the supervisor is gone;
 * -EPROTO. */
int helper_loop(struct helper *h, int channel);

/* Signal one of the vectors. Control thread only (other threads signal irq_fd and count
 * themselves). */
void helper_irq(struct helper *h, unsigned vector);

/* ---- the list for jail_seal() ---- */
struct rule_list {
	struct jail_rule rule[128]; /* a card with NET_MAX_PAIRS pairs and lanes needs the most */
	size_t n;
};
/* Allow a call with any arguments, or with this descriptor as the first one. More rules than there
 * is room for: panic. */
void rule_any(struct rule_list *l, int nr, const char *why);
void rule_fd(struct rule_list *l, int nr, int fd, const char *why);
void rule_arg(struct rule_list *l, int nr, struct jail_arg a, struct jail_arg b, const char *why);
/* One request of one descriptor. */
void rule_ioctl(struct rule_list *l, int fd, unsigned long request, const char *why);
/* What the control thread needs in every helper, beyond jail_base_rules. */
void helper_rules(const struct helper *h, struct rule_list *l);

/* Say over the channel which step failed, and exit. */
_Noreturn void helper_fail(int channel, const char *step, const struct err *e);

/* Block all signals in the threads that the caller makes, and make a closed pipe, and a file at
 * its limit, an error instead of a signal. */
void helper_signals(void);

/* pthread_create() with a stack as small as it can be. 0 or a negative errno. */
int helper_thread(pthread_t *t, void *(*fn)(void *), void *arg);
/* The same with room for what libraries do, on Linux: at least `stack` bytes. */
int helper_thread_with(pthread_t *t, size_t stack, void *(*fn)(void *), void *arg);

#endif
