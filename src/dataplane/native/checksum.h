// Internet checksums, RFC 1071. Sums are kept in memory order (never byte-swapped), because a
// one's complement sum does not care; `fold` gives what is stored into a header as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shoal {

/** Sum of the 16-bit words at `bytes`, an odd last byte padded with zero; below 2^33. */
uint64_t sumBytes(const uint8_t* bytes, size_t length);

inline uint16_t load16(const uint8_t* at) {
  uint16_t value;
  memcpy(&value, at, 2);
  return value;
}

inline uint32_t load32(const uint8_t* at) {
  uint32_t value;
  memcpy(&value, at, 4);
  return value;
}

inline void store16(uint8_t* at, uint16_t value) { memcpy(at, &value, 2); }
inline void store32(uint8_t* at, uint32_t value) { memcpy(at, &value, 4); }

inline uint16_t load16be(const uint8_t* at) { return __builtin_bswap16(load16(at)); }
inline uint32_t load32be(const uint8_t* at) { return __builtin_bswap32(load32(at)); }
inline void store16be(uint8_t* at, uint16_t value) { store16(at, __builtin_bswap16(value)); }
inline void store32be(uint8_t* at, uint32_t value) { store32(at, __builtin_bswap32(value)); }

/** `value` (host order) as it would be summed from memory. */
inline uint64_t summand16(uint16_t value) { return __builtin_bswap16(value); }

/** Folds a sum to 16 bits; not complemented. */
inline uint16_t fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

/** Sum of few 16-bit words, inline: for headers. `length` is even. */
inline uint64_t sumWords(const uint8_t* bytes, size_t length) {
  uint64_t sum = 0;
  size_t i = 0;
  for (; i + 4 <= length; i += 4) sum += load32(bytes + i);
  if (i < length) sum += load16(bytes + i);
  return sum;
}

}  // namespace shoal
