/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The newer one of the kernel's two interfaces: a function has a node of its own,
 * /dev/vfio/devices/vfioN, and what it reaches is an address space of iommufd. See vfio.h.
 *
 * An open node takes part in nothing, until it is bound to an iommufd, once and for all; then it is
 * the device. The kernel lets one have it bound; a lock (flock) keeps us from binding one that
 * another VM has open and is about to bind.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "devices/vfio/vfio_uapi.h"
#include "vfio.h"

#define IOMMUFD "/dev/iommu"

bool vfio_node(const char *sys, const char *address, struct vfio_node *n)
{
	char path[PATH_MAX];
	struct dirent *one;
	DIR *d;

	*n = (struct vfio_node){0};
	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/vfio-dev", sys, address);
	d = opendir(path);
	while (d && !n->device[0] && (one = readdir(d))) {
		if (strncmp(one->d_name, "vfio", 4) != 0 ||
		    strlen(one->d_name) >= sizeof(n->path) - sizeof(VFIO_NODES))
			continue;
		snprintf(n->path, sizeof(n->path), VFIO_NODES "%.16s", one->d_name);
		/* A kernel without nodes has the folder, and no number in it. */
		snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/vfio-dev/%s/dev", sys, address,
			 one->d_name);
		vfio_line(path, n->device, sizeof(n->device));
	}
	if (d)
		closedir(d);
	return n->device[0];
}

/* ---- which of the two ---- */

int vfio_check_by(const struct vfio_config *c, struct err *e)
{
	if (c->by != VFIO_BY_NODE || !access(IOMMUFD, F_OK))
		return 0;
	return err_set(e, -EINVAL,
		       "--vfio %s: by=node: there is no " IOMMUFD
		       "; expected a kernel with iommufd "
		       "(modprobe iommufd)",
		       c->address);
}

/* If nobody has said: by the group, which every kernel has that is not built without it
 * (CONFIG_VFIO_GROUP). */
static bool node_alone(void)
{
	return access("/dev/vfio/vfio", F_OK) != 0;
}

/* VFIO_BY_ANY: it is left to us. */
static enum vfio_by way_of(const char *sys, const struct vfio_config *c)
{
	struct vfio_node n;

	if (c->fd < 0)
		return c->by;
	return vfio_node(sys, c->address, &n) && vfio_fd_is(c->fd, n.device) ? VFIO_BY_NODE
									     : VFIO_BY_GROUP;
}

int vfio_way(const char *sys, const struct vfio_config *c, unsigned n, enum vfio_by *by,
	     struct err *e)
{
	const struct vfio_config *says = NULL;

	*by = VFIO_BY_ANY;
	for (unsigned i = 0; i < n; i++) {
		enum vfio_by way = way_of(sys, &c[i]);

		if (way == VFIO_BY_ANY)
			continue;
		if (says && way != *by)
			return err_set(e, -EINVAL,
				       "--vfio %s: it would be used by its %s, and %s by its %s; "
				       "expected the same of all functions of a VM: by=node or "
				       "by=group",
				       c[i].address, way == VFIO_BY_NODE ? "node" : "group",
				       says->address, way == VFIO_BY_NODE ? "group" : "node");
		says = &c[i];
		*by = way;
	}
	return 0;
}

int vfio_choose(struct vfio_back *b, const struct vfio_back *all, struct err *e)
{
	const struct vfio_config *c = b->conf;
	bool has = vfio_node("/sys", c->address, &b->node), by_node;

	if (b->by != VFIO_BY_ANY)
		by_node = b->by == VFIO_BY_NODE;
	else
		by_node = b != all ? all->by_node : has && node_alone();
	if (by_node && !has)
		return err_set(e, -EINVAL,
			       "--vfio %s: the kernel makes no node " VFIO_NODES
			       "vfioN for it; expected one, or by=group",
			       c->address);
	b->by_node = by_node;
	return 0;
}

/* ---- open ---- */

/* Pages are locked by the process that maps them, as by the group, and not by its user, who has
 * other VMs and rings. It takes CAP_SYS_RESOURCE. */
static int count_per_process(const struct vfio_back *b, struct err *e)
{
	struct iofd_option per_process = {.size = sizeof(per_process),
					  .option = IOFD_RLIMIT_MODE,
					  .op = IOFD_OPTION_SET,
					  .value = 1};

	if (!ioctl(*b->container, IOFD_OPTION, &per_process))
		return 0;
	if (errno != EPERM)
		return err_sys(e, -errno, "--vfio %s: the locked memory of " IOMMUFD,
			       b->conf->address);
	log_info("%s: its locked memory is counted with that of all VMs of this user",
		 b->conf->address);
	return 0;
}

