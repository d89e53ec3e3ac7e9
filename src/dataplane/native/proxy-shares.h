// How much of the room for flows each client has taken.
#pragma once

#include <sys/random.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "proxy-reports.h"
#include "proxy-socket.h"

namespace shoal {

inline uint64_t randomSeed() {
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<uint64_t>(monotonicNanos());
  return seed;
}

/**
 * Counts flows by client: an IPv4 address, or a /64 of IPv6, of which a client may use any address. By hash, in
 * a fixed table: clients that share a place share its part of the room, which is half of all.
 */
class ClientShares {
 public:
  /** @param seed Hard to guess, so that nobody picks addresses that stand in another one's way. */
  ClientShares(uint64_t seed, int flowsMax) : seed_(seed), most_((flowsMax + 1) / 2) {}

  /** Whether this client may have one more, which is then counted. */
  bool take(const Endpoint& client) {
    std::atomic<int32_t>& count = countOf(client);
    if (count.fetch_add(1, std::memory_order_relaxed) < most_) return true;
    count.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }

  /** Whether both count as one client. */
  bool areOne(const Endpoint& a, const Endpoint& b) { return &countOf(a) == &countOf(b); }

  void leave(const Endpoint& client) { countOf(client).fetch_sub(1, std::memory_order_relaxed); }

 private:
  static constexpr size_t kPlaces = 4096;

  std::atomic<int32_t>& countOf(const Endpoint& client) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    uint8_t address[16];
    client.writeAddress(address);
    uint64_t hash = 0;
    memcpy(&hash, address + (memcmp(address, mapped, sizeof mapped) == 0 ? 8 : 0), sizeof hash);
    hash ^= seed_;
    hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93ull;
    hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93ull;
    return counts_[(hash ^ (hash >> 32)) % kPlaces];
  }

  const uint64_t seed_;
  const int32_t most_;
  std::array<std::atomic<int32_t>, kPlaces> counts_{};
};

}  // namespace shoal
