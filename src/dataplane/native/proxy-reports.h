// What a thread of the proxy tells JavaScript: collected by the thread, taken by the main one.
#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "proxy-flow.h"

namespace shoal {

inline int64_t monotonicNanos() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

/** 4 MiB: a flood of strangers' datagrams may come while JavaScript is busy. */
constexpr size_t kReportsUnread = 65'536;

class ReportBox {
 public:
  /** @param index The thread's, which names its flows together with their slots. */
  explicit ReportBox(int index) : index_(index) {}

  // For the thread itself.
  Report* add(Told what, int32_t listener, int32_t backend, int32_t slot, uint32_t generation);
  /** Somebody waits for an answer to what was added. */
  void urge() { isUrgent_ = true; }
  /** So many that a further one is only worth it where it is answered. */
  bool isFull() const { return reports_.size() + count_.load(std::memory_order_relaxed) >= kReportsUnread; }
  /** @returns Whether JavaScript should be woken. */
  bool publish(int64_t nowNanos);
  /** When `publish` is to be called next; INT64_MAX: not before more is added. */
  int64_t dueNanos() const;

  /** From any thread: copies out what was published. @returns How many. */
  uint32_t take(Report* to, uint32_t most);

 private:
  const int index_;
  std::vector<Report> reports_;
  bool isUrgent_ = false;
  int64_t publishedSinceNanos_ = 0;
  std::mutex mutex_;
  std::vector<Report> published_;
  size_t taken_ = 0;
  std::atomic<uint32_t> count_{0};
};

}  // namespace shoal
