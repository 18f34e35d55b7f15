/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `template`: make, list and remove templates (template.h).
 *
 *   make   the VM is started as for a container: of the same configuration, but with an empty
 *          directory as its share and TAPs of a network namespace that nobody else is in, and with
 *          `template`, so that its guest does not touch these. When its agent answers it is saved,
 *          and ends.
 *
 * A template is made under another name and gets its own when it is whole. One make at a time: the
 * directory of the templates is locked. What a killed one has left is removed by the next.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "commands.h"
#include "net.h"
#include "spec/config.h"
#include "spec/json.h"
#include "template.h"
#include "vm.h"

#define GUEST_MS 60000 /* beside the guest's boot */
#define SAVE_MS 600000
#define CARDS_MAX 8
#define PART ".part"

struct forming {
	struct oci_conf conf;
	struct vm_size size;
	unsigned cards;
	json_object *key, *nets;      /* owned */
	int top, at;                  /* owned: the directory of all, and that of this one */
	char name[TEMPLATE_NAME_MAX]; /* and until it is whole: */
	char part[TEMPLATE_NAME_MAX + sizeof(PART)];
	struct container c; /* as which its VM is started: only its directory counts */
	struct proc vm;
	struct talk talk;
};

/* ---- removal ---- */

static int part_name(const char *name, char out[TEMPLATE_NAME_MAX + sizeof(PART)], struct err *e)
{
	if (!name[0] || name[0] == '.' || strchr(name, '/') ||
	    strlen(name) >= TEMPLATE_NAME_MAX - 1)
		return err_set(e, -EINVAL, "template \"%.60s\": expected a name of \"template ls\"",
			       name);
	snprintf(out, TEMPLATE_NAME_MAX + sizeof(PART), ".%s" PART, name);
	return 0;
}

static int lock_top(int top, struct err *e)
{
	if (!flock(top, LOCK_EX | LOCK_NB))
		return 0;
	return err_set(e, -EBUSY, "templates: another one is being made or removed");
}

/* ---- make ---- */

static int number(const char *flag, const char *text, unsigned min, unsigned max, unsigned *out,
		  struct err *e)
{
	if (!text || parse_number(text, min, max, out))
		return 0;
	return err_set(e, -EINVAL, "--%s: '%.20s'; expected a number from %u to %u", flag, text,
		       min, max);
}

static int forming_wants(struct forming *m, const struct flags *f, struct err *e)
{
	uint64_t limit = 0;
	unsigned cpus = 0;
	int rc;

	m->cards = 1;
	if (f->memory && (!parse_size(f->memory, &limit) || !limit || limit > INT64_MAX))
		return err_set(e, -EINVAL,
			       "--memory: '%.40s'; expected a size such as 512M, the limit of the "
			       "containers",
			       f->memory);
	rc = number("cpus", f->cpus, 1, m->conf.cpus_max, &cpus, e);
	if (!rc)
		rc = number("cards", f->cards, 0, CARDS_MAX, &m->cards, e);
	if (!rc)
		rc = conf_size_of(&m->conf, (int64_t)limit, cpus, &m->size, e);
	if (!rc)
		rc = template_key(&m->conf, &m->size, m->cards, &m->key, e);
	if (rc)
		return rc;
	template_name(&m->size, m->cards, m->name);
	return part_name(m->name, m->part, e);
}

static int make_places(struct forming *m, struct err *e)
{
	static const char *const dirs[] = {"share", "vm"};
	int rc;

	m->top = template_top(&m->conf, true, e);
	if (m->top < 0)
		return m->top;
	rc = lock_top(m->top, e);
	if (rc)
		return rc;
	tree_remove(m->top, m->part);
	if (mkdirat(m->top, m->part, 0700))
		return err_sys(e, -errno, "template: %s", m->part);
	m->at = openat(m->top, m->part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	m->c.at = m->at; /* borrowed */
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		if (m->at < 0 || mkdirat(m->at, dirs[i], 0700))
			return err_sys(e, -errno, "template: %s", m->part);
	}
	if (snprintf(m->c.dir, sizeof(m->c.dir), "%s/%s", m->conf.templates, m->part) >=
	    (int)sizeof(m->c.dir) - 64)
		return err_set(e, -ENAMETOOLONG, "templates: too long");
	return 0;
}

/* This process stays in it, and it goes with the VM. */
static int leave_network(unsigned cards, json_object **nets, struct err *e)
{
	if (unshare(CLONE_NEWNET))
		return err_sys(e, -errno, "template: a network namespace");
	return net_taps(cards, nets, e);
}

