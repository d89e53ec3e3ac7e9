// Counters that JavaScript reads: one double each, in the order of STATS_FIELDS in native.ts.
#pragma once

namespace shoal {

enum class Stat : int {
  kPortFramesRead,
  kPortBytesRead,
  kPortFramesWritten,
  kPortBytesWritten,
  kPortWriteDrops,
  kDatagramsReceived,
  kDatagramBytesReceived,
  kDatagramsSent,
  kDatagramBytesSent,
  kDatagramSendDrops,
  kDatagramReceiveDrops,
  kCount,
};

class Stats {
 public:
  explicit Stats(double* values) : values_(values) {}
  double& at(Stat stat) { return values_[static_cast<int>(stat)]; }

 private:
  double* values_;
};

}  // namespace shoal
