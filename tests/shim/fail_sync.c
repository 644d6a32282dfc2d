/*
 * Preloaded into a node: every fsync and fdatasync fails with EIO as soon as the file that
 * ONCEKEY_TEST_FAIL_SYNC names exists.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(void) {
    const char *trigger = getenv("ONCEKEY_TEST_FAIL_SYNC");
    return trigger != NULL && access(trigger, F_OK) == 0;
}

static int sync_or_fail(long call, int file) {
    if (fails()) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, file);
}

int fsync(int file) { return sync_or_fail(SYS_fsync, file); }

int fdatasync(int file) { return sync_or_fail(SYS_fdatasync, file); }