static int boot(struct forming *m, int vmdir, struct err *e)
{
	static const char *const argv[] = {"/bin/true", NULL};
	json_object *config = vm_config(&m->c, &m->conf, &m->size, json_object_get(m->nets), NULL);
	int rc;

	j_bool(config, "template", true);
	rc = vm_spawn(vmdir, &m->conf, config, &m->vm, e);
	json_object_put(config);
	if (!rc)
		rc = vm_await(vmdir, &m->talk, VM_START_MS, talk_ignore, NULL, e);
	/* Its agent answers: all before that has been done. */
	if (!rc)
		rc = talk_program(vmdir, argv, m->conf.boot_timeout,
				  GUEST_MS + (int)m->conf.boot_timeout * 1000, NULL, e);
	return rc;
}

static int save(struct forming *m, struct err *e)
{
	json_object *params = json_object_new_object();
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/" TEMPLATE_SNAPSHOT, m->c.dir);
	j_str(params, "path", path);
	j_bool(params, "keep_running", false);
	return talk_call(&m->talk, "snapshot", params, NULL, 0, SAVE_MS, NULL, e);
}

static int run_vm(struct forming *m, struct err *e)
{
	int vmdir = vm_directory(&m->c, e), rc = vmdir < 0 ? vmdir : boot(m, vmdir, e);

	if (!rc)
		rc = save(m, e);
	vm_end_now(&m->talk, &m->vm, 0);
	vm_talk_close(&m->talk);
	fd_close(&vmdir);
	return rc;
}

static int write_key(struct forming *m, struct err *e)
{
	const char *text = json_object_to_json_string_ext(m->key, JSON_C_TO_STRING_PRETTY);
	int fd = openat(m->at, TEMPLATE_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600),
	    rc = 0;

	if (fd < 0 || write_full(fd, text, strlen(text)) || fsync(fd) || fsync(m->at))
		rc = err_sys(e, -errno, "template: " TEMPLATE_FILE);
	fd_close(&fd);
	return rc;
}

/* In the place of one that is there. */
static int keep(struct forming *m, struct err *e)
{
	int rc;

	tree_remove(m->at, "vm");
	tree_remove(m->at, "share");
	rc = write_key(m, e);
	if (rc)
		return rc;
	if (renameat2(m->top, m->part, m->top, m->name, RENAME_EXCHANGE) &&
	    renameat(m->top, m->part, m->top, m->name))
		return err_sys(e, -errno, "template: %s", m->name);
	return fsync(m->top) ? err_sys(e, -errno, "template: %s", m->name) : 0;
}

static int template_make(struct forming *m, const struct flags *f, struct err *e)
{
	int rc = forming_wants(m, f, e);

	if (!rc)
		rc = make_places(m, e);
	if (!rc)
		rc = leave_network(m->cards, &m->nets, e);
	if (!rc)
		rc = run_vm(m, e);
	if (!rc)
		rc = keep(m, e);
	/* What is there under that name now is a failed one, or the one before. */
	if (m->at >= 0)
		tree_remove(m->top, m->part);
	if (!rc)
		puts(m->name);
	return rc;
}

/* ---- rm ---- */

static int template_remove(struct forming *m, const char *name, struct err *e)
{
	char part[TEMPLATE_NAME_MAX + sizeof(PART)];
	int rc = part_name(name, part, e);

	if (!rc)
		rc = m->top = template_top(&m->conf, false, e);
	if (rc >= 0)
		rc = lock_top(m->top, e);
	if (rc)
		return rc;
	tree_remove(m->top, part);
	if (renameat(m->top, name, m->top, part))
		return err_sys(e, -errno, "template \"%.60s\"", name);
	tree_remove(m->top, part);
	return 0;
}

/* ---- ls ---- */

#define LINE 256

/* `insula-run -n`: would a VM go on from it? */
static _Noreturn void ask_child(const char *program, const char *dir, unsigned cards, int to)
{
	char restore[PATH_MAX + 16], share[PATH_MAX + 64], taps[CARDS_MAX][16];
	const char *argv[8 + 2 * CARDS_MAX] = {"insula-run", "-n",      "--restore",
					       restore,      "--share", share};
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char home[] = "HOME=/root"; /* as of the VMs: the seal's key is found by it */
	char *env[] = {path, home, NULL};

	snprintf(restore, sizeof(restore), "%s/" TEMPLATE_SNAPSHOT, dir);
	snprintf(share, sizeof(share), "%s:" CT_SHARE, dir);
	for (unsigned i = 0; i < cards && i < CARDS_MAX; i++) {
		snprintf(taps[i], sizeof(taps[i]), "tap=ins%u", i);
		argv[6 + 2 * i] = "--net";
		argv[7 + 2 * i] = taps[i];
	}
	if (dup2(to, 1) >= 0 && dup2(to, 2) >= 0)
		execve(program, (char *const *)(uintptr_t)argv, env);
	_exit(127);
}

