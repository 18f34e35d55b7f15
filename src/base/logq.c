/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Log lines that nobody waits for: log_queue_start() of insula/log.h.
 *
 * Standard error may be a pipe that nobody reads, a terminal under Ctrl-S, a file system that does
 * not answer. poll() before a write is no promise: others write to the same pipe, the guest's
 * console among them. O_NONBLOCK would be set for everybody who has the same open file. So one
 * thread writes, and may be stuck in a write for ever; whoever logs copies the line into a ring, or
 * counts it if the ring is full.
 *
 * The lock protects the ring. It is never held over a system call but the events' own.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#define RING (64u << 10)
#define WRITE_MAX 4096u /* PIPE_BUF: lines of several processes are not mixed */
#define STACK (64u << 10)
#define LAST_WORDS_MS 1000 /* for the lines that are in the ring at the end */

/* One for the process, as its standard error is. */
static struct {
	pthread_mutex_t lock;
	uint32_t head, tail; /* bytes ever put, taken (running freely) */
	bool busy;           /* the thread writes what it has taken */
	unsigned lost;       /* lines, not told yet */
	log_lost_fn *tell;
	int filled, emptied; /* events */
	char ring[RING];
} q = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = -1, .emptied = -1};

/* The lock is held, here and in the next three. */
static bool logq_put(const char *text, size_t len)
{
	if (len > RING - (q.head - q.tail))
		return false;
	for (size_t i = 0; i < len; i++)
		q.ring[q.head++ % RING] = text[i];
	return true;
}

/* What was lost is told where it is missing. False: there is no room for that either. */
static bool tell_lost(void)
{
	char line[256];
	int n;

	if (!q.lost)
		return true;
	n = q.tell(line, sizeof(line), q.lost);
	if (!logq_put(line, (size_t)n))
		return false;
	q.lost = 0;
	return true;
}

/* Whole lines, as many as one write takes. */
static size_t logq_take(char out[WRITE_MAX])
{
	size_t n = 0, whole = 0;

	for (; q.tail + n != q.head && n < WRITE_MAX; n++) {
		out[n] = q.ring[(q.tail + n) % RING];
		if (out[n] == '\n')
			whole = n + 1;
	}
	q.tail += (uint32_t)whole;
	return whole;
}

static void enqueue(const char *text, size_t len)
{
	pthread_mutex_lock(&q.lock);
	if (!tell_lost() || !logq_put(text, len))
		q.lost++;
	pthread_mutex_unlock(&q.lock);
	event_signal(q.filled);
}

static void *writer(void *none)
{
	char out[WRITE_MAX];
	size_t n;

	for (;;) {
		pthread_mutex_lock(&q.lock);
		if (q.head == q.tail)
			tell_lost();
		n = logq_take(out);
		q.busy = n > 0;
		pthread_mutex_unlock(&q.lock);
		if (n) {
			stderr_write_all(out, n);
			continue;
		}
		event_signal(q.emptied);
		events_wait(&q.filled, 1, -1, -1);
	}
	return none;
}

static int lost_line(char *line, size_t size, unsigned lines)
{
	return snprintf(line, size, "insula: %u log lines lost: nobody reads standard error\n",
			lines);
}

int log_queue_start(log_lost_fn *lost)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	q.tell = lost ? lost : lost_line;
	q.filled = event_create();
	q.emptied = event_create();
	if (q.filled < 0 || q.emptied < 0)
		return q.filled < 0 ? q.filled : q.emptied;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&thread, &attr, writer, NULL);
	pthread_attr_destroy(&attr);
	if (!rc)
		log_output(enqueue);
	return -rc;
}

static bool is_empty(void)
{
	bool empty;

	pthread_mutex_lock(&q.lock);
	empty = q.head == q.tail && !q.busy && !q.lost;
	pthread_mutex_unlock(&q.lock);
	return empty;
}

void log_queue_finish(void)
{
	uint64_t now = clock_ns(), limit = now + LAST_WORDS_MS * 1000000ull;

	for (; q.filled >= 0 && !is_empty() && now < limit; now = clock_ns())
		events_wait(&q.emptied, 1, -1, (int)((limit - now) / 1000000) + 1);
}
