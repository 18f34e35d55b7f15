/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables for people, JSON for pipes. See ctl.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/json.h"

bool print_is_table(bool json)
{
	return !json && isatty(STDOUT_FILENO);
}

/* What a VM has worded. The buffer is the next call's, too. */
static const char *clean(const char *text)
{
	static char *copy;

	free(copy);
	copy = strdup(text);
	if (!copy)
		panic("out of memory");
	err_clean(copy);
	return copy;
}

const char *print_clean(const char *text, size_t len)
{
	static char *copy;

	free(copy);
	copy = malloc(len + 1);
	if (!copy)
		panic("out of memory");
	for (size_t i = 0; i < len; i++)
		copy[i] = text[i] ? text[i] : '?';
	copy[len] = 0;
	for (char *p = copy; *p;) {
		size_t n = strcspn(p, "\t");
		bool tab = p[n] != 0;

		p[n] = 0;
		err_clean(p);
		if (tab)
			p[n] = '\t';
		p += n + tab;
	}
	return copy;
}

void print_json(json_object *o)
{
	/* JSON escapes C0 alone; a terminal also obeys C1. What a program reads stays as it is. */
	puts(isatty(STDOUT_FILENO) ? clean(j_text(o)) : j_text(o));
}

static void age(int64_t since_ms, char out[24])
{
	struct timespec now;
	long long s;

	clock_gettime(CLOCK_REALTIME, &now);
	s = now.tv_sec - since_ms / 1000;
	if (s < 120)
		snprintf(out, 24, "%llds", s < 0 ? 0 : s);
	else if (s < 7200)
		snprintf(out, 24, "%lldm", s / 60);
	else if (s < 172800)
		snprintf(out, 24, "%lldh", s / 3600);
	else
		snprintf(out, 24, "%lldd", s / 86400);
}

void print_message(const char *before, const char *text)
{
	fprintf(stderr, "%sinsulactl: %s\n", before, clean(text));
}

static void print_vm(json_object *v)
{
	char created[24], mem[24], end[64] = "";
	const char *reason = j_get_str(v, "reason", NULL);

	age(j_get_int(v, "created_ms", 0), created);
	snprintf(mem, sizeof(mem), "%lldM", (long long)(j_get_int(v, "mem", 0) >> 20));
	if (reason)
		snprintf(end, sizeof(end), "%.40s, status %d", clean(reason),
			 (int)j_get_int(v, "status", 0));
	printf("%-16s  %-20s  %-8s  %4d  %7s  %6s  %s\n", j_get_str(v, "id", ""),
	       j_get_str(v, "name", ""), j_get_str(v, "state", ""), (int)j_get_int(v, "cpus", 0),
	       mem, created, end);
}

void print_vms(json_object *list)
{
	printf("%-16s  %-20s  %-8s  %4s  %7s  %6s  %s\n", "ID", "NAME", "STATE", "CPUS", "MEMORY",
	       "AGE", "END");
	for (size_t i = 0; i < json_object_array_length(list); i++)
		print_vm(json_object_array_get_idx(list, i));
}

void print_pools(json_object *list)
{
	printf("%-16s  %-20s  %8s  %8s  %7s  %s\n", "ID", "NAME", "STANDING", "STARTING", "MEMORY",
	       "WHY");
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *p = json_object_array_get_idx(list, i);
		char standing[48], mem[24];

		snprintf(standing, sizeof(standing), "%d/%d", (int)j_get_int(p, "standing", 0),
			 (int)j_get_int(p, "count", 0));
		snprintf(mem, sizeof(mem), "%lldM", (long long)(j_get_int(p, "mem", 0) >> 20));
		printf("%-16s  %-20s  %8s  %8d  %7s  %s\n", j_get_str(p, "id", ""),
		       j_get_str(p, "name", ""), standing, (int)j_get_int(p, "starting", 0), mem,
		       clean(j_get_str(p, "why", "")));
	}
}

void print_devices(json_object *answer)
{
	json_object *list = j_get(answer, "devices");

	printf("%-16s  %-8s  %-8s  %4s  %-10s  %8s\n", "DEVICE", "KIND", "PLACE", "SLOT", "STATE",
	       "RESTARTS");
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		json_object *d = json_object_array_get_idx(list, i);
		char slot[24] = "-";

		if (j_get(d, "slot"))
			snprintf(slot, sizeof(slot), "%d", (int)j_get_int(d, "slot", 0));
		printf("%-16s  ", clean(j_get_str(d, "device", "")));
		printf("%-8s  ", clean(j_get_str(d, "kind", "")));
		printf("%-8s  %4s  ", clean(j_get_str(d, "place", "")), slot);
		printf("%-10s  %8d", clean(j_get_str(d, "state", "")),
		       (int)j_get_int(d, "restarts", 0));
		printf("%s%s\n", j_get(d, "tty") ? "  " : "", clean(j_get_str(d, "tty", "")));
	}
	printf("%d of %d slots free\n", (int)j_get_int(answer, "free", 0),
	       (int)j_get_int(answer, "slots", 0));
}

/* ---- stats ---- */

