/* A disk that fails, for a process that is started with LD_PRELOAD: calls of one kind on the files of
 * bills.db are EIO for as long as the file that FAILING_DISK names says so. It says "read", "write" or
 * "sync". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t (*real_read)(int, void *, size_t);

static int fails(int fd, const char *kind) {
    const char *path = getenv("FAILING_DISK");
    char says[16] = "", link[64], name[4096] = "";
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return 0;
    if (!real_read) real_read = dlsym(RTLD_NEXT, "read");
    real_read(file, says, sizeof says - 1);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    readlink(link, name, sizeof name - 1);
    return !strcmp(says, kind) && strstr(name, "bills.db");
}

#define FAILING(type, call, kind, parameters, arguments)                                              \
    type call parameters {                                                                            \
        static type(*real) parameters;                                                                \
        if (!real) real = dlsym(RTLD_NEXT, #call);                                                    \
        if (fails(fd, kind)) {                                                                        \
            errno = EIO;                                                                              \
            return -1;                                                                                \
        }                                                                                             \
        return real arguments;                                                                        \
    }

FAILING(int, fsync, "sync", (int fd), (fd))
FAILING(int, fdatasync, "sync", (int fd), (fd))
FAILING(ssize_t, pread, "read", (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
FAILING(ssize_t, pread64, "read", (int fd, void *to, size_t n, off64_t at), (fd, to, n, at))
FAILING(ssize_t, pwrite, "write", (int fd, const void *from, size_t n, off_t at), (fd, from, n, at))
FAILING(ssize_t, pwrite64, "write", (int fd, const void *from, size_t n, off64_t at), (fd, from, n, at))
