// Writes what a task prints, as lines of the form that Kubernetes' container runtimes use:
//
//   2026-11-27T01:59:00.123456789Z stdout F the line
//
// `F` ends a line, `P` is a part of one. Files are `log.1`, `log.2`, …: a full one is followed by the next number,
// and the oldest goes. The numbers only grow, so a reader never mistakes one file for another.
#pragma once

#include <time.h>

#include "common.h"

namespace shoal {

/// Longest part of a line, as in Docker.
constexpr size_t LINE_BYTES_MAX = 16384;

class LogWriter {
 public:
  /// @param folder Descriptor of the task's folder; kept.
  bool open(int folder, uint64_t bytes_max, unsigned files_max);
  void line(const char *stream, const char *data, size_t size, bool is_whole);
  void flush();

 private:
  void next_file();

  int folder_ = -1;
  int fd_ = -1;
  unsigned number_ = 0;
  uint64_t size_ = 0;
  uint64_t bytes_max_ = 0;
  unsigned files_max_ = 1;
  time_t second_ = -1;
  char stamp_[24];
  char pending_[65536];
  size_t used_ = 0;
};

/// One output of the task.
struct OutputStream {
  int fd = -1;
  const char *name = "";
  char held[LINE_BYTES_MAX];
  size_t size = 0;

  /// Reads once and writes the lines that are whole now; `false` at the end.
  bool pump(LogWriter &log);
  /// What has no end of line yet is written as it is.
  void finish(LogWriter &log);
};

}  // namespace shoal
