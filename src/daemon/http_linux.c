/* SPDX-License-Identifier: BSD-2-Clause */
/* The metrics socket: counters in Prometheus' text format. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "client.h"
#include "listen.h"
#include "metrics.h"
#include "record.h"

#define HTTP_MAX 4096

/* Format 0.0.4; the caller's. */
static char *metrics_text(const struct daemon *d)
{
	unsigned n[VM_STATES];
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	for (size_t i = 0; i < METRICS; i++) {
		const char *name, *help;
		uint64_t value = metric(d, i, &name, &help);

		fprintf(f,
			"# HELP insulad_%s_total %s.\n# TYPE insulad_%s_total counter\n"
			"insulad_%s_total %llu\n",
			name, help, name, name, (unsigned long long)value);
	}
	metrics_states(d, n);
	fprintf(f, "# HELP insulad_vms VMs by state.\n# TYPE insulad_vms gauge\n");
	for (unsigned i = 0; i < VM_STATES; i++)
		fprintf(f, "insulad_vms{state=\"%s\"} %u\n", vm_state_names[i], n[i]);
	fclose(f);
	return text;
}

/* The metrics socket speaks as much HTTP as a scraper needs. */
void http_serve(struct client *c)
{
	char head[160], *body;

	if (!memmem(c->in, c->nin, "\r\n\r\n", 4) && !memmem(c->in, c->nin, "\n\n", 2)) {
		if (c->nin >= HTTP_MAX)
			client_close(c);
		return;
	}
	body = c->nin >= 4 && !memcmp(c->in, "GET ", 4) ? metrics_text(c->d) : NULL;
	snprintf(head, sizeof(head),
		 "HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %zu\r\n"
		 "Connection: close\r\n\r\n",
		 body ? "200 OK" : "405 Method Not Allowed", body ? strlen(body) : 0);
	c->nin = 0;
	client_write(c, head, strlen(head));
	if (body)
		client_write(c, body, strlen(body));
	free(body);
	c->closing = true;
	client_write(c, "", 0);
}
