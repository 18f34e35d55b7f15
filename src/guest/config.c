/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: reads /insula/config, which the supervisor put there (image_config_cpio()): records
 * `key=value`, each ended by a NUL, so that a value may hold anything that an argument may.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#define CONFIG "/insula/config"

static void *need(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

/* The whole file with a NUL after it; *len without that. NULL if there is none. */
static char *slurp(const char *path, size_t *len)
{
	struct stat st;
	char *buf;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return NULL;
	if (fd < 0 || fstat(fd, &st) < 0)
		die_errno("%s", path);
	buf = need(calloc(1, (size_t)st.st_size + 1));
	for (*len = 0; *len < (size_t)st.st_size;) {
		ssize_t n = read(fd, buf + *len, (size_t)st.st_size - *len);

		if (n <= 0)
			die_errno("%s", path);
		*len += (size_t)n;
	}
	close(fd);
	return buf;
}

static enum root_mode root_mode(const char *value)
{
	if (strcmp(value, "ro") == 0)
		return ROOT_RO;
	if (strcmp(value, "rw") == 0)
		return ROOT_RW;
	die(CONFIG ": root=%s is neither ro nor rw", value);
}

static unsigned layers(const char *value)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (*end || n < 1 || n > LAYERS_MAX)
		die(CONFIG ": layers=%s is no number up to %d", value, LAYERS_MAX);
	return (unsigned)n;
}

static size_t count_records(const char *buf, size_t len)
{
	size_t n = 0;

	for (const char *p = buf; p < buf + len; p += strlen(p) + 1)
		n++;
	return n;
}

void config_read(struct config *c)
{
	size_t len = 0, argc = 0, envc = 0, shares = 0, netc = 0, fs = 0;
	struct env_who root = {.home = "/root", .user = "root"};
	static char *buf; /* what *c points into */
	size_t records;

	buf = slurp(CONFIG, &len);
	records = buf ? count_records(buf, len) : 0;
	*c = (struct config){.cwd = "/", .hostname = "insula"};
	c->argv = need(calloc(records + 1, sizeof *c->argv));
	c->env = need(calloc(records + 1, sizeof *c->env));
	c->share = need(calloc(records + 1, sizeof *c->share));
	c->fs = need(calloc(records + 1, sizeof *c->fs));
	c->nets = need(calloc(records + 1, sizeof *c->nets));
	for (char *p = buf; p && p < buf + len;) {
		char *next = p + strlen(p) + 1, *value = strchr(p, '=');

		if (!value)
			die(CONFIG ": no value in \"%s\"", p);
		*value++ = '\0';
		if (strcmp(p, "arg") == 0)
			c->argv[argc++] = value;
		else if (strcmp(p, "env") == 0)
			c->env[envc++] = value;
		else if (strcmp(p, "net") == 0)
			c->nets[netc++] = value;
		else if (strcmp(p, "cwd") == 0)
			c->cwd = value;
		else if (strcmp(p, "hostname") == 0)
			c->hostname = value;
		else if (strcmp(p, "root") == 0)
			c->root = root_mode(value);
		else if (strcmp(p, "layers") == 0)
			c->layers = layers(value);
		else if (strcmp(p, "upper") == 0)
			c->upper = strcmp(value, "disk") == 0;
		else if (strcmp(p, "template") == 0)
			c->template = strcmp(value, "yes") == 0;
		else if (strcmp(p, "dir") == 0)
			c->dir = value;
		else if (strcmp(p, "share") == 0)
			c->share[shares++] = value;
		else if (strcmp(p, "fs") == 0)
			c->fs[fs++] = value;
		else if (strcmp(p, "agent") == 0)
			c->agent = strcmp(value, "vsock") == 0    ? AGENT_ALONE
				   : strcmp(value, "beside") == 0 ? AGENT_BESIDE
								  : AGENT_NONE;
		else
			die(CONFIG ": unknown key \"%s\"", p);
		p = next;
	}
	root.hostname = c->hostname;
	c->env = need(env_make(c->env, &root));
}
