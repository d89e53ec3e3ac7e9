#include "checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "headers are patched in little-endian order");

namespace shoal {
namespace {

uint64_t foldTo33(unsigned __int128 sum) {
  uint64_t low = static_cast<uint64_t>(sum);
  uint64_t folded = (low & 0xffffffff) + (low >> 32) + static_cast<uint64_t>(sum >> 64);
  return (folded & 0xffffffff) + (folded >> 32);
}

uint64_t sumTail(const uint8_t* bytes, size_t length) {
  uint64_t sum = 0;
  for (; length >= 4; bytes += 4, length -= 4) sum += load32(bytes);
  if (length >= 2) {
    sum += load16(bytes);
    bytes += 2;
    length -= 2;
  }
  if (length > 0) sum += *bytes;
  return sum;
}

uint64_t sumPortable(const uint8_t* bytes, size_t length) {
  unsigned __int128 sum = 0;
  for (; length >= 32; bytes += 32, length -= 32) {
    uint64_t words[4];
    memcpy(words, bytes, 32);
    sum += words[0];
    sum += words[1];
    sum += words[2];
    sum += words[3];
  }
  for (; length >= 8; bytes += 8, length -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    sum += word;
  }
  return foldTo33(sum + sumTail(bytes, length));
}

#if defined(__x86_64__)
// Each 32-bit word is widened into a 64-bit lane, so no carry is ever lost.
__attribute__((target("avx2"))) uint64_t sumAvx2(const uint8_t* bytes, size_t length) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i a = zero, b = zero, c = zero, d = zero;
  for (; length >= 64; bytes += 64, length -= 64) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 32));
    a = _mm256_add_epi64(a, _mm256_unpacklo_epi32(x, zero));
    b = _mm256_add_epi64(b, _mm256_unpackhi_epi32(x, zero));
    c = _mm256_add_epi64(c, _mm256_unpacklo_epi32(y, zero));
    d = _mm256_add_epi64(d, _mm256_unpackhi_epi32(y, zero));
  }
  const __m256i total = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
  uint64_t lanes[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), total);
  unsigned __int128 sum = lanes[0];
  sum += lanes[1];
  sum += lanes[2];
  sum += lanes[3];
  return foldTo33(sum + sumTail(bytes, length));
}
#endif

using Summer = uint64_t (*)(const uint8_t*, size_t);

Summer chooseSummer() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) return sumAvx2;
#endif
  return sumPortable;
}

const Summer summer = chooseSummer();

}  // namespace

uint64_t sumBytes(const uint8_t* bytes, size_t length) {
  return length < 64 ? sumPortable(bytes, length) : summer(bytes, length);
}

}  // namespace shoal
