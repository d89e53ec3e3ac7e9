#include "proxy-reports.h"

#include <algorithm>
#include <cstring>

namespace shoal {
namespace {

/** What happened is told at once where somebody waits, and otherwise together, after so long. */
constexpr int64_t kReportNanos = 10'000'000;
/** So many reports are taken at once however young they are. */
constexpr uint32_t kReportsWanted = 2048;
/** A report list that was longer once is not kept. */
constexpr size_t kReportsKept = 8192;

}  // namespace

Report* ReportBox::add(Told what, int32_t listener, int32_t backend, int32_t slot,
                       uint32_t generation) {
  reports_.emplace_back();
  Report* report = &reports_.back();
  memset(static_cast<void*>(report), 0, sizeof *report);
  report->what = what;
  report->listener = listener;
  report->backend = backend;
  report->flow = static_cast<int32_t>(static_cast<uint32_t>(index_) << 26 |
                                      static_cast<uint32_t>(slot));
  report->generation = static_cast<int32_t>(generation);
  return report;
}

bool ReportBox::publish(int64_t nowNanos) {
  if (!reports_.empty()) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (taken_ == published_.size()) publishedSinceNanos_ = nowNanos;
    published_.insert(published_.end(), reports_.begin(), reports_.end());
    count_.store(static_cast<uint32_t>(published_.size() - taken_), std::memory_order_release);
    reports_.clear();
  }
  const uint32_t count = count_.load(std::memory_order_relaxed);
  if (count == 0) return false;
  const bool isDue =
      isUrgent_ || count >= kReportsWanted || nowNanos - publishedSinceNanos_ >= kReportNanos;
  isUrgent_ = false;
  return isDue;
}

int64_t ReportBox::dueNanos() const {
  return count_.load(std::memory_order_relaxed) > 0 ? publishedSinceNanos_ + kReportNanos
                                                    : INT64_MAX;
}

uint32_t ReportBox::take(Report* to, uint32_t most) {
  if (count_.load(std::memory_order_acquire) == 0) return 0;
  std::lock_guard<std::mutex> lock(mutex_);
  const uint32_t count = static_cast<uint32_t>(std::min<size_t>(published_.size() - taken_, most));
  memcpy(to, published_.data() + taken_, count * sizeof(Report));
  taken_ += count;
  if (taken_ == published_.size()) {
    published_.clear();
    taken_ = 0;
    if (published_.capacity() > kReportsKept) published_.shrink_to_fit();
  }
  count_.store(static_cast<uint32_t>(published_.size() - taken_), std::memory_order_release);
  return count;
}

}  // namespace shoal
