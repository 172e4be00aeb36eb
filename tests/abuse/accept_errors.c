/* accept4 with faults: the names in ACCEPT_ERRORS, one a call, and then as it is. Each is said on
   stderr. Preloaded into `billstream serve` by accept.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const struct {
  const char* name;
  int number;
} errors[] = {
    {"EMFILE", EMFILE},     {"ENFILE", ENFILE},           {"ENOBUFS", ENOBUFS},
    {"ENOMEM", ENOMEM},     {"EPERM", EPERM},             {"EPROTO", EPROTO},
    {"ENETDOWN", ENETDOWN}, {"ECONNABORTED", ECONNABORTED}, {"EINTR", EINTR},
    {"ENOPROTOOPT", ENOPROTOOPT}, {"EHOSTDOWN", EHOSTDOWN}, {"ENONET", ENONET},
    {"EHOSTUNREACH", EHOSTUNREACH}, {"ENETUNREACH", ENETUNREACH},
    {"ETIMEDOUT", ETIMEDOUT}, {"ENOSR", ENOSR},
};

int accept4(int fd, struct sockaddr* addr, socklen_t* len, int flags) {
  static const char* next = NULL;
  static int (*real)(int, struct sockaddr*, socklen_t*, int) = NULL;
  if (next == NULL) next = getenv("ACCEPT_ERRORS");
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "accept4");
  if (next == NULL || *next == '\0') return real(fd, addr, len, flags);

  size_t length = strcspn(next, " ");
  for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
    if (strlen(errors[i].name) == length && strncmp(errors[i].name, next, length) == 0) {
      fprintf(stderr, "injected %s\n", errors[i].name);
      next += length;
      next += strspn(next, " ");
      errno = errors[i].number;
      return -1;
    }
  }
  fprintf(stderr, "unknown error in %s\n", next);
  abort();
}
