#include "coalesce.h"

namespace shoal {
namespace {

uint32_t hashFlow(const uint8_t* frame, const FrameView& view) {
  uint64_t key = load32(frame + view.l4);
  if (view.ipv6) {
    for (int i = 0; i < 32; i += 4) key = key * 0x9e3779b97f4a7c15ull + load32(frame + view.l3 + 8 + i);
  } else {
    key = key * 0x9e3779b97f4a7c15ull + load32(frame + view.l3 + 12);
    key = key * 0x9e3779b97f4a7c15ull + load32(frame + view.l3 + 16);
  }
  return static_cast<uint32_t>(key >> 32) ^ view.protocol;
}

bool sameFlow(const uint8_t* a, const FrameView& x, const uint8_t* b, const FrameView& y) {
  if (x.l3 != y.l3 || x.ipv6 != y.ipv6 || x.protocol != y.protocol) return false;
  if (load32(a + x.l4) != load32(b + y.l4)) return false;
  return x.ipv6 ? memcmp(a + x.l3 + 8, b + y.l3 + 8, 32) == 0
                : memcmp(a + x.l3 + 12, b + y.l3 + 12, 8) == 0;
}

/** Whether a frame may be the first of a joined one. */
bool canOpen(const uint8_t* frame, const FrameView& view) {
  if (view.payload == view.end) return false;
  if (!view.ipv6) {
    if (view.l4 - view.l3 != 20) return false;
    if (fold(sumWords(frame + view.l3, 20)) != 0xffff) return false;
  }
  if (view.protocol == kTcp) {
    return (frame[view.l4 + 13] & ~kPsh) == kAck || (frame[view.l4 + 13] & ~kPsh) == (kAck | 0x40);
  }
  // Without a checksum there is nothing to vouch for the payload once the frame is a joined one.
  return load16(frame + view.l4 + kUdpChecksumAt) != 0 &&
         load16be(frame + view.l4 + 4) == view.end - view.l4;
}

/** Everything in front of the payload that must be equal, apart from what segmentation changes. */
bool sameHeaders(const uint8_t* a, const FrameView& x, const uint8_t* b) {
  if (memcmp(a, b, x.l3) != 0) return false;
  const uint8_t* p = a + x.l3;
  const uint8_t* q = b + x.l3;
  if (x.ipv6) {
    if (load32(p) != load32(q) || load16(p + 6) != load16(q + 6)) return false;
  } else {
    if (load16(p) != load16(q) || load16(p + 6) != load16(q + 6) || p[8] != q[8]) return false;
  }
  if (x.protocol == kUdp) return true;
  p = a + x.l4;
  q = b + x.l4;
  if (load32(p + 8) != load32(q + 8)) return false;
  if (p[12] != q[12] || ((p[13] ^ q[13]) & ~kPsh) != 0) return false;
  if (load16(p + 14) != load16(q + 14) || load16(p + 18) != load16(q + 18)) return false;
  return memcmp(p + 20, q + 20, x.payload - x.l4 - 20u) == 0;
}

bool mayNotFragment(const uint8_t* ip) { return (ip[6] & 0x40) != 0; }

VnetHeader plainHeader() { return VnetHeader{0, kGsoNone, 0, 0, 0, 0}; }

VnetHeader partialHeader(const FrameView& view) {
  VnetHeader header = plainHeader();
  header.flags = kNeedsChecksum;
  header.checksumStart = view.l4;
  header.checksumOffset = view.protocol == kTcp ? kTcpChecksumAt : kUdpChecksumAt;
  return header;
}

uint8_t gsoTypeOf(const FrameView& view) {
  return view.protocol == kUdp ? kGsoUdp : view.ipv6 ? kGsoTcp6 : kGsoTcp4;
}

}  // namespace

Coalescer::Flow* Coalescer::find(int port, uint32_t hash, const uint8_t* frame,
                                 const FrameView& view) {
  int seen = 0;
  for (Flow& flow : flows_) {
    if (seen == openCount_) break;
    if (!flow.open) continue;
    seen += 1;
    if (flow.hash == hash && flow.port == port && sameFlow(flow.first, flow.view, frame, view))
      return &flow;
  }
  return nullptr;
}

void Coalescer::open(int port, uint32_t hash, const uint8_t* frame, const FrameView& view,
                     bool partial) {
  Flow* free = nullptr;
  if (openCount_ < kFlowsMax) {
    for (Flow& flow : flows_) {
      if (flow.open) continue;
      free = &flow;
      break;
    }
  } else {
    free = &flows_[victim_];
    victim_ = (victim_ + 1) % kFlowsMax;
    close(free);
  }
  free->open = true;
  openCount_ += 1;
  free->partial = partial;
  free->verified = partial;
  free->port = port;
  free->hash = hash;
  free->view = view;
  free->first = frame;
  free->gsoSize = view.end - view.payload;
  free->payloadBytes = free->gsoSize;
  free->segments = 1;
  free->push = false;
  if (view.protocol == kTcp) {
    free->sequence = load32be(frame + view.l4 + 4) + free->gsoSize;
    free->push = (frame[view.l4 + 13] & kPsh) != 0;
  }
  if (!view.ipv6) free->id = load16be(frame + view.l3 + 4);
  free->pieces[1].iov_base = const_cast<uint8_t*>(frame + view.payload);
  free->pieces[1].iov_len = free->gsoSize;
}

bool Coalescer::join(Flow* flow, const uint8_t* frame, const FrameView& view, bool partial) {
  const uint32_t length = view.end - view.payload;
  const uint32_t segmentsMax = view.protocol == kTcp ? kTcpSegmentsMax : kUdpSegmentsMax;
  if (view.payload != flow->view.payload || length > flow->gsoSize) return false;
  if (flow->segments >= segmentsMax || flow->partial != partial) return false;
  if (view.payload - view.l3 + flow->payloadBytes + length > kIpBytesMax) return false;
  if (!sameHeaders(flow->first, flow->view, frame)) return false;
  if (view.protocol == kTcp) {
    if (load32be(frame + view.l4 + 4) != flow->sequence) return false;
  } else if (!sink_->takesUdpSegments(flow->port)) {
    return false;
  }
  if (!view.ipv6 && !mayNotFragment(frame + view.l3)) {
    if (load16be(frame + view.l3 + 4) != static_cast<uint16_t>(flow->id + flow->segments))
      return false;
  }
  // A joined frame counts as verified from here on, so it is made of verified parts only.
  if (!flow->verified) {
    if (!hasValidChecksum(flow->first, flow->view)) return false;
    flow->verified = true;
  }
  if (!partial && !hasValidChecksum(frame, view)) return false;

  flow->segments += 1;
  flow->payloadBytes += length;
  flow->sequence += length;
  flow->pieces[flow->segments].iov_base = const_cast<uint8_t*>(frame + view.payload);
  flow->pieces[flow->segments].iov_len = length;
  if (view.protocol == kTcp && (frame[view.l4 + 13] & kPsh) != 0) flow->push = true;
  return true;
}

void Coalescer::deliver(int port, const uint8_t* frame, uint32_t length, bool partial,
                        uint8_t gsoType, uint16_t gsoSize) {
  FrameView view;
  if (!viewFrame(frame, length, &view)) {
    writeFrame(port, frame, length, plainHeader());
    return;
  }
  const uint32_t hash = hashFlow(frame, view);
  Flow* flow = openCount_ == 0 ? nullptr : find(port, hash, frame, view);

  if (gsoType == kGsoNone && canOpen(frame, view)) {
    if (flow == nullptr || !join(flow, frame, view, partial)) {
      if (flow != nullptr) close(flow);
      open(port, hash, frame, view, partial);
      return;
    }
    // A shorter segment ends a super-frame. A push does not: the batch's end is near enough.
    if (view.end - view.payload < flow->gsoSize) close(flow);
    return;
  }

  if (flow != nullptr) close(flow);
  VnetHeader header = partial ? partialHeader(view) : plainHeader();
  if (gsoType != kGsoNone) {
    header.gsoType = gsoType;
    header.gsoSize = gsoSize;
    header.headerLength = view.payload;
  }
  writeFrame(port, frame, gsoType == kGsoNone ? length : view.end, header);
}

void Coalescer::flush() {
  if (openCount_ == 0) return;
  for (Flow& flow : flows_) {
    if (flow.open) close(&flow);
  }
}

void Coalescer::close(Flow* flow) {
  flow->open = false;
  openCount_ -= 1;
  const FrameView& view = flow->view;
  if (flow->segments == 1) {
    VnetHeader header = flow->partial ? partialHeader(view) : plainHeader();
    // Checked once is enough; unchecked is for the receiver's kernel to check.
    if (flow->verified && !flow->partial) header.flags = kDataValid;
    writeFrame(flow->port, flow->first, view.end, header);
    return;
  }

  uint8_t headers[kHeaderBlockBytes];
  memcpy(headers, flow->first, view.payload);
  const uint32_t ipBytes = view.payload - view.l3 + flow->payloadBytes;
  const uint32_t l4Bytes = view.payload - view.l4 + flow->payloadBytes;
  if (view.ipv6) {
    store16be(headers + view.l3 + 4, static_cast<uint16_t>(l4Bytes));
  } else {
    store16be(headers + view.l3 + 2, static_cast<uint16_t>(ipBytes));
    store16(headers + view.l3 + 10, 0);
    const uint16_t sum = static_cast<uint16_t>(~fold(sumWords(headers + view.l3, 20)));
    store16(headers + view.l3 + 10, sum);
  }
  if (view.protocol == kTcp) {
    if (flow->push) headers[view.l4 + 13] |= kPsh;
  } else {
    store16be(headers + view.l4 + 4, static_cast<uint16_t>(l4Bytes));
  }
  const uint64_t pseudo = sumAddresses(headers, view.l3, view.ipv6, view.protocol) +
                          summand16(static_cast<uint16_t>(l4Bytes));
  store16(headers + checksumAt(view), fold(pseudo));

  VnetHeader header = partialHeader(view);
  header.gsoType = gsoTypeOf(view);
  header.gsoSize = static_cast<uint16_t>(flow->gsoSize);
  header.headerLength = view.payload;
  flow->pieces[0].iov_base = headers;
  flow->pieces[0].iov_len = view.payload;
  if (!sink_->write(flow->port, header, flow->pieces, static_cast<int>(flow->segments) + 1))
    writeSingly(*flow);
}

/** The port refused the super-frame: its parts still lie where they arrived. */
void Coalescer::writeSingly(const Flow& flow) {
  const VnetHeader header = flow.partial ? partialHeader(flow.view) : plainHeader();
  for (uint32_t i = 1; i <= flow.segments; ++i) {
    const uint8_t* payload = static_cast<const uint8_t*>(flow.pieces[i].iov_base);
    const uint32_t length = static_cast<uint32_t>(flow.pieces[i].iov_len);
    writeFrame(flow.port, payload - flow.view.payload, flow.view.payload + length, header);
  }
}

void Coalescer::writeFrame(int port, const uint8_t* frame, uint32_t length,
                           const VnetHeader& header) {
  iovec piece{const_cast<uint8_t*>(frame), length};
  sink_->write(port, header, &piece, 1);
}

}  // namespace shoal
