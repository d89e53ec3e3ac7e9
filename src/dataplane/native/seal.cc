#include "seal.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>

namespace shoal {
namespace {

/**
 * The few functions of OpenSSL that are used, found in the running process: node exports its own, or is
 * linked with the system's. There is nothing to build against, and nothing to load.
 */
struct OpenSsl {
  using New = void* (*)();
  using Free = void (*)(void*);
  using Cipher = const void* (*)();
  using Init = int (*)(void*, const void*, void*, const uint8_t*, const uint8_t*);
  using Update = int (*)(void*, uint8_t*, int*, const uint8_t*, int);
  using Final = int (*)(void*, uint8_t*, int*);
  using Control = int (*)(void*, int, int, void*);

  New contextNew;
  Free contextFree;
  Control control;
  Cipher aes256Gcm;
  Init encryptInit, decryptInit;
  Update encryptUpdate, decryptUpdate;
  Final encryptFinal, decryptFinal;
  bool complete = true;

  OpenSsl() {
    find(&contextNew, "EVP_CIPHER_CTX_new");
    find(&contextFree, "EVP_CIPHER_CTX_free");
    find(&control, "EVP_CIPHER_CTX_ctrl");
    find(&aes256Gcm, "EVP_aes_256_gcm");
    find(&encryptInit, "EVP_EncryptInit_ex");
    find(&decryptInit, "EVP_DecryptInit_ex");
    find(&encryptUpdate, "EVP_EncryptUpdate");
    find(&decryptUpdate, "EVP_DecryptUpdate");
    find(&encryptFinal, "EVP_EncryptFinal_ex");
    find(&decryptFinal, "EVP_DecryptFinal_ex");
  }

 private:
  template <typename Function>
  void find(Function* to, const char* name) {
    *to = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
    if (*to == nullptr) complete = false;
  }
};

/** EVP_CTRL_AEAD_GET_TAG and EVP_CTRL_AEAD_SET_TAG: part of OpenSSL's stable interface. */
constexpr int kGetTag = 0x10;
constexpr int kSetTag = 0x11;
constexpr uint32_t kCounterAt = 4;
constexpr uint32_t kVxlanHeaderBytes = 8;

const OpenSsl& openSsl() {
  static const OpenSsl found;
  return found;
}

void store64be(uint8_t* at, uint64_t value) {
  for (int i = 7; i >= 0; --i, value >>= 8) at[i] = static_cast<uint8_t>(value);
}

uint64_t load64be(const uint8_t* at) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = (value << 8) | at[i];
  return value;
}

}  // namespace

bool ReplayWindow::isNew(uint64_t counter) const {
  if (!used_ || counter > newest_) return true;
  if (newest_ - counter >= kWindow) return false;
  return (bits_[(counter / 64) % kWords] >> (counter % 64) & 1) == 0;
}

void ReplayWindow::accept(uint64_t counter) {
  if (!used_ || counter > newest_) {
    const uint64_t steps = used_ ? counter / 64 - newest_ / 64 : 0;
    for (uint64_t i = 0; i < std::min(steps, kWords); ++i) bits_[(counter / 64 - i) % kWords] = 0;
    newest_ = counter;
    used_ = true;
  }
  bits_[(counter / 64) % kWords] |= uint64_t{1} << (counter % 64);
}

CipherKey::CipherKey(const SealKey& key, bool seals) : key_(key) {
  const OpenSsl& ssl = openSsl();
  context_ = ssl.contextNew();
  const auto init = seals ? ssl.encryptInit : ssl.decryptInit;
  if (context_ != nullptr && init(context_, ssl.aes256Gcm(), nullptr, key.secret, nullptr) != 1) {
    ssl.contextFree(context_);
    context_ = nullptr;
  }
}

CipherKey::~CipherKey() {
  if (context_ != nullptr) openSsl().contextFree(context_);
  // Not to be optimised away: keys do not stay in memory that is given back.
  volatile uint8_t* secret = key_.secret;
  for (size_t i = 0; i < sizeof key_.secret; ++i) secret[i] = 0;
}

bool CipherKey::is(const SealKey& other) const { return memcmp(&key_, &other, sizeof key_) == 0; }

void CipherKey::writeNonce(uint8_t nonce[kNonceBytes], const uint8_t* header) const {
  memcpy(nonce, key_.salt, sizeof key_.salt);
  memcpy(nonce + sizeof key_.salt, header + kCounterAt, kNonceBytes - sizeof key_.salt);
}

