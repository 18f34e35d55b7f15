/* SPDX-License-Identifier: BSD-2-Clause */
/* The relay to a name server of the pod's namespace. See names.h. */
#include "names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>

#include "proc.h"
#include "spec/json.h"

#define RESOLV "/etc/resolv.conf"
#define RESOLV_MAX 65536u
#define MESSAGE_MAX 65535u /* of DNS: RFC 1035, 4.2.2 */

/* ---- resolv.conf ---- */

bool names_server_in(const char *text, struct in_addr *server)
{
	static const char key[] = "nameserver";

	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		char word[INET_ADDRSTRLEN];
		const char *p = line;
		size_t n;

		if (strncmp(p, key, strlen(key)) != 0 || !strchr(" \t", p[strlen(key)]))
			continue;
		p += strlen(key);
		p += strspn(p, " \t");
		n = strcspn(p, " \t\r\n");
		if (n >= sizeof(word))
			continue;
		memcpy(word, p, n);
		word[n] = 0;
		if (inet_pton(AF_INET, word, server) == 1 &&
		    ntohl(server->s_addr) >> 24 == IN_LOOPBACKNET)
			return true;
	}
	return false;
}

/* An engine's own file: a FIFO that lies there instead does not hang us. */
static bool server_in_file(const char *path, struct in_addr *server)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char *text = fd < 0 ? NULL : malloc(RESOLV_MAX);
	ssize_t n = text ? read(fd, text, RESOLV_MAX - 1) : -1;
	bool has = false;

	if (n > 0) {
		text[n] = 0;
		has = names_server_in(text, server);
	}
	free(text);
	fd_close(&fd);
	return has;
}

bool names_server(const struct bundle *b, struct in_addr *server)
{
	size_t n = b->mounts ? json_object_array_length(b->mounts) : 0;

	for (size_t i = n; i-- > 0;) { /* the last one is what is seen */
		json_object *m = json_object_array_get_idx(b->mounts, i);
		const char *source = j_get_str(m, "source", "");

		if (!strcmp(j_get_str(m, "destination", ""), RESOLV))
			return source[0] == '/' && server_in_file(source, server);
	}
	return false;
}

/* ---- requests ---- */

struct names_request {
	int fd; /* to the server; -1: the place is free */
	struct ct_names_head head;
	uint64_t end_ns;
	/* TCP: the message behind its length, written, then read */
	uint8_t *data;
	size_t have, done;
	bool reads;
};

struct names_relay {
	int stream;
	struct sockaddr_in server;
	struct names_request request[NAMES_MOST];
	unsigned next;
	uint8_t message[MESSAGE_MAX];
};

static int all_of(int fd, void *p, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (uint8_t *)p + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : done ? -EPROTO : -EPIPE;
		done += (size_t)n;
	}
	return 0;
}

static void request_end(struct names_request *q)
{
	fd_close(&q->fd);
	free(q->data);
	q->data = NULL;
}

/* No answer is one of no bytes: a connection in the guest is closed then. */
static int answer(struct names_relay *r, struct names_request *q, const uint8_t *p, size_t len)
{
	struct ct_names_head head = q->head;
	int rc;

	head.len = (uint16_t)len;
	request_end(q);
	rc = write_full(r->stream, &head, sizeof(head));
	return rc ? rc : write_full(r->stream, p, len);
}

static int ask(struct names_relay *r, struct names_request *q)
{
	bool tcp = q->head.kind == CT_NAMES_TCP;
	size_t len = q->head.len;

	q->fd = socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (q->fd < 0 ||
	    (connect(q->fd, (void *)&r->server, sizeof(r->server)) && errno != EINPROGRESS))
		return -errno;
	if (!tcp)
		return send(q->fd, r->message, len, MSG_NOSIGNAL) < 0 ? -errno : 0;
	q->data = malloc(2 + MESSAGE_MAX);
	if (!q->data)
		return -ENOMEM;
	q->data[0] = (uint8_t)(len >> 8);
	q->data[1] = (uint8_t)len;
	memcpy(q->data + 2, r->message, len);
	q->have = 2 + len;
	q->done = 0;
	q->reads = false;
	return 0;
}

