// Counters that JavaScript reads: one double each, in the order of STATS_FIELDS in native.ts.
#pragma once

#include "seal.h"

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
  kDatagramsSealed,
  kDatagramsOpened,
  kSealDrops,
  /** These four in the order of OpenDrop. */
  kOpenTruncatedDrops,
  kOpenUnknownKeyDrops,
  kOpenBadTagDrops,
  kOpenReplayedDrops,
  kCount,
};

class Stats {
 public:
  explicit Stats(double* values) : values_(values) {}
  double& at(OpenDrop drop) {
    return values_[static_cast<int>(Stat::kOpenTruncatedDrops) + static_cast<int>(drop)];
  }
  double& at(Stat stat) { return values_[static_cast<int>(stat)]; }

 private:
  double* values_;
};

}  // namespace shoal