/* True: it would. `line`: what it says, if not. */
static bool ask(const char *program, const char *dir, unsigned cards, char line[LINE])
{
	int from[2], status = -1;
	size_t n = 0;
	ssize_t got = 1;
	pid_t pid;

	snprintf(line, LINE, "insula-run cannot be asked");
	if (pipe2(from, O_CLOEXEC))
		return false;
	pid = fork();
	if (pid == 0)
		ask_child(program, dir, cards, from[1]);
	close(from[1]);
	while (pid > 0 && n < LINE - 1 && (got = read(from[0], line + n, LINE - 1 - n)) > 0)
		n += (size_t)got;
	close(from[0]);
	line[n] = 0;
	line[strcspn(line, "\n")] = 0;
	err_clean(line);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && !WEXITSTATUS(status);
}

static void show(struct forming *m, const char *name, const char *program)
{
	json_object *key = NULL;
	char dir[PATH_MAX], line[LINE] = "usable", mem[24];
	unsigned cards;
	struct err e;

	if (template_check(m->top, name, &key, &e)) {
		printf("%-24s %8s %5s %5s  %s\n", name, "-", "-", "-", e.text);
		return;
	}
	cards = (unsigned)j_get_int(key, "cards", 0);
	snprintf(dir, sizeof(dir), "%.3000s/%s", m->conf.templates, name);
	if (strcmp(j_get_str(key, "insula", ""), INSULA_VERSION) != 0)
		snprintf(line, sizeof(line), "made by Insula %s", j_get_str(key, "insula", ""));
	else if (template_way(m->conf.templates, &e))
		snprintf(line, sizeof(line), "%s", e.text);
	else if (cards && !m->nets && net_taps(CARDS_MAX, &m->nets, &e))
		snprintf(line, sizeof(line), "%s", e.text);
	else if (ask(program, dir, cards, line))
		snprintf(line, sizeof(line), "usable");
	printf("%-24s %8s %5lld %5u  %s\n", name,
	       size_text((uint64_t)j_get_int(key, "memory", 0), mem),
	       (long long)j_get_int(key, "cpus", 0), cards, line);
	json_object_put(key);
}

static int template_list(struct forming *m, struct err *e)
{
	char program[PATH_MAX];
	struct dirent **names;
	char path[64];
	int n;

	m->top = template_top(&m->conf, false, e);
	if (m->top == -ENOENT) {
		m->top = -1;
		return 0;
	}
	if (m->top < 0)
		return m->top;
	if (unshare(CLONE_NEWNET))
		return err_sys(e, -errno, "template: a network namespace");
	vm_program(&m->conf, program);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", m->top);
	n = scandir(path, &names, NULL, versionsort);
	if (n < 0)
		return err_sys(e, -errno, "templates: %.150s", m->conf.templates);
	printf("%-24s %8s %5s %5s  %s\n", "NAME", "MEMORY", "CPUS", "CARDS", "STATE");
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.')
			show(m, names[i]->d_name, program);
		free(names[i]);
	}
	free(names);
	return 0;
}

/* ---- the command ---- */

static int check_verb(const struct flags *f, struct err *e)
{
	bool remove = !strcmp(f->id, "rm");

	if (!remove && strcmp(f->id, "make") != 0 && strcmp(f->id, "ls") != 0)
		return err_set(e, -EINVAL, "template %.40s: expected make, ls or rm", f->id);
	if (f->nargs != (remove ? 1 : 0))
		return err_set(e, -EINVAL, "template %s: %u more arguments; expected %s", f->id,
			       f->nargs, remove ? "rm NAME" : "none");
	return 0;
}

int template_command(const struct flags *f, struct err *e)
{
	static struct forming m; /* large */
	int rc = check_verb(f, e);

	m = (struct forming){.top = -1, .at = -1, .talk.fd = -1, .c.at = -1, .c.lock = -1};
	if (!rc)
		rc = conf_read(&m.conf, f->config, f->config_named, e);
	if (rc)
		return rc;
	if (!strcmp(f->id, "make"))
		rc = template_make(&m, f, e);
	else
		rc = f->nargs ? template_remove(&m, f->args[0], e) : template_list(&m, e);
	json_object_put(m.key);
	json_object_put(m.nets);
	fd_close(&m.at);
	fd_close(&m.top);
	conf_free(&m.conf);
	return rc;
}
