// Cuts a super-frame (TSO, USO) into the datagrams that go on the wire.
#pragma once

#include <cstdint>

#include "frame.h"

namespace shoal {

/** What the kernel said about a frame that it handed over, offsets relative to the frame. */
struct Offload {
  uint8_t flags = 0;
  uint8_t gsoType = 0;
  uint16_t gsoSize = 0;
  uint16_t checksumStart = 0;
  uint16_t checksumOffset = 0;
};

/**
 * One super-frame on its way: `begin`, then `next` until it says 0. The frame is not changed, so
 * it can be cut again for another VTEP.
 */
class Segmenter {
 public:
  /** False if the headers do not match what the offload says; the frame is then to be dropped. */
  bool begin(const uint8_t* frame, uint32_t length, const Offload& offload, uint32_t vni);

  /**
   * Writes VXLAN and inner headers of the next segment to `block` (kHeaderBlockBytes long).
   *
   * @returns Bytes written, 0 when all segments are out.
   */
  uint32_t next(uint8_t* block, const uint8_t** payload, uint32_t* payloadLength);

  uint32_t headerLength() const { return kVxlanBytes + headerLength_; }

 private:
  const uint8_t* frame_;
  uint32_t at_, end_;
  uint32_t headerLength_, l3_, l4_;
  uint32_t gsoSize_;
  uint32_t sequence_;
  uint16_t id_;
  uint8_t flags_;
  bool ipv6_, tcp_, first_;
  uint64_t ipSum_, l4Sum_;
  uint8_t template_[kHeaderBlockBytes];
};

/**
 * Completes a partial checksum in place.
 *
 * @returns False if the offsets lie outside the frame.
 */
bool completeChecksum(uint8_t* frame, uint32_t length, const Offload& offload);

}  // namespace shoal
