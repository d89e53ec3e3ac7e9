#include "segment.h"

#include <algorithm>

namespace shoal {

bool Segmenter::begin(const uint8_t* frame, uint32_t length, const Offload& offload,
                      uint32_t vni) {
  const uint8_t type = offload.gsoType & ~kGsoEcn;
  tcp_ = type == kGsoTcp4 || type == kGsoTcp6;
  if (!tcp_ && type != kGsoUdp) return false;
  if (offload.gsoSize == 0) return false;

  uint16_t etherType = 0;
  l3_ = skipEthernet(frame, length, &etherType);
  l4_ = offload.checksumStart;
  if (l3_ == 0 || l4_ < l3_ + 20 || length < l4_ + (tcp_ ? 20 : 8)) return false;
  ipv6_ = etherType == 0x86dd;
  if (!ipv6_ && etherType != 0x0800) return false;
  if (ipv6_ && l4_ < l3_ + 40) return false;
  headerLength_ = l4_ + (tcp_ ? (frame[l4_ + 12] >> 4) * 4u : 8u);
  if (headerLength_ >= length || headerLength_ + kVxlanBytes > kHeaderBlockBytes) return false;
  if (tcp_ && headerLength_ < l4_ + 20) return false;

  frame_ = frame;
  at_ = headerLength_;
  end_ = length;
  gsoSize_ = offload.gsoSize;
  first_ = true;
  writeVxlan(template_, vni);
  uint8_t* inner = template_ + kVxlanBytes;
  memcpy(inner, frame, headerLength_);

  ipSum_ = 0;
  if (!ipv6_) {
    id_ = load16be(inner + l3_ + 4);
    store16(inner + l3_ + 2, 0);
    store16(inner + l3_ + 4, 0);
    store16(inner + l3_ + 10, 0);
    ipSum_ = sumWords(inner + l3_, l4_ - l3_);
  }
  l4Sum_ = sumAddresses(inner, l3_, ipv6_, tcp_ ? kTcp : kUdp);
  if (tcp_) {
    sequence_ = load32be(inner + l4_ + 4);
    flags_ = inner[l4_ + 13];
    store32(inner + l4_ + 4, 0);
    inner[l4_ + 13] = 0;
    store16(inner + l4_ + kTcpChecksumAt, 0);
  } else {
    store16(inner + l4_ + 4, 0);
    store16(inner + l4_ + kUdpChecksumAt, 0);
  }
  l4Sum_ += sumWords(inner + l4_, headerLength_ - l4_);
  return true;
}

uint32_t Segmenter::next(uint8_t* block, const uint8_t** payload, uint32_t* payloadLength) {
  if (at_ >= end_) return 0;
  const uint32_t length = std::min(gsoSize_, end_ - at_);
  const bool last = at_ + length == end_;
  memcpy(block, template_, kVxlanBytes + headerLength_);
  uint8_t* inner = block + kVxlanBytes;

  if (ipv6_) {
    store16be(inner + l3_ + 4, static_cast<uint16_t>(headerLength_ - l3_ - 40 + length));
  } else {
    const uint16_t total = static_cast<uint16_t>(headerLength_ - l3_ + length);
    store16be(inner + l3_ + 2, total);
    store16be(inner + l3_ + 4, id_);
    const uint64_t sum = ipSum_ + summand16(total) + summand16(id_);
    store16(inner + l3_ + 10, static_cast<uint16_t>(~fold(sum)));
    // As the kernel's own segmentation does, whether or not DF is set.
    id_ += 1;
  }

  const uint16_t l4Length = static_cast<uint16_t>(headerLength_ - l4_ + length);
  uint64_t sum = l4Sum_ + summand16(l4Length) + sumBytes(frame_ + at_, length);
  if (tcp_) {
    uint8_t flags = flags_;
    if (!first_) flags &= static_cast<uint8_t>(~kCwr);
    if (!last) flags &= static_cast<uint8_t>(~(kPsh | kFin));
    inner[l4_ + 13] = flags;
    store32be(inner + l4_ + 4, sequence_);
    sum += load32(inner + l4_ + 4) + summand16(flags);
    store16(inner + l4_ + kTcpChecksumAt, static_cast<uint16_t>(~fold(sum)));
    sequence_ += length;
  } else {
    store16be(inner + l4_ + 4, l4Length);
    sum += summand16(l4Length);
    const uint16_t checksum = static_cast<uint16_t>(~fold(sum));
    // Zero would say that there is none, RFC 768.
    store16(inner + l4_ + kUdpChecksumAt, checksum == 0 ? 0xffff : checksum);
  }

  *payload = frame_ + at_;
  *payloadLength = length;
  at_ += length;
  first_ = false;
  return kVxlanBytes + headerLength_;
}

bool completeChecksum(uint8_t* frame, uint32_t length, const Offload& offload) {
  const uint32_t start = offload.checksumStart;
  const uint32_t field = start + offload.checksumOffset;
  if (start >= length || field + 2 > length) return false;
  // The field holds the pseudo-header's sum, so it takes part as it is.
  uint16_t checksum = static_cast<uint16_t>(~fold(sumBytes(frame + start, length - start)));
  if (checksum == 0 && offload.checksumOffset == kUdpChecksumAt) checksum = 0xffff;
  store16(frame + field, checksum);
  return true;
}

}  // namespace shoal
