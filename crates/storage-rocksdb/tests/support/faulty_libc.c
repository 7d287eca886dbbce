/* Preloaded into child processes by `child.rs`: the C library's calls that change files, made to kill or to fail.
 *
 *   HOLDFAST_FAULT        "CALLS FILES N ACTION", absent for no fault:
 *     CALLS    write (write, pwrite), sync (fsync, fdatasync), name (rename, link, unlink) or any
 *     FILES    a glob that the file's path must match, '*' matches '/' too; of two names, either
 *     N        which of these calls, from 1
 *     ACTION   kill           SIGKILL instead of the call
 *              kill-after     SIGKILL when the call has been made
 *              tear           SIGKILL when half of the bytes are written, or when the call has been made
 *              late           SIGKILL instead of the call, but only after a tenth of a second: the other threads go on
 *                             meanwhile, as beside a slow disk
 *              EIO, ENOSPC    this call fails, later ones do not
 *              full           half of the bytes are written, every later call of the kind fails with ENOSPC
 *   HOLDFAST_FAULT_TRACE  a file; after each sync that returned a line "INODE POSITION SIZE PATH" is appended: what is
 *                         durable from then on.
 *   HOLDFAST_FAULT_UNCUT  a glob; these files lose no bytes at their end: as if a power failure had taken it back, since nobody syncs it.
 *   HOLDFAST_FAULT_HIT    a file; the call that N chose is noted there as "CALL PATH".
 *
 * RocksDB's info log (`LOG`) does not count: nothing depends on it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum verdict { GO_ON, KILL_AFTER, TEAR, FAIL };

static char calls[16], files[PATH_MAX], action[16];
static long chosen;
static const char *uncut;
static atomic_long counted;
static int trace = -1, hit = -1;

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

__attribute__((constructor)) static void set_up(void) {
    const char *fault = getenv("HOLDFAST_FAULT"), *path = getenv("HOLDFAST_FAULT_TRACE"), *hits = getenv("HOLDFAST_FAULT_HIT");
    if (fault && sscanf(fault, "%15s %4095s %ld %15s", calls, files, &chosen, action) != 4) {
        fprintf(stderr, "HOLDFAST_FAULT is not understood: %s\n", fault);
        _exit(2);
    }
    uncut = getenv("HOLDFAST_FAULT_UNCUT");
    if (path) trace = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (hits) hit = open(hits, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    path[len > 0 ? len : 0] = 0;
    return len > 0;
}

static void note(int file, const char *line, int len) {
    if (file >= 0 && syscall(SYS_write, file, line, len) != len) die();
}

static void note_hit(const char *call, const char *path) {
    char line[PATH_MAX + 80];
    note(hit, line, snprintf(line, sizeof line, "%s %s\n", call, path));
}

/* What becomes of a call; with FAIL, errno is set. */
static enum verdict judge(const char *call, const char *path) {
    size_t len = strlen(path);
    if (!chosen || (strcmp(calls, "any") && strcmp(calls, call)) || fnmatch(files, path, 0)) return GO_ON;
    if (len > 4 && !strcmp(path + len - 4, "/LOG")) return GO_ON;
    long number = atomic_fetch_add(&counted, 1) + 1;
    if (!strcmp(action, "full") && number > chosen) {
        errno = ENOSPC;
        return FAIL;
    }
    if (number != chosen) return GO_ON;
    note_hit(call, path);
    if (!strcmp(action, "late")) usleep(100 * 1000);
    if (!strcmp(action, "kill") || !strcmp(action, "late")) die();
    if (!strcmp(action, "kill-after")) return KILL_AFTER;
    if (!strcmp(action, "tear") || !strcmp(action, "full")) return TEAR;
    errno = !strcmp(action, "ENOSPC") ? ENOSPC : EIO;
    return FAIL;
}

#define REAL(name) \
    static typeof(&name) real; \
    if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)

#define WRITE(name, parameters, make, count) \
    ssize_t name parameters { \
        REAL(name); \
        char path[PATH_MAX]; \
        enum verdict verdict = path_of(fd, path) ? judge("write", path) : GO_ON; \
        if (verdict == FAIL) return -1; \
        if (verdict == TEAR) count = (count + 1) / 2; \
        ssize_t done = real make; \
        if (verdict == KILL_AFTER || (verdict == TEAR && !strcmp(action, "tear"))) die(); \
        return done; \
    }

WRITE(write, (int fd, const void *data, size_t count), (fd, data, count), count)
WRITE(pwrite, (int fd, const void *data, size_t count, off_t at), (fd, data, count, at), count)
WRITE(pwrite64, (int fd, const void *data, size_t count, off64_t at), (fd, data, count, at), count)

static void note_durable(const struct stat *before, const char *path, off_t position) {
    char line[PATH_MAX + 80];
    note(trace, line, snprintf(line, sizeof line, "%lu %ld %ld %s\n", (unsigned long)before->st_ino, (long)position,
                               (long)before->st_size, path));
}

/* What a sync covers is taken down before it begins: more may be written while it runs. */
#define SYNC(name) \
    int name(int fd) { \
        REAL(name); \
        char path[PATH_MAX]; \
        struct stat before; \
        if (!path_of(fd, path) || fstat(fd, &before)) return real(fd); \
        off_t position = lseek(fd, 0, SEEK_CUR); \
        enum verdict verdict = judge("sync", path); \
        if (verdict == FAIL) return -1; \
        int result = real(fd); \
        if (result == 0 && S_ISREG(before.st_mode)) note_durable(&before, path, position); \
        if (verdict == KILL_AFTER || verdict == TEAR) die(); \
        return result; \
    }

SYNC(fsync)
SYNC(fdatasync)

static enum verdict judge_names(const char *one, const char *other) {
    return fnmatch(files, one, 0) == 0 ? judge("name", one) : judge("name", other);
}

#define NAME(name, parameters, make, one, other) \
    int name parameters { \
        REAL(name); \
        enum verdict verdict = judge_names(one, other); \
        if (verdict == FAIL) return -1; \
        int result = real make; \
        if (verdict == KILL_AFTER || verdict == TEAR) die(); \
        return result; \
    }

NAME(rename, (const char *from, const char *to), (from, to), from, to)
NAME(link, (const char *from, const char *to), (from, to), from, to)
NAME(unlink, (const char *path), (path), path, path)

static int stays(int fd) {
    char path[PATH_MAX];
    return uncut && path_of(fd, path) && fnmatch(uncut, path, 0) == 0;
}

#define TRUNCATE(name, type) \
    int name(int fd, type len) { \
        REAL(name); \
        struct stat before; \
        return stays(fd) && fstat(fd, &before) == 0 && len < before.st_size ? 0 : real(fd, len); \
    }

TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int fallocate(int fd, int mode, off_t at, off_t len) {
    REAL(fallocate);
    return (mode & FALLOC_FL_PUNCH_HOLE) && stays(fd) ? 0 : real(fd, mode, at, len);
}