static int open_iommufd(struct vfio_back *b, const struct vfio_back *all, struct err *e)
{
	struct iofd_ioas_alloc ioas = {.size = sizeof(ioas)};
	const char *address = b->conf->address;
	int rc;

	if (*b->container >= 0) {
		b->ioas = all->ioas;
		return 0;
	}
	*b->container = open(IOMMUFD, O_RDWR | O_CLOEXEC);
	if (*b->container < 0)
		return err_sys(e, -errno, "--vfio %s: " IOMMUFD, address);
	b->first = true;
	rc = count_per_process(b, e);
	if (rc)
		return rc;
	if (ioctl(*b->container, IOFD_IOAS_ALLOC, &ioas))
		return err_sys(e, -errno, "--vfio %s: an address space of " IOMMUFD, address);
	b->ioas = ioas.ioas;
	return 0;
}

static int taken(const struct vfio_back *b, struct err *e)
{
	char who[VFIO_WHO] = "";

	if (b->conf->fd < 0) /* else whoever has handed it in has it, too */
		vfio_who(b->node.device, who);
	return err_set(e, -EBUSY, "--vfio %s: %s: another VM or program has it%s%s",
		       b->conf->address, b->node.path, who,
		       b->conf->fd >= 0
			       ? ", or a VM before had this descriptor; expected one that was "
				 "opened for this VM alone"
			       : "");
}

/* EPERM of binding is two things: another iommufd has the group, by another function; or the IOMMU
 * does not remap interrupts. A group of which a node is bound cannot be opened (EBUSY), and can
 * be if none is. A kernel without groups tells it by nothing; then somebody whom we see decides. */
static int not_permitted(const struct vfio_back *b, struct err *e)
{
	const char *address = b->conf->address;
	char path[64], who[VFIO_WHO];
	bool busy, known;
	int fd;

	snprintf(path, sizeof(path), "/dev/vfio/%u", b->groupno);
	fd = open(path, O_RDWR | O_CLOEXEC);
	busy = fd < 0 && errno == EBUSY;
	known = fd >= 0 || busy;
	fd_close(&fd);
	vfio_who_is_beside(b, who);
	if (busy || (!known && who[0]))
		return err_set(e, -EBUSY,
			       "--vfio %s: in use: another VM or program has a function of its "
			       "IOMMU group %u%s%s",
			       address, b->groupno, who[0] ? ": " : "", who);
	return err_sys(e, -EPERM, "--vfio %s: %sthe IOMMU%s", address,
		       known ? "" : "another program has its group by a node, or ",
		       VFIO_NO_REMAPPING);
}

static int open_node(struct vfio_back *b, struct err *e)
{
	const char *address = b->conf->address, *path = b->node.path;

	b->device = b->conf->fd >= 0 ? b->conf->fd : open(path, O_RDWR | O_CLOEXEC);
	if (b->device < 0)
		return errno == EBUSY ? taken(b, e)
				      : err_sys(e, -errno, "--vfio %s: %s", address, path);
	if (flock(b->device, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? taken(b, e)
					    : err_sys(e, -errno, "--vfio %s: %s", address, path);
	return 0;
}

/* Binding claims the whole group for this iommufd, with the kernel's own look at who is in it.
 * EBUSY: somebody has the group open. EINVAL: this node is bound, by this descriptor or another. */
static int bind_node(struct vfio_back *b, struct err *e)
{
	struct vfio_node_bind to = {.argsz = sizeof(to), .iommufd = *b->container};
	struct vfio_node_attach at = {.argsz = sizeof(at), .ioas = b->ioas};
	const char *address = b->conf->address;

	if (ioctl(b->device, VFIO_NODE_BIND, &to)) {
		if (errno == EBUSY || errno == EINVAL)
			return taken(b, e);
		return errno == EPERM ? not_permitted(b, e)
				      : err_sys(e, -errno, "--vfio %s: %s cannot be bound", address,
						b->node.path);
	}
	if (ioctl(b->device, VFIO_NODE_ATTACH, &at))
		return err_sys(e, -errno, "--vfio %s: its IOMMU group %u", address, b->groupno);
	return 0;
}

int vfio_open_node(struct vfio_back *b, const struct vfio_back *all, struct err *e)
{
	int rc = open_iommufd(b, all, e);

	if (!rc)
		rc = open_node(b, e);
	return rc ? rc : bind_node(b, e);
}

/* Linux, Documentation/userspace-api/iommufd.rst: attaching links the device to the address space,
 * and an object to which another one is linked cannot be destroyed (EBUSY). The link ends when the
 * kernel has closed the device, which is after everybody has closed and unmapped it and after its
 * reset. A lock of the node does not tell that: a file's locks end before the kernel closes what
 * is behind it. Nor is there another who could have the address space: it is this function's alone
 * (vfio_plug.c). */
bool vfio_node_is_let_go(const struct vfio_back *b)
{
	struct iofd_destroy end = {.size = sizeof(end), .object = b->ioas};

	return !ioctl(*b->container, IOFD_DESTROY, &end) || errno != EBUSY;
}
