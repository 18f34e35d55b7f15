/* SPDX-License-Identifier: BSD-2-Clause */
/* The journal: a datagram with fields (systemd, "Native Journal Protocol"), where that is what
 * standard error goes to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>

#include "dlog.h"
#include "machine.h"

#define JOURNAL "/run/systemd/journal/socket"

/* Set before the loop runs, and by a reload in the loop's thread. -1: there is none. */
static int journal = -1;

/* $JOURNAL_STREAM names the device and inode of the stream that is connected to it. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
}

void journal_open(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = JOURNAL};

	if (journal >= 0 || !stderr_is_journal())
		return;
	journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (journal >= 0 && connect(journal, (struct sockaddr *)&to, sizeof(to)))
		fd_close(&journal);
}

bool journal_write(int level, const struct machine *m, const char *text)
{
	static const int priorities[] = {3, 4, 6, 7};
	char line[1024];

	if (journal < 0)
		return false;
	snprintf(line, sizeof(line),
		 "MESSAGE=%s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=insulad\n%s%s%s%s%s%s", text,
		 priorities[level], m ? "INSULA_VM=" : "", m ? m->r.id : "", m ? "\n" : "",
		 m ? "INSULA_NAME=" : "", m ? m->r.name : "", m ? "\n" : "");
	(void)send(journal, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
	return true;
}
