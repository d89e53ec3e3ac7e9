// Small things that all parts of the supervisor of tasks ("shim") share.
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace shoal {

/// What went wrong, as one line; the process that owns it ends soon after.
struct Failure {
  char text[512] = "";
  void set(const char *format, ...) __attribute__((format(printf, 2, 3))) {
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
  }
};

inline bool write_all(int fd, const void *data, size_t size) {
  const char *at = static_cast<const char *>(data);
  while (size > 0) {
    ssize_t done = write(fd, at, size);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    at += done;
    size -= static_cast<size_t>(done);
  }
  return true;
}

inline bool write_text(int fd, const char *text) { return write_all(fd, text, strlen(text)); }

}  // namespace shoal
