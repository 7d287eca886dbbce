/* Preloaded into nodes by `cargo xtask bench days`, on the day when a follower's disk is slow: every fsync and fdatasync of the
 * process takes longer by as many milliseconds as the file that HOLDFAST_SLOW_SYNCS names says at the moment. Without such a
 * file, or with 0 in it, the calls are as they always are, but for the look into it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void wait_as_told(void) {
    const char *path = getenv("HOLDFAST_SLOW_SYNCS");
    char text[16];
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    ssize_t len = read(file, text, sizeof text - 1);
    close(file);
    if (len <= 0) return;
    text[len] = 0;
    long ms = atol(text);
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    if (ms > 0) nanosleep(&wait, NULL);
}

#define SYNC(name) \
    int name(int fd) { \
        static int (*real)(int); \
        if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        wait_as_told(); \
        return real(fd); \
    }

SYNC(fsync)
SYNC(fdatasync)