bool CipherKey::seal(uint8_t* to, const uint8_t* head, uint32_t headLength, const uint8_t* body,
                     uint32_t bodyLength) {
  if (context_ == nullptr) return false;
  const OpenSsl& ssl = openSsl();
  uint8_t nonce[kNonceBytes];
  writeNonce(nonce, to);
  int written = 0;
  uint8_t* at = to + kSealedHeaderBytes;
  if (ssl.encryptInit(context_, nullptr, nullptr, nullptr, nonce) != 1 ||
      ssl.encryptUpdate(context_, nullptr, &written, to, kSealedHeaderBytes) != 1 ||
      ssl.encryptUpdate(context_, at, &written, head, static_cast<int>(headLength)) != 1)
    return false;
  at += headLength;
  if (bodyLength > 0 &&
      ssl.encryptUpdate(context_, at, &written, body, static_cast<int>(bodyLength)) != 1)
    return false;
  at += bodyLength;
  return ssl.encryptFinal(context_, at, &written) == 1 &&
         ssl.control(context_, kGetTag, kSealTagBytes, at) == 1;
}

bool CipherKey::open(uint8_t* datagram, uint32_t length) {
  if (context_ == nullptr) return false;
  const OpenSsl& ssl = openSsl();
  uint8_t nonce[kNonceBytes];
  writeNonce(nonce, datagram);
  int written = 0;
  uint8_t* text = datagram + kSealedHeaderBytes;
  const uint32_t textLength = length - kSealBytes;
  return ssl.decryptInit(context_, nullptr, nullptr, nullptr, nonce) == 1 &&
         ssl.decryptUpdate(context_, nullptr, &written, datagram, kSealedHeaderBytes) == 1 &&
         ssl.decryptUpdate(context_, text, &written, text, static_cast<int>(textLength)) == 1 &&
         ssl.control(context_, kSetTag, kSealTagBytes, text + textLength) == 1 &&
         ssl.decryptFinal(context_, text + textLength, &written) == 1;
}

bool Seals::available() { return openSsl().complete; }

void Seals::allow(uint64_t first, uint64_t count) {
  first_ = first;
  allowed_ = count;
}

void Seals::forget(int vtep, const std::vector<std::shared_ptr<Opening>>& opens) {
  for (const auto& open : opens) {
    auto [it, last] = opens_.equal_range(open->cipher.key().number());
    while (it != last) it = it->second->vtep == vtep ? opens_.erase(it) : std::next(it);
  }
}

void Seals::setKeys(int vtep, const SealKey* keys, uint32_t count) {
  Peer held;
  const auto known = peers_.find(vtep);
  if (known != peers_.end()) {
    held = std::move(known->second);
    peers_.erase(known);
    forget(vtep, held.opens);
  }
  if (count == 0 || !available()) return;
  Peer peer;
  if (held.seals && held.seals->cipher.is(keys[0])) {
    peer.seals = std::move(held.seals);
  } else {
    peer.seals = std::make_unique<Sealing>(keys[0]);
    // Beyond whatever the key had before it was taken away and came back: it counted one by one, too.
    peer.seals->counter = first_ + used_;
  }
  for (uint32_t i = 1; i < count; ++i) {
    // One that stays keeps what it has seen.
    const auto same = std::find_if(held.opens.begin(), held.opens.end(),
                                   [&](const auto& open) { return open->cipher.is(keys[i]); });
    auto open = same == held.opens.end() ? std::make_shared<Opening>(keys[i], vtep) : *same;
    opens_.emplace(keys[i].number(), open);
    peer.opens.push_back(std::move(open));
  }
  peers_.emplace(vtep, std::move(peer));
}

bool Seals::seal(int vtep, const uint8_t* head, uint32_t headLength, const uint8_t* body,
                 uint32_t bodyLength, uint8_t* to) {
  const auto peer = peers_.find(vtep);
  if (peer == peers_.end() || used_ >= allowed_) return false;
  Sealing& seals = *peer->second.seals;
  // Used up even if sealing fails: never twice.
  used_ += 1;
  to[0] = kSealedMarker;
  memcpy(to + 1, seals.cipher.key().id, sizeof(SealKey::id));
  store64be(to + kCounterAt, seals.counter++);
  return seals.cipher.seal(to, head, headLength, body, bodyLength);
}

int Seals::open(uint8_t* datagram, uint32_t length) {
  if (length < kSealBytes + kVxlanHeaderBytes) return ~static_cast<int>(OpenDrop::kTruncated);
  const uint64_t counter = load64be(datagram + kCounterAt);
  const uint32_t id = (datagram[1] << 16) | (datagram[2] << 8) | datagram[3];
  const auto [first, last] = opens_.equal_range(id);
  if (first == last) return ~static_cast<int>(OpenDrop::kUnknownKey);
  OpenDrop drop = OpenDrop::kReplayed;
  // With two keys of one id, trying the first spoils what would be for the second: it is kept aside.
  std::vector<uint8_t> kept;
  const bool several = std::next(first) != last;
  if (several) kept.assign(datagram, datagram + length);
  for (auto it = first; it != last; ++it) {
    Opening& opening = *it->second;
    if (!opening.window.isNew(counter)) continue;
    drop = OpenDrop::kBadTag;
    if (opening.cipher.open(datagram, length)) {
      opening.window.accept(counter);
      return opening.vtep;
    }
    if (several) memcpy(datagram, kept.data(), length);
  }
  return ~static_cast<int>(drop);
}

}  // namespace shoal
