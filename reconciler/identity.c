/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "base/seam.h"
#include "reconcile.h"

static void hex(const uint8_t *bytes, size_t n, char *ret)
{
	for (size_t i = 0; i < n; i++)
		snprintf(ret + i * 2, 3, "%02x", bytes[i]);
}

static void make_owner(const char *state_dir, char owner[17])
{
	struct sha256_ctx ctx;
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct buf machine = BUF_INIT;
	char *real = realpath(state_dir, NULL);
	const char *dir = real ? real : state_dir;

	buf_read_file(&machine, "/etc/machine-id", 4096);
	sha256_init(&ctx);
	sha256_update(&ctx, machine.len, (const uint8_t *)buf_str(&machine));
	sha256_update(&ctx, strlen(dir), (const uint8_t *)dir);
	sha256_digest(&ctx, sizeof(digest), digest);
	hex(digest, 8, owner);
	buf_release(&machine);
	free(real);
}

/* Kept, so that tables made anew after a reboot hash as the old ones did. */
static uint64_t read_seed(const char *state_dir, bool read_only)
{
	uint64_t seed = 0;
	char *path = mem_printf("%s/seed", state_dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, &seed, sizeof(seed)) != sizeof(seed))
		seed = 0;
	if (fd >= 0)
		close(fd);
	if (!seed && getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = (uint64_t)clock_wall_ms() * 0x9e3779b97f4a7c15ULL;
	if (fd < 0 && !read_only) {
		seam_change("seed_write");
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || write(fd, &seed, sizeof(seed)) != sizeof(seed))
			log_warn("seed", "path=%s result=not_kept", path);
		if (fd >= 0)
			close(fd);
	}
	free(path);
	return seed;
}

/* All balancers with the same file hash alike, whatever the file holds. */
int identity_seed_file(const char *path, uint64_t *ret_seed)
{
	struct sha256_ctx ctx;
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct buf content = BUF_INIT;
	int err = buf_read_file(&content, path, 1 << 20);

	if (!err && !content.len)
		err = -ENODATA;
	if (!err) {
		sha256_init(&ctx);
		sha256_update(&ctx, content.len,
			      (const uint8_t *)buf_str(&content));
		sha256_digest(&ctx, sizeof(digest), digest);
		memcpy(ret_seed, digest, sizeof(*ret_seed));
		*ret_seed = le64toh(*ret_seed);
	}
	buf_release(&content);
	return err;
}

void identity_read(const char *state_dir, bool read_only, char owner[17],
		   uint64_t *ret_seed, char run_id[17])
{
	uint8_t bytes[8] = { 0 };

	make_owner(state_dir, owner);
	*ret_seed = read_seed(state_dir, read_only);
	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		memcpy(bytes, ret_seed, sizeof(bytes));
	hex(bytes, sizeof(bytes), run_id);
}
