/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks and seeds, through libvirt's storage API only, so that they are made
 * where the hypervisor is.  All stand in one directory pool of this
 * installation's, named after its owner id; what is in it is ours, whatever
 * happened.  The pool is there while it holds something.
 */
#include "actual/libvirt_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static virStoragePoolPtr find_pool(struct place *p)
{
	char name[64];

	snprintf(name, sizeof(name), "xlb-%.40s", p->owner);
	return virStoragePoolLookupByName(p->conn, name);
}

/* Defined, active, its directory made.  NULL: w is filled. */
static virStoragePoolPtr need_pool(struct place *p, struct why *w)
{
	struct buf xml AUTO_BUF = BUF_INIT;
	virStoragePoolPtr pool = find_pool(p);

	if (!pool) {
		pool_xml(&xml, p->owner);
		pool = virStoragePoolDefineXML(p->conn, buf_str(&xml), 0);
	}
	if (!pool) {
		why_libvirt(w, "storage pool");
		return NULL;
	}
	if (virStoragePoolIsActive(pool) == 1) {
		(void)virStoragePoolRefresh(pool, 0);
		return pool;
	}
	(void)virStoragePoolBuild(pool, 0); /* fails when it is there */
	if (virStoragePoolCreate(pool, 0)) {
		why_libvirt(w, "storage pool");
		virStoragePoolFree(pool);
		return NULL;
	}
	return pool;
}

/* An active pool if there is one, read anew; else NULL. */
static virStoragePoolPtr existing_pool(struct place *p)
{
	virStoragePoolPtr pool = find_pool(p);

	if (pool && virStoragePoolIsActive(pool) != 1 &&
	    virStoragePoolCreate(pool, 0)) {
		/* Defined, but its directory is gone: nothing is in it. */
		(void)virStoragePoolUndefine(pool);
		virStoragePoolFree(pool);
		return NULL;
	}
	if (pool)
		(void)virStoragePoolRefresh(pool, 0);
	return pool;
}

/* With its last volume the pool and its directory go. */
static void drop_if_empty(virStoragePoolPtr pool)
{
	if (virStoragePoolNumOfVolumes(pool) != 0)
		return;
	if (virStoragePoolDestroy(pool))
		return;
	(void)virStoragePoolDelete(pool, 0);
	(void)virStoragePoolUndefine(pool);
}

static int delete_volume(virStoragePoolPtr pool, const char *name,
			 struct why *w)
{
	virStorageVolPtr vol = virStorageVolLookupByName(pool, name);
	int err = 0;

	if (!vol)
		return 0;
	if (virStorageVolDelete(vol, 0))
		err = why_libvirt(w, name);
	virStorageVolFree(vol);
	return err;
}

/* In place of what may be there under that name.  NULL: w is filled. */
static virStorageVolPtr make_volume(virStoragePoolPtr pool, const char *name,
				    const struct buf *xml, struct why *w)
{
	virStorageVolPtr vol;

	if (delete_volume(pool, name, w))
		return NULL;
	vol = virStorageVolCreateXML(pool, buf_str(xml), 0);
	if (!vol)
		why_libvirt(w, name);
	return vol;
}

static int take_path(virStorageVolPtr vol, char **ret_path, struct why *w)
{
	char *path = virStorageVolGetPath(vol);

	if (!path)
		return why_libvirt(w, "path of a volume");
	*ret_path = path;
	return 0;
}

/*
 * Never left to be guessed from what a guest may have written: a guest of
 * a raw image could otherwise name any file of the host as its backing file.
 */
static const char *image_format(const char *path)
{
	static const char magic[4] = { 'Q', 'F', 'I', (char)0xfb };
	const char *dot = strrchr(path, '.');
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char head[4] = "";
	ssize_t n = -1;

	if (fd >= 0) {
		n = read(fd, head, sizeof(head));
		close(fd);
	}
	if (n == (ssize_t)sizeof(head))
		return memcmp(head, magic, sizeof(magic)) ? "raw" : "qcow2";
	/* Not readable here: the image is on another machine. */
	return dot && !strcmp(dot, ".qcow2") ? "qcow2" : "raw";
}

