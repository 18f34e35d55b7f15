/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings: an input that begins with a letter is a list of flags, one `name value` a line; any
 * other is JSON.
 *
 * Besides not crashing: a refusal is one clean line; what was taken is within the limits that the
 * rest of the supervisor relies on; and a disk written out as a flag's text is read back as the
 * same disk.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec/config.h"
#include "must.h"

static void check_refusal(int rc, const struct err *e)
{
	MUST(rc == -EINVAL && e->code == rc && e->text[0]);
	for (const char *p = e->text; *p; p++)
		MUST((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static char *with_commas(char *to, const char *from)
{
	for (; *from; from++) {
		if (*from == ',')
			*to++ = ',';
		*to++ = *from;
	}
	*to = 0;
	return to;
}

static void check_disk(const struct disk_config *d)
{
	char *text = malloc(2 * strlen(d->path) + 100), *p = text + sprintf(text, "path=");
	struct vm_config again;
	struct err e;

	MUST(d->path && d->path[0] && strlen(d->serial) <= DISK_SERIAL_LEN);
	p = with_commas(p, d->path);
	p += sprintf(p, "%s%s%s", d->ro ? ",ro" : "", d->direct ? ",direct" : "",
		     d->serial[0] ? ",serial=" : "");
	with_commas(p, d->serial);
	config_init(&again);
	MUST(!config_set(&again, "--disk", "disk", text, &e) && again.ndisks == 1);
	MUST(!strcmp(again.disk[0].path, d->path) && !strcmp(again.disk[0].serial, d->serial));
	MUST(again.disk[0].ro == d->ro && again.disk[0].direct == d->direct);
	config_free(&again);
	free(text);
}

static void check_taken(const struct vm_config *c)
{
	const char *const paths[] = {c->kernel, c->initrd, c->rootfs, c->metrics};

	MUST(c->cpus >= 1 && c->cpus <= BOARD_MAX_CPUS && c->ndisks <= CONFIG_MAX_DISKS);
	MUST(c->mem >= BOARD_MIN_MEM && c->mem <= BOARD_MAX_MEM && c->mem % BOARD_PAGE == 0);
	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		MUST(!paths[i] || paths[i][0]);
	MUST(!c->append || !strpbrk(c->append, "\n\r"));
	MUST(c->console != CONSOLE_FILE || (c->console_file && c->console_file[0]));
	for (unsigned i = 0; i < c->ndisks; i++)
		check_disk(&c->disk[i]);
	MUST(c->ncommand <= CONFIG_MAX_ARGS && !c->command == !c->ncommand);
	for (unsigned i = 0; i < c->ncommand; i++)
		MUST(c->command[i]);
	MUST(!c->command || !c->command[c->ncommand]);
}

static int flags(struct vm_config *c, char *text, struct err *e)
{
	char *line, *rest = text;
	int rc = 0;

	while (!rc && (line = strsep(&rest, "\n"))) {
		char *value = strchr(line, ' ');

		if (value)
			*value++ = 0;
		rc = config_set(c, "--flag", line, value ? value : "", e);
	}
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_config c;
	struct err e = {0};
	char *text = malloc(size + 1);
	int rc;

	config_init(&c);
	memcpy(text, data, size);
	text[size] = 0;
	if (size && text[0] >= 'a' && text[0] <= 'z') {
		rc = flags(&c, text, &e);
	} else {
		text = realloc(text,
			       size + !size); /* one byte too many is one that the sanitizer sees */
		rc = config_json(&c, NULL, text, size, &e);
	}
	if (rc)
		check_refusal(rc, &e);
	check_taken(&c);
	rc = config_check(&c, &e);
	if (rc)
		check_refusal(rc, &e);
	config_free(&c);
	free(text);
	return 0;
}
