/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-console: a console with an output and perhaps an input, in a jail of its own: a 16550 on
 * port-IO, or virtio-console. The tag of the start message says which. Its stages are in program.h.
 */
#include <errno.h>

#include "console.h"
#include "devices/program.h"
#include "vcon.h"

/* With so many kicks. */
static int check_both(const void *start, const struct start_fds *f, unsigned kicks, struct err *e)
{
	const struct msg_start_uart *m = start;
	int rc;

	if (m->flags & ~(uint32_t)(UART_HAS_INPUT | UART_ESCAPE | UART_STREAM | UART_RESTORED))
		return err_set(e, -EINVAL, "unknown flags %#x", m->flags);
	rc = start_expect(f, START_KICK, kicks, e);
	return rc ? rc : start_expect(f, START_OWN, m->flags & UART_HAS_INPUT ? 2 : 1, e);
}

/* ---- 16550 ---- */

static int uart_check(const void *start, const struct start_fds *f, struct err *e)
{
	return check_both(start, f, 0, e);
}

static int uart_open(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		     const char **step, struct err *e)
{
	const struct msg_start_uart *m = start;
	int rc;

	*step = "page";
	rc = helper_open(h, f, CONSOLE_TAG, e);
	if (rc)
		return rc;
	*step = "console";
	return console_open(dev, h, f->fd[START_OWN][0],
			    f->n[START_OWN] > 1 ? f->fd[START_OWN][1] : -1, m, e);
}

static void uart_rules(const void *dev, struct rule_list *l)
{
	const struct console *c = dev;

	ends_rules(&c->ends, l);
}

static int uart_attach(void *dev, struct helper *h, struct err *e)
{
	return helper_attach(h, &console_ops, dev, e);
}

/* ---- virtio ---- */

static int vcon_check(const void *start, const struct start_fds *f, struct err *e)
{
	return check_both(start, f, VCON_QUEUES, e);
}

static int vcon_open_device(void *dev, struct helper *h, const void *start,
			    const struct start_fds *f, const char **step, struct err *e)
{
	return vcon_open(dev, h, start, f, step, e);
}

static void vcon_rules(const void *dev, struct rule_list *l)
{
	const struct vcon *v = dev;

	worker_rules(&v->w, l, true);
	ends_rules(&v->ends, l);
}

static int vcon_attach(void *dev, struct helper *h, struct err *e)
{
	struct vcon *v = dev;

	return helper_attach(h, &v->ops, dev, e);
}

int main(void)
{
	static struct console console;
	static struct vcon vcon;
	static const struct helper_program virtio = {
		.tag = VCON_START,
		.memory = true,
		.start_size = sizeof(struct msg_start_uart),
		.dev = &vcon,
		.check = vcon_check,
		.open = vcon_open_device,
		.rules = vcon_rules,
		.attach = vcon_attach,
	};

	helper_main(&(struct helper_program){
		.tag = CONSOLE_START,
		.start_size = sizeof(struct msg_start_uart),
		.dev = &console,
		.check = uart_check,
		.open = uart_open,
		.rules = uart_rules,
		.attach = uart_attach,
		.other = &virtio,
	});
}
