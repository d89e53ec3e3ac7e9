// Seals and opens datagrams: AES-256-GCM by the OpenSSL that the process already has.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace shoal {

constexpr uint8_t kSealedMarker = 0x53;
constexpr uint32_t kSealedHeaderBytes = 12;
constexpr uint32_t kSealTagBytes = 16;
constexpr uint32_t kSealBytes = kSealedHeaderBytes + kSealTagBytes;

/** As JavaScript hands it over: 24 bits of id, big-endian; secret; salt. */
struct SealKey {
  uint8_t id[3];
  uint8_t secret[32];
  uint8_t salt[4];

  uint32_t number() const { return (id[0] << 16) | (id[1] << 8) | id[2]; }
};
static_assert(sizeof(SealKey) == 39, "keys lie packed");

/** RFC 6479: a ring of bits that moves on by whole words. The same window as in seal.ts. */
class ReplayWindow {
 public:
  static constexpr uint64_t kWindow = 8128;

  bool isNew(uint64_t counter) const;
  /** Only of what was opened, or anybody could move the window. */
  void accept(uint64_t counter);

 private:
  static constexpr uint64_t kWords = 128;

  uint64_t newest_ = 0;
  bool used_ = false;
  uint64_t bits_[kWords] = {};
};

/** Why a datagram was not opened; in the order of the counters in stats.h. */
enum class OpenDrop : int { kTruncated, kUnknownKey, kBadTag, kReplayed };

/** One key with OpenSSL's context for it, which only gets another nonce for each datagram. */
class CipherKey {
 public:
  CipherKey(const SealKey& key, bool seals);
  ~CipherKey();
  CipherKey(const CipherKey&) = delete;

  const SealKey& key() const { return key_; }
  bool is(const SealKey& other) const;
  /** Writes ciphertext and tag behind the header at `to`, whose nonce it takes. */
  bool seal(uint8_t* to, const uint8_t* head, uint32_t headLength, const uint8_t* body,
            uint32_t bodyLength);
  /** Decrypts in place what is behind the header at `datagram`. */
  bool open(uint8_t* datagram, uint32_t length);

 private:
  static constexpr uint32_t kNonceBytes = 12;

  /** The salt, and the counter of the header. */
  void writeNonce(uint8_t nonce[kNonceBytes], const uint8_t* header) const;

  SealKey key_;
  void* context_ = nullptr;
};

/** All keys of a driver. */
class Seals {
 public:
  /** Whether the process has an OpenSSL to seal with. */
  static bool available();

  void allow(uint64_t first, uint64_t count);
  /** The first key seals, the others open; none: forgets. */
  void setKeys(int vtep, const SealKey* keys, uint32_t count);
  /** Seals to `to`, which has room for both pieces and `kSealBytes`. False without a key. */
  bool seal(int vtep, const uint8_t* head, uint32_t headLength, const uint8_t* body,
            uint32_t bodyLength, uint8_t* to);
  /** Opens in place, the plain text being behind the header. Returns the VTEP, or ~OpenDrop. */
  int open(uint8_t* datagram, uint32_t length);

 private:
  struct Sealing {
    explicit Sealing(const SealKey& key) : cipher(key, true) {}
    CipherKey cipher;
    uint64_t counter = 0;
  };
  struct Opening {
    Opening(const SealKey& key, int of) : cipher(key, false), vtep(of) {}
    CipherKey cipher;
    int vtep;
    ReplayWindow window;
  };
  struct Peer {
    std::unique_ptr<Sealing> seals;
    std::vector<std::shared_ptr<Opening>> opens;
  };

  void forget(int vtep, const std::vector<std::shared_ptr<Opening>>& opens);

  std::unordered_map<int, Peer> peers_;
  std::unordered_multimap<uint32_t, std::shared_ptr<Opening>> opens_;
  uint64_t first_ = 0;
  uint64_t allowed_ = 0;
  uint64_t used_ = 0;
};

}  // namespace shoal