/* The oldest gives way. */
static int new_request(struct names_relay *r, const struct ct_names_head *head)
{
	struct names_request *q = &r->request[r->next++ % NAMES_MOST];
	int rc = q->fd < 0 ? 0 : answer(r, q, NULL, 0);

	if (rc)
		return rc;
	q->head = *head;
	q->end_ns = clock_ns() + NAMES_WAIT_NS;
	return ask(r, q) ? answer(r, q, NULL, 0) : 0;
}

static int from_guest(struct names_relay *r, int *ready)
{
	struct ct_names_head head;
	int rc = all_of(r->stream, &head, sizeof(head));

	if (!rc)
		rc = all_of(r->stream, r->message, head.len);
	if (rc)
		return rc;
	if (head.kind == CT_NAMES_UDP || head.kind == CT_NAMES_TCP)
		return new_request(r, &head);
	if (head.kind != CT_NAMES_READY || *ready < 0)
		return -EPROTO;
	if (write(*ready, "", 1) != 1)
		return -EPIPE;
	fd_close(ready);
	return 0;
}

static int from_udp(struct names_relay *r, struct names_request *q)
{
	ssize_t n = recv(q->fd, r->message, sizeof(r->message), 0);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	return answer(r, q, r->message, n > 0 ? (size_t)n : 0);
}

static int write_tcp(struct names_relay *r, struct names_request *q)
{
	ssize_t n = send(q->fd, q->data + q->done, q->have - q->done, MSG_NOSIGNAL);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : answer(r, q, NULL, 0);
	q->done += (size_t)n;
	if (q->done == q->have) {
		q->reads = true;
		q->have = 0;
	}
	return 0;
}

static int read_tcp(struct names_relay *r, struct names_request *q)
{
	size_t want = ct_names_whole(q->data, q->have);
	ssize_t n = recv(q->fd, q->data + q->have, want - q->have, 0);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0)
		return answer(r, q, NULL, 0);
	q->have += (size_t)n;
	if (q->have < ct_names_whole(q->data, q->have))
		return 0;
	memcpy(r->message, q->data + 2, q->have - 2);
	return answer(r, q, r->message, q->have - 2);
}

static int from_server(struct names_relay *r, struct names_request *q)
{
	if (q->head.kind == CT_NAMES_UDP)
		return from_udp(r, q);
	return q->reads ? read_tcp(r, q) : write_tcp(r, q);
}

/* ---- the loop ---- */

static int fill(const struct names_relay *r, struct pollfd *p)
{
	uint64_t first = 0;

	p[0] = (struct pollfd){.fd = r->stream, .events = POLLIN};
	for (unsigned i = 0; i < NAMES_MOST; i++) {
		const struct names_request *q = &r->request[i];
		bool writes = q->head.kind == CT_NAMES_TCP && !q->reads;

		p[1 + i] = (struct pollfd){.fd = q->fd, .events = writes ? POLLOUT : POLLIN};
		if (q->fd >= 0 && (!first || q->end_ns < first))
			first = q->end_ns;
	}
	return first ? ms_until(first) : -1;
}

static int relay_turn(struct names_relay *r, int *ready)
{
	struct pollfd p[1 + NAMES_MOST];
	int ms = fill(r, p), rc = 0;
	uint64_t now;

	if (poll(p, ARRAY_LEN(p), ms) < 0)
		return errno == EINTR ? 0 : -errno;
	now = clock_ns();
	for (unsigned i = 0; i < NAMES_MOST && !rc; i++) {
		struct names_request *q = &r->request[i];

		if (q->fd >= 0 && p[1 + i].revents)
			rc = from_server(r, q);
		else if (q->fd >= 0 && now >= q->end_ns)
			rc = answer(r, q, NULL, 0);
	}
	return !rc && p[0].revents ? from_guest(r, ready) : rc;
}

int names_relay(int stream, int ready, struct in_addr server, uint16_t port)
{
	struct names_relay *r = calloc(1, sizeof(*r));
	int rc = r ? 0 : -ENOMEM;

	for (unsigned i = 0; r && i < NAMES_MOST; i++)
		r->request[i].fd = -1;
	if (r) {
		r->stream = stream;
		r->server = (struct sockaddr_in){
			.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = server};
	}
	while (!rc)
		rc = relay_turn(r, &ready);
	for (unsigned i = 0; r && i < NAMES_MOST; i++)
		request_end(&r->request[i]);
	free(r);
	close(stream);
	fd_close(&ready);
	/* The guest is gone; with words of ours that it has not read. */
	return rc == -EPIPE || rc == -ECONNRESET ? 0 : rc;
}
