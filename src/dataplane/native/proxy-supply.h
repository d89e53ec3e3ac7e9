// Choices made ahead, which threads of the proxy use up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace shoal {

/** Choices that were made ahead for one published port, taken in this order by all threads. */
class Supply {
 public:
  /** @param isLow Set once, when half of what was given is gone. @returns 0: there is none. */
  int32_t take(bool* isLow, int32_t* connectMillis);
  void give(const int32_t* backends, uint32_t count, int32_t connectMillis);
  /** Takes back what nobody took. */
  std::vector<int32_t> withdraw();

 private:
  std::mutex mutex_;
  std::vector<int32_t> backends_;
  size_t next_ = 0;
  size_t lowAt_ = 0;
  int32_t connectMillis_ = 0;
  bool isLow_ = true;
};

}  // namespace shoal
