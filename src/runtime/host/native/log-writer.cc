#include "log-writer.h"

#include <fcntl.h>

namespace shoal {

/// Room for "2026-11-27T01:59:00.123456789Z stdout F " and the end of line.
constexpr size_t FRAME_BYTES_MAX = 64;

bool LogWriter::open(int folder, uint64_t bytes_max, unsigned files_max) {
  folder_ = folder;
  bytes_max_ = bytes_max;
  files_max_ = files_max == 0 ? 1 : files_max;
  next_file();
  return fd_ >= 0;
}

void LogWriter::next_file() {
  char name[32];
  if (fd_ >= 0) close(fd_);
  number_++;
  snprintf(name, sizeof(name), "log.%u", number_);
  fd_ = openat(folder_, name, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  size_ = 0;
  if (number_ <= files_max_) return;
  snprintf(name, sizeof(name), "log.%u", number_ - files_max_);
  unlinkat(folder_, name, 0);
}

void LogWriter::flush() {
  // A disk that is full costs lines, and never stops the task. Records stay whole: what was written of one is undone.
  if (used_ > 0 && fd_ >= 0) {
    if (write_all(fd_, pending_, used_)) size_ += used_;
    else if (ftruncate(fd_, static_cast<off_t>(size_)) != 0) next_file();
  }
  used_ = 0;
}

void LogWriter::line(const char *stream, const char *data, size_t size, bool is_whole) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec != second_) {
    tm parts;
    gmtime_r(&now.tv_sec, &parts);
    strftime(stamp_, sizeof(stamp_), "%Y-%m-%dT%H:%M:%S", &parts);
    second_ = now.tv_sec;
  }
  size_t most = size + FRAME_BYTES_MAX;
  if (used_ + most > sizeof(pending_)) flush();
  if (bytes_max_ > 0 && size_ + used_ > 0 && size_ + used_ + most > bytes_max_) {
    flush();
    next_file();
  }
  used_ += static_cast<size_t>(snprintf(pending_ + used_, FRAME_BYTES_MAX, "%s.%09ldZ %s %c ", stamp_, now.tv_nsec,
                                        stream, is_whole ? 'F' : 'P'));
  memcpy(pending_ + used_, data, size);
  used_ += size;
  pending_[used_++] = '\n';
}

bool OutputStream::pump(LogWriter &log) {
  ssize_t got = read(fd, held + size, sizeof(held) - size);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  if (got <= 0) return false;
  size += static_cast<size_t>(got);
  size_t start = 0;
  while (const void *end = memchr(held + start, '\n', size - start)) {
    size_t length = static_cast<size_t>(static_cast<const char *>(end) - held) - start;
    log.line(name, held + start, length, true);
    start += length + 1;
  }
  if (start == 0 && size == sizeof(held)) {
    log.line(name, held, size, false);
    start = size;
  }
  memmove(held, held + start, size - start);
  size -= start;
  log.flush();
  return true;
}

void OutputStream::finish(LogWriter &log) {
  if (size > 0) log.line(name, held, size, false);
  size = 0;
  log.flush();
}

}  // namespace shoal