int storage_make_disk(struct place *p, const struct vm_order *o,
		      char **ret_path, struct why *w)
{
	struct buf xml AUTO_BUF = BUF_INIT;
	const char *image = o->template->image;
	char vm[64], name[96];
	virStoragePoolPtr pool;
	virStorageVolPtr vol;
	int err = -EIO;

	vm_name(o->service, o->index, vm);
	snprintf(name, sizeof(name), "%s" DISK_SUFFIX, vm);
	volume_xml(&xml, name, 0, image, image_format(image));
	pool = need_pool(p, w);
	if (!pool)
		return -EIO;
	vol = make_volume(pool, name, &xml, w);
	if (vol) {
		err = take_path(vol, ret_path, w);
		virStorageVolFree(vol);
	}
	virStoragePoolFree(pool);
	return err;
}

static int upload(struct place *p, virStorageVolPtr vol, const struct buf *b,
		  struct why *w)
{
	virStreamPtr stream = virStreamNew(p->conn, 0);
	size_t done = 0;
	int n = 0;

	if (!stream)
		return why_libvirt(w, "upload");
	if (virStorageVolUpload(vol, stream, 0, b->len, 0))
		goto fail;
	while (done < b->len && n >= 0) {
		n = virStreamSend(stream, b->data + done, b->len - done);
		done += n > 0 ? (size_t)n : 0;
	}
	if (n < 0) {
		virStreamAbort(stream);
		goto fail;
	}
	if (virStreamFinish(stream))
		goto fail;
	virStreamFree(stream);
	return 0;
fail:
	why_libvirt(w, "upload of the cloud-init seed");
	virStreamFree(stream);
	return -EIO;
}

int storage_make_seed(struct place *p, const struct vm_order *o,
		      char **ret_path, struct why *w)
{
	struct buf xml AUTO_BUF = BUF_INIT, iso AUTO_BUF = BUF_INIT;
	char vm[64], name[96];
	virStoragePoolPtr pool;
	virStorageVolPtr vol;
	int err = seed_iso(&iso, o, w);

	if (err)
		return err;
	vm_name(o->service, o->index, vm);
	snprintf(name, sizeof(name), "%s" SEED_SUFFIX, vm);
	volume_xml(&xml, name, iso.len, NULL, NULL);
	pool = need_pool(p, w);
	if (!pool)
		return -EIO;
	vol = make_volume(pool, name, &xml, w);
	err = vol ? upload(p, vol, &iso, w) : -EIO;
	if (!err)
		err = take_path(vol, ret_path, w);
	if (vol)
		virStorageVolFree(vol);
	virStoragePoolFree(pool);
	return err;
}

int storage_remove(struct place *p, const char *vm, struct why *w)
{
	virStoragePoolPtr pool = existing_pool(p);
	char name[96];
	int err, err2;

	if (!pool)
		return 0;
	snprintf(name, sizeof(name), "%.63s" DISK_SUFFIX, vm);
	err = delete_volume(pool, name, w);
	snprintf(name, sizeof(name), "%.63s" SEED_SUFFIX, vm);
	err2 = delete_volume(pool, name, w);
	drop_if_empty(pool);
	virStoragePoolFree(pool);
	return err ? err : err2;
}

static bool belongs_to(const char *volume, const char *vm)
{
	size_t len = strlen(vm);

	return !strncmp(volume, vm, len) &&
	       (!strcmp(volume + len, DISK_SUFFIX) ||
		!strcmp(volume + len, SEED_SUFFIX));
}

/* Is it of one of the list, or of one that was renamed? */
static bool is_kept(const char *volume, const struct vm_list *keep)
{
	for (size_t i = 0; i < keep->count; i++)
		if (belongs_to(volume, keep->items[i].name))
			return true;
	for (size_t i = 0; i < keep->stray_count; i++)
		if (belongs_to(volume, keep->strays[i].vm))
			return true;
	return false;
}

int storage_sweep(struct place *p, const struct vm_list *keep, struct why *w)
{
	virStoragePoolPtr pool;
	virStorageVolPtr *vols = NULL;
	int err = 0, count;

	/* Containers have no disks; those that are there are qemu's. */
	if (p->kind == DOMAIN_LXC)
		return 0;
	pool = existing_pool(p);
	if (!pool)
		return 0;
	count = virStoragePoolListAllVolumes(pool, &vols, 0);
	if (count < 0)
		err = why_libvirt(w, "storage pool");
	for (int i = 0; i < count; i++) {
		const char *name = virStorageVolGetName(vols[i]);

		if (name && !is_kept(name, keep) &&
		    virStorageVolDelete(vols[i], 0))
			err = why_libvirt(w, name);
		virStorageVolFree(vols[i]);
	}
	free(vols);
	drop_if_empty(pool);
	virStoragePoolFree(pool);
	return err;
}
