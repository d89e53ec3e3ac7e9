// Where the headers of an inner Ethernet frame lie, and the virtio-net header in front of it.
#pragma once

#include <cstdint>

#include "checksum.h"

namespace shoal {

constexpr uint32_t kVxlanBytes = 8;
/** virtio 1.2 §5.1.6 without `num_buffers`: little-endian on every host that this runs on. */
constexpr uint32_t kVnetBytes = 10;
/** Ethernet, two VLAN tags, IPv4 or IPv6 with options, TCP with options; with the VXLAN header. */
constexpr uint32_t kHeaderBlockBytes = 256;

constexpr uint8_t kNeedsChecksum = 1;
constexpr uint8_t kDataValid = 2;
constexpr uint8_t kGsoNone = 0;
constexpr uint8_t kGsoTcp4 = 1;
constexpr uint8_t kGsoTcp6 = 4;
constexpr uint8_t kGsoUdp = 5;
constexpr uint8_t kGsoEcn = 0x80;

constexpr uint8_t kTcp = 6;
constexpr uint8_t kUdp = 17;
constexpr uint32_t kTcpChecksumAt = 16;
constexpr uint32_t kUdpChecksumAt = 6;
constexpr uint8_t kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10, kUrg = 0x20,
                  kCwr = 0x80;

struct VnetHeader {
  uint8_t flags;
  uint8_t gsoType;
  uint16_t headerLength;
  uint16_t gsoSize;
  uint16_t checksumStart;
  uint16_t checksumOffset;
};
static_assert(sizeof(VnetHeader) == kVnetBytes, "the header is read and written as it lies");

/** Offsets are from the frame's first byte. */
struct FrameView {
  uint16_t l3;
  uint16_t l4;
  uint16_t payload;
  uint8_t protocol;
  bool ipv6;
  /** End of the IP packet: Ethernet padding is not part of it. */
  uint32_t end;
};

/** Offset of the IP header behind up to two VLAN tags, with its EtherType; 0 if truncated. */
inline uint32_t skipEthernet(const uint8_t* frame, uint32_t length, uint16_t* etherType) {
  uint32_t at = 14;
  if (length < at) return 0;
  uint16_t type = load16be(frame + 12);
  for (int tags = 0; tags < 2 && (type == 0x8100 || type == 0x88a8); ++tags) {
    if (length < at + 4) return 0;
    type = load16be(frame + at + 2);
    at += 4;
  }
  *etherType = type;
  return at;
}

/**
 * Finds TCP or UDP in `frame`. False for anything else: fragments, IPv6 extension headers,
 * lengths that do not add up.
 */
inline bool viewFrame(const uint8_t* frame, uint32_t length, FrameView* view) {
  uint16_t type = 0;
  const uint32_t l3 = skipEthernet(frame, length, &type);
  if (l3 == 0) return false;
  uint32_t l4, end;
  if (type == 0x0800) {
    if (length < l3 + 20 || (frame[l3] >> 4) != 4) return false;
    const uint32_t headerBytes = (frame[l3] & 15u) * 4;
    if (headerBytes < 20) return false;
    // A fragment has no transport checksum of its own.
    if ((load16be(frame + l3 + 6) & 0x3fff) != 0) return false;
    view->protocol = frame[l3 + 9];
    view->ipv6 = false;
    l4 = l3 + headerBytes;
    end = l3 + load16be(frame + l3 + 2);
  } else if (type == 0x86dd) {
    if (length < l3 + 40 || (frame[l3] >> 4) != 6) return false;
    view->protocol = frame[l3 + 6];
    view->ipv6 = true;
    l4 = l3 + 40;
    end = l4 + load16be(frame + l3 + 4);
  } else {
    return false;
  }
  if (end > length || end < l4) return false;
  uint32_t payload;
  if (view->protocol == kTcp) {
    if (end < l4 + 20) return false;
    const uint32_t headerBytes = (frame[l4 + 12] >> 4) * 4u;
    if (headerBytes < 20) return false;
    payload = l4 + headerBytes;
  } else if (view->protocol == kUdp) {
    if (end < l4 + 8) return false;
    payload = l4 + 8;
  } else {
    return false;
  }
  if (payload > end) return false;
  view->l3 = static_cast<uint16_t>(l3);
  view->l4 = static_cast<uint16_t>(l4);
  view->payload = static_cast<uint16_t>(payload);
  view->end = end;
  return true;
}

/** Sum of the pseudo-header without its length: addresses and protocol. */
inline uint64_t sumAddresses(const uint8_t* frame, uint32_t l3, bool ipv6, uint8_t protocol) {
  const uint64_t addresses =
      ipv6 ? sumWords(frame + l3 + 8, 32) : sumWords(frame + l3 + 12, 8);
  return addresses + summand16(protocol);
}

inline uint32_t checksumAt(const FrameView& view) {
  return view.l4 + (view.protocol == kTcp ? kTcpChecksumAt : kUdpChecksumAt);
}

/**
 * Whether the transport checksum holds only the pseudo-header's sum, to be completed by a device
 * that never came: a sender's kernel leaves it so where both ends are on one machine (veth).
 */
inline bool hasPartialChecksum(const uint8_t* frame, const FrameView& view) {
  const uint16_t length = static_cast<uint16_t>(view.end - view.l4);
  const uint64_t sum =
      sumAddresses(frame, view.l3, view.ipv6, view.protocol) + summand16(length);
  return fold(sum) == load16(frame + checksumAt(view));
}

inline bool hasValidChecksum(const uint8_t* frame, const FrameView& view) {
  const uint32_t length = view.end - view.l4;
  const uint64_t sum = sumAddresses(frame, view.l3, view.ipv6, view.protocol) +
                       summand16(static_cast<uint16_t>(length)) +
                       sumBytes(frame + view.l4, length);
  return fold(sum) == 0xffff;
}

inline void writeVxlan(uint8_t* at, uint32_t vni) {
  store32be(at, 0x08000000);
  store32be(at + 4, vni << 8);
}

}  // namespace shoal