/* "12.3M"; "-": there is no such member. */
static const char *size_of(json_object *o, const char *key, char out[16])
{
	static const char units[] = "BKMGTP";
	double n = (double)j_get_int(o, key, 0);
	size_t u = 0;

	if (!j_get(o, key))
		return "-";
	while (n >= 1000 && units[u + 1]) {
		n /= 1024;
		u++;
	}
	snprintf(out, 16, u && n < 100 ? "%.1f%c" : "%.0f%c", n, units[u]);
	return out;
}

static const char *two_sizes(json_object *o, const char *a, const char *b, char out[40])
{
	char one[16], two[16];

	snprintf(out, 40, "%s / %s", size_of(o, a, one), size_of(o, b, two));
	return out;
}

static void print_usage_of(json_object *v)
{
	char cpu[16] = "-", pids[24] = "-", mem[40], net[40], disk[40];

	if (j_get(v, "cpu_percent"))
		snprintf(cpu, sizeof(cpu), "%.1f%%",
			 json_object_get_double(j_get(v, "cpu_percent")));
	if (j_get(v, "pids"))
		snprintf(pids, sizeof(pids), "%lld", (long long)j_get_int(v, "pids", 0));
	printf("%-16s  %-20s  %7s  %-15s  %-15s  %-15s  %5s\n", j_get_str(v, "id", ""),
	       j_get_str(v, "name", ""), cpu, two_sizes(v, "mem_bytes", "mem_max", mem),
	       two_sizes(v, "net_rx_bytes", "net_tx_bytes", net),
	       two_sizes(v, "disk_read_bytes", "disk_written_bytes", disk), pids);
}

void print_stats(json_object *list)
{
	printf("%-16s  %-20s  %7s  %-15s  %-15s  %-15s  %5s\n", "ID", "NAME", "CPU",
	       "MEMORY / LIMIT", "NET IN / OUT", "DISK R / W", "PIDS");
	for (size_t i = 0; i < json_object_array_length(list); i++)
		print_usage_of(json_object_array_get_idx(list, i));
}

/* ---- members ---- */

void print_pretty(json_object *o)
{
	const char *text = json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
	/* Line by line: err_clean() would take the line ends as well. */
	for (const char *end; *text; text = end + (*end == '\n')) {
		char *line;

		end = text + strcspn(text, "\n");
		line = malloc((size_t)(end - text) + 1);
		if (!line)
			panic("out of memory");
		memcpy(line, text, (size_t)(end - text));
		line[end - text] = 0;
		puts(isatty(STDOUT_FILENO) ? clean(line) : line);
		free(line);
	}
}

bool print_ask(const char *question)
{
	char line[16] = "";

	fprintf(stderr, "%s [y/N] ", question);
	fflush(stderr);
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

#define PATH_TEXT 160

/* A name as it is, a text without its quotes, a list of those in one line. */
static void print_scalar(json_object *v)
{
	if (!json_object_is_type(v, json_type_array)) {
		fputs(clean(json_object_is_type(v, json_type_string) ? json_object_get_string(v)
								     : j_text(v)),
		      stdout);
		return;
	}
	for (size_t i = 0; i < json_object_array_length(v); i++) {
		if (i)
			putchar(' ');
		print_scalar(json_object_array_get_idx(v, i));
	}
}

/* Has it objects in it, which have lines of their own? */
static bool is_deep(json_object *v)
{
	if (!json_object_is_type(v, json_type_array))
		return json_object_is_type(v, json_type_object);
	return json_object_array_length(v) && is_deep(json_object_array_get_idx(v, 0));
}

/* A line for each member: its path, "config.mem", "devices[0].name", and its value. Or, with
 * `width`, how wide the widest path is. Bounded by the depth that conn_next() takes. */
static void walk(json_object *v, const char *path, size_t *width, bool print)
{
	char at[PATH_TEXT];

	if (!is_deep(v)) {
		if (!print) {
			*width = strlen(path) > *width ? strlen(path) : *width;
			return;
		}
		printf("%-*s  ", (int)*width, clean(path));
		print_scalar(v);
		putchar('\n');
		return;
	}
	if (json_object_is_type(v, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(v); i++) {
			snprintf(at, sizeof(at), "%.130s[%zu]", path, i);
			walk(json_object_array_get_idx(v, i), at, width, print);
		}
		return;
	}
	json_object_object_foreach(v, key, member)
	{
		snprintf(at, sizeof(at), "%.100s%s%.50s", path, *path ? "." : "", key);
		walk(member, at, width, print);
	}
}

void print_members(json_object *o)
{
	size_t width = 0;

	walk(o, "", &width, false);
	walk(o, "", &width, true);
}

void print_event(json_object *p)
{
	time_t t = (time_t)(j_get_int(p, "time_ms", 0) / 1000);
	char when[16] = "";
	struct tm *tm = localtime(&t); /* one thread */

	if (tm)
		strftime(when, sizeof(when), "%H:%M:%S", tm);
	printf("%s  %-16s  %-20s  %-16s  %s\n", when, j_get_str(p, "id", ""),
	       j_get_str(p, "name", ""), j_get_str(p, "event", ""),
	       j_get(p, "data") ? clean(j_text(j_get(p, "data"))) : "");
	fflush(stdout);
}
